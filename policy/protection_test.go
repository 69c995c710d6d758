package policy

import (
	"encoding/json"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestProtectionOfGroup: who has chosen nothing has the site's choice, which a
// member of the same group who wants less hidden must not take from him.
func TestProtectionOfGroup(t *testing.T) {
	site := keys.Shy
	var p Policy
	p.Settings.Protection = &site
	for _, test := range []struct {
		name    string
		members []string
		want    keys.HeaderProtection
	}{
		{"one off", []string{`{"header_protection":"off"}`}, keys.NoProtection},
		{"both off", []string{`{"header_protection":"off"}`, `{"header_protection":"off"}`}, keys.NoProtection},
		{"off, and one as the site", []string{`{"header_protection":"off"}`, ``}, keys.Shy},
		{"one as the site, and baseline", []string{``, `{"header_protection":"baseline"}`}, keys.Shy},
		{"nobody has chosen", []string{``, ``}, keys.Shy},
	} {
		found := &keys.Recipient{Address: "team@example.org"}
		for _, options := range test.members {
			found.Accounts = append(found.Accounts, &keys.Account{Address: "x@example.org", Known: true, Enabled: true, Options: json.RawMessage(options)})
		}
		var f Facts
		if err := f.Look(found, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := p.Protection(f); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

package hostile_test

import (
	"slices"
	"testing"

	"sealmilter/keys"
)

// TestBelieved: a user id that only SHA-1 signs, or whose signature has expired,
// names nobody, whoever is asked for: an import gives the key to none for its sake.
func TestBelieved(t *testing.T) {
	s := newSigner()
	data := join(s.primary(), s.named(ann, sig{}), s.named("Bob <bob@example.org>", sig{hash: sha1sum}),
		s.named("Cy <cy@example.org>", sig{more: subpacket(lifetime, seconds(day))}), s.bound(newSubkey(), sig{}))
	for allow, want := range map[keys.Allowance][]string{
		keys.AllowAuthority | keys.AllowAddress: {"ann@example.org"}, // as an import has it
		keys.AllowSHA1:                          {"ann@example.org", "bob@example.org"},
		keys.AllowExpired:                       {"ann@example.org", "cy@example.org"},
	} {
		found, _, err := keys.Validate(data, keys.Rules{Now: noon, Allow: allow, Seal: seal})
		if err != nil || len(found) != 1 || !slices.Equal(found[0].Addresses(), want) {
			t.Errorf("%d keys, error %v, want one that names %q", len(found), err, want)
		}
	}
	for _, address := range []string{"bob@example.org", "cy@example.org"} {
		rules := strict()
		rules.Address = address
		if _, _, err := keys.Validate(data, rules); keys.ReasonOf(err) != keys.ReasonAddress {
			t.Errorf("for %s: %v", address, err)
		}
	}
}

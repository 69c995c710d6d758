package main

import (
	"testing"

	"sealmilter/keys"
)

// TestParseAddressStorable: what is taken for an address, as from the user id of a
// stranger's key, is one that the tables take.
func TestParseAddressStorable(t *testing.T) {
	st := newKeyStore(t)
	taken := 0
	for _, text := range []string{
		"ann@example.org", `"ann smith"@example.org`, "ann@b\u00fccher.example", "ann@[192.0.2.1]",
		"eve@ex\u3000ample.org", "eve@ex\u00a0ample.org", "eve@ex\uff1cample.org", "eve@\u00b4.org", "eve@[a b]",
		`" ann"@example.org`, `"\"ann\""@example.org`,
	} {
		entry, err := parseAddress(text)
		if err != nil {
			continue
		}
		taken++
		if _, err := st.AddKey(t.Context(), keys.NewKey{Address: entry, Key: "a key"}); err != nil {
			t.Errorf("%q is taken for %q: %v", text, entry, err)
		}
	}
	if taken < 4 {
		t.Errorf("only %d addresses are taken", taken)
	}
}

package main

import (
	"context"
	"io"
	"testing"

	"sealmilter/keys"
)

// TestImportBesidePending: where an older copy counts and another one waits for
// its owner's proof, as the page may have it, the newer copy counts: nobody who
// has a key is without one after an import.
func TestImportBesidePending(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, states := range [][]keys.KeyState{{keys.KeyActive, keys.KeyPending}, {keys.KeyPending, keys.KeyActive}, {keys.KeyPending, keys.KeyPending}} {
		st := newKeyStore(t)
		for i, state := range states {
			text := string(made.files["ann.asc"]) + "\n\n"[:i]
			if _, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: text, State: state}); err != nil {
				t.Fatal(err)
			}
		}
		i := newImporter(st, io.Discard)
		if err := i.take(ctx, handedText{file: "ann-new.asc", data: made.files["ann-new.asc"]}); err != nil {
			t.Fatal(err)
		}
		if err := i.flush(ctx); err != nil {
			t.Fatal(err)
		}
		found, err := keys.Lookup(ctx, st, keys.Naming{}, []string{"ann@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		was, is := states[0] == keys.KeyActive || states[1] == keys.KeyActive, false
		for _, account := range found["ann@example.org"].Accounts {
			is = is || account.Enrolled()
		}
		if was != is {
			t.Errorf("%s: a key counted before the import: %v, and after it: %v", states, was, is)
		}
	}
}

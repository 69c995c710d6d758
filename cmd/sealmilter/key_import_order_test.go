package main

import (
	"context"
	"io"
	"testing"

	"sealmilter/keys"
)

// TestImportRevokedFirst: where a folder has a key that its holder has revoked, and
// an older copy of it, mail is not sealed to it, in whichever order they are read.
func TestImportRevokedFirst(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, files := range [][]string{{"revoked.asc", "gone.asc"}, {"gone.asc", "revoked.asc"}} {
		for _, address := range []string{"", "gone@example.org"} {
			st := newKeyStore(t)
			i := newImporter(st, io.Discard)
			for _, name := range files {
				if err := i.take(ctx, handedText{file: name, address: address, data: made.files[name]}); err != nil {
					t.Fatal(err)
				}
			}
			if err := i.flush(ctx); err != nil {
				t.Fatal(err)
			}
			rows, err := accountRows(ctx, st, "gone@example.org")
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				if row.State == keys.KeyActive {
					t.Errorf("%q for %q: a key that its holder has revoked is active", files, address)
				}
			}
		}
	}
}

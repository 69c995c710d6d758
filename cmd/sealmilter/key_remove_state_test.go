package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestRemoveBesidePending: what stays of a row with several keys goes on to
// count, though the same text waits for its owner's proof in another row.
func TestRemoveBesidePending(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	st := newKeyStore(t)
	ann, bob := testKey(t, "ann.asc"), testKey(t, "bob.asc")
	for _, key := range []keys.NewKey{
		{Address: "ann@example.org", Key: string(made.files["both.asc"])},
		{Address: "ann@example.org", Key: ann.Armored(), State: keys.KeyPending},
	} {
		if _, err := st.AddKey(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := accountRows(ctx, st, "ann@example.org")
	if err != nil || len(rows) != 2 || len(rows[0].keys) != 2 || rows[0].keys[0].Fingerprint != ann.Fingerprint {
		t.Fatalf("%+v, %v", rows, err)
	}
	cmd := keyRemoveCommand()
	cmd.Flags().Bool("json", false, "")
	cmd.SetOut(new(bytes.Buffer))
	_, err = remove(ctx, st, rows, []keyName{{suffix: bob.Fingerprint}}, time.Now(), newRecordWriter(cmd, newSentences))
	t.Log(err)
	found, err := keys.Lookup(ctx, st, keys.Naming{}, []string{"ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	if a := found["ann@example.org"].Accounts; len(a) != 1 || !a[0].Enrolled() {
		t.Error("ann's key counted, bob's was removed, and now ann has none")
	}
}

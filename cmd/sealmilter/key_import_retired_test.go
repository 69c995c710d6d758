package main

import (
	"context"
	"io"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestImportRetiredCopy: what somebody has retired stays so where an import brings
// a newer copy, and nothing else of the key is taken away for its sake. Without the
// one that is active mail would pass, and so it would with a pending one alone.
func TestImportRetiredCopy(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx, now := context.Background(), time.Now()
	older, newer := string(made.files["ann.asc"]), made.files["ann-new.asc"]
	read, _, err := keys.Validate(newer, keys.Rules{Address: "ann@example.org", Now: now, Allow: keys.Administrator, Seal: sealTrial(now)})
	if err != nil {
		t.Fatal(err)
	}
	for name, rows := range map[string][]keys.NewKey{
		"the newer copy, to go back to the older": {{Key: read[0].Armored(), State: keys.KeyRetired}, {Key: older, State: keys.KeyActive}},
		"beside one that is to be confirmed":      {{Key: older, State: keys.KeyRetired}, {Key: older + "\n", State: keys.KeyPending}},
	} {
		st := newKeyStore(t)
		for _, row := range rows {
			row.Address = "ann@example.org"
			if _, err := st.AddKey(ctx, row); err != nil {
				t.Fatal(err)
			}
		}
		for _, dryRun := range []bool{true, false} {
			i := newImporter(st, io.Discard)
			i.dryRun = dryRun
			if err := i.take(ctx, handedText{file: "ann.asc", data: newer}); err != nil {
				t.Fatal(err)
			}
			if err := i.flush(ctx); err != nil {
				t.Fatal(err)
			}
			left, err := accountRows(ctx, st, "ann@example.org")
			if err != nil || len(left) != 2 || i.unchanged != 1 || i.replaced != 0 {
				t.Errorf("%s, dry run %v: %d rows are left of 2, %d unchanged, %d replaced, error %v", name, dryRun, len(left), i.unchanged, i.replaced, err)
			}
		}
	}
}

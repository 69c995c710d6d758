package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestCheckPoisonedAlias: an account that nobody can tell how to seal to, and whose
// address is an alias too, is a finding, and the others are checked all the same.
func TestCheckPoisonedAlias(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx, st := t.Context(), newKeyStore(t)
	id, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(made.files["ann.asc"])})
	if err == nil {
		err = st.SetKeyOptions(ctx, id, keys.KeyOptions{OAEP: true}) // as SQL may have it
	}
	for _, target := range []string{"ann@example.org", "bob@example.org"} {
		if err == nil {
			err = st.AddAlias(ctx, "ann@example.org", target)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &keyChecker{st: st, now: time.Now(), out: &findingWriter{w: new(bytes.Buffer)}, progress: newProgress(io.Discard, ""), counts: make(map[string]int)}
	if err := c.run(ctx, ""); err != nil {
		t.Errorf("the check ends: %v", err)
	}
	if c.counts[foundAlias] != 1 || c.counts[foundOptions] != 1 {
		t.Errorf("findings %v", c.counts)
	}
}

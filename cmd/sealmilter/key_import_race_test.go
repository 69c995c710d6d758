package main

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/sqlite"
)

// meddled is a store in which somebody else does something whenever a key is
// added.
type meddled struct {
	store
	meddle func()
}

func (m meddled) AddKey(ctx context.Context, key keys.NewKey) (int64, error) {
	m.meddle()
	return m.store.AddKey(ctx, key)
}

// TestImportBesideRevoke: a key that an administrator revokes while a newer copy of
// it is imported stays revoked.
func TestImportBesideRevoke(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "keys.db")
	if _, _, err := sqlite.Migrate(ctx, path); err != nil {
		t.Fatal(err)
	}
	st, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	id, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(made.files["ann.asc"])})
	if err != nil {
		t.Fatal(err)
	}
	revoke := func() {
		if err := st.SetKeyState(ctx, id, keys.KeyRevoked); err != nil {
			t.Error(err)
		}
	}
	cmd := keyImportCommand()
	cmd.Flags().Bool("json", false, "")
	cmd.SetOut(new(bytes.Buffer))
	i := &importer{st: meddled{st, revoke}, now: time.Now(), state: keys.KeyActive, out: newRecordWriter(cmd, newSentences), progress: newProgress(new(bytes.Buffer), ""), said: new(bytes.Buffer)}
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
	if account := found["ann@example.org"].Accounts[0]; account.State(time.Now()) != keys.Revoked {
		t.Errorf("mail is sealed to a key that was revoked: the state is %v, with %d keys", account.State(time.Now()), len(account.Keys))
	}
}

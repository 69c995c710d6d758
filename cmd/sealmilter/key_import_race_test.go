package main

import (
	"context"
	"io"
	"testing"
	"time"

	"sealmilter/keys"
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
	st := newKeyStore(t)
	id, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(made.files["ann.asc"])})
	if err != nil {
		t.Fatal(err)
	}
	revoke := func() {
		if err := st.SetKeyState(ctx, id, keys.KeyRevoked); err != nil {
			t.Error(err)
		}
	}
	i := newImporter(meddled{st, revoke}, io.Discard)
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

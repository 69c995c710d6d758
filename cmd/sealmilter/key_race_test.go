package main

import (
	"context"
	"errors"
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

// TestBesideRevoke: a key that an administrator revokes while a newer copy of it is
// imported or added stays revoked.
func TestBesideRevoke(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	const address = "ann@example.org"
	newer := made.files["ann-new.asc"]
	for name, store := range map[string]func(store) error{
		"import": func(st store) error {
			i := newImporter(st, io.Discard)
			return errors.Join(i.take(ctx, handedText{file: "ann-new.asc", data: newer}), i.flush(ctx))
		},
		"add": func(st store) error {
			rows, err := accountRows(ctx, st, address)
			if err != nil {
				return err
			}
			parsed, err := keys.Parse(newer)
			if err != nil {
				return err
			}
			cmd := keyAddCommand()
			cmd.Flags().Bool("json", false, "")
			cmd.SetOut(io.Discard)
			return enrol(ctx, st, address, rows, []handedKey{{parsed[0], "ann-new.asc"}}, keys.KeyActive, time.Now(), newRecordWriter(cmd, newSentences))
		},
	} {
		st := newKeyStore(t)
		id, err := st.AddKey(ctx, keys.NewKey{Address: address, Key: string(made.files["ann.asc"])})
		if err != nil {
			t.Fatal(err)
		}
		revoke := func() {
			if err := st.SetKeyState(ctx, id, keys.KeyRevoked); err != nil {
				t.Error(err)
			}
		}
		if err := store(meddled{st, revoke}); err != nil {
			t.Fatal(err)
		}
		found, err := keys.Lookup(ctx, st, keys.Naming{}, []string{address})
		if err != nil {
			t.Fatal(err)
		}
		if account := found[address].Accounts[0]; account.State(time.Now()) != keys.Revoked {
			t.Errorf("%s: mail is sealed to a key that was revoked: the state is %v, with %d keys", name, account.State(time.Now()), len(account.Keys))
		}
	}
}

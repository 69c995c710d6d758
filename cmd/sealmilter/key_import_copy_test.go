package main

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
)

// TestImportNewerCopy: an import follows the holder of a key, who has taken a
// subkey back and made another, or has shortened the key's life, and is not led
// back by an older copy. That an older copy was retired by a rotation changes
// nothing.
func TestImportNewerCopy(t *testing.T) {
	ctx := context.Background()
	start := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	at := func(when time.Time) *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return when }}
	}
	for name, change := range map[string]func(*openpgp.Entity) error{
		"another subkey in the place of a revoked one": func(e *openpgp.Entity) error {
			if err := e.AddEncryptionSubkey(at(start.Add(time.Hour))); err != nil {
				return err
			}
			return e.Subkeys[0].Revoke(packet.KeyCompromised, "stolen", at(start.Add(time.Hour)))
		},
		"an earlier end": func(e *openpgp.Entity) error {
			for _, id := range e.Identities {
				sig := *id.SelfCertifications[0].Packet
				sig.CreationTime = start.Add(time.Hour)
				seconds := uint32(96 * 3600)
				sig.KeyLifetimeSecs = &seconds
				if err := sig.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, at(start.Add(time.Hour))); err != nil {
					return err
				}
				id.SelfCertifications = append(id.SelfCertifications, packet.NewVerifiableSig(&sig))
			}
			return nil
		},
	} {
		for _, rotated := range []bool{false, true} {
			entity, err := openpgp.NewEntity("Ann", "", "ann@example.org", at(start))
			if err != nil {
				t.Fatal(err)
			}
			older := armored(openpgp.PublicKeyType, public(entity))
			if err := change(entity); err != nil {
				t.Fatal(err)
			}
			newer := armored(openpgp.PublicKeyType, public(entity))
			st := newKeyStore(t)
			if rotated { // once more the same, with another end of its text
				if _, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(older) + "\n", State: keys.KeyRetired}); err != nil {
					t.Fatal(err)
				}
			}
			i := newImporter(st, io.Discard)
			if _, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(older)}); err != nil {
				t.Fatal(err)
			}
			for _, file := range [][]byte{newer, older} {
				if err := i.take(ctx, handedText{file: "ann.asc", data: file}); err != nil {
					t.Fatal(err)
				}
				if err := i.flush(ctx); err != nil {
					t.Fatal(err)
				}
			}
			want, err := keys.Parse(newer)
			if err != nil {
				t.Fatal(err)
			}
			found, err := keys.Lookup(ctx, st, keys.Naming{}, []string{"ann@example.org"})
			if err != nil {
				t.Fatal(err)
			}
			got := found["ann@example.org"].Accounts[0].Keys
			now := time.Now()
			if len(got) != 1 || len(got[0].OpenPGPKeys(now)) != 1 || got[0].OpenPGPKeys(now)[0].KeyId != want[0].OpenPGPKeys(now)[0].KeyId || !got[0].Expires.Equal(want[0].Expires) {
				t.Errorf("%s, rotated %v: the older copy counts, %d replaced, %d unchanged", name, rotated, i.replaced, i.unchanged)
			}
		}
	}
}

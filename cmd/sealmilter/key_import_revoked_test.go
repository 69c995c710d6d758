package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
)

// TestImportRevokedCopy: a keyring in which the holder of a key has revoked it
// withdraws the older copy that is enrolled, and a dry run only says so.
func TestImportRevokedCopy(t *testing.T) {
	ctx := context.Background()
	start := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	entity, err := openpgp.NewEntity("Ann", "", "ann@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	older := armored(openpgp.PublicKeyType, public(entity))
	if err := entity.Revoke(packet.KeyCompromised, "stolen", &packet.Config{}); err != nil {
		t.Fatal(err)
	}
	revoked := armored(openpgp.PublicKeyType, public(entity))
	for _, address := range []string{"", "ann@example.org"} {
		st := newKeyStore(t)
		if _, err := st.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: string(older)}); err != nil {
			t.Fatal(err)
		}
		for _, dryRun := range []bool{true, false} {
			var out bytes.Buffer
			i := newImporter(st, &out)
			i.dryRun = dryRun
			if err := i.take(ctx, handedText{file: "ann.asc", address: address, data: revoked}); err != nil {
				t.Fatal(err)
			}
			rows, err := accountRows(ctx, st, "ann@example.org")
			if err != nil || len(rows) != 1 {
				t.Fatalf("%d rows, error %v", len(rows), err)
			}
			want, said := keys.KeyRevoked, "revoked "
			if dryRun {
				want, said = keys.KeyActive, "would be revoked "
			}
			if rows[0].State != want || i.refused != 1 || !strings.HasPrefix(out.String(), said) {
				t.Errorf("address %q, dry run %v: the older copy is %s, %d refused, said %q", address, dryRun, rows[0].State, i.refused, out.String())
			}
		}
	}
}

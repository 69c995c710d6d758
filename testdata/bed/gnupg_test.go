package bed

import (
	"bytes"
	"strings"
	"testing"
)

func TestGnuPG(t *testing.T) {
	secret := []byte("line\r\nline\nlone \r CR, NUL \x00, \xff, no end")
	for _, algorithm := range []string{"rsa3072", "ed25519", "default", "nistp256"} {
		t.Run(algorithm, func(t *testing.T) {
			owner, sender, other := NewGnuPG(t), NewGnuPG(t), NewGnuPG(t)
			public := owner.Generate(t, "Ben Ä. <ben@bed.test>", algorithm)
			if !bytes.HasPrefix(public, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
				t.Fatalf("exported %.40q", public)
			}
			sender.Import(t, public)
			sealed := sender.Run(t, secret, "--armor", "--encrypt", "--recipient", "ben@bed.test")
			if got := owner.Decrypt(t, sealed); !bytes.Equal(got, secret) {
				t.Errorf("opened %q", got)
			}
			other.Import(t, owner.ExportSecret(t, "ben@bed.test"))
			if got := other.Decrypt(t, sealed); !bytes.Equal(got, secret) {
				t.Errorf("opened elsewhere %q", got)
			}
		})
	}
	g := NewGnuPG(t)
	g.Generate(t, "only@bed.test", "ed25519")
	if got := string(g.Run(t, nil, "--list-keys", "--with-colons")); !strings.Contains(got, ":only@bed.test:") {
		t.Errorf("keys %s", got)
	}
}

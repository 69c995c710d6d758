package openpgp

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/testdata/bed"
)

// peer is a program that is not ours and opens messages with a secret key.
type peer struct {
	take    func(t *testing.T, secret []byte) (open func(t *testing.T, message []byte) ([]byte, error))
	kinds   []string // of key that it reads
	choices []bool   // hidden or not: rnp 0.16 does not try its keys where a message names none
}

// peers read version 1 packets, all of them. None in Debian 12 reads version 2:
// for that there are go-crypto and the vectors of the RFC.
var peers = map[string]peer{
	"gpg":  {gpg, []string{"RSA", "ECDH Curve25519", "ECDH P-256", "ECDH P-384", "ECDH P-521", "ECDH Brainpool256", "ECDH Brainpool384", "ECDH Brainpool512"}, []bool{false, true}},
	"sqop": {sqop, []string{"RSA", "ECDH Curve25519", "ECDH P-256", "ECDH P-384", "ECDH P-521"}, []bool{false, true}},
	"rnp":  {rnp, []string{"RSA", "ECDH Curve25519", "ECDH P-256", "ECDH P-384", "ECDH P-521", "ECDH Brainpool256", "ECDH Brainpool384", "ECDH Brainpool512"}, []bool{false}},
}

// TestPeers lets each peer open armored messages, of lengths around those where
// partial bodies begin, for keys of each kind that it knows.
func TestPeers(t *testing.T) {
	content := make([]byte, 2*partialSize+100)
	rand.Read(content)
	for name, peer := range peers {
		t.Run(name, func(t *testing.T) {
			for _, kind := range peer.kinds {
				config := kinds[kind]
				entity := newEntity(t, &config)
				open := peer.take(t, secretKey(t, entity))
				for _, size := range []int{0, 100, partialSize - 6, partialSize, len(content)} {
					for _, hidden := range peer.choices {
						message := armored(t, hidden, content[:size], entity.Subkeys[0].PublicKey)
						if got, err := open(t, message); err != nil || !bytes.Equal(got, content[:size]) {
							t.Errorf("%s, size %d, hidden %v: %d octets came back, error %v", kind, size, hidden, len(got), err)
						}
					}
				}
			}
		})
	}
}

func armored(t *testing.T, hidden bool, content []byte, to *packet.PublicKey) []byte {
	t.Helper()
	var body, text bytes.Buffer
	e, err := NewEncrypter(&body, AES256, NoAEAD)
	if err != nil {
		t.Fatal(err)
	}
	e.Write(content)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	prefix, err := e.Prefix([]*packet.PublicKey{to}, hidden)
	if err != nil {
		t.Fatal(err)
	}
	w := e.Armor(prefix).Writer(&text, "\r\n")
	w.Write(prefix)
	w.Write(body.Bytes())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func secretKey(t *testing.T, entity *openpgp.Entity) []byte {
	t.Helper()
	var key bytes.Buffer
	w, err := armor.Encode(&key, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.SerializePrivate(w, nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	key.WriteByte('\n')
	return key.Bytes()
}

func gpg(t *testing.T, secret []byte) func(*testing.T, []byte) ([]byte, error) {
	home := bed.NewGnuPG(t)
	home.Import(t, secret)
	return func(t *testing.T, message []byte) ([]byte, error) { return home.Decrypt(t, message), nil }
}

func sqop(t *testing.T, secret []byte) func(*testing.T, []byte) ([]byte, error) {
	program, key := bed.Need(t, "sqop"), filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, message []byte) ([]byte, error) {
		return run(exec.Command(program, "decrypt", key), message)
	}
}

func rnp(t *testing.T, secret []byte) func(*testing.T, []byte) ([]byte, error) {
	program, home := bed.Need(t, "rnp"), t.TempDir()
	key := filepath.Join(home, "key")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(exec.Command(bed.Need(t, "rnpkeys"), "--homedir", home, "--import-keys", key), nil); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, message []byte) ([]byte, error) {
		return run(exec.Command(program, "--homedir", home, "--decrypt", "--output", "-", "-"), message)
	}
}

func run(cmd *exec.Cmd, stdin []byte) ([]byte, error) {
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &said
	out, err := cmd.Output()
	if err != nil {
		err = &failed{err, said.String()}
	}
	return out, err
}

// failed is a program's exit code along with what it said.
type failed struct {
	error
	said string
}

func (f *failed) Error() string { return f.error.Error() + ": " + f.said }

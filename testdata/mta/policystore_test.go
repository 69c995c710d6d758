package mta_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/testdata/bed"
)

// policySQL is what the administrator writes beside the keys.
const policySQL = `
UPDATE accounts SET enabled = 0 WHERE address = 'off@bed.test';
INSERT INTO accounts (address) VALUES ('none@bed.test');
INSERT INTO accounts (address, options) VALUES
  ('choosy@bed.test', '{"no_key": "reject"}'),
  ('wrong@bed.test', '{"no_key": "perhaps"}'),
  ('free@keyed.test', '{"no_key": "pass"}'),
  ('@keyed.test', '{"no_key": "defer"}');
INSERT INTO accounts (address, enabled) VALUES ('@off.test', 0);
UPDATE accounts SET options = '{"always": true}' WHERE address = 'always@bed.test';
INSERT INTO keys (address, key) VALUES ('unusable@bed.test', 'this is no key');
INSERT INTO aliases (address, target) VALUES
  ('info@bed.test', 'ann@bed.test'),
  ('box@bed.test', 'archive@bed.test'),
  ('tray@bed.test', 'archive@bed.test'), ('tray@bed.test', 'ann@bed.test'),
  ('half@bed.test', 'ann@bed.test'), ('half@bed.test', 'off@bed.test'),
  ('both@bed.test', 'ann@bed.test'), ('both@bed.test', 'once@bed.test'),
  ('some@bed.test', 'ann@bed.test'), ('some@bed.test', 'bob@bed.test'),
  ('mixed@bed.test', 'ann@bed.test'), ('mixed@bed.test', 'cert@bed.test'),
  ('circle@bed.test', 'round@bed.test'), ('round@bed.test', 'circle@bed.test');
`

// newPolicyStore enrols somebody in every state, and makes the messages.
func newPolicyStore(t *testing.T) *policyStore {
	t.Helper()
	p := &policyStore{dir: bed.Dir(t), gpg: bed.NewGnuPG(t)}
	file := filepath.Join(p.dir, "keys.db")
	p.store = "sqlite:" + file
	runProgram(t, "migrate", "--store", p.store)
	const year, day = 365 * 24 * time.Hour, 24 * time.Hour
	for _, address := range []string{"ann@bed.test", "off@bed.test", "always@bed.test", "once@bed.test", "chair@board.test",
		"archive@bed.test", "own@whole.test", "@whole.test", "ann@off.test"} {
		p.enrol(t, address, newKey(t, address, year, 0))
	}
	p.enrol(t, "expired@bed.test", newKey(t, "expired@bed.test", 2*year, year))
	p.insert(t, file, "revoked@bed.test", withdrawn(t, newKey(t, "revoked@bed.test", year, 0), day))
	p.insert(t, file, "gone@bed.test", withdrawn(t, newKey(t, "gone@bed.test", year, 0), 30*day))
	p.write(t, "cert.pem", []byte(readFile(t, bed.NewIdentity(t, "cert@bed.test", "RSA rsa_keygen_bits:2048").Certificate)))
	runProgram(t, "key", "add", "--store", p.store, "cert@bed.test", filepath.Join(p.dir, "cert.pem"))
	if out, err := exec.Command(bed.Need(t, "sqlite3"), file, policySQL).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	site := newKey(t, "site@bed.test", year, 0)
	p.siteKey = site.Subkeys[0].PublicKey.KeyIdString()
	p.write(t, "site.asc", public(t, site))
	p.messages(t)
	return p
}

func (p *policyStore) enrol(t *testing.T, address string, key *openpgp.Entity) {
	t.Helper()
	file := p.write(t, strings.ReplaceAll(address, "@", "-at-")+".asc", public(t, key))
	runProgram(t, "key", "add", "--store", p.store, address, file)
}

// insert enrols what "key add" would refuse.
func (p *policyStore) insert(t *testing.T, file, address string, key *openpgp.Entity) {
	t.Helper()
	sql := fmt.Sprintf("INSERT INTO keys (address, key) VALUES ('%s', '%s');", address, public(t, key))
	if out, err := exec.Command(bed.Need(t, "sqlite3"), file, sql).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
}

// messages writes what the cases send.
func (p *policyStore) messages(t *testing.T) {
	t.Helper()
	const header = "From: sender@example.net\r\nSubject: about\r\nContent-Type: text/plain\r\n"
	plain := []byte(header + "\r\nSome words.\r\n")
	p.write(t, "plain.eml", plain)
	p.write(t, "spam.eml", []byte("X-Spam-Flag: YES\r\n"+string(plain)))
	p.write(t, "list.eml", []byte("List-Id: <a.example.net>\r\nX-Filtered: ours\r\n"+string(plain)))
	p.write(t, "half-list.eml", []byte("List-Id: <a.example.net>\r\n"+string(plain)))
	p.write(t, "large.eml", []byte(header+"\r\n"+strings.Repeat("Some words that fill a line.\r\n", 2000)))
	others := "sqlite:" + filepath.Join(p.dir, "others.db")
	runProgram(t, "migrate", "--store", others)
	runProgram(t, "key", "add", "--store", others, "site@bed.test", filepath.Join(p.dir, "site.asc"))
	for name, to := range map[string]string{"sealed": "ann@bed.test", "sealed-always": "always@bed.test", "sealed-once": "once@bed.test",
		"sealed-chair": "chair@board.test", "sealed-site": "site@bed.test"} {
		store := p.store
		if to == "site@bed.test" {
			store = others
		}
		seal := exec.Command(bed.Program(t), "seal", "--store", store, "--to", to)
		seal.Stdin = bytes.NewReader(plain)
		sealed, err := seal.Output()
		if err != nil {
			t.Fatalf("sealing to %s: %v", to, err)
		}
		p.write(t, name+".eml", sealed)
		if name == "sealed" {
			p.write(t, "beside.eml", append(sealed, "Some words.\r\n"...))
		}
	}
	p.gpg.Import(t, []byte(readFile(t, filepath.Join(p.dir, "ann-at-bed.test.asc"))))
	hidden := p.gpg.Run(t, plain, "--batch", "--armor", "--trust-model", "always", "--encrypt", "--hidden-recipient", "ann@bed.test")
	p.write(t, "hidden.eml", []byte("Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=\"b\"\r\n\r\n"+
		"--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n"+
		strings.ReplaceAll(string(hidden), "\n", "\r\n")+"\r\n--b--\r\n"))
}

// readers are the key ids that an OpenPGP message names.
func (p *policyStore) readers(t *testing.T, message []byte) string {
	t.Helper()
	at := bytes.Index(message, []byte("-----BEGIN PGP MESSAGE-----"))
	if at < 0 {
		t.Fatalf("no OpenPGP message:\n%.1000s", message)
	}
	block, err := armor.Decode(bytes.NewReader(message[at:]))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for packets := packet.NewReader(block.Body); ; {
		next, err := packets.Next()
		key, is := next.(*packet.EncryptedKey)
		if err != nil || !is {
			return strings.Join(ids, " ")
		}
		ids = append(ids, fmt.Sprintf("%016X", key.KeyId))
	}
}

// newKey is a key that was made some time ago, and lives for some time or for
// ever.
func newKey(t *testing.T, address string, age, life time.Duration) *openpgp.Entity {
	t.Helper()
	born := time.Now().Add(-age)
	key, err := openpgp.NewEntity("", "", strings.TrimPrefix(address, "@"), &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return born }, KeyLifetimeSecs: uint32(life / time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// withdrawn is a key that its holder revoked some time ago.
func withdrawn(t *testing.T, key *openpgp.Entity, ago time.Duration) *openpgp.Entity {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := key.Revoke(packet.KeyRetired, "", &packet.Config{Time: func() time.Time { return at }}); err != nil {
		t.Fatal(err)
	}
	return key
}

func public(t *testing.T, key *openpgp.Entity) []byte {
	t.Helper()
	var text bytes.Buffer
	w, err := armor.Encode(&text, openpgp.PublicKeyType, nil)
	if err == nil {
		err = key.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(text.Bytes(), '\n')
}

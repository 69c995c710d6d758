package mta_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// identities are the kinds of certificates, each with an address of its own.
var identities = []struct{ address, algorithm string }{
	{"rsa2048@bed.test", "RSA rsa_keygen_bits:2048"},
	{"rsa4096@bed.test", "RSA rsa_keygen_bits:4096"},
	{"p256@bed.test", "EC ec_paramgen_curve:P-256"},
	{"p384@bed.test", "EC ec_paramgen_curve:P-384"},
}

// TestSMIME
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ PostgreSQL, certificates by one INSERT each
//	                   ║
//	                   ╚════▶ virtual(8) ════▶ maildir ════▶ openssl, gpgsm, NSS
func TestSMIME(t *testing.T) {
	db := bed.StartPostgres(t)
	db.CreateDatabase(t, database)
	runProgram(t, "migrate", "--store", db.URL("postgres", database))
	db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	var addresses []string
	owners := make(map[string]bed.Identity)
	for _, i := range identities {
		addresses = append(addresses, i.address)
		owners[i.address] = bed.NewIdentity(t, i.address, i.algorithm)
		db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", i.address, readFile(t, owners[i.address].Certificate)))
	}
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\ngroup = \"postfix\"\n[store]\nurl = %q\n", db.URL("sealmilter", database)))
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: addresses,
		Milters:   []string{"unix:" + filepath.Join(daemon.Dir, "sock")},
		Main:      []string{"local_header_rewrite_clients ="},
	})
	s := &site{db: db, daemon: daemon, postfix: postfix}
	messages := []string{"multipart.eml", "8bit.eml", "no-content-type.eml", "long-lines.eml"}
	for _, address := range addresses {
		owner := owners[address]
		readers := map[string]func(testing.TB, []byte) []byte{"openssl": owner.OpenSSL}
		if strings.HasPrefix(address, "rsa") {
			readers["gpgsm"], readers["NSS"] = bed.NewGPGSM(t, owner).Open, bed.NewNSS(t, owner).Open
		}
		for n, name := range messages {
			raw := message(t, name)
			s.sent(t, raw, address)
			sealed := s.delivered(t, address, n+1)
			want := client.PostfixParser().Parse(raw).Shown()
			for reader, open := range readers {
				if got := open(t, bed.DER(t, sealed)); !bytes.Equal(got, want) {
					t.Errorf("%s, %s: opened by %s it is\n%.1000q\nwant\n%.1000q", address, name, reader, got, want)
				}
			}
			if got := unseal(t, owner, sealed); !bytes.Equal(got, want) {
				t.Errorf("%s, %s: unsealed it is\n%.1000q\nwant\n%.1000q", address, name, got, want)
			}
		}
	}
}

// unseal opens a message by our own command.
func unseal(t *testing.T, owner bed.Identity, sealed []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	key, in := filepath.Join(dir, "identity.pem"), filepath.Join(dir, "sealed.eml")
	for file, text := range map[string]string{key: readFile(t, owner.Key) + readFile(t, owner.Certificate), in: string(sealed)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return runProgramOn(t, in, "unseal", "--key", key)
}

// TestCorpusSMIME
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ SQLite
//	   ║
//	   ╚════▶ openssl
func TestCorpusSMIME(t *testing.T) {
	files := corpus(t)
	for _, cipher := range []string{"aes256", "aes128"} {
		owner := bed.NewIdentity(t, ann, "EC ec_paramgen_curve:P-256")
		a := newAloneWith(t, owner.Certificate, cipher)
		s := a.dial(t)
		for _, file := range files {
			m := client.ParseMessage([]byte(readFile(t, file)))
			sealed := toAnn(t, s, m)
			if got := owner.OpenSSL(t, bed.DER(t, sealed)); !bytes.Equal(got, m.Shown()) {
				t.Errorf("%s: opened it is\n%.1000q\nwant\n%.1000q", file, got, m.Shown())
			}
		}
		if !strings.Contains(a.daemon.Log(), "method=smime cipher="+cipher) {
			t.Errorf("the log has no %s", cipher)
		}
	}
}

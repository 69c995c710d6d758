package cms

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// pkcs12Password protects the keys on their way into gpgsm and NSS.
const pkcs12Password = "secret"

// pkcs12 is a file with key and certificate, in the old algorithms that gpgsm
// reads.
func (r *reader) pkcs12(t testing.TB) string {
	t.Helper()
	key, certificate := r.files(t)
	file := filepath.Join(t.TempDir(), "reader.p12")
	run(t, nil, nil, bed.Need(t, "openssl"), "pkcs12", "-export", "-inkey", key, "-in", certificate,
		"-name", r.name, "-out", file, "-passout", "pass:"+pkcs12Password,
		"-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1")
	return file
}

// gpgsm is GnuPG's S/MIME program with a home of its own.
type gpgsm struct {
	program string
	env     []string
}

// newGPGSM makes a home with the key of a reader in it. Its agent is stopped at
// the end of the test.
func newGPGSM(t testing.TB, r *reader) gpgsm {
	t.Helper()
	gpgconf := bed.Need(t, "gpgconf")
	home := filepath.Join(bed.Dir(t), "sm") // short, for the agent's socket
	g := gpgsm{program: bed.Need(t, "gpgsm"), env: []string{"GNUPGHOME=" + home}}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"gpgsm.conf": "disable-crl-checks\n", "gpg-agent.conf": "allow-loopback-pinentry\ns2k-count 1024\n"} {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { run(t, nil, nil, gpgconf, "--homedir", home, "--kill", "all") })
	run(t, []byte(pkcs12Password), g.env, g.program, g.arguments("--import", r.pkcs12(t))...)
	return g
}

// open decrypts a message. The passphrase cannot come with it on standard
// input, so the message is in a file. gpgsm 2.2 ends with 2 and the error below
// where another RSA recipient stands in front, although it has decrypted all;
// so it does with what openssl writes.
func (g gpgsm) open(t testing.TB, message []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "smime.p7m")
	if err := os.WriteFile(file, message, 0o600); err != nil {
		t.Fatal(err)
	}
	out, said, err := try(t, []byte(pkcs12Password), g.env, g.program, g.arguments("--decrypt", file)...)
	if err != nil && !strings.Contains(said, "failed to find the certificate") {
		t.Fatalf("gpgsm: %v\n%s", err, said)
	}
	return out
}

func (g gpgsm) arguments(command, file string) []string {
	return []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase-fd", "0", command, file}
}

// nss is Mozilla's library, by its command line tools.
type nss struct{ cmsutil, database string }

// newNSS makes a database with the key of a reader in it.
func newNSS(t testing.TB, r *reader) nss {
	t.Helper()
	certutil, pk12util := bed.Need(t, "certutil"), bed.Need(t, "pk12util")
	n := nss{cmsutil: bed.Need(t, "cmsutil"), database: "sql:" + t.TempDir()}
	run(t, nil, nil, certutil, "-N", "-d", n.database, "--empty-password")
	run(t, nil, nil, pk12util, "-i", r.pkcs12(t), "-d", n.database, "-W", pkcs12Password)
	return n
}

func (n nss) open(t testing.TB, message []byte) []byte {
	t.Helper()
	return run(t, message, nil, n.cmsutil, "-D", "-d", n.database)
}

// TestOpenedByGPGSM opens what is sealed to an RSA key, alone and beside keys of
// every kind.
func TestOpenedByGPGSM(t *testing.T) {
	readers := newReaders(t)
	for _, r := range readers[:2] {
		openEverySize(t, newGPGSM(t, r).open, r, readers)
	}
}

// TestOpenedByNSS opens what is sealed to an RSA key, alone and beside another.
// NSS before 3.100 takes no message with a KeyAgreeRecipientInfo in it, even
// for its RSA recipients (Mozilla's bug 676100), whoever wrote it.
func TestOpenedByNSS(t *testing.T) {
	readers := newReaders(t)[:2]
	for _, r := range readers {
		openEverySize(t, newNSS(t, r).open, r, readers)
	}
}

// openEverySize opens messages to r alone, and to all where the size makes no
// difference to what stands in front.
func openEverySize(t *testing.T, open func(testing.TB, []byte) []byte, r *reader, all []*reader) {
	t.Helper()
	for name, c := range ciphers {
		t.Run(r.name+"/"+name, func(t *testing.T) {
			for _, size := range []int{0, 1, 15, 16, 17, 191, 65535, 65536, 1 << 20, 10 << 20} {
				content := random(size)
				if got := open(t, seal(t, c, content, 5003, r.certificate)); !bytes.Equal(got, content) {
					t.Fatalf("size %d, alone: %d bytes came back", size, len(got))
				}
				if size > 100 && size < 1<<20 {
					if got := open(t, seal(t, c, content, 5003, certificatesOf(all...)...)); !bytes.Equal(got, content) {
						t.Fatalf("size %d, with others: %d bytes came back", size, len(got))
					}
				}
			}
		})
	}
}

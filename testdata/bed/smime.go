package bed

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PKCS12Password protects keys on their way into gpgsm and NSS.
const PKCS12Password = "secret"

// Identity is somebody with a certificate, in files as openssl makes them.
type Identity struct {
	Key         string // private key, PEM
	Certificate string // PEM
}

// NewIdentity makes a certificate for an address with a key that "openssl
// genpkey" describes as "RSA rsa_keygen_bits:2048" or "EC
// ec_paramgen_curve:P-256".
func NewIdentity(t testing.TB, address, algorithm string) Identity {
	t.Helper()
	dir := t.TempDir()
	i := Identity{filepath.Join(dir, "key.pem"), filepath.Join(dir, "certificate.pem")}
	name, option, _ := strings.Cut(algorithm, " ")
	openssl(t, nil, "genpkey", "-quiet", "-algorithm", name, "-pkeyopt", option, "-out", i.Key)
	openssl(t, nil, "req", "-x509", "-new", "-key", i.Key, "-out", i.Certificate, "-days", "30", "-subj", "/CN="+address,
		"-addext", "subjectAltName=email:"+address, "-addext", "extendedKeyUsage=emailProtection")
	return i
}

func openssl(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	return run(t, stdin, nil, Need(t, "openssl"), args...)
}

// PKCS12 writes key and certificate into a file in the old algorithms that
// gpgsm reads.
func (i Identity) PKCS12(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identity.p12")
	openssl(t, nil, "pkcs12", "-export", "-inkey", i.Key, "-in", i.Certificate, "-out", file, "-passout", "pass:"+PKCS12Password,
		"-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1")
	return file
}

// ImportPKCS12 gives the identity to a program that reads such files. One file
// in fifty is beyond gpgsm 2.2, by the salt that openssl drew for it: a program
// that will not have the first is shown two more. What it said to the last is
// the answer.
func (i Identity) ImportPKCS12(t testing.TB, take func(file string) (said string, err error)) (said string, err error) {
	t.Helper()
	for range 3 {
		if said, err = take(i.PKCS12(t)); err == nil {
			break
		}
	}
	return said, err
}

// OpenSSL opens a CMS message, or a whole mail that holds one.
func (i Identity) OpenSSL(t testing.TB, message []byte) []byte {
	t.Helper()
	form := "SMIME"
	if len(message) > 0 && message[0] == 0x30 {
		form = "DER"
	}
	return openssl(t, message, "cms", "-decrypt", "-binary", "-inform", form, "-recip", i.Certificate, "-inkey", i.Key)
}

// DER takes the CMS message out of a mail.
func DER(t testing.TB, mail []byte) []byte {
	t.Helper()
	return openssl(t, mail, "cms", "-cmsout", "-inform", "SMIME", "-outform", "DER")
}

// CMSReaders are those whose certificates a mail names, by the common names of
// the issuers: NewIdentity's certificates are their own.
func CMSReaders(t testing.TB, mail []byte) (names []string) {
	t.Helper()
	for line := range strings.Lines(string(openssl(t, mail, "cms", "-cmsout", "-noout", "-print", "-inform", "SMIME"))) {
		if _, name, found := strings.Cut(strings.TrimSpace(line), "issuer: CN="); found {
			names = append(names, name)
		}
	}
	return names
}

// GPGSM is GnuPG's S/MIME program with a home of its own.
type GPGSM struct {
	program string
	env     []string
}

// NewGPGSM makes a home with a key in it, which must be an RSA key: gpgsm 2.2
// crashes on others. Its agent is stopped at the end of the test.
func NewGPGSM(t testing.TB, i Identity) *GPGSM {
	t.Helper()
	gpgconf := Need(t, "gpgconf")
	home := filepath.Join(Dir(t), "sm") // short, for the agent's socket
	g := &GPGSM{program: Need(t, "gpgsm"), env: []string{"GNUPGHOME=" + home}}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"gpgsm.conf": "disable-crl-checks\n", "gpg-agent.conf": "allow-loopback-pinentry\ns2k-count 1024\n"} {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { exec.Command(gpgconf, "--homedir", home, "--kill", "all").Run() })
	said, err := i.ImportPKCS12(t, func(file string) (string, error) {
		_, said, err := Try([]byte(PKCS12Password), g.env, g.program, g.arguments("--import", file)...)
		return said, err
	})
	if err != nil {
		t.Fatalf("gpgsm --import: %v\n%s", err, said)
	}
	return g
}

// Open decrypts a message in DER. The passphrase cannot come with it on standard
// input, so the message is in a file. gpgsm 2.2 ends with 2 and the error below
// where another RSA recipient stands in front, although it has decrypted all;
// so it does with what openssl writes.
func (g *GPGSM) Open(t testing.TB, message []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "smime.p7m")
	if err := os.WriteFile(file, message, 0o600); err != nil {
		t.Fatal(err)
	}
	out, said, err := Try([]byte(PKCS12Password), g.env, g.program, g.arguments("--decrypt", file)...)
	if err != nil && !strings.Contains(said, "failed to find the certificate") {
		t.Fatalf("gpgsm: %v\n%s", err, said)
	}
	return out
}

func (g *GPGSM) arguments(command, file string) []string {
	return []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase-fd", "0", command, file}
}

// NSS is Mozilla's library, by its command line tools.
type NSS struct{ cmsutil, database string }

// NewNSS makes a database with a key in it.
func NewNSS(t testing.TB, i Identity) *NSS {
	t.Helper()
	certutil, pk12util := Need(t, "certutil"), Need(t, "pk12util")
	n := &NSS{cmsutil: Need(t, "cmsutil"), database: "sql:" + t.TempDir()}
	run(t, nil, nil, certutil, "-N", "-d", n.database, "--empty-password")
	run(t, nil, nil, pk12util, "-i", i.PKCS12(t), "-d", n.database, "-W", PKCS12Password)
	return n
}

// Open decrypts a message in DER.
func (n *NSS) Open(t testing.TB, message []byte) []byte {
	t.Helper()
	return run(t, message, nil, n.cmsutil, "-D", "-d", n.database)
}

// run calls a program and returns its output. An exit code other than 0 fails
// the test.
func run(t testing.TB, stdin []byte, env []string, program string, args ...string) []byte {
	t.Helper()
	out, said, err := Try(stdin, env, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
	return out
}

// Try calls a program and returns what it wrote on standard output and on
// standard error, and how it ended.
func Try(stdin []byte, env []string, program string, args ...string) ([]byte, string, error) {
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	return out, said.String(), err
}

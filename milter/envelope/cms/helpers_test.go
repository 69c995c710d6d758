package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// kinds are the keys that can be sealed to, each made once for all tests.
var kinds = map[string]func() crypto.Signer{
	"rsa2048": sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) }),
	"rsa4096": sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 4096)) }),
	"p256":    sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }),
	"p384":    sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) }),
	"p521":    sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) }),
}

// everyKind is their order in tables.
var everyKind = []string{"rsa2048", "rsa4096", "p256", "p384", "p521"}

// form is how a message is sealed, as openssl names it.
type form struct {
	cipher  Cipher
	options Options
}

var forms = map[string]form{
	"aes-256-cbc": {cipher: AES256},
	"aes-128-cbc": {cipher: AES128},
	"aes-256-gcm": {AES256, Options{GCM: true}},
	"aes-128-gcm": {AES128, Options{GCM: true}},
}

// everyForm is their order in tables.
var everyForm = []string{"aes-256-cbc", "aes-128-cbc", "aes-256-gcm", "aes-128-gcm"}

// Shorthands for the two that most tests are content with.
var (
	cbc256 = form{cipher: AES256}
	gcm256 = form{AES256, Options{GCM: true}}
)

// sizes are those at which a block, a length header or a buffer begins or ends.
var sizes = []int{0, 1, 15, 16, 17, 111, 112, 127, 128, 191, 239, 240, 255, 256, 65519, 65520, 65535, 65536, 1 << 20, 10 << 20}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// reader is somebody with a certificate.
type reader struct {
	name        string
	key         crypto.Signer
	certificate *x509.Certificate
}

// certificateOptions are what odd certificates have that others have not.
type certificateOptions struct {
	issuer       []byte // DER of the name; nil is an ordinary one
	serial       *big.Int
	subjectKeyID []byte // nil is none
}

// newReader makes a certificate for a key of a kind. It is issued by itself
// under another name, which no reader of encrypted messages looks at.
func newReader(t testing.TB, kind string, options certificateOptions) *reader {
	t.Helper()
	key := kinds[kind]()
	usage := x509.KeyUsageKeyAgreement
	if _, is := key.(*rsa.PrivateKey); is {
		usage = x509.KeyUsageKeyEncipherment
	}
	if options.serial == nil {
		options.serial = must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
	}
	template := &x509.Certificate{
		SerialNumber:   options.serial,
		SubjectKeyId:   options.subjectKeyID,
		Subject:        pkix.Name{CommonName: "reader with " + kind},
		EmailAddresses: []string{kind + "@example.org"},
		NotBefore:      time.Now().Add(-time.Hour),
		NotAfter:       time.Now().Add(24 * time.Hour),
		KeyUsage:       usage | x509.KeyUsageDigitalSignature,
	}
	issuer := &x509.Certificate{Subject: template.Subject, RawSubject: options.issuer}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{name: kind, key: key, certificate: parse(t, der)}
}

// newReaders makes a reader of every kind.
func newReaders(t testing.TB) (all []*reader) {
	for _, kind := range everyKind {
		all = append(all, newReader(t, kind, certificateOptions{}))
	}
	return all
}

// plain is who is sealed to in the way that opens in most programs.
func plain(readers ...*reader) (all []Recipient) {
	for _, r := range readers {
		all = append(all, Recipient{Certificate: r.certificate})
	}
	return all
}

// chosen is who is sealed to by OAEP, and named by the subject key identifier.
func chosen(readers ...*reader) (all []Recipient) {
	for _, r := range readers {
		all = append(all, Recipient{r.certificate, true, true})
	}
	return all
}

// files writes key and certificate in PEM.
func (r *reader) files(t testing.TB) (key, certificate string) {
	t.Helper()
	dir := t.TempDir()
	key, certificate = filepath.Join(dir, "key.pem"), filepath.Join(dir, "certificate.pem")
	secret, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, key, "PRIVATE KEY", secret)
	writePEM(t, certificate, "CERTIFICATE", r.certificate.Raw)
	return key, certificate
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func random(size int) []byte {
	content := make([]byte, size)
	rand.Read(content)
	return content
}

// seal encrypts content in pieces of one size.
func seal(t testing.TB, f form, content []byte, piece int, to ...Recipient) []byte {
	t.Helper()
	e, output := encrypt(t, f, content, piece)
	prefix, err := e.Prefix(to)
	if err != nil {
		t.Fatal(err)
	}
	return append(prefix, output...)
}

func encrypt(t testing.TB, f form, content []byte, piece int) (*Encrypter, []byte) {
	t.Helper()
	var output bytes.Buffer
	e, err := NewEncrypter(&output, f.cipher, f.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Discard)
	for len(content) > 0 {
		n := min(piece, len(content))
		if _, err := e.Write(content[:n]); err != nil {
			t.Fatal(err)
		}
		content = content[n:]
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e.Size() != int64(output.Len()) {
		t.Fatalf("Size is %d, %d octets were written", e.Size(), output.Len())
	}
	return e, output.Bytes()
}

// run calls a program and returns its output. An exit code other than 0 fails
// the test.
func run(t testing.TB, stdin []byte, env []string, program string, args ...string) []byte {
	t.Helper()
	out, said, err := try(t, stdin, env, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
	return out
}

// try calls a program and returns what it wrote on standard output and on
// standard error, and how it ended.
func try(t testing.TB, stdin []byte, env []string, program string, args ...string) ([]byte, string, error) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	return out, said.String(), err
}

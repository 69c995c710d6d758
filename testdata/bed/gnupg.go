package bed

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GnuPG is a gpg with a home of its own.
type GnuPG struct {
	Home string // GNUPGHOME; its path is short enough for the agent's socket

	gpg string
}

// NewGnuPG makes an empty home. Its agent is stopped at the end of the test.
func NewGnuPG(t testing.TB) *GnuPG {
	t.Helper()
	g := &GnuPG{gpg: Need(t, "gpg"), Home: filepath.Join(Dir(t), "gpg")}
	if err := os.Mkdir(g.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := "pinentry-mode loopback\nno-greeting\ntrust-model always\nno-auto-key-locate\n"
	if err := os.WriteFile(filepath.Join(g.Home, "gpg.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if gpgconf, err := exec.LookPath("gpgconf"); err == nil {
		t.Cleanup(func() { exec.Command(gpgconf, "--homedir", g.Home, "--kill", "all").Run() })
	}
	return g
}

// algorithms are a primary key that certifies and signs, and a subkey that
// encrypts.
var algorithms = map[string]string{
	"rsa3072":  "Key-Type: RSA\nKey-Length: 3072\nKey-Usage: sign\nSubkey-Type: RSA\nSubkey-Length: 3072\nSubkey-Usage: encrypt\n",
	"ed25519":  "Key-Type: EDDSA\nKey-Curve: Ed25519\nKey-Usage: sign\nSubkey-Type: ECDH\nSubkey-Curve: Curve25519\nSubkey-Usage: encrypt\n",
	"nistp256": "Key-Type: ECDSA\nKey-Curve: NIST P-256\nKey-Usage: sign\nSubkey-Type: ECDH\nSubkey-Curve: NIST P-256\nSubkey-Usage: encrypt\n",
}

// Generate makes a key pair without a passphrase and returns the armored public
// key. The algorithm is rsa3072, ed25519 (with cv25519 to encrypt to; "default"
// is the same) or nistp256.
func (g *GnuPG) Generate(t testing.TB, uid, algorithm string) []byte {
	t.Helper()
	if algorithm == "default" {
		algorithm = "ed25519"
	}
	parameters, known := algorithms[algorithm]
	if !known {
		t.Fatalf("no algorithm %q", algorithm)
	}
	name, addr, _ := strings.Cut(strings.TrimSuffix(uid, ">"), "<")
	if addr == "" {
		name, addr = "", uid
	}
	if name = strings.TrimSpace(name); name != "" {
		parameters += "Name-Real: " + name + "\n"
	}
	parameters += "Name-Email: " + addr + "\nExpire-Date: 0\n%no-protection\n%commit\n"
	g.Run(t, []byte(parameters), "--full-generate-key")
	return g.Run(t, nil, "--armor", "--export", "="+uid)
}

// Import adds keys, public or secret.
func (g *GnuPG) Import(t testing.TB, keys []byte) {
	t.Helper()
	g.Run(t, keys, "--import")
}

// Decrypt opens a message, armored or not, and returns what was in it, byte for
// byte. A message without integrity protection fails the test.
func (g *GnuPG) Decrypt(t testing.TB, message []byte) []byte {
	t.Helper()
	return g.Run(t, message, "--decrypt")
}

// ExportSecret is the armored secret key of a user id, an address or a
// fingerprint.
func (g *GnuPG) ExportSecret(t testing.TB, who string) []byte {
	t.Helper()
	return g.Run(t, nil, "--armor", "--export-secret-keys", who)
}

// Run calls gpg in batch mode and returns its output. An exit code other than 0
// fails the test.
func (g *GnuPG) Run(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(g.gpg, append([]string{"--homedir", g.Home, "--batch", "--quiet"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, &said)
	}
	return out
}

package keys

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// certificates makes the files of testdata/keys/certificates.sh.
func certificates(t testing.TB) (dir string) {
	t.Helper()
	bed.Need(t, "openssl")
	dir = t.TempDir()
	if out, err := exec.Command("sh", "../testdata/keys/certificates.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("making certificates: %v\n%s", err, out)
	}
	return dir
}

// TestCertificates hands in certificates of every sort. What is wanted is the
// algorithms of the keys that are found, or the words of the error.
func TestCertificates(t *testing.T) {
	dir := certificates(t)
	const rsa, address = "RSA-2048", "ann@example.org"
	tests := []struct{ file, want, addresses, wrong string }{
		{"rsa.pem", rsa, address, ""},
		{"rsa3072.pem", "RSA-3072", address, ""},
		{"p256.pem", "P-256", address, ""},
		{"p384.pem", "P-384", address, ""},
		{"p521.pem", "P-521", address, ""},
		{"rsa.der", rsa, address, ""},
		{"rsa.b64", rsa, address, ""},
		{"crlf.pem", rsa, address, ""},
		{"trusted.pem", rsa, address, ""},
		{"text.pem", rsa, address, ""},
		{"chain.p7b", rsa, address, ""},
		{"chain.p7c", rsa, address, ""},
		{"leaf-middle-root.pem", rsa, address, ""},
		{"leaf-root-middle.pem", rsa, address, ""},
		{"middle-leaf-root.pem", rsa, address, ""},
		{"middle-root-leaf.pem", rsa, address, ""},
		{"root-leaf-middle.pem", rsa, address, ""},
		{"root-middle-leaf.pem", rsa, address, ""},
		{"two-leaves.pem", rsa + " P-256", address, ""},
		{"twice.pem", rsa, address, ""},
		{"no-usage.pem", rsa, address, ""},
		{"any-usage.pem", rsa, address, ""},
		{"subject-address.pem", rsa, address, ""},
		{"utf8-address.pem", rsa, "änn@example.org", ""},
		{"other-address.pem", rsa, "bob@example.net", ""},
		{"no-address.pem", rsa, "", ""},
		{"home-made.pem", rsa, address, ""},
		{"expired.pem", rsa, address, ""},

		{"home-made-nameless.pem", "", "", `certificate of "CN=Ann": this is the certificate of an authority, not of a person`},
		{"root.pem", "", "", `certificate of "CN=Root": this is the certificate of an authority`},
		{"middle-root.pem", "", "", `certificate of "CN=Middle": this is the certificate of an authority`},
		{"authorities.p7b", "", "", "this is the certificate of an authority"},
		{"signs-only.pem", "", "", "it is not meant for encryption: its key usage lacks keyEncipherment"},
		{"enciphers-ec.pem", "", "", "it is not meant for encryption: its key usage lacks keyAgreement"},
		{"web-server.pem", "", "", "it is not meant for mail: its extended key usage lacks emailProtection"},
		{"rsa1024.pem", "", "", "an RSA key of 1024 bits is too short, the least is 2048"},
		{"p224.pem", "", "", "the curve P-224 is not supported, use P-256, P-384 or P-521"},
		{"secp256k1.pem", "", "", "reading the certificate: x509: "},
		{"ed25519.pem", "", "", "its key (Ed25519) can sign, but nothing can be sealed to it"},
		{"with-key.pem", "", "", "block 2: this is a secret key"},
		{"rsa.p12", "", "", "this is a secret key"},
		{"cut.der", "", "", "reading the certificate: "},
		{"cut.pem", "", "", `block 1: the line "-----END CERTIFICATE-----" is missing, the block is cut off`},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, test.file))
			if err != nil {
				t.Fatal(err)
			}
			found, err := Parse(data)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("the error is %v, want %q; %d keys", err, test.wrong, len(found))
				}
				if secret := strings.Contains(test.wrong, "secret key"); errors.Is(err, ErrSecretKey) != secret {
					t.Errorf("ErrSecretKey: %v", !secret)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var algorithms []string
			for _, key := range found {
				algorithms = append(algorithms, key.Algorithm)
				checkCertificateKey(t, key, test.addresses, test.file == "expired.pem")
			}
			if got := strings.Join(algorithms, " "); got != test.want {
				t.Errorf("keys %q, want %q", got, test.want)
			}
		})
	}
}

func checkCertificateKey(t *testing.T, key *Key, addresses string, expired bool) {
	t.Helper()
	now := time.Now()
	state := Usable
	if expired {
		state = Expired
	}
	if key.Method != SMIME || key.State(now) != state || len(key.Certificates(now)) != 1 || len(key.OpenPGPKeys(now)) != 0 {
		t.Errorf("method %s, state %s, %d certificates", key.Method, key.State(now), len(key.Certificates(now)))
	}
	if got := strings.Join(key.UserIDs, " "); got != addresses {
		t.Errorf("addresses %q, want %q", got, addresses)
	}
	again, err := Parse([]byte(key.Armored()))
	if err != nil || len(again) != 1 || again[0].Fingerprint != key.Fingerprint {
		t.Errorf("written and read again: %v, error %v", again, err)
	}
}

// TestMethodChoice: OpenPGP wins where the owner made no choice, and nothing is
// sealed to a key that is worse than another.
func TestMethodChoice(t *testing.T) {
	dir := certificates(t)
	read := func(file string) *Key {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		found, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return found[0]
	}
	pgp := must(Parse(binary(t, newEntity(t, at(birth)))))(t)[0]
	rsa, p256, expired := read("rsa.pem"), read("p256.pem"), read("expired.pem")
	tests := []struct {
		choice Method
		keys   []*Key
		want   string
	}{
		{"", []*Key{rsa, pgp}, "openpgp 1"},
		{OpenPGP, []*Key{rsa, pgp}, "openpgp 1"},
		{SMIME, []*Key{rsa, p256, pgp}, "smime 2"},
		{"", []*Key{rsa}, "smime 1"},
		{OpenPGP, []*Key{rsa}, "smime 1"},
		{SMIME, []*Key{pgp}, "openpgp 1"},
		{SMIME, []*Key{expired, pgp}, "openpgp 1"},
		{SMIME, []*Key{expired, rsa}, "smime 1"},
		{"", []*Key{expired}, "smime 1"},
		{"", nil, " 0"},
	}
	for i, test := range tests {
		account := &Account{Method: test.choice, Keys: test.keys}
		method, to := account.SealTo(time.Now())
		if got := fmt.Sprintf("%s %d", method, len(to)); got != test.want {
			t.Errorf("%d: %q, want %q", i, got, test.want)
		}
	}
}

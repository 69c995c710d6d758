package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
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
	const rsa2048, address = "RSA-2048", "ann@example.org"
	tests := []struct{ file, want, addresses, wrong string }{
		{"rsa.pem", rsa2048, address, ""},
		{"rsa3072.pem", "RSA-3072", address, ""},
		{"p256.pem", "P-256", address, ""},
		{"p384.pem", "P-384", address, ""},
		{"p521.pem", "P-521", address, ""},
		{"rsa.der", rsa2048, address, ""},
		{"rsa.b64", rsa2048, address, ""},
		{"crlf.pem", rsa2048, address, ""},
		{"trusted.pem", rsa2048, address, ""},
		{"text.pem", rsa2048, address, ""},
		{"chain.p7b", rsa2048, address, ""},
		{"chain.p7c", rsa2048, address, ""},
		{"leaf-middle-root.pem", rsa2048, address, ""},
		{"leaf-root-middle.pem", rsa2048, address, ""},
		{"middle-leaf-root.pem", rsa2048, address, ""},
		{"middle-root-leaf.pem", rsa2048, address, ""},
		{"root-leaf-middle.pem", rsa2048, address, ""},
		{"root-middle-leaf.pem", rsa2048, address, ""},
		{"two-leaves.pem", rsa2048 + " P-256", address, ""},
		{"twice.pem", rsa2048, address, ""},
		{"no-usage.pem", rsa2048, address, ""},
		{"any-usage.pem", rsa2048, address, ""},
		{"subject-address.pem", rsa2048, address, ""},
		{"utf8-address.pem", rsa2048, "änn@example.org", ""},
		{"other-address.pem", rsa2048, "bob@example.net", ""},
		{"no-address.pem", rsa2048, "", ""},
		{"home-made.pem", rsa2048, address, ""},
		{"expired.pem", rsa2048, address, ""},

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
		{"two-home-made.pem", rsa2048 + " " + rsa2048, address, ""},
		{"home-made-twice.pem", rsa2048, address, ""},
		{"old-root.pem", "", "", "this is the certificate of an authority"},
		{"root-with-address.pem", "", "", "this is the certificate of an authority"},
		{"empty.p7b", "", "", "there is no key in it"},
		{"empty.p7c", "", "", "block 1: there is no certificate in the PKCS#7 bundle"},
		{"message.p7m", "", "", "the PKCS#7 bundle"},
		{"message.pem", "", "", "block 1: "},
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
	ours, p256, expired := read("rsa.pem"), read("p256.pem"), read("expired.pem")
	tests := []struct {
		choice Method
		keys   []*Key
		want   string
	}{
		{"", []*Key{ours, pgp}, "openpgp 1"},
		{OpenPGP, []*Key{ours, pgp}, "openpgp 1"},
		{SMIME, []*Key{ours, p256, pgp}, "smime 2"},
		{"", []*Key{ours}, "smime 1"},
		{OpenPGP, []*Key{ours}, "smime 1"},
		{SMIME, []*Key{pgp}, "openpgp 1"},
		{SMIME, []*Key{expired, pgp}, "openpgp 1"},
		{SMIME, []*Key{expired, ours}, "smime 1"},
		{"", []*Key{expired}, "smime 1"},
		{"", nil, " 0"},
	}
	for i, test := range tests {
		account := &Account{Method: test.choice, Keys: test.keys}
		form, to, err := SealTo([]*Account{account}, time.Now())
		if (err == nil) != (len(to) > 0) {
			t.Errorf("%d: %d keys, error %v", i, len(to), err)
		}
		if got := fmt.Sprintf("%s %d", form.Method, len(to)); got != test.want {
			t.Errorf("%d: %q, want %q", i, got, test.want)
		}
	}
}

// TestNothingInTheRow: a row that holds something for a key, from which no key
// comes, is never nobody enrolled.
func TestNothingInTheRow(t *testing.T) {
	dir := certificates(t)
	for _, file := range []string{"empty.p7c", "message.pem"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(text), " ", "x"} {
			accounts, err := readAccounts([]Row{{Address: "a@b.test", Account: "a@b.test", Enabled: true, Key: text}})
			if err != nil || !accounts[0].Enrolled() || accounts[0].State(time.Now()) != Unusable {
				t.Errorf("%s: %q: enrolled %v, error %v", file, text, accounts[0].Enrolled(), err)
			}
		}
	}
}

// TestGroupMethod: several accounts are sealed to by a method that serves all, and
// to a key that two of them share once.
func TestGroupMethod(t *testing.T) {
	dir := certificates(t)
	text, err := os.ReadFile(filepath.Join(dir, "rsa.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ours := must(Parse(text))(t)[0]
	pgp := must(Parse(binary(t, newEntity(t, at(birth)))))(t)[0]
	both, certified, open := &Account{Keys: []*Key{pgp, ours}}, &Account{Keys: []*Key{ours}}, &Account{Keys: []*Key{pgp}}
	chooses := &Account{Keys: []*Key{pgp, ours}, Method: SMIME}
	tests := []struct {
		accounts []*Account
		want     Method
		keys     int
	}{
		{[]*Account{both, certified}, SMIME, 1},
		{[]*Account{certified, both}, SMIME, 1},
		{[]*Account{both, open}, OpenPGP, 1},
		{[]*Account{both, both}, OpenPGP, 1},
		{[]*Account{both, chooses}, SMIME, 1},
		{[]*Account{chooses, open}, OpenPGP, 1},
		{[]*Account{certified, open}, "", 0},
		{[]*Account{both, {}}, "", 0},
	}
	for i, test := range tests {
		form, to, err := SealTo(test.accounts, time.Now())
		if form.Method != test.want || len(to) != test.keys || (err != nil) != (test.keys == 0) {
			t.Errorf("%d: %s, %d keys, error %v; want %s, %d", i, form.Method, len(to), err, test.want, test.keys)
		}
	}
}

// TestOddRSA hands in moduli and exponents that openssl would not make.
func TestOddRSA(t *testing.T) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		bits  int
		e     int
		wrong string
	}{
		{2048, 65537, ""},
		{8192, 3, ""},
		{2048, 1, "an RSA key with the exponent 1 is none that can be sealed to"},
		{2048, 4, "an RSA key with the exponent 4 is none that can be sealed to"},
		{16384, 65537, "an RSA key of 16384 bits is too long, the most is 8192"},
		{1 << 17, 65537, "an RSA key of 131072 bits is too long, the most is 8192"},
	} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(test.bits-1))
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Ann"}, EmailAddresses: []string{"ann@example.org"},
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: test.e}, signer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(der)
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%d bits, exponent %d: the error is %v, want %q", test.bits, test.e, err, test.wrong)
		}
	}
}

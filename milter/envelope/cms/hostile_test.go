package cms

//lint:file-ignore SA1019 keys of old kinds, and made by hand, are what must be refused

import (
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// TestHostileCertificates has what a parsed certificate may hold, or one that
// was made by hand: an error for each, never a panic.
func TestHostileCertificates(t *testing.T) {
	good := newReader(t, "rsa2048", certificateOptions{}).certificate
	modulus := good.PublicKey.(*rsa.PublicKey).N
	bits := func(n uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(n-1), 1) }
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	keys := map[string]any{
		"no key":                nil,
		"nil RSA":               (*rsa.PublicKey)(nil),
		"RSA without modulus":   &rsa.PublicKey{E: 65537},
		"RSA of 1024 bits":      &rsa.PublicKey{N: bits(1024), E: 65537},
		"RSA of 2047 bits":      &rsa.PublicKey{N: bits(2047), E: 65537},
		"RSA of 16385 bits":     &rsa.PublicKey{N: bits(16385), E: 65537},
		"RSA negative":          &rsa.PublicKey{N: new(big.Int).Neg(modulus), E: 65537},
		"RSA even modulus":      &rsa.PublicKey{N: new(big.Int).Add(modulus, big.NewInt(1)), E: 65537},
		"RSA exponent 0":        &rsa.PublicKey{N: modulus},
		"RSA exponent 1":        &rsa.PublicKey{N: modulus, E: 1},
		"RSA exponent 4":        &rsa.PublicKey{N: modulus, E: 4},
		"RSA exponent negative": &rsa.PublicKey{N: modulus, E: -3},
		"RSA by value":          rsa.PublicKey{N: modulus, E: 65537},
		"nil ECDSA":             (*ecdsa.PublicKey)(nil),
		"ECDSA without curve":   &ecdsa.PublicKey{X: big.NewInt(1), Y: big.NewInt(1)},
		"ECDSA without point":   &ecdsa.PublicKey{Curve: elliptic.P256()},
		"ECDSA infinity":        &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)},
		"ECDSA off the curve":   &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)},
		"ECDSA too large":       &ecdsa.PublicKey{Curve: elliptic.P256(), X: bits(300), Y: bits(300)},
		"P-224":                 &p224.PublicKey,
		"Ed25519":               ed,
		"DSA":                   &dsa.PublicKey{},
		"text":                  "key",
	}
	hostile := map[string]*x509.Certificate{"nil": nil, "empty": {}}
	for what, key := range keys {
		hostile[what] = &x509.Certificate{Raw: good.Raw, RawIssuer: good.RawIssuer, SerialNumber: good.SerialNumber, PublicKey: key}
	}
	hostile["no issuer"] = &x509.Certificate{SerialNumber: good.SerialNumber, PublicKey: good.PublicKey}
	hostile["no serial"] = &x509.Certificate{RawIssuer: good.RawIssuer, PublicKey: good.PublicKey}
	e, _ := encrypt(t, cbc256, []byte("content"), 100)
	for what, certificate := range hostile {
		for _, to := range [][]Recipient{{{Certificate: certificate}}, {{Certificate: good}, {certificate, true, true}}} {
			if prefix, err := e.Prefix(to); err == nil || prefix != nil {
				t.Errorf("%s: error %v, %d octets", what, err, len(prefix))
			}
		}
	}
}

// TestUnsupportedCertificates makes, by openssl, certificates that can be
// parsed but not sealed to.
func TestUnsupportedCertificates(t *testing.T) {
	program := bed.Need(t, "openssl")
	e, _ := encrypt(t, cbc256, []byte("content"), 100)
	for want, makeKey := range map[string][]string{
		"1024 bits": {"genrsa", "1024"},
		"1536 bits": {"genrsa", "1536"},
		"P-224":     {"ecparam", "-name", "secp224r1", "-genkey", "-noout"},
		"Ed25519":   {"genpkey", "-algorithm", "ED25519"},
		"unknown":   {"genpkey", "-algorithm", "ED448"},
		"DSA":       {"dsaparam", "-genkey", "-noout", "1024"},
		"kind":      {"genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"},
	} {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, run(t, nil, nil, program, makeKey...), 0o600); err != nil {
			t.Fatal(err)
		}
		der := run(t, nil, nil, program, "req", "-new", "-x509", "-key", file, "-subj", "/CN=reader", "-outform", "DER")
		_, err := e.Prefix([]Recipient{{Certificate: parse(t, der)}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: sealed, or error without %q: %v", makeKey, want, err)
		}
	}
	if _, err := e.Prefix(plain(newReader(t, "p521", certificateOptions{}))); err != nil {
		t.Errorf("a good certificate after them: %v", err)
	}
}

// TestErrorsNameTheCertificate and nobody's address.
func TestErrorsNameTheCertificate(t *testing.T) {
	certificate := *newReader(t, "p256", certificateOptions{}).certificate
	certificate.PublicKey = nil
	e, _ := encrypt(t, cbc256, nil, 1)
	_, err := e.Prefix([]Recipient{{Certificate: &certificate}})
	if err == nil || !strings.Contains(err.Error(), "certificate "+fmt.Sprintf("%x", sha256.Sum256(certificate.Raw))) || strings.Contains(err.Error(), "@") {
		t.Errorf("error %v", err)
	}
}

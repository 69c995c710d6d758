package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// pool are the keys that are enrolled, again and again, as text.
type pool struct {
	openpgp      []string
	certificates []string
}

// One key in rareOne is of the rarer algorithm of its kind.
const rareOne = 10

// newPool generates keys, on all cores. Signatures make every one of them
// another, though few RSA moduli are behind them.
func newPool(s sizes) (*pool, error) {
	ca, err := newAuthority(s.moduli)
	if err != nil {
		return nil, err
	}
	p := &pool{}
	rsaKeys, err := inParallel(s.moduli, func(int) (string, error) {
		return newOpenPGPKey(&packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 3072})
	})
	if err != nil {
		return nil, err
	}
	p.openpgp, err = inParallel(s.pool, func(i int) (string, error) {
		if i%rareOne == 0 {
			return rsaKeys[i/rareOne%len(rsaKeys)], nil
		}
		return newOpenPGPKey(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	})
	if err != nil {
		return nil, err
	}
	p.certificates, err = inParallel(s.pool, ca.issue)
	return p, err
}

// key is one of the pool's: by turns of either kind.
func (p *pool) key(i int) string {
	if i%2 == 0 {
		return p.openpgp[i/2%len(p.openpgp)]
	}
	return p.certificates[i/2%len(p.certificates)]
}

// inParallel makes so many of something.
func inParallel(often int, one func(i int) (string, error)) ([]string, error) {
	made := make([]string, often)
	failed := make([]error, runtime.NumCPU())
	var workers sync.WaitGroup
	for w := range failed {
		workers.Go(func() {
			for i := w; i < often && failed[w] == nil; i += len(failed) {
				made[i], failed[w] = one(i)
			}
		})
	}
	workers.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return made, nil
}

func newOpenPGPKey(config *packet.Config) (string, error) {
	entity, err := openpgp.NewEntity("A User", "", "user1234567@d123.example", config)
	if err != nil {
		return "", fmt.Errorf("making an OpenPGP key: %w", err)
	}
	var text strings.Builder
	w, err := armor.Encode(&text, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		return "", err
	}
	if err := entity.Serialize(w); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return text.String() + "\n", nil
}

// authority issues certificates as those of public authorities are, with the
// extensions that make most of their size.
type authority struct {
	secret      *rsa.PrivateKey
	certificate *x509.Certificate
	public      []crypto.PublicKey // RSA-2048
}

func newAuthority(moduli int) (*authority, error) {
	a := &authority{}
	var err error
	for range moduli + 1 {
		if a.secret, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, err
		}
		a.public = append(a.public, a.secret.Public())
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"XX"}, Organization: []string{"An Authority"}, CommonName: "Client CA 2"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.secret.Public(), a.secret)
	if err != nil {
		return nil, err
	}
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

// issue makes one certificate, in PEM.
func (a *authority) issue(i int) (string, error) {
	public := a.public[i%len(a.public)]
	usage := x509.KeyUsageKeyEncipherment
	if i%rareOne == 0 {
		secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", err
		}
		public, usage = secret.Public(), x509.KeyUsageKeyAgreement
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          big.NewInt(int64(i) + 1<<60),
		Subject:               pkix.Name{CommonName: "user1234567@d123.example"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              usage | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageClientAuth},
		EmailAddresses:        []string{"user1234567@d123.example"},
		SubjectKeyId:          big.NewInt(int64(i) + 1<<60).Bytes(),
		OCSPServer:            []string{"http://ocsp.authority.example/ca2"},
		IssuingCertificateURL: []string{"http://certificates.authority.example/ca2.der"},
		CRLDistributionPoints: []string{"http://certificates.authority.example/ca2.crl"},
	}, a.certificate, public, a.secret)
	if err != nil {
		return "", fmt.Errorf("making a certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

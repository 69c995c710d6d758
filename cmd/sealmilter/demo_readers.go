package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/cms"
)

// demoReader is somebody whose mail the demonstration seals.
type demoReader struct {
	address string
	key     *keys.Key
	secret  *envelope.Secret
	program string // another one that opens such messages
	// openWith lets it, in a folder of the demonstration's own.
	openWith func(ctx context.Context, program, dir string, sealed []byte) ([]byte, error)
}

// makeReaders makes one reader for each method.
func (d *demo) makeReaders() ([]*demoReader, error) {
	pgp, err := newOpenPGPReader("reader@example.org")
	if err != nil {
		return nil, err
	}
	smime, err := newSMIMEReader("reader@smime.example")
	return []*demoReader{pgp, smime}, err
}

func newOpenPGPReader(address string) (*demoReader, error) {
	entity, err := openpgp.NewEntity("Reader", "", address, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		return nil, err
	}
	var public, secret bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		return nil, err
	}
	if err := entity.SerializePrivate(&secret, nil); err != nil {
		return nil, err
	}
	parsed, err := keys.Parse(public.Bytes())
	if err != nil {
		return nil, err
	}
	return &demoReader{
		address: address, key: parsed[0], program: "gpg",
		secret: &envelope.Secret{OpenPGP: openpgp.EntityList{entity}},
		openWith: func(ctx context.Context, gpg, dir string, sealed []byte) ([]byte, error) {
			home := filepath.Join(dir, "gnupg")
			if err := os.Mkdir(home, 0o700); err != nil {
				return nil, err
			}
			defer exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() // the agent that gpg starts
			if _, err := ask(ctx, secret.Bytes(), gpg, "--homedir", home, "--batch", "--quiet", "--import"); err != nil {
				return nil, err
			}
			payload, err := ask(ctx, sealed, gpg, "--homedir", home, "--batch", "--quiet", "--decrypt")
			return envelope.Original(payload), err
		},
	}, nil
}

func newSMIMEReader(address string) (*demoReader, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:   big.NewInt(1),
		Subject:        pkix.Name{CommonName: "Reader"},
		EmailAddresses: []string{address},
		NotBefore:      time.Now().Add(-time.Hour),
		NotAfter:       time.Now().AddDate(1, 0, 0),
		KeyUsage:       x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	parsed, err := keys.Parse(der)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	identity := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return &demoReader{
		address: address, key: parsed[0], program: "openssl",
		secret: &envelope.Secret{SMIME: []cms.Identity{{Certificate: certificate, Key: private}}},
		openWith: func(ctx context.Context, openssl, dir string, sealed []byte) ([]byte, error) {
			file := filepath.Join(dir, "identity.pem")
			if err := os.WriteFile(file, identity, 0o600); err != nil {
				return nil, err
			}
			return ask(ctx, sealed, openssl, "cms", "-decrypt", "-binary", "-recip", file, "-inkey", file)
		},
	}, nil
}

// ask runs a program and returns what it says on standard output.
func ask(ctx context.Context, input []byte, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, oneLine(complaint.String()))
	}
	return out, err
}

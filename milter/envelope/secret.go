package envelope

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"software.sslmate.com/src/go-pkcs12"

	"sealmilter/milter/envelope/cms"
)

// Secret is what opens sealed messages: OpenPGP secret keys, or certificates
// with their private keys.
type Secret struct {
	OpenPGP openpgp.EntityList
	SMIME   []cms.Identity
}

var errEncryptedPEM = errors.New("the private key is encrypted: hand it in as PKCS#12 (openssl pkcs12 -export), or decrypt it first (openssl pkey)")

var errPassphrase = errors.New("the passphrase does not fit, or one is needed and was not given")

// ReadSecret reads secret keys: OpenPGP's, armored or binary; certificates and
// private keys in PEM; or PKCS#12 (RFC 7292). The passphrase may be nil.
func ReadSecret(data, passphrase []byte) (*Secret, error) {
	switch {
	case len(data) == 0:
		return nil, errors.New("there is no key in it: it is empty")
	case bytes.Contains(data, []byte("-----BEGIN PGP ")):
		ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
		return openPGPSecret(ring, err, passphrase)
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return pemSecret(data)
	case data[0]&0x80 != 0: // RFC 9580, section 4.2
		ring, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		return openPGPSecret(ring, err, passphrase)
	}
	key, certificate, _, err := pkcs12.DecodeChain(data, string(passphrase))
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, errPassphrase
	case len(data) > 1 && data[0] == 0x30 && data[1] == 0x80:
		return nil, errors.New("this is PKCS#12 in BER, as Thunderbird and Firefox write it, which is not read: \"openssl pkcs12 -in FILE -nodes\" makes PEM of it")
	case err != nil:
		return nil, fmt.Errorf("there is no secret key in it: it is neither OpenPGP nor PEM, nor PKCS#12 (%w)", err)
	}
	return &Secret{SMIME: []cms.Identity{{Certificate: certificate, Key: key}}}, nil
}

func openPGPSecret(ring openpgp.EntityList, err error, passphrase []byte) (*Secret, error) {
	if err != nil {
		return nil, fmt.Errorf("reading the OpenPGP key: %w", err)
	}
	for _, entity := range ring {
		if entity.PrivateKey == nil {
			return nil, errors.New("this is a public key: opening takes the secret one (gpg --export-secret-keys)")
		}
		if err := entity.DecryptPrivateKeys(passphrase); err != nil {
			return nil, errPassphrase
		}
	}
	return &Secret{OpenPGP: ring}, nil
}

// pemSecret pairs the certificates in it with the private keys in it.
func pemSecret(data []byte) (*Secret, error) {
	var certificates []*x509.Certificate
	var private []crypto.PrivateKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading the certificate: %w", err)
			}
			certificates = append(certificates, c)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncryptedPEM
		default:
			if block.Headers["Proc-Type"] != "" {
				return nil, errEncryptedPEM
			}
			if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				continue // EC PARAMETERS and the like
			}
			key, err := parsePrivate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading the private key: %w", err)
			}
			private = append(private, key)
		}
	}
	secret := &Secret{}
	for _, key := range private {
		for _, c := range certificates {
			if belongs(key, c) {
				secret.SMIME = append(secret.SMIME, cms.Identity{Certificate: c, Key: key})
			}
		}
	}
	switch {
	case len(private) == 0:
		return nil, errors.New("there is no private key in it")
	case len(secret.SMIME) == 0:
		return nil, errors.New("the certificate that belongs to the private key is missing: put both into one file")
	}
	return secret, nil
}

func parsePrivate(der []byte) (crypto.PrivateKey, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS8PrivateKey(der)
}

func belongs(key crypto.PrivateKey, c *x509.Certificate) bool {
	private, ok := key.(interface{ Public() crypto.PublicKey })
	if !ok {
		return false
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

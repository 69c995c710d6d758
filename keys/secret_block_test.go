package keys

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"testing"
)

// TestSecretInBlock: a secret key is found under whatever first line it stands,
// and whoever handed it in hears that it was exposed.
func TestSecretInBlock(t *testing.T) {
	secret := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	files := map[string][]byte{
		"PKCS#8": must(x509.MarshalPKCS8PrivateKey(secret))(t),
		"PKCS#1": x509.MarshalPKCS1PrivateKey(secret),
		"PKCS#12": must(asn1.Marshal(struct { // RFC 7292, section 4: version 3, and what is in it
			Version int
			Content struct {
				Type    asn1.ObjectIdentifier
				Content asn1.RawValue
			}
		}{3, struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue
		}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: must(asn1.Marshal(make([]byte, 200)))(t)}}}))(t),
	}
	for name, der := range files {
		for _, kind := range []string{"PKCS12", "PKCS7", "CMS", "CERTIFICATE", "TRUSTED CERTIFICATE"} {
			if _, _, err := Validate(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), Rules{Now: noon, Seal: sealed}); !errors.Is(err, ErrSecretKey) {
				t.Errorf("%s in a block %q: %v", name, kind, err)
			}
		}
	}
}

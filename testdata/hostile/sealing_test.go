package hostile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	pgp "github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
)

// TestSealingTakesLong: a file that holds no more than the limits allow, and to
// which one message takes seconds, is refused at once; and what a person has on
// the same curves is taken.
func TestSealingTakesLong(t *testing.T) {
	files := make(map[string][]byte) // those that are taken have a small letter
	ca := newAuthority("Some authority")
	p384, p521 := curveKey(elliptic.P384()), curveKey(elliptic.P521())
	files["Certificates on P-384"] = bundleOf(ca, p384, 250<<10)
	files["Certificates on P-521"] = bundleOf(ca, p521, 250<<10)
	files["Certificates with RSA-8192"] = bundleOf(ca, rsaKey(ones(8192), 1<<31-1), 250<<10)
	files["a few certificates on P-521"] = bundleOf(ca, p521, 1500)
	for _, curve := range []pgp.Curve{pgp.CurveBrainpoolP256, pgp.CurveBrainpoolP384, pgp.CurveBrainpoolP512, pgp.CurveNistP521} {
		files["Twenty subkeys on "+string(curve)] = withSubkeys(t, curve, 20)
		files["two subkeys on "+string(curve)] = withSubkeys(t, curve, 2)
	}
	files["twenty subkeys on Curve448"] = withSubkeys(t, pgp.Curve448, 20)
	for name, data := range files {
		var err error
		took, memory := measure(func() { _, _, err = keys.Validate(data, strict()) })
		want := keys.Reason("")
		if name[0] < 'a' {
			want = keys.ReasonTooLarge
		}
		switch {
		case keys.ReasonOf(err) != want || err != nil && !strings.Contains(err.Error(), "takes too long"):
			t.Errorf("%s: %v, want %q", name, err, want)
		case took > maxTime || memory > maxMemory:
			t.Errorf("%s took %v and %d KiB", name, took, memory>>10)
		}
	}
}

func curveKey(curve elliptic.Curve) *ecdsa.PublicKey {
	secret, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return &secret.PublicKey
}

// bundleOf is a PKCS#7 bundle of as many certificates for a public key as there
// is room for.
func bundleOf(ca *authority, public any, room int) []byte {
	var certificates []byte
	for serial := int64(1); ; serial++ {
		der := ca.issue(public, func(c *certificate) { c.Serial = big.NewInt(serial) })
		if len(certificates)+len(der) > room {
			break
		}
		certificates = append(certificates, der...)
	}
	part := func(class, tag int, content ...[]byte) []byte {
		return marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: true, Bytes: bytes.Join(content, nil)})
	}
	data, signed := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	content := part(asn1.ClassUniversal, asn1.TagSequence, marshal(1), part(asn1.ClassUniversal, asn1.TagSet),
		part(asn1.ClassUniversal, asn1.TagSequence, marshal(data)), part(asn1.ClassContextSpecific, 0, certificates), part(asn1.ClassUniversal, asn1.TagSet))
	return part(asn1.ClassUniversal, asn1.TagSequence, marshal(signed), part(asn1.ClassContextSpecific, 0, content))
}

// withSubkeys is a key with so many subkeys to encrypt to.
func withSubkeys(t *testing.T, curve pgp.Curve, count int) []byte {
	t.Helper()
	entity, err := openpgp.NewEntity("Ann", "", "ann@example.org", &pgp.Config{Algorithm: pgp.PubKeyAlgoEdDSA, Time: func() time.Time { return birth }})
	for range count {
		if err == nil {
			err = entity.AddEncryptionSubkey(&pgp.Config{Algorithm: pgp.PubKeyAlgoECDSA, Curve: curve, Time: func() time.Time { return birth }})
		}
	}
	var data bytes.Buffer
	if err == nil {
		entity.Subkeys = entity.Subkeys[1:] // the one that it was made with
		err = entity.Serialize(&data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

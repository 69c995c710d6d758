package cms

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

// message is a whole ContentInfo for encoding/asn1, which takes nothing but
// DER: written down from the RFCs, not from the code under test.
type message struct {
	ContentType asn1.ObjectIdentifier
	Content     struct {
		Version        int
		RecipientInfos []asn1.RawValue `asn1:"set"`
		Encrypted      struct {
			ContentType asn1.ObjectIdentifier
			Algorithm   pkix.AlgorithmIdentifier
			Content     []byte `asn1:"tag:0"`
		}
	} `asn1:"explicit,tag:0"`
}

type recipientName struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type transport struct {
	Version   int
	Name      recipientName
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

type agreement struct {
	Version    int
	Originator asn1.RawValue `asn1:"explicit,tag:0"`
	Algorithm  pkix.AlgorithmIdentifier
	Keys       []struct {
		Name recipientName
		Key  []byte
	}
}

// canonical reads DER into a value, and holds that encoding it again gives the
// same octets, and that there is nothing behind it.
func canonical(t *testing.T, der []byte, into any, params string) {
	t.Helper()
	rest, err := asn1.UnmarshalWithParams(der, into, params)
	if err != nil || len(rest) != 0 {
		t.Fatalf("reading %T: %d octets behind it, error %v", into, len(rest), err)
	}
	var value any
	switch v := into.(type) {
	case *message:
		value = *v
	case *transport:
		value = *v
	case *agreement:
		value = *v
	}
	again, err := asn1.MarshalWithParams(value, params)
	if err != nil || !bytes.Equal(again, der) {
		t.Fatalf("%T is not canonical: error %v\n%x\n%x", into, err, der, again)
	}
}

// strictly reads a message and all of its RecipientInfos.
func strictly(t *testing.T, der []byte) (m message, transports []transport, agreements []agreement) {
	t.Helper()
	canonical(t, der, &m, "")
	for _, info := range m.Content.RecipientInfos {
		if info.Class == asn1.ClassContextSpecific {
			var a agreement
			canonical(t, info.FullBytes, &a, "tag:1")
			agreements = append(agreements, a)
			continue
		}
		var tr transport
		canonical(t, info.FullBytes, &tr, "")
		transports = append(transports, tr)
	}
	return m, transports, agreements
}

// TestCanonical reads messages of every size, for RSA, for curves and for all
// kinds, and looks at versions and algorithms.
func TestCanonical(t *testing.T) {
	all := newReaders(t)
	for name, c := range ciphers {
		wantCipher := map[Cipher]string{AES128: "2.16.840.1.101.3.4.1.2", AES256: "2.16.840.1.101.3.4.1.42"}[c]
		for _, size := range sizes {
			for _, to := range [][]*reader{all[:1], all[:2], all[2:3], all[2:], all} {
				m, transports, agreements := strictly(t, seal(t, c, random(size), 1<<20, certificatesOf(to...)...))
				version := 0
				if len(agreements) > 0 {
					version = 2
				}
				if m.Content.Version != version || len(transports)+len(agreements) != len(to) {
					t.Errorf("%s, size %d: version %d, %d and %d of %d recipients", name, size, m.Content.Version, len(transports), len(agreements), len(to))
				}
				encrypted := m.Content.Encrypted
				if got := encrypted.Algorithm.Algorithm.String(); got != wantCipher {
					t.Errorf("%s: algorithm %s", name, got)
				}
				if got, want := len(encrypted.Content), size/16*16+16; got != want {
					t.Errorf("size %d: %d octets of ciphertext, want %d", size, got, want)
				}
				checkRecipients(t, c, transports, agreements)
			}
		}
	}
}

// checkRecipients holds versions, algorithms and parameters of RecipientInfos.
func checkRecipients(t *testing.T, c Cipher, transports []transport, agreements []agreement) {
	t.Helper()
	for _, tr := range transports {
		if tr.Version != 0 || tr.Algorithm.Algorithm.String() != "1.2.840.113549.1.1.1" ||
			!bytes.Equal(tr.Algorithm.Parameters.FullBytes, asn1.NullBytes) {
			t.Errorf("key transport: version %d, algorithm %v", tr.Version, tr.Algorithm)
		}
	}
	for _, a := range agreements {
		var wrap pkix.AlgorithmIdentifier
		if _, err := asn1.Unmarshal(a.Algorithm.Parameters.FullBytes, &wrap); err != nil {
			t.Fatal(err)
		}
		wantWrap := map[Cipher]string{AES128: "2.16.840.1.101.3.4.1.5", AES256: "2.16.840.1.101.3.4.1.45"}[c]
		if a.Version != 3 || len(a.Keys) != 1 || a.Algorithm.Algorithm.String() != "1.3.132.1.11.1" ||
			wrap.Algorithm.String() != wantWrap || wrap.Parameters.FullBytes != nil {
			t.Errorf("key agreement: version %d, %d keys, algorithm %v, wrap %v", a.Version, len(a.Keys), a.Algorithm, wrap)
		}
		if len(a.Keys[0].Key) != c.keySize()+8 {
			t.Errorf("a wrapped key of %d octets", len(a.Keys[0].Key))
		}
	}
}

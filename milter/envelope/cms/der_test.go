package cms

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
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
		MAC []byte `asn1:"optional,omitempty"` // of an AuthEnvelopedData
	} `asn1:"explicit,tag:0"`
}

type transport struct {
	Version   int
	RID       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

type agreement struct {
	Version    int
	Originator asn1.RawValue `asn1:"explicit,tag:0"`
	Algorithm  pkix.AlgorithmIdentifier
	Keys       []struct {
		RID asn1.RawValue
		Key []byte
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
	const ofNIST = "2.16.840.1.101.3.4.1."
	want := map[string]struct{ kind, cipher string }{
		"aes-128-cbc": {"1.2.840.113549.1.7.3", ofNIST + "2"},
		"aes-256-cbc": {"1.2.840.113549.1.7.3", ofNIST + "42"},
		"aes-128-gcm": {"1.2.840.113549.1.9.16.1.23", ofNIST + "6"},
		"aes-256-gcm": {"1.2.840.113549.1.9.16.1.23", ofNIST + "46"},
	}
	all := newReaders(t)
	for name, f := range forms {
		for _, size := range sizes {
			groups := [][]*reader{all[:1], all[:2], all[2:3], all[2:], all}
			if size > 1<<20 {
				groups = groups[:1]
			}
			for _, to := range groups {
				m, transports, agreements := strictly(t, seal(t, f, random(size), 1<<20, plain(to...)...))
				version, length, mac := 0, size/16*16+16, 0
				if len(agreements) > 0 {
					version = 2
				}
				if f.options.GCM {
					version, length, mac = 0, size, 16
				}
				if m.Content.Version != version || len(transports)+len(agreements) != len(to) {
					t.Errorf("%s, size %d: version %d, %d and %d of %d recipients", name, size, m.Content.Version, len(transports), len(agreements), len(to))
				}
				encrypted := m.Content.Encrypted
				if kind, cipher := m.ContentType.String(), encrypted.Algorithm.Algorithm.String(); kind != want[name].kind || cipher != want[name].cipher {
					t.Errorf("%s: content type %s, algorithm %s", name, kind, cipher)
				}
				if len(encrypted.Content) != length || len(m.Content.MAC) != mac {
					t.Errorf("%s, size %d: %d octets of ciphertext, want %d; %d of mac", name, size, len(encrypted.Content), length, len(m.Content.MAC))
				}
				checkParameters(t, f, encrypted.Algorithm.Parameters.FullBytes)
				checkRecipients(t, f.cipher, transports, agreements)
			}
		}
	}
}

// checkParameters holds the parameters of content ciphers: an initialization
// vector, or a nonce and the length of the check value, written out.
func checkParameters(t *testing.T, f form, der []byte) {
	t.Helper()
	want := []byte{0x04, 0x10}
	if f.options.GCM {
		want = []byte{0x30, 0x11, 0x04, 0x0c}
		if !bytes.HasSuffix(der, []byte{0x02, 0x01, 0x10}) {
			t.Errorf("parameters end with %x", der)
		}
	}
	if !bytes.HasPrefix(der, want) || len(der) != len(want)+int(want[len(want)-1])+len(want)/4*3 {
		t.Errorf("parameters are %x", der)
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

// TestNamed holds by what recipients are named, and the versions that follow
// from it (RFC 5652, sections 6.1 and 6.2): by the subject key identifier where
// it was chosen and there is one, else by issuer and serial number.
func TestNamed(t *testing.T) {
	const identifier = "identifier of a key"
	for _, kind := range []string{"rsa2048", "p256"} {
		with := newReader(t, kind, certificateOptions{subjectKeyID: []byte(identifier)})
		without := newReader(t, kind, certificateOptions{})
		for _, test := range []struct {
			what    string
			to      []Recipient
			byID    int // recipients that it names
			version int // the highest of a KeyTransRecipientInfo
		}{
			{"not chosen", plain(with), 0, 0},
			{"chosen", chosen(with), 1, 2},
			{"chosen, none there", chosen(without), 0, 0},
			{"both", append(chosen(with), plain(without)...), 1, 2},
			{"twice", chosen(with, with), 2, 2},
		} {
			for name, f := range forms {
				message := seal(t, f, []byte("content"), 10, test.to...)
				m, transports, agreements := strictly(t, message)
				if n := bytes.Count(message, []byte(identifier)); n != test.byID {
					t.Errorf("%s, %s, %s: %d named by identifier, want %d", kind, name, test.what, n, test.byID)
				}
				want, highest := test.version, 0
				if kind == "p256" {
					want = 2
				}
				if f.options.GCM {
					want = 0
				}
				for _, tr := range transports {
					highest = max(highest, tr.Version)
					if byID := tr.RID.Class == asn1.ClassContextSpecific && string(tr.RID.Bytes) == identifier; byID != (tr.Version == 2) {
						t.Errorf("%s, %s: version %d, named by %x", name, test.what, tr.Version, tr.RID.FullBytes)
					}
				}
				if m.Content.Version != want || len(transports) > 0 && highest != test.version || len(transports)+len(agreements) != len(test.to) {
					t.Errorf("%s, %s, %s: version %d, want %d; of key transport %d, want %d", kind, name, test.what, m.Content.Version, want, highest, test.version)
				}
			}
		}
	}
}

// TestOAEPParameters holds the octets that RFC 4055, section 6, has for
// rSAES-OAEP-SHA256-Identifier.
func TestOAEPParameters(t *testing.T) {
	r := newReader(t, "rsa2048", certificateOptions{})
	_, transports, _ := strictly(t, seal(t, cbc256, nil, 1, Recipient{Certificate: r.certificate, OAEP: true}))
	got, err := asn1.Marshal(transports[0].Algorithm)
	want := "303c06092a864886f70d010107302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500"
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("error %v, algorithm %x\nwant %s", err, got, want)
	}
}

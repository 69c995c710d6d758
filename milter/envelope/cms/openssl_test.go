package cms

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// openssl opens a message with a reader's key, named by the certificate.
type openssl struct {
	program          string
	key, certificate string
}

func newOpenSSL(t testing.TB, r *reader) openssl {
	t.Helper()
	o := openssl{program: bed.Need(t, "openssl")}
	o.key, o.certificate = r.files(t)
	return o
}

func (o openssl) open(t testing.TB, message []byte) []byte {
	t.Helper()
	return run(t, message, nil, o.program, "cms", "-decrypt", "-binary", "-inform", "DER", "-recip", o.certificate, "-inkey", o.key)
}

// print shows a message's structure as openssl understands it.
func (o openssl) print(t testing.TB, message []byte) string {
	t.Helper()
	return string(run(t, message, nil, o.program, "cms", "-cmsout", "-print", "-noout", "-inform", "DER"))
}

// TestOpenedByOpenSSL seals to one reader of each kind, and to all of them
// together: each opens both, at every size, whatever the pieces were.
func TestOpenedByOpenSSL(t *testing.T) {
	readers := newReaders(t)
	pieces := []int{1 << 30, 65535, 4093, 7}
	for _, r := range readers {
		o := newOpenSSL(t, r)
		for name, f := range forms {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				for i, size := range sizes {
					if size >= 1<<20 && r != readers[0] {
						continue // there is nothing of the reader in the content
					}
					content := random(size)
					piece := pieces[i%len(pieces)]
					if size > 1<<20 {
						piece = 65537
					}
					if got := o.open(t, seal(t, f, content, piece, plain(r)...)); !bytes.Equal(got, content) {
						t.Fatalf("size %d, pieces of %d, alone: %d bytes came back", size, piece, len(got))
					}
					if size > 300 && size < 65535 || size > 65536 {
						continue
					}
					if got := o.open(t, seal(t, f, content, piece, plain(readers...)...)); !bytes.Equal(got, content) {
						t.Fatalf("size %d, pieces of %d, with others: %d bytes came back", size, piece, len(got))
					}
				}
			})
		}
	}
}

// TestPiecesOpenedByOpenSSL writes one content in pieces of many sizes.
func TestPiecesOpenedByOpenSSL(t *testing.T) {
	r := newReader(t, "p256", certificateOptions{})
	o := newOpenSSL(t, r)
	content := random(2*bufferSize + 1234)
	for _, piece := range []int{1, 3, 15, 16, 17, 1000, bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize, 1 << 20} {
		if got := o.open(t, seal(t, cbc256, content, piece, plain(r)...)); !bytes.Equal(got, content) {
			t.Errorf("pieces of %d: %d bytes came back", piece, len(got))
		}
	}
}

// TestPrintedByOpenSSL looks for the algorithms, and that asn1parse walks
// through all of the message.
func TestPrintedByOpenSSL(t *testing.T) {
	for _, kind := range everyKind {
		r := newReader(t, kind, certificateOptions{})
		o := newOpenSSL(t, r)
		for name, f := range forms {
			message := seal(t, f, random(1000), 1000, plain(r)...)
			want := []string{name, "nvelopedData", "pkcs7-data", "issuerAndSerialNumber"}
			if strings.HasPrefix(kind, "rsa") {
				want = append(want, "rsaEncryption", "d.ktri")
			} else {
				wrap := "id-aes256-wrap"
				if f.cipher == AES128 {
					wrap = "id-aes128-wrap"
				}
				want = append(want, "dhSinglePass-stdDH-sha256kdf-scheme", "id-ecPublicKey", "d.kari", wrap)
			}
			text := o.print(t, message)
			for _, word := range want {
				if !strings.Contains(text, word) {
					t.Errorf("%s, %s: openssl does not show %q:\n%s", kind, name, word, text)
				}
			}
			run(t, message, nil, o.program, "asn1parse", "-inform", "DER")
		}
	}
}

// oddNames are issuers that a rewritten name would not match.
func oddNames(t *testing.T) map[string][]byte {
	cn, ou := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 11}
	text := func(tag int, octets string) asn1.RawValue {
		return asn1.RawValue{Tag: tag, Bytes: []byte(octets)}
	}
	names := map[string]pkix.RDNSequence{
		"nameless":      {},
		"empty value":   {{{Type: cn, Value: text(asn1.TagUTF8String, "")}}},
		"UTF8String":    {{{Type: cn, Value: text(asn1.TagUTF8String, "Prüfstelle für Schlüssel ☃")}}},
		"ASCII in UTF8": {{{Type: cn, Value: text(asn1.TagUTF8String, "plain")}}},
		"printable":     {{{Type: cn, Value: text(asn1.TagPrintableString, "  Two  Spaces ")}}},
		"BMPString":     {{{Type: cn, Value: text(asn1.TagBMPString, "\x00C\x00A\x26\x03")}}},
		"T61String":     {{{Type: cn, Value: text(asn1.TagT61String, "Pr\xfcfstelle")}}},
		"multi-valued":  {{{Type: cn, Value: "one"}, {Type: ou, Value: "two"}}, {{Type: ou, Value: "three"}}},
		"long":          {{{Type: cn, Value: strings.Repeat("issuer ", 500)}}},
	}
	all := make(map[string][]byte)
	for what, name := range names {
		der, err := asn1.Marshal(name)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		all[what] = der
	}
	return all
}

// oddSerials have their first bit set, or the most octets that RFC 5280 allows.
var oddSerials = map[string]string{
	"one":           "01",
	"high bit":      "80",
	"20 octets":     "7fffffffffffffffffffffffffffffffffffffff",
	"20 octets, 00": "00ffffffffffffffffffffffffffffffffffffff",
	"many zeros":    "7f00000000000000000000000000000000000000",
}

// TestOddCertificates seals to certificates that a careless writer misnames;
// openssl finds its RecipientInfo by the name alone.
func TestOddCertificates(t *testing.T) {
	odd := make(map[string]certificateOptions)
	for what, issuer := range oddNames(t) {
		odd["issuer: "+what] = certificateOptions{issuer: issuer}
	}
	for what, digits := range oddSerials {
		serial, _ := new(big.Int).SetString(digits, 16)
		odd["serial: "+what] = certificateOptions{serial: serial}
	}
	other := newReader(t, "rsa2048", certificateOptions{})
	content := random(1000)
	for what, options := range odd {
		for _, kind := range []string{"rsa2048", "p256"} {
			t.Run(what+"/"+kind, func(t *testing.T) {
				r := newReader(t, kind, options)
				message := seal(t, cbc256, content, 1000, plain(other, r)...)
				strictly(t, message)
				if !bytes.Contains(message, r.certificate.RawIssuer) {
					t.Error("the issuer is not the certificate's, octet for octet")
				}
				if got := newOpenSSL(t, r).open(t, message); !bytes.Equal(got, content) {
					t.Errorf("%d bytes came back", len(got))
				}
			})
		}
	}
}

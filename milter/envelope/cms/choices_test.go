package cms

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// choices are all the ways to seal to a reader, by what they are called here.
func choices(r *reader) map[string]Recipient {
	all := make(map[string]Recipient)
	for _, id := range []bool{false, true} {
		all[fmt.Sprintf("by id %v", id)] = Recipient{r.certificate, false, id}
		if strings.HasPrefix(r.name, "rsa") {
			all[fmt.Sprintf("by id %v, OAEP", id)] = Recipient{r.certificate, true, id}
		}
	}
	return all
}

// readersWithIDs makes a reader of every kind with a subject key identifier.
func readersWithIDs(t testing.TB) (all []*reader) {
	for _, kind := range everyKind {
		all = append(all, newReader(t, kind, certificateOptions{subjectKeyID: []byte("identifier of " + kind)}))
	}
	return all
}

// TestChoicesOpened seals in every way, alone, among readers who are sealed to
// in the other ways, and twice: openssl opens it, and so do we.
func TestChoicesOpened(t *testing.T) {
	readers := readersWithIDs(t)
	var others []Recipient
	for _, r := range append(newReaders(t), readers...) {
		for _, to := range choices(r) {
			others = append(others, to)
		}
	}
	for _, r := range []*reader{readers[0], readers[2], readers[4]} {
		o := newOpenSSL(t, r)
		for what, to := range choices(r) {
			for name, f := range forms {
				for i, size := range []int{0, 17, 70_000} {
					content := random(size)
					among := [][]Recipient{{to}, append(others, to), {to, to}}[i]
					message := seal(t, f, content, 4093, among...)
					if got := o.open(t, message); !bytes.Equal(got, content) {
						t.Errorf("%s, %s, %s, size %d: openssl brings back %d bytes", r.name, what, name, size, len(got))
					}
					if got, err := Open(message, []Identity{r.identity()}); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s, %s, %s, size %d: we bring back %d bytes, error %v", r.name, what, name, size, len(got), err)
					}
				}
			}
		}
	}
}

// TestChoicesPrinted looks for what openssl understands of the choices.
func TestChoicesPrinted(t *testing.T) {
	for _, kind := range []string{"rsa2048", "p256"} {
		r := newReader(t, kind, certificateOptions{subjectKeyID: []byte("identifier")})
		o := newOpenSSL(t, r)
		text := o.print(t, seal(t, gcm256, random(1000), 1000, chosen(r)...))
		want := []string{"id-smime-ct-authEnvelopedData", "aes-256-gcm", "rsaesOaep", "sha256", "mgf1", "d.subjectKeyIdentifier"}
		if kind == "p256" {
			want = append(want[:2:2], "d.rKeyId")
		}
		for _, word := range want {
			if !strings.Contains(text, word) {
				t.Errorf("%s: openssl does not show %q:\n%s", kind, word, text)
			}
		}
	}
}

// TestRenewedCertificate has two certificates of one key, which share their
// subject key identifier, and one of another key that claims it: whoever has
// the key opens the message, whichever certificate came with it.
func TestRenewedCertificate(t *testing.T) {
	options := certificateOptions{subjectKeyID: []byte("identifier")}
	old, renewed := newReader(t, "rsa2048", options), newReader(t, "rsa2048", options)
	claims := newReader(t, "rsa4096", options)
	content := random(1000)
	for name, f := range forms {
		for range 8 { // the order is by what is encrypted, at random
			message := seal(t, f, content, 1000, chosen(old, renewed)...)
			for _, r := range []*reader{old, renewed} {
				if got := newOpenSSL(t, r).open(t, message); !bytes.Equal(got, content) {
					t.Errorf("%s: openssl brings back %d bytes", name, len(got))
				}
			}
			message = seal(t, f, content, 1000, chosen(old, claims)...)
			for _, r := range []*reader{old, claims} {
				if got, err := Open(message, []Identity{r.identity()}); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s: we bring back %d bytes, error %v", name, len(got), err)
				}
			}
		}
	}
}

// TestChoicesInOtherReaders opens, by gpgsm and NSS, what stands beside a
// recipient with other choices; and by NSS what is named by the subject key
// identifier, which gpgsm 2.2 does not know. OAEP, GCM and curves of one's own
// are beyond both, before gpgsm 2.4 and NSS 3.100.
func TestChoicesInOtherReaders(t *testing.T) {
	options := certificateOptions{subjectKeyID: []byte("identifier of a key.")}
	r, other := newReader(t, "rsa2048", options), newReader(t, "rsa4096", certificateOptions{subjectKeyID: []byte("another")})
	gpgsm, nss := bed.NewGPGSM(t, r.inFiles(t)), bed.NewNSS(t, r.inFiles(t))
	named := Recipient{Certificate: r.certificate, SubjectKeyID: true}
	for _, test := range []struct {
		what string
		open func(testing.TB, []byte) []byte
		to   []Recipient
	}{
		{"gpgsm beside OAEP", gpgsm.Open, append(plain(r), Recipient{Certificate: other.certificate, OAEP: true})},
		{"NSS beside others", nss.Open, append(plain(r), chosen(other)...)},
		{"NSS by identifier", nss.Open, []Recipient{named}},
		{"NSS by identifier beside others", nss.Open, append(chosen(other), named)},
	} {
		t.Run(test.what, func(t *testing.T) {
			for range 4 { // the order is by what is encrypted, at random
				content := random(1000)
				if got := test.open(t, seal(t, cbc256, content, 1000, test.to...)); !bytes.Equal(got, content) {
					t.Errorf("%d bytes came back", len(got))
				}
			}
		})
	}
}

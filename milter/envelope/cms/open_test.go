package cms

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

func (r *reader) identity() Identity { return Identity{r.certificate, r.key} }

// TestOpenOurs opens what we write, alone and among others.
func TestOpenOurs(t *testing.T) {
	readers := newReaders(t)
	for _, r := range readers {
		for name, f := range forms {
			for _, size := range []int{0, 1, 15, 16, 17, 65536, 300_000} {
				content := random(size)
				for _, to := range [][]*reader{{r}, readers} {
					got, err := Open(seal(t, f, content, 7001, plain(to...)...), []Identity{r.identity()})
					if err != nil || !bytes.Equal(got, content) {
						t.Fatalf("%s, %s, size %d, %d readers: %d bytes came back, error %v", r.name, name, size, len(to), len(got), err)
					}
				}
			}
		}
	}
}

// TestOpenTheirs opens what openssl writes, in all the ways that it has.
func TestOpenTheirs(t *testing.T) {
	program := bed.Need(t, "openssl")
	type way struct {
		args []string
		only string // kind of key, by its beginning
	}
	ways := []way{
		{args: nil},
		{args: []string{"-aes128"}},
		{args: []string{"-aes192"}},
		{args: []string{"-aes256"}},
		{args: []string{"-des3"}},
		{args: []string{"-aes256", "-stream"}}, // indefinite lengths, the string in pieces
		{args: []string{"-aes256", "-keyid"}},
		{args: []string{"-aes-128-gcm"}},
		{args: []string{"-aes-192-gcm"}},
		{args: []string{"-aes-256-gcm"}},
		{args: []string{"-aes-256-gcm", "-keyid"}},
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha224"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha256"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha384"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha512"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "rsa_padding_mode:oaep"}, only: "rsa"},
		{args: []string{"-aes-256-gcm", "-keyid", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha1"}, only: "rsa"},
	}
	for _, md := range []string{"sha1", "sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256"} {
		ways = append(ways, way{args: []string{"-aes256", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:" + md}, only: "rsa"})
	}
	for _, r := range readersWithIDs(t) {
		_, certificate := r.files(t)
		for _, way := range ways {
			if !strings.HasPrefix(r.name, way.only) {
				continue
			}
			for _, size := range []int{0, 16, 1000, 200_000} {
				content := random(size)
				args := append([]string{"cms", "-encrypt", "-binary", "-outform", "DER", "-recip", certificate}, way.args...)
				got, err := Open(run(t, content, nil, program, args...), []Identity{r.identity()})
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s, openssl %q, size %d: %d bytes came back, error %v", r.name, way.args, size, len(got), err)
				}
			}
		}
	}
}

// TestOpenRefuses holds the errors: for somebody else, cut off anywhere, and of
// another structure. A change of the ciphertext cannot be told in CBC.
func TestOpenRefuses(t *testing.T) {
	for _, kind := range []string{"rsa2048", "p256"} {
		r, other := newReader(t, kind, certificateOptions{}), newReader(t, kind, certificateOptions{})
		content := random(1000)
		message := seal(t, cbc256, content, 1000, plain(r)...)
		if _, err := Open(message, []Identity{other.identity()}); !errors.Is(err, ErrNotForUs) {
			t.Errorf("%s: for somebody else the error is %v", kind, err)
		}
		for n := range len(message) {
			if got, err := Open(message[:n], []Identity{r.identity()}); err == nil {
				t.Fatalf("%s: cut off after %d of %d bytes it was opened as %d bytes", kind, n, len(message), len(got))
			}
		}
		// The identifier octets of the values around the content.
		for _, at := range []int{0, 4, 15, 19} {
			changed := bytes.Clone(message)
			changed[at] ^= 0x41
			if _, err := Open(changed, []Identity{r.identity()}); err == nil {
				t.Errorf("%s: with byte %d changed it was opened", kind, at)
			}
		}
	}
}

// FuzzOpen holds that no message makes the reader panic or open what was not
// sealed: whatever comes out of an AuthEnvelopedData was in one.
func FuzzOpen(f *testing.F) {
	r := newReader(f, "p256", certificateOptions{subjectKeyID: []byte("identifier")})
	rsa := newReader(f, "rsa2048", certificateOptions{subjectKeyID: []byte("identifier")})
	for _, name := range everyForm {
		f.Add(seal(f, forms[name], []byte("content"), 10, plain(r)...))
		f.Add(seal(f, forms[name], []byte("content"), 10, chosen(r, rsa)...))
	}
	a := newAuthenticated()
	a.icv, a.attributes, a.unauthenticated = 12, [][]byte{attribute(3, object(oidData))}, attribute(52, integer(1))
	f.Add(a.message(f, rsa))
	a.icv = 4
	f.Add(a.message(f, r))
	f.Add([]byte{0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03, 0xa0, 0x80, 0x30, 0x80, 0, 0})
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 1000))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := Open(message, []Identity{r.identity(), rsa.identity()})
		if err != nil && got != nil {
			t.Errorf("an error and %d bytes", len(got))
		}
		top, _, _ := readValue(message, 0)
		if e, bad := readEnveloped(top); err == nil && (bad != nil || e.authenticated && string(got) != "content") {
			t.Errorf("%q came out, and the second time the error is %v", got, bad)
		}
	})
}

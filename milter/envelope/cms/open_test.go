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
		for name, c := range ciphers {
			for _, size := range []int{0, 1, 15, 16, 17, 65536, 300_000} {
				content := random(size)
				for _, to := range [][]*reader{{r}, readers} {
					got, err := Open(seal(t, c, content, 7001, certificatesOf(to...)...), []Identity{r.identity()})
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
	ways := []struct {
		args []string
		only string // kind of key, by its beginning
	}{
		{args: nil},
		{args: []string{"-aes128"}},
		{args: []string{"-aes192"}},
		{args: []string{"-aes256"}},
		{args: []string{"-des3"}},
		{args: []string{"-aes256", "-stream"}}, // indefinite lengths, the string in pieces
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha256"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "ecdh_kdf_md:sha512"}, only: "p"},
		{args: []string{"-aes256", "-keyopt", "rsa_padding_mode:oaep"}, only: "rsa"},
		{args: []string{"-aes256", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"}, only: "rsa"},
	}
	for _, r := range newReaders(t) {
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
		message := seal(t, AES256, content, 1000, r.certificate)
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
// sealed.
func FuzzOpen(f *testing.F) {
	r := newReader(f, "p256", certificateOptions{})
	f.Add(seal(f, AES128, []byte("content"), 10, r.certificate))
	f.Add([]byte{0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03, 0xa0, 0x80, 0x30, 0x80, 0, 0})
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 1000))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := Open(message, []Identity{r.identity()})
		if err != nil && got != nil {
			t.Errorf("an error and %d bytes", len(got))
		}
	})
}

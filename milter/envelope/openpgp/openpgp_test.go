package openpgp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func newEntity(t testing.TB, config *packet.Config) *openpgp.Entity {
	t.Helper()
	entity, err := openpgp.NewEntity("", "", "reader@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	return entity
}

// sizes are those at which a block, a partial body or a length header begins
// or ends.
func sizes() []int {
	all := []int{0, 1, 5, 15, 16, 17, 100, 184, 185, 186, 191, 192, 8376, 8377, 8378, 8383, 8384, 100_000, 1 << 20}
	for _, around := range []int{chunkSize, 2 * chunkSize} {
		for d := -8; d <= 2; d++ {
			all = append(all, around+d)
		}
	}
	return all
}

// seal encrypts content in pieces of one size and armors it.
func seal(t testing.TB, function Cipher, content []byte, piece int, to ...*packet.PublicKey) []byte {
	t.Helper()
	var body bytes.Buffer
	e, err := NewEncrypter(&body, function)
	if err != nil {
		t.Fatal(err)
	}
	for len(content) > 0 {
		n := min(piece, len(content))
		if _, err := e.Write(content[:n]); err != nil {
			t.Fatal(err)
		}
		content = content[n:]
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	prefix, err := e.Prefix(to)
	if err != nil {
		t.Fatal(err)
	}
	return append(prefix, body.Bytes()...)
}

// TestReadByGoCrypto opens messages of every critical size, which includes
// the check of the modification detection code.
func TestReadByGoCrypto(t *testing.T) {
	entity := newEntity(t, nil)
	for _, function := range []Cipher{AES256, AES128} {
		for _, size := range sizes() {
			for _, piece := range []int{7001, 65535, 1 << 20} {
				content := make([]byte, size)
				rand.Read(content)
				sealed := seal(t, function, content, piece, entity.Subkeys[0].PublicKey)
				md, err := openpgp.ReadMessage(bytes.NewReader(sealed), openpgp.EntityList{entity}, nil, nil)
				if err != nil {
					t.Fatalf("cipher %d, size %d, pieces of %d: %v", function, size, piece, err)
				}
				got, err := io.ReadAll(md.UnverifiedBody)
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("cipher %d, size %d, pieces of %d: %d bytes came back, error %v", function, size, piece, len(got), err)
				}
			}
		}
	}
}

// TestChangedMessage shows that the reader above notices a changed bit.
func TestChangedMessage(t *testing.T) {
	entity := newEntity(t, nil)
	sealed := seal(t, AES256, bytes.Repeat([]byte("x"), 1000), 100, entity.Subkeys[0].PublicKey)
	sealed[len(sealed)-500] ^= 1
	md, err := openpgp.ReadMessage(bytes.NewReader(sealed), openpgp.EntityList{entity}, nil, nil)
	if err == nil {
		_, err = io.ReadAll(md.UnverifiedBody)
	}
	if err == nil {
		t.Fatal("a changed message was opened")
	}
}

// TestTwoCopies gives two readers the same encrypted body with key packets of
// their own; neither can open the other's copy.
func TestTwoCopies(t *testing.T) {
	one, two := newEntity(t, nil), newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	var body bytes.Buffer
	e, err := NewEncrypter(&body, AES256)
	if err != nil {
		t.Fatal(err)
	}
	e.Write([]byte("content"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for reader, other := range map[*openpgp.Entity]*openpgp.Entity{one: two, two: one} {
		prefix, err := e.Prefix([]*packet.PublicKey{reader.Subkeys[0].PublicKey})
		if err != nil {
			t.Fatal(err)
		}
		sealed := append(prefix, body.Bytes()...)
		md, err := openpgp.ReadMessage(bytes.NewReader(sealed), openpgp.EntityList{reader}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(md.UnverifiedBody); err != nil || string(got) != "content" {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := openpgp.ReadMessage(bytes.NewReader(sealed), openpgp.EntityList{other}, nil, nil); err == nil {
			t.Fatal("a copy was opened with the key of the other")
		}
	}
}

// TestCopyNeedsItsParts holds that nothing comes out before the end, and no
// copy for nobody.
func TestCopyNeedsItsParts(t *testing.T) {
	e, err := NewEncrypter(io.Discard, AES256)
	if err != nil {
		t.Fatal(err)
	}
	key := newEntity(t, nil).Subkeys[0].PublicKey
	if _, err := e.Prefix([]*packet.PublicKey{key}); err == nil {
		t.Error("key packets were made for an unfinished message")
	}
	e.Close()
	if _, err := e.Prefix(nil); err == nil {
		t.Error("a copy for nobody was made")
	}
	if _, err := e.Write([]byte("more")); err == nil {
		t.Error("content was taken behind the end")
	}
}

// failing is a writer whose disk is full after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	for _, room := range []int{0, 1, 20, chunkSize, 3 * chunkSize} {
		e, err := NewEncrypter(&failing{room}, AES256)
		for i := 0; err == nil && i < 10; i++ {
			_, err = e.Write(make([]byte, chunkSize))
		}
		if err == nil {
			err = e.Close()
		}
		if err == nil {
			t.Errorf("room for %d bytes: no error", room)
		}
	}
}

// TestArmor compares with go-crypto's armor, line by line, at every length
// around a line, written in pieces.
func TestArmor(t *testing.T) {
	for size := range 200 {
		for _, piece := range []int{1, 7, 48, 1000} {
			content := make([]byte, size)
			rand.Read(content)
			var ours, theirs bytes.Buffer
			w := NewArmorWriter(&ours, "\n")
			for rest := content; len(rest) > 0; {
				n := min(piece, len(rest))
				w.Write(rest[:n])
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			a, err := armor.Encode(&theirs, "PGP MESSAGE", nil)
			if err != nil {
				t.Fatal(err)
			}
			a.Write(content)
			a.Close()
			// go-crypto leaves out the last line end, and writes one too many where there is nothing.
			want := strings.Replace(theirs.String(), "\n\n\n=", "\n\n=", 1) + "\n"
			if ours.String() != want {
				t.Fatalf("size %d, pieces of %d:\n%s\nwant\n%s", size, piece, ours.String(), want)
			}
		}
	}
}

func TestArmoredSize(t *testing.T) {
	for _, eol := range []string{"\n", "\r\n"} {
		for _, size := range []int{0, 1, 2, 3, 47, 48, 49, 95, 96, 97, 40_000, 100_000} {
			var text bytes.Buffer
			w := NewArmorWriter(&text, eol)
			w.Write(make([]byte, size))
			w.Close()
			if got := ArmoredSize(int64(size), len(eol)); got != int64(text.Len()) {
				t.Errorf("ArmoredSize(%d, %d) = %d, armored it is %d", size, len(eol), got, text.Len())
			}
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	key := newEntity(b, nil).Subkeys[0].PublicKey
	for _, size := range []int{4 << 10, 10 << 20} {
		content := make([]byte, size)
		b.Run(fmt.Sprintf("armored/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				var body bytes.Buffer
				e, err := NewEncrypter(&body, AES256)
				if err != nil {
					b.Fatal(err)
				}
				e.Write(content)
				e.Close()
				prefix, err := e.Prefix([]*packet.PublicKey{key})
				if err != nil {
					b.Fatal(err)
				}
				w := NewArmorWriter(io.Discard, "\n")
				w.Write(prefix)
				w.Write(body.Bytes())
				w.Close()
			}
		})
	}
}

// TestSecretsAreFresh looks at what nobody sees from outside: each message has
// a key and a prefix of its own, and the prefix repeats its last two octets
// (RFC 9580, section 5.13.1).
func TestSecretsAreFresh(t *testing.T) {
	seen := make(map[string]bool)
	for range 20 {
		for _, function := range []Cipher{AES128, AES256} {
			var body bytes.Buffer
			e, err := NewEncrypter(&body, function)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			block, err := aes.NewCipher(e.sessionKey)
			if err != nil || len(e.sessionKey) != function.KeySize() {
				t.Fatalf("a key of %d octets, error %v", len(e.sessionKey), err)
			}
			prefix := make([]byte, aes.BlockSize+2)
			//lint:ignore SA1019 it is the mode that RFC 9580 prescribes here
			cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(prefix, body.Bytes()[1:][:len(prefix)])
			if !bytes.Equal(prefix[14:16], prefix[16:18]) {
				t.Errorf("the prefix %x does not repeat its last octets", prefix)
			}
			for _, secret := range [][]byte{e.sessionKey, prefix} {
				if seen[string(secret)] || bytes.Count(secret, []byte{0}) > 4 {
					t.Errorf("%x is not random", secret)
				}
				seen[string(secret)] = true
			}
		}
	}
}

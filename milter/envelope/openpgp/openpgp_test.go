package openpgp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"runtime"
	"testing"

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

// sizes are those at which a block, a chunk, a partial body or a length header
// begins or ends. Six octets of the literal data packet are in front.
func sizes() []int {
	all := []int{0, 1, 5, 15, 16, 17, 35, 36, 37, 38, 39, 40, 100, 184, 185, 186, 191, 192, 8376, 8377, 8378, 8383, 8384, 100_000, 1 << 20}
	for _, around := range []int{chunkSize, 2 * chunkSize, partialSize, partialSize + chunkSize, 2 * partialSize} {
		for d := -14; d <= 2; d++ {
			all = append(all, around+d)
		}
	}
	return all
}

// seal encrypts content in pieces of one size.
func seal(t testing.TB, function Cipher, mode AEAD, hidden bool, content []byte, piece int, to ...*packet.PublicKey) []byte {
	t.Helper()
	var body bytes.Buffer
	e, err := NewEncrypter(&body, function, mode)
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
	prefix, err := e.Prefix(to, hidden)
	if err != nil {
		t.Fatal(err)
	}
	return append(prefix, body.Bytes()...)
}

// open reads a message with go-crypto, to its end and what protects it.
func open(sealed []byte, reader *openpgp.Entity) ([]byte, error) {
	md, err := openpgp.ReadMessage(bytes.NewReader(sealed), openpgp.EntityList{reader}, nil, nil)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(md.UnverifiedBody)
}

// modes are all that a message can be encrypted with.
var modes = map[string]AEAD{"CFB": NoAEAD, "OCB": OCB, "GCM": GCM}

// TestReadByGoCrypto opens messages of every critical size.
func TestReadByGoCrypto(t *testing.T) {
	entity := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519})
	content := make([]byte, 1<<20)
	rand.Read(content)
	for name, mode := range modes {
		for _, function := range []Cipher{AES256, AES128} {
			for _, size := range sizes() {
				for _, piece := range []int{7001, 65535, 1 << 20} {
					sealed := seal(t, function, mode, false, content[:size], piece, entity.Subkeys[0].PublicKey)
					if got, err := open(sealed, entity); err != nil || !bytes.Equal(got, content[:size]) {
						t.Fatalf("%s, cipher %d, size %d, pieces of %d: %d bytes came back, error %v", name, function, size, piece, len(got), err)
					}
				}
			}
		}
	}
}

// TestDamage shows that the reader above notices a changed bit anywhere in the
// encrypted packet, and an end that comes early.
func TestDamage(t *testing.T) {
	entity := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519})
	for name, mode := range modes {
		for range 100 {
			content := make([]byte, mathrand.IntN(3*chunkSize))
			sealed := seal(t, AES256, mode, false, content, 5000, entity.Subkeys[0].PublicKey)
			if _, err := open(sealed, entity); err != nil {
				t.Fatalf("%s, %d octets: %v", name, len(content), err)
			}
			at := len(sealed) - 1 - mathrand.IntN(len(content)+spareRoom)
			if _, err := open(sealed[:at], entity); err == nil {
				t.Errorf("%s: %d octets of %d were opened", name, at, len(sealed))
			}
			sealed[at] ^= 1 << mathrand.IntN(8)
			if got, err := open(sealed, entity); err == nil {
				t.Errorf("%s: octet %d of %d was changed, and %d came back", name, at, len(sealed), len(got))
			}
		}
	}
}

// FuzzSeal: whatever is written, in whatever pieces, comes back, and armored it
// is what it was.
func FuzzSeal(f *testing.F) {
	entity := newEntity(f, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519})
	for mode := range uint8(4) {
		f.Add([]byte("content"), uint16(1), uint32(0), mode)
		f.Add([]byte("content"), uint16(3), uint32(partialSize), mode)
		f.Add([]byte("content"), uint16(9999), uint32(chunkSize-3), mode)
	}
	f.Fuzz(func(t *testing.T, content []byte, piece uint16, zeros uint32, choice uint8) {
		mode := []AEAD{NoAEAD, OCB, GCM}[choice%3]
		content = append(content, make([]byte, zeros%(2*partialSize))...)
		sealed := seal(t, AES256, mode, choice&0x80 != 0, content, int(piece)+1, entity.Subkeys[0].PublicKey)
		if got, err := open(sealed, entity); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d octets came back of %d, error %v", len(got), len(content), err)
		}
	})
}

// TestTwoCopies gives two readers the same encrypted body with key packets of
// their own; neither can open the other's copy.
func TestTwoCopies(t *testing.T) {
	one, two := newEntity(t, nil), newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	var body bytes.Buffer
	e, err := NewEncrypter(&body, AES256, NoAEAD)
	if err != nil {
		t.Fatal(err)
	}
	e.Write([]byte("content"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for reader, other := range map[*openpgp.Entity]*openpgp.Entity{one: two, two: one} {
		prefix, err := e.Prefix([]*packet.PublicKey{reader.Subkeys[0].PublicKey}, false)
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
	e, err := NewEncrypter(io.Discard, AES256, NoAEAD)
	if err != nil {
		t.Fatal(err)
	}
	key := newEntity(t, nil).Subkeys[0].PublicKey
	if _, err := e.Prefix([]*packet.PublicKey{key}, false); err == nil {
		t.Error("key packets were made for an unfinished message")
	}
	e.Close()
	if _, err := e.Prefix(nil, false); err == nil {
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
	for _, room := range []int{0, 1, 20, partialSize, 3 * partialSize} {
		e, err := NewEncrypter(&failing{room}, AES256, NoAEAD)
		for i := 0; err == nil && i < 10; i++ {
			_, err = e.Write(make([]byte, partialSize))
		}
		if err == nil {
			err = e.Close()
		}
		if err == nil {
			t.Errorf("room for %d bytes: no error", room)
		}
	}
}

// TestMemory holds that a message takes no more memory for being long, and a
// short one little.
func TestMemory(t *testing.T) {
	piece := make([]byte, 65535)
	for name, mode := range modes {
		for _, c := range []struct{ pieces, most int }{{1, 512 << 10}, {300, 1 << 20}} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			e, err := NewEncrypter(io.Discard, AES256, mode)
			if err != nil {
				t.Fatal(err)
			}
			for range c.pieces {
				e.Write(piece)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > uint64(c.most) {
				t.Errorf("%s: %d octets took %d octets of memory", name, c.pieces*len(piece), took)
			}
		}
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
			e, err := NewEncrypter(&body, function, NoAEAD)
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

// failingOnce fails at one write, and then goes on.
type failingOnce struct{ left int }

func (f *failingOnce) Write(p []byte) (int, error) {
	if f.left--; f.left == 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// TestErrorIsFinal: after an error there is no message any more.
func TestErrorIsFinal(t *testing.T) {
	for _, mode := range []AEAD{NoAEAD, GCM} {
		for at := 2; at < 6; at++ {
			e, err := NewEncrypter(&failingOnce{at}, AES256, mode)
			if err != nil {
				t.Fatal(err)
			}
			for range 40 {
				e.Write(make([]byte, 10_000))
			}
			if first, second := e.Close(), e.Close(); first == nil || second == nil {
				t.Errorf("mode %d, write %d fails: Close says %v, then %v", mode, at, first, second)
			}
		}
	}
}

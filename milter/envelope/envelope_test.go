package envelope

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// reader is somebody with a key pair.
type reader struct {
	entity *openpgp.Entity
	key    *keys.Key
}

func newReader(t testing.TB) reader {
	t.Helper()
	entity, err := openpgp.NewEntity("", "", "reader@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var public bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(public.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return reader{entity, parsed[0]}
}

// payload opens a sealed message with go-crypto alone.
func (r reader) payload(t testing.TB, message []byte) []byte {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	md, err := openpgp.ReadMessage(block.Body, openpgp.EntityList{r.entity}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := io.ReadAll(md.UnverifiedBody)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// seal seals a message and returns the sealing.
func seal(t testing.TB, where Spool, header []Field, body []byte) *Sealing {
	t.Helper()
	s, err := Begin(keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256}, where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Discard)
	if err := s.Header(header); err != nil {
		t.Fatal(err)
	}
	for chunk := range slices.Chunk(body, 65535) {
		if _, err := s.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// write writes a copy as a whole message and holds its size to Size.
func write(t testing.TB, c *Copy, eol string) []byte {
	t.Helper()
	var body bytes.Buffer
	if err := c.WriteBody(&body, eol); err != nil {
		t.Fatal(err)
	}
	if c.Size(len(eol)) != int64(body.Len()) {
		t.Fatalf("Size says %d, written were %d bytes", c.Size(len(eol)), body.Len())
	}
	var message bytes.Buffer
	for _, f := range c.Fields() {
		message.WriteString(f.Name + ":" + f.Value + "\n")
	}
	message.WriteString("\n")
	message.Write(body.Bytes())
	return message.Bytes()
}

func TestPayload(t *testing.T) {
	r := newReader(t)
	typed := []Field{{"Subject", " one\n two"}, {"Content-type", "text/html"}, {"X-Empty", ""}, {"X-CR", " a\rb \n\tc"}}
	tests := []struct {
		name    string
		header  []Field
		body    string
		payload string
	}{
		{"as it came", typed, "body\r\n", "Subject: one\r\n two\r\nContent-type:text/html\r\nX-Empty:\r\nX-CR: a\rb \r\n\tc\r\n\r\nbody\r\n"},
		{"no body", typed[1:2], "", "Content-type:text/html\r\n\r\n"},
		{"no final line end", typed[1:2], "a\x00\xff", "Content-type:text/html\r\n\r\na\x00\xff"},
		{"no type", typed[:1], "body", addedType + "Subject: one\r\n two\r\n\r\nbody"},
		{"no header", nil, "body", addedType + "\r\nbody"},
		{"our own line, written by the sender",
			[]Field{{"Content-Type", " text/plain; x-added=sealmilter"}}, "body", addedType + addedType + "\r\nbody"},
		{"the same further down", []Field{{"A", " b"}, {"Content-Type", " text/plain; x-added=sealmilter"}}, "",
			"A: b\r\n" + addedType + "\r\n"},
		{"our own line in the body", nil, addedType, addedType + "\r\n" + addedType},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := seal(t, Spool{}, test.header, []byte(test.body)).Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for _, eol := range []string{"\n", "\r\n"} {
				if got := string(r.payload(t, write(t, c, eol))); got != test.payload {
					t.Errorf("the payload is\n%q, want\n%q", got, test.payload)
				}
			}
			var shown strings.Builder
			for _, f := range test.header {
				shown.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", "\r\n") + "\r\n")
			}
			shown.WriteString("\r\n" + test.body)
			got, err := Open(write(t, c, "\n"), &Secret{OpenPGP: openpgp.EntityList{r.entity}})
			if err != nil || string(got) != shown.String() {
				t.Errorf("taken apart again it is\n%q, want\n%q (error %v)", got, shown.String(), err)
			}
		})
	}
}

// TestSpool seals messages that stay in memory, that just leave it, and that
// are in the file, and reads each twice.
func TestSpool(t *testing.T) {
	r := newReader(t)
	for _, size := range []int{0, 100, 99_000, 100_000, 101_000, 1 << 20, 3_000_001} {
		body := make([]byte, size)
		rand.Read(body)
		dir := t.TempDir()
		s := seal(t, Spool{Dir: dir, Memory: 100_000}, []Field{{"Content-Type", " text/plain"}}, body)
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("size %d: the spool file has a name: %v", size, left)
		}
		if inFile := s.spool.file != nil; inFile != (size > 99_500) {
			t.Errorf("size %d: in a file: %v", size, inFile)
		}
		want := append([]byte("Content-Type: text/plain\r\n\r\n"), body...)
		for range 2 {
			c, err := s.Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if got := r.payload(t, write(t, c, "\n")); !bytes.Equal(got, want) {
				t.Fatalf("size %d: %d bytes came back, %d were sealed", size, len(got), len(want))
			}
		}
	}
}

// TestCopies makes a copy for each of two readers and one for both. A copy
// opens for those it is for and names nobody else.
func TestCopies(t *testing.T) {
	ann, bob := newReader(t), newReader(t)
	s := seal(t, Spool{Memory: 1 << 20}, nil, []byte("body"))
	for _, to := range [][]reader{{ann}, {bob}, {ann, bob}} {
		var sealTo []*keys.Key
		for _, r := range to {
			sealTo = append(sealTo, r.key, r.key) // one named twice gets one key packet
		}
		c, err := s.Copy(sealTo, Addressing{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		message := write(t, c, "\n")
		for _, r := range to {
			if got, err := Open(message, &Secret{OpenPGP: openpgp.EntityList{r.entity}}); err != nil || string(got) != "\r\nbody" {
				t.Errorf("a reader got %q, error %v", got, err)
			}
		}
		if n := keyPackets(t, message); n != len(to) {
			t.Errorf("a copy for %d readers has %d key packets", len(to), n)
		}
	}
}

func keyPackets(t *testing.T, message []byte) (n int) {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	packets := packet.NewReader(block.Body)
	for {
		p, err := packets.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.(*packet.EncryptedKey); !ok {
			return n
		}
		n++
	}
}

// TestSpoolFull fills a real file system: the error comes out of Write or
// Close, and it comes again however often one tries.
func TestSpoolFull(t *testing.T) {
	bed.NeedRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		bed.Skip(t, "a small file system cannot be mounted: "+err.Error())
	}
	defer syscall.Unmount(dir, 0)
	s, err := Begin(keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256}, Spool{Dir: dir, Memory: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	for i := 0; err == nil && i < 10; i++ {
		_, err = s.Write(make([]byte, 65535))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the error is %v", err)
	}
	if s.Close() == nil {
		t.Error("a message with a hole in it could be closed")
	}
}

func TestSpoolDirMissing(t *testing.T) {
	s, err := Begin(keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256}, Spool{Dir: filepath.Join(t.TempDir(), "gone"), Memory: 0})
	if err == nil {
		_, err = s.Write(make([]byte, 100_000))
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the error is %v", err)
	}
}

// TestDiscarded holds that nothing comes out of a message that was given up,
// and that the file is closed.
func TestDiscarded(t *testing.T) {
	r := newReader(t)
	before := descriptors(t)
	s := seal(t, Spool{Dir: t.TempDir(), Memory: 10}, nil, make([]byte, 100_000))
	c, err := s.Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.Discard()
	if c.WriteBody(io.Discard, "\n") == nil {
		t.Error("a copy of a discarded message was written")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func TestCopyForNobody(t *testing.T) {
	if _, err := seal(t, Spool{}, nil, nil).Copy(nil, Addressing{}, time.Now()); err == nil {
		t.Error("a copy for nobody was made")
	}
}

func TestUnknownMethod(t *testing.T) {
	if _, err := Begin(keys.Form{Method: "rot13", Cipher: keys.AES256}, Spool{}); err == nil {
		t.Error("a method that nobody knows was taken on")
	}
}

// TestOpenRefuses holds that what is not one sealed object, or not whole, is
// not opened.
func TestOpenRefuses(t *testing.T) {
	r := newReader(t)
	c, err := seal(t, Spool{Memory: 1 << 20}, nil, bytes.Repeat([]byte("body "), 500)).Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sound := string(write(t, c, "\n"))
	middle := len(sound) / 2
	changed := []byte(sound)
	changed[middle] ^= 'A' ^ 'B'
	_, boundary, _ := strings.Cut(c.Fields()[0].Value, "boundary=")
	boundary = "--" + strings.Trim(boundary, `"`)
	tests := map[string]string{
		"empty":            "",
		"plain":            "Content-Type: text/plain\n\nbody\n",
		"cut off":          sound[:middle],
		"changed":          string(changed),
		"two types":        "Content-Type: text/plain\n" + sound,
		"a third part":     strings.Replace(sound, boundary+"--", boundary+"\nContent-Type: text/plain\n\nhello\n"+boundary+"--", 1),
		"no version":       strings.Replace(sound, "Version: 1", "Version: 2", 1),
		"another protocol": strings.Replace(sound, "protocol=\"application/pgp", "protocol=\"application/x", 1),
		"not encrypted":    strings.Replace(sound, sound[strings.Index(sound, "-----BEGIN"):strings.Index(sound, "-----END")], literal(t), 1),
		"parts of another": strings.Replace(sound, "application/octet-stream", "text/plain", 1),
	}
	for name, message := range tests {
		if got, err := Open([]byte(message), &Secret{OpenPGP: openpgp.EntityList{r.entity}}); err == nil || got != nil {
			t.Errorf("%s: opened as %q", name, got)
		}
	}
	if _, err := Open([]byte(sound), &Secret{OpenPGP: openpgp.EntityList{newReader(t).entity}}); err == nil {
		t.Error("opened with the key of somebody else")
	}
}

// literal is a message in armor that nobody encrypted, without its last line.
func literal(t *testing.T) string {
	var text strings.Builder
	w, err := armor.Encode(&text, "PGP MESSAGE", nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := packet.SerializeLiteral(nopCloser{w}, true, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	content.Write([]byte("Content-Type: text/plain\r\n\r\nhello\r\n"))
	content.Close()
	w.Close()
	return strings.TrimSuffix(text.String(), "-----END PGP MESSAGE-----")
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// TestShape holds the octets around the armor, and that no two copies share a
// boundary.
func TestShape(t *testing.T) {
	r := newReader(t)
	s := seal(t, Spool{Memory: 1 << 20}, nil, nil)
	seen := make(map[string]bool)
	for range 10 {
		c, err := s.Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		message := string(write(t, c, "\n"))
		_, boundary, _ := strings.Cut(c.Fields()[0].Value, "boundary=")
		boundary = strings.Trim(boundary, `"`)
		if seen[boundary] {
			t.Errorf("the boundary %s comes twice", boundary)
		}
		seen[boundary] = true
		for _, want := range []string{
			"\n\n--" + boundary + "\nContent-Type: application/pgp-encrypted\n",
			"\n\nVersion: 1\n\n--" + boundary + "\nContent-Type: application/octet-stream;",
			"\n\n-----BEGIN PGP MESSAGE-----\n\n",
			"-----END PGP MESSAGE-----\n\n--" + boundary + "--\n",
		} {
			if strings.Count(message, want) != 1 {
				t.Errorf("there is no %q in\n%s", want, message)
			}
		}
	}
}

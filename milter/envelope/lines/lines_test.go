package lines

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// slow is base64 in lines, the slow way.
func slow(content []byte, octets int, eol string) string {
	var text strings.Builder
	encoded := base64.StdEncoding.EncodeToString(content)
	for len(encoded) > 0 {
		n := min(octets/3*4, len(encoded))
		text.WriteString(encoded[:n] + eol)
		encoded = encoded[n:]
	}
	return text.String()
}

// TestLines compares at every length around a line, and around the buffer,
// written in pieces.
func TestLines(t *testing.T) {
	var lengths []int
	for size := range 240 {
		lengths = append(lengths, size)
	}
	lengths = append(lengths, textBuffer/4*3, textBuffer, 200_000)
	for _, eol := range []string{"\n", "\r\n"} {
		for _, size := range lengths {
			content := make([]byte, size)
			rand.Read(content)
			want := slow(content, 57, eol)
			for _, piece := range []int{1, 7, 56, 57, 58, 1000, 65536} {
				var text bytes.Buffer
				w := New(&text, 57, eol)
				for rest := content; len(rest) > 0; {
					n := min(piece, len(rest))
					w.Write(rest[:n])
					rest = rest[n:]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if text.String() != want {
					t.Fatalf("size %d, pieces of %d:\n%s\nwant\n%s", size, piece, text.String(), want)
				}
				if got := Size(int64(size), 57, len(eol)); got != int64(len(want)) {
					t.Fatalf("Size(%d, 57, %d) = %d, want %d", size, len(eol), got, len(want))
				}
			}
		}
	}
}

func TestWriterFails(t *testing.T) {
	for _, room := range []int{0, 1, textBuffer, 4 * textBuffer} {
		disk := &failing{n: room}
		w := New(disk, 57, "\n")
		var err error
		for range 10 {
			_, e := w.Write(make([]byte, textBuffer))
			err = errors.Join(err, e)
		}
		if err == nil {
			t.Errorf("room for %d bytes: no error from Write", room)
		}
		disk.n = 1 << 30
		if w.Close() == nil {
			t.Errorf("room for %d bytes: no error from Close", room)
		}
	}
}

// failing is a writer whose disk is full after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

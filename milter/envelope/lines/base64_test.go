package lines

import (
	"bytes"
	"encoding/base64"
	"io"
	"testing"
)

// FuzzLines compares with encoding/base64: whatever is written, in whatever
// pieces and to lines of whatever length, is its text with line ends in place.
func FuzzLines(f *testing.F) {
	f.Add([]byte(""), uint8(16), uint8(1))
	f.Add([]byte("\x00\x10\x83\x10\x51\x87\x20\x92\x8b\x30\xd3\x8f\x41\x14\x93\x51\x55\x97\x61\x96\x9b\x71\xd7\x9f"), uint8(8), uint8(24))
	f.Add(bytes.Repeat([]byte("\xff\xfe\xfb\xef"), 100), uint8(19), uint8(57))
	f.Add(bytes.Repeat([]byte{0, 1, 2, 3, 4}, 99), uint8(16), uint8(7))
	f.Fuzz(func(t *testing.T, content []byte, triples, piece uint8) {
		octets, step := 3*(int(triples)+1), int(piece)+1
		var text bytes.Buffer
		w := New(&text, octets, "\r\n")
		for rest := content; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			w.Write(rest[:min(step, len(rest))])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if want := slow(content, octets, "\r\n"); text.String() != want {
			t.Fatalf("%x became\n%s, want\n%s", content, &text, want)
		}
		if int64(text.Len()) != Size(int64(len(content)), octets, 2) {
			t.Fatalf("%d octets made %d characters", len(content), text.Len())
		}
	})
}

// BenchmarkLines measures lines of armor and of MIME beside encoding/base64,
// which makes no lines.
func BenchmarkLines(b *testing.B) {
	content := make([]byte, 10<<20)
	for i := range content {
		content[i] = byte(i * 7919 >> 3)
	}
	for name, octets := range map[string]int{"48": 48, "57": 57} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				w := New(io.Discard, octets, "\r\n")
				w.Write(content)
				w.Close()
			}
		})
	}
	b.Run("encoding", func(b *testing.B) {
		text := make([]byte, base64.StdEncoding.EncodedLen(48<<10))
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			for rest := content; len(rest) > 0; rest = rest[min(48<<10, len(rest)):] {
				base64.StdEncoding.Encode(text, rest[:min(48<<10, len(rest))])
			}
		}
	})
}

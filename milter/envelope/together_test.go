package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"sealmilter/milter/envelope/lines"
	"sealmilter/milter/envelope/openpgp"
)

// breaking fails when so many bytes have been written to it.
type breaking struct {
	bytes.Buffer
	after int
}

var errBreaking = errors.New("broken")

func (b *breaking) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.after {
		return 0, errBreaking
	}
	return b.Buffer.Write(p)
}

// TestWriteBodies: what is written together is what is written alone, for
// ciphertexts and prefixes of many lengths, and a writer that fails takes
// nothing from the others.
func TestWriteBodies(t *testing.T) {
	for _, size := range []int{0, 1, 20, 47, 48, 49, 95, 96, 97, 1000, 4096, 100_000, 300_000} {
		s := &spool{settings: Spool{Dir: t.TempDir(), Memory: 64 << 10}}
		for left := size; left > 0; {
			n := min(left, 1+left/3)
			s.Write(bytes.Repeat([]byte{byte(left), byte(left >> 8), 77}, n)[:n])
			left -= n
		}
		var copies []*Copy
		for _, prefix := range []int{0, 1, 48, 57, 94, 94, 94 + 48, 94, 1, 300, 94 + 57} {
			for _, octets := range []int{openpgp.LineOctets, lineOctets} {
				c := &Copy{opening: "a\nb\n", closing: "c\n", spool: s, octets: octets, prefix: bytes.Repeat([]byte{byte(len(copies))}, prefix)}
				c.encoder = func(w io.Writer, eol string) encoder { return lines.New(w, octets, eol) }
				if octets == openpgp.LineOctets {
					c.encoder = func(w io.Writer, eol string) encoder { return openpgp.Armor{}.Writer(w, eol) }
				}
				copies = append(copies, c)
			}
		}
		got := make([]*breaking, len(copies))
		to := make([]io.Writer, len(copies))
		for i := range copies {
			got[i] = &breaking{after: 1 << 20}
			if i%5 == 3 {
				got[i].after = size / 2
			}
			to[i] = got[i]
		}
		for i, err := range WriteBodies(copies, to, "\r\n") {
			var alone bytes.Buffer
			if err := copies[i].WriteBody(&alone, "\r\n"); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%d octets behind %d, lines of %d", size, len(copies[i].prefix), copies[i].octets)
			switch {
			case i%5 == 3 && (!errors.Is(err, errBreaking) || !bytes.HasPrefix(alone.Bytes(), got[i].Bytes())):
				t.Errorf("%s: error %v where the writer breaks", what, err)
			case i%5 != 3 && (err != nil || !bytes.Equal(got[i].Bytes(), alone.Bytes())):
				t.Errorf("%s: error %v, together\n%.300q, alone\n%.300q", what, err, got[i].Bytes(), alone.Bytes())
			}
		}
		s.close()
		if err := WriteBodies(copies[:1], to[:1], "\n")[0]; err == nil {
			t.Error("a closed spool was written")
		}
	}
}

package envelope

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// TestSpoolSizes fills spools of several sizes in pieces of several sizes, past the
// places where a mapping and a file begin, and reads each twice.
func TestSpoolSizes(t *testing.T) {
	content := make([]byte, 9<<20)
	rand.Read(content)
	for _, memory := range []int64{0, 100, 1 << 20, 3<<20 - 1, 3 << 20, 8 << 20, 64 << 20} {
		for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20, 8<<20 + 1, 9 << 20} {
			for _, piece := range []int{65_535, 1 << 20, 10 << 20} {
				s := &spool{settings: Spool{Dir: t.TempDir(), Memory: memory}}
				for rest := content[:size]; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := s.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if inFile := s.file != nil; inFile != (int64(size) > memory) {
					t.Errorf("%d octets of %d in memory: in a file %t", size, memory, inFile)
				}
				if mapped := s.mapped != nil; mapped && (s.file != nil || size <= mapFrom) {
					t.Errorf("%d octets of %d in memory: a mapping nobody needs", size, memory)
				}
				for range 2 {
					var got bytes.Buffer
					if _, err := s.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), content[:size]) {
						t.Fatalf("%d octets of %d in memory: %d came back, error %v", size, memory, got.Len(), err)
					}
				}
				s.close()
				if _, err := s.WriteTo(&bytes.Buffer{}); err == nil || s.mapped != nil || s.blocks != nil {
					t.Errorf("%d octets of %d in memory: a closed spool holds something", size, memory)
				}
			}
		}
	}
}

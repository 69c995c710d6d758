package cms

import (
	"bytes"
	"testing"

	"sealmilter/testdata/bed"
)

func (r *reader) inFiles(t testing.TB) bed.Identity {
	t.Helper()
	key, certificate := r.files(t)
	return bed.Identity{Key: key, Certificate: certificate}
}

// TestOpenedByGPGSM opens what is sealed to an RSA key, alone and beside keys of
// every kind.
func TestOpenedByGPGSM(t *testing.T) {
	readers := newReaders(t)
	for _, r := range readers[:2] {
		openEverySize(t, bed.NewGPGSM(t, r.inFiles(t)).Open, r, readers)
	}
}

// TestOpenedByNSS opens what is sealed to an RSA key, alone and beside another.
// NSS before 3.100 takes no message with a KeyAgreeRecipientInfo in it, even
// for its RSA recipients (Mozilla's bug 676100), whoever wrote it.
func TestOpenedByNSS(t *testing.T) {
	readers := newReaders(t)[:2]
	for _, r := range readers {
		openEverySize(t, bed.NewNSS(t, r.inFiles(t)).Open, r, readers)
	}
}

// openEverySize opens messages to r alone, and to all where the size makes no
// difference to what stands in front.
func openEverySize(t *testing.T, open func(testing.TB, []byte) []byte, r *reader, all []*reader) {
	t.Helper()
	for _, name := range everyForm[:2] {
		f := forms[name]
		t.Run(r.name+"/"+name, func(t *testing.T) {
			for _, size := range []int{0, 1, 15, 16, 17, 191, 65535, 65536, 1 << 20, 10 << 20} {
				content := random(size)
				if got := open(t, seal(t, f, content, 5003, plain(r)...)); !bytes.Equal(got, content) {
					t.Fatalf("size %d, alone: %d bytes came back", size, len(got))
				}
				if size > 100 && size < 1<<20 {
					if got := open(t, seal(t, f, content, 5003, plain(all...)...)); !bytes.Equal(got, content) {
						t.Fatalf("size %d, with others: %d bytes came back", size, len(got))
					}
				}
			}
		})
	}
}

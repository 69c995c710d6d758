package cms

import (
	"errors"
	"io"
	"sync"
	"testing"

	"sealmilter/milter/envelope/lines"
)

// TestFreshKeys holds that no two copies share an ephemeral key, and no two
// messages a content key or an initialization vector.
func TestFreshKeys(t *testing.T) {
	to := plain(newReader(t, "p256", certificateOptions{}), newReader(t, "p256", certificateOptions{}))
	seen := make(map[string]bool)
	for range 10 {
		e, ciphertext := encrypt(t, cbc256, []byte("content"), 100)
		for _, secret := range [][]byte{e.key, e.iv} {
			if seen[string(secret)] {
				t.Fatal("a key or an initialization vector was used twice")
			}
			seen[string(secret)] = true
		}
		for range 10 {
			prefix, err := e.Prefix(to)
			if err != nil {
				t.Fatal(err)
			}
			_, _, agreements := strictly(t, append(prefix, ciphertext...))
			for _, a := range agreements {
				if ephemeral := string(a.Originator.FullBytes); seen[ephemeral] {
					t.Fatal("an ephemeral key was used twice")
				} else {
					seen[ephemeral] = true
				}
			}
		}
	}
}

// TestSharedCertificates seals many messages to the same certificates at the
// same time, and one message's copies too; the race detector looks on.
func TestSharedCertificates(t *testing.T) {
	to := plain(newReaders(t)...)
	e, _ := encrypt(t, cbc256, []byte("content"), 100)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			own, _ := encrypt(t, gcm256, []byte("content"), 100)
			for _, each := range []*Encrypter{own, e} {
				if _, err := each.Prefix(to); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestCopyNeedsItsParts holds that nothing comes out before the end, no copy
// for nobody, and no message without a cipher.
func TestCopyNeedsItsParts(t *testing.T) {
	to := plain(newReader(t, "p256", certificateOptions{}))
	e, err := NewEncrypter(io.Discard, AES256, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Prefix(to); err == nil {
		t.Error("recipients were made for an unfinished message")
	}
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Error(err)
	}
	if _, err := e.Prefix(nil); err == nil {
		t.Error("a copy for nobody was made")
	}
	if _, err := e.Write([]byte("more")); err == nil {
		t.Error("content was taken behind the end")
	}
	for _, c := range []Cipher{0, 3, -1} {
		if _, err := NewEncrypter(io.Discard, c, Options{}); err == nil {
			t.Errorf("cipher %d was taken", c)
		}
	}
}

// TestMemory holds that a message takes its buffers once, however long it is.
func TestMemory(t *testing.T) {
	e, err := NewEncrypter(io.Discard, AES256, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := lines.New(io.Discard, 57, "\r\n")
	content := random(65535)
	allocations := testing.AllocsPerRun(100, func() {
		e.Write(content)
		w.Write(content)
	})
	if allocations != 0 {
		t.Errorf("%v allocations for each Write", allocations)
	}
	if held := cap(e.mode.(*cbc).buffer); held > 100<<10 {
		t.Errorf("%d octets are held", held)
	}
}

// failing is a writer whose disk is full after n bytes. It writes less and
// says nothing where silent is set, as no writer should.
type failing struct {
	n      int
	silent bool
}

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n >= 0 {
		return len(p), nil
	}
	if f.silent {
		return len(p) - 1, nil
	}
	return 0, io.ErrShortWrite
}

// TestWriterFails holds that a message with a hole in it is never completed,
// even where the disk has room again.
func TestWriterFails(t *testing.T) {
	to := plain(newReader(t, "p256", certificateOptions{}))
	for _, silent := range []bool{false, true} {
		for _, room := range []int{0, 1, bufferSize - 1, bufferSize, 3 * bufferSize} {
			disk := &failing{room, silent}
			e, err := NewEncrypter(disk, AES256, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				e.Write(make([]byte, bufferSize-1))
			}
			disk.n = 1 << 30
			if err := e.Close(); err == nil {
				t.Errorf("room for %d octets: no error", room)
			}
			if _, err := e.Prefix(to); err == nil {
				t.Errorf("room for %d octets: a copy was made", room)
			}
		}
	}
}

// TestTooLong begins where the longest message nearly ends.
func TestTooLong(t *testing.T) {
	for _, over := range []int64{0, 1} {
		e, err := NewEncrypter(io.Discard, AES256, Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.out.size = maxSize - 16*(1-over)
		if err := e.Close(); (err != nil) != (over == 1) {
			t.Errorf("%d blocks too long: error %v", over, err)
		}
	}
}

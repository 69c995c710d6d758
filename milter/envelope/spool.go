package envelope

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Spool says where a message waits for its end: ciphertext, or in memory and
// under the budget what must be held whole.
type Spool struct {
	Dir    string // of the spool file; "" is the system's folder for temporary files
	Memory int64  // bytes of one message that are held in memory before a file is made
	Budget *Budget
}

// blockSize is the unit in which a spool takes memory.
const blockSize = 64 << 10

// spool is a write-once store of bytes that can be read any number of times:
// memory up to a bound, then a file that has no name. Only ciphertext is ever
// written to it.
type spool struct {
	settings Spool
	blocks   [][]byte
	mapped   []byte // the last block, where it is a mapping of its own
	size     int64
	file     *os.File
	err      error
}

// Write appends p. After an error every further Write fails with it: a spool
// with a hole in it must not be taken for a message.
func (s *spool) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.file == nil && s.size+int64(len(p)) > s.settings.Memory {
		if s.err = s.spill(); s.err != nil {
			return 0, s.err
		}
	}
	if s.file == nil {
		s.remember(p)
	} else if _, err := s.file.Write(p); err != nil {
		s.err = fmt.Errorf("writing the spool file: %w", err)
		return 0, s.err
	}
	s.size += int64(len(p))
	return len(p), nil
}

func (s *spool) remember(p []byte) {
	for len(p) > 0 {
		last := len(s.blocks) - 1
		if last < 0 || len(s.blocks[last]) == cap(s.blocks[last]) {
			s.blocks = append(s.blocks, s.newBlock(len(p)))
			last++
		}
		block := s.blocks[last]
		n := min(cap(block)-len(block), len(p))
		s.blocks[last], p = append(block, p[:n]...), p[n:]
	}
}

// mapFrom is how much is held before the rest that may be held gets a mapping of
// its own.
const mapFrom = 1 << 20

// newBlock is room for n octets or some of them. Where much more may be held, it
// is all the room that there may be: address space, of which the system makes
// memory as it is written to, in large pages where it has them. In small pages
// that takes as long as the encryption's checksum.
func (s *spool) newBlock(n int) []byte {
	held := int64(0)
	for _, block := range s.blocks {
		held += int64(len(block))
	}
	if room := s.settings.Memory - held; held >= mapFrom && room >= 2*mapFrom && s.mapped == nil {
		mapped, err := syscall.Mmap(-1, 0, int(room), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err == nil {
			_ = syscall.Madvise(mapped, syscall.MADV_HUGEPAGE) // a system without them does as it can
			s.mapped = mapped
			return mapped[:0]
		}
	}
	return make([]byte, 0, min(blockSize, max(n, 4<<10)))
}

// unmap gives the mapping back.
func (s *spool) unmap() {
	if s.mapped != nil {
		_ = syscall.Munmap(s.mapped) // it is ours, and whole
		s.mapped = nil
	}
}

// spill makes the file, takes its name away at once, so that nothing is left
// of it whatever happens to the process, and moves the memory there.
func (s *spool) spill() error {
	file, err := os.CreateTemp(s.settings.Dir, "sealmilter-*")
	if err != nil {
		return fmt.Errorf("making a spool file: %w", err)
	}
	s.file = file
	if err := os.Remove(file.Name()); err != nil {
		return fmt.Errorf("unlinking the spool file: %w", err)
	}
	for _, block := range s.blocks {
		if _, err := file.Write(block); err != nil {
			return fmt.Errorf("writing the spool file: %w", err)
		}
	}
	s.blocks = nil
	s.unmap()
	return nil
}

// WriteTo writes all that the spool holds to w.
func (s *spool) WriteTo(w io.Writer) (int64, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.file != nil {
		n, err := io.CopyBuffer(w, onlyReader{io.NewSectionReader(s.file, 0, s.size)}, make([]byte, blockSize))
		if err == nil && n != s.size {
			err = errors.New("the spool file is shorter than what was written to it")
		}
		return n, err
	}
	var written int64
	for _, block := range s.blocks {
		n, err := w.Write(block)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// onlyReader hides io.SectionReader's WriteTo, whose buffer is its own.
type onlyReader struct{ io.Reader }

// close gives memory and file back. A closed spool fails every use.
func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
	s.unmap()
	s.file, s.blocks, s.err = nil, nil, errors.New("internal error: a spool was used after its message had ended")
}

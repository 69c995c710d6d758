package cms

import (
	"fmt"
	"syscall"
)

// held is content in one piece, which GCM wants it in. It grows in address space
// that is reserved for the longest message and costs nothing; memory is only
// what is used of it. So nothing is copied to a larger place, both held at that
// moment, nothing waits for the garbage collector when a message has ended, and
// the budget is about what the system sees.
type held struct {
	budget   Budget
	reserved []byte
	usable   int    // octets of it that are memory, and taken from the budget
	octets   []byte // the content; there is room for an ICV behind it
}

const (
	// reservation is for the longest message, all that GCM adds to it, and to
	// the end of a page of any size in use.
	reservation = maxSize + growth
	// growth is the least that is made usable: a short message takes no more.
	growth = 64 << 10
	// A long message grows by this part of it.
	growthPart = 16
)

// add copies content. The budget's error comes back wrapped.
func (h *held) add(p []byte) error {
	size := len(h.octets)
	if int64(size)+int64(len(p)) > maxSize {
		return errTooLong
	}
	if needed := size + len(p) + icvSize; needed > h.usable {
		if err := h.grow(needed); err != nil {
			return fmt.Errorf("holding the message for GCM: %w", err)
		}
	}
	h.octets = h.reserved[: size+len(p) : h.usable]
	copy(h.octets[size:], p)
	return nil
}

// grow makes memory of the reservation up to needed octets or somewhat more.
func (h *held) grow(needed int) (err error) {
	if h.reserved == nil {
		h.reserved, err = syscall.Mmap(-1, 0, reservation, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return fmt.Errorf("reserving address space: %w", err)
		}
	}
	step := max(needed-h.usable, h.usable/growthPart)
	step = min((step+growth-1)/growth*growth, reservation-h.usable)
	if h.budget != nil {
		if err := h.budget.Take(int64(step)); err != nil {
			return err
		}
	}
	grown := h.usable + step
	if err := syscall.Mprotect(h.reserved[h.usable:grown], syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		h.give(step)
		return fmt.Errorf("taking memory: %w", err)
	}
	h.usable = grown
	return nil
}

// discard wipes the content and gives back all memory. What the system would not
// have back stays counted.
func (h *held) discard() {
	if h.reserved == nil {
		return
	}
	clear(h.octets)
	if syscall.Munmap(h.reserved) == nil {
		h.give(h.usable)
	}
	h.reserved, h.octets, h.usable = nil, nil, 0
}

func (h *held) give(octets int) {
	if h.budget != nil && octets > 0 {
		h.budget.Give(int64(octets))
	}
}

package envelope

import (
	"fmt"
	"sync/atomic"
)

// Budget bounds the memory that all messages together may take which must be
// held whole before they are sealed (S/MIME with AES-GCM). It is safe for
// concurrent use; the nil Budget is without bound.
type Budget struct {
	limit int64
	taken atomic.Int64
}

// NewBudget makes a budget of limit octets.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Take takes octets of the budget. The error says that they are not left, and
// then none are taken.
func (b *Budget) Take(octets int64) error {
	if b == nil {
		return nil
	}
	for {
		// What does not fit is never counted, not for a moment either: others, for
		// whom there is room, would find none.
		taken := b.taken.Load()
		if taken+octets > b.limit {
			return fmt.Errorf("the messages that are being sealed would take %d octets of memory, and %d is the most ([spool] total)", taken+octets, b.limit)
		}
		if b.taken.CompareAndSwap(taken, taken+octets) {
			return nil
		}
	}
}

// Give gives octets back that were taken.
func (b *Budget) Give(octets int64) {
	if b != nil {
		b.taken.Add(-octets)
	}
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealmilter/keys"
)

// copiesRealLease: the store has a clock of its own.
func copiesRealLease(t *testing.T, s CopyStore) {
	const short = 300 * time.Millisecond
	start := time.Now()
	if _, err := s.Begin(context.Background(), "one", copiesOf("a"), short); err != nil {
		t.Fatal(err)
	}
	tries := 0
	for {
		tried := time.Now()
		_, err := s.Begin(context.Background(), "two", copiesOf("a"), short)
		if err == nil {
			break
		}
		if !errors.Is(err, keys.ErrBusy) || tried.Sub(start) > 20*short {
			t.Fatalf("after %v: %v", tried.Sub(start), err)
		}
		tries++
		time.Sleep(20 * time.Millisecond)
	}
	if took := time.Since(start); took < short || tries == 0 {
		t.Errorf("the claim was taken after %v, at try %d", took, tries)
	}
}

// claims is what the store should know, kept beside it. A copy's own claim
// makes it safe to read and write what is known of it: that is the thing
// tested, so that it is under no lock, and the race detector watches.
type claims struct {
	owners []atomic.Pointer[string]
	sent   []bool
}

// copiesAtOnce: many transactions claim overlapping copies, from two daemons.
// Each copy has one owner at a time, and whoever gets it is told what the last
// one left.
func copiesAtOnce(t *testing.T, s CopyStore) {
	const workers, rounds, copies = 16, 60, 12
	known := &claims{make([]atomic.Pointer[string], copies), make([]bool, copies)}
	memories := []Memory{s, s.Another(t)}
	var began, refused atomic.Int64
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(5, uint64(worker)))
			for round := range rounds {
				owner := fmt.Sprintf("worker %d, round %d", worker, round)
				some := random.Perm(copies)[:1+random.IntN(4)]
				if known.transaction(t, memories[worker%2], owner, some, random) {
					began.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d transactions began, %d met another", began.Load(), refused.Load())
	if began.Load() < rounds || refused.Load() == 0 {
		t.Error("the transactions were not in each other's way, or nothing else")
	}
}

// transaction is one from its beginning to an end of either kind.
func (c *claims) transaction(t *testing.T, m Memory, owner string, some []int, random *rand.Rand) bool {
	ctx := context.Background()
	var copies [][]byte
	for _, i := range some {
		copies = append(copies, copyOf(fmt.Sprint(i)))
	}
	sent, err := m.Begin(ctx, owner, copies, lease)
	if err != nil {
		if !errors.Is(err, keys.ErrBusy) {
			t.Errorf("Begin: %v", err)
		}
		return false
	}
	for n, i := range some {
		if other := c.owners[i].Swap(&owner); other != nil {
			t.Errorf("%s has a copy of %s", owner, *other)
		}
		if sent[n] != c.sent[i] {
			t.Errorf("%s is told sent %v, it was %v", owner, sent[n], c.sent[i])
		}
		if random.IntN(2) == 0 {
			if err := m.Sent(ctx, owner, copies[n]); err != nil {
				t.Errorf("Sent: %v", err)
			}
			c.sent[i] = true
		}
	}
	forget := random.IntN(3) == 0
	for _, i := range some {
		c.sent[i] = c.sent[i] && !forget
		c.owners[i].Store(nil)
	}
	if err := m.End(ctx, owner, copies, forget); err != nil {
		t.Errorf("End: %v", err)
	}
	return true
}

// copiesCrossed: two transactions that want the same copies in opposite orders
// never wait for each other.
func copiesCrossed(t *testing.T, s CopyStore) {
	var copies, backward [][]byte
	for i := range 100 {
		copies = append(copies, copyOf(fmt.Sprint(i)))
	}
	for i := range copies {
		backward = append(backward, copies[len(copies)-1-i])
	}
	for round := range 20 {
		var got atomic.Int64
		var wait sync.WaitGroup
		for i, m := range []Memory{s, s.Another(t), s, s.Another(t)} {
			wait.Go(func() {
				owner, list := fmt.Sprint(round, " ", i), copies
				if i%2 == 1 {
					list = backward
				}
				_, err := m.Begin(context.Background(), owner, list, lease)
				switch {
				case err == nil:
					got.Add(1)
				case !errors.Is(err, keys.ErrBusy):
					t.Errorf("Begin: %v", err)
				}
			})
		}
		wait.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d of 4 have the claim", got.Load())
		}
		s.Age(t, 2*lease)
	}
}

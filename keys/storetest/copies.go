package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// Memory is a store's memory of copies in flight, as the daemon uses it.
type Memory interface {
	Begin(ctx context.Context, owner string, copies [][]byte, lease time.Duration) (sent []bool, err error)
	Sent(ctx context.Context, owner string, copy []byte) error
	End(ctx context.Context, owner string, copies [][]byte, forget bool) error
}

// CopyStore is a memory under test.
type CopyStore interface {
	Memory
	// Another is the same memory as another daemon has it open.
	Another(t testing.TB) Memory
	// Age lets time pass: every end of a claim is moved into the past by it.
	Age(t testing.TB, by time.Duration)
	// Count is how many copies are remembered.
	Count(t testing.TB) int
}

// lease is longer than any test.
const lease = 10 * time.Minute

// Copies runs the suite for the memory of copies. Open returns an empty one,
// closed by the test.
func Copies(t *testing.T, open func(t *testing.T) CopyStore) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s CopyStore)
	}{
		{"forgotten", copiesForgotten},
		{"kept for a retry", copiesKept},
		{"all or none", copiesAllOrNone},
		{"taken over", copiesTakenOver},
		{"noted too late", copiesNotedLate},
		{"ended too late", copiesEndedLate},
		{"a lease in real time", copiesRealLease},
		{"claimed again", copiesClaimedAgain},
		{"no longer than any queue", copiesTooOld},
		{"purged in bites", copiesPurged},
		{"named twice", copiesTwice},
		{"none, and nonsense", copiesNonsense},
		{"cancelled", copiesCancelled},
		{"many at once", copiesAtOnce},
		{"in another order", copiesCrossed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// copyOf is the hash of a copy.
func copyOf(name string) []byte {
	hash := sha256.Sum256([]byte(name))
	return hash[:]
}

// copiesOf are those of several, named in one word.
func copiesOf(names string) (copies [][]byte) {
	for _, name := range strings.Fields(names) {
		copies = append(copies, copyOf(name))
	}
	return copies
}

// begin claims copies that must be free, and wants those in sent to have been
// sent.
func begin(t testing.TB, m Memory, owner, names, sent string) {
	t.Helper()
	got, err := m.Begin(context.Background(), owner, copiesOf(names), lease)
	if err != nil {
		t.Fatalf("%s begins with %s: %v", owner, names, err)
	}
	for i, name := range strings.Fields(names) {
		if want := slices.Contains(strings.Fields(sent), name); len(got) <= i || got[i] != want {
			t.Errorf("%s begins with %s: %v, want sent: %q", owner, names, got, sent)
			return
		}
	}
}

// busy begins with copies of which another has one.
func busy(t testing.TB, m Memory, owner, names string) {
	t.Helper()
	sent, err := m.Begin(context.Background(), owner, copiesOf(names), lease)
	if !errors.Is(err, keys.ErrBusy) || errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrClaimLost) || sent != nil {
		t.Errorf("%s begins with %s: %v, %v, want ErrBusy", owner, names, sent, err)
	}
}

func note(t testing.TB, m Memory, owner, name string) {
	t.Helper()
	if err := m.Sent(context.Background(), owner, copyOf(name)); err != nil {
		t.Fatalf("%s has sent %s: %v", owner, name, err)
	}
}

func end(t testing.TB, m Memory, owner, names string, forget bool) {
	t.Helper()
	if err := m.End(context.Background(), owner, copiesOf(names), forget); err != nil {
		t.Fatalf("%s ends with %s: %v", owner, names, err)
	}
}

// lost wants an error to say that the claim is.
func lost(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, keys.ErrClaimLost) || errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrBusy) {
		t.Errorf("%s: %v, want ErrClaimLost", what, err)
	}
}

func count(t testing.TB, s CopyStore, want int) {
	t.Helper()
	if got := s.Count(t); got != want {
		t.Errorf("%d copies are remembered, want %d", got, want)
	}
}

// copiesForgotten: an equal message that comes after the MTA has gone on is a
// message of its own.
func copiesForgotten(t *testing.T, s CopyStore) {
	for range 2 {
		begin(t, s, "one", "a b c", "")
		count(t, s, 3)
		note(t, s, "one", "a")
		note(t, s, "one", "b")
		note(t, s, "one", "b") // twice is once
		end(t, s, "one", "a b c", true)
		count(t, s, 0)
	}
}

// copiesKept: a retry learns what has been sent, as often as it takes, and may
// be of other copies besides.
func copiesKept(t *testing.T, s CopyStore) {
	begin(t, s, "one", "a b c", "")
	note(t, s, "one", "b")
	end(t, s, "one", "a b c", false)
	count(t, s, 1) // of what was not sent there is nothing to remember
	begin(t, s.Another(t), "two", "c b d", "b")
	note(t, s, "two", "d")
	end(t, s, "two", "c b d", false)
	begin(t, s, "three", "d c b a", "d b")
	end(t, s, "three", "a b c d", true)
	count(t, s, 0)
	begin(t, s, "four", "a b c d", "")
}

// copiesAllOrNone: a claim that fails leaves nothing behind, be the copy that
// is claimed the first, the last or one between.
func copiesAllOrNone(t *testing.T, s CopyStore) {
	begin(t, s, "one", "m", "")
	other := s.Another(t)
	for i := range 8 { // the hashes of some come before that of m, of others after
		a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
		busy(t, other, "two", a+" m "+b)
		busy(t, other, "two", "m "+a+" "+b)
		busy(t, other, "two", b+" "+a+" m")
		count(t, s, 1)
		begin(t, other, "three", a+" "+b, "")
		end(t, other, "three", a+" "+b, true)
	}
	note(t, s, "one", "m")
	busy(t, other, "two", "m")
	end(t, s, "one", "m", false)
	begin(t, other, "two", "m", "m")
}

// copiesTakenOver: the claim of a daemon that died is free when its lease is
// over, with what it had noted, and the dead one cannot come back.
func copiesTakenOver(t *testing.T, s CopyStore) {
	other := s.Another(t)
	begin(t, s, "dead", "a b", "")
	note(t, s, "dead", "a")
	s.Age(t, lease-time.Minute)
	busy(t, other, "heir", "a b")
	s.Age(t, 2*time.Minute)
	begin(t, other, "heir", "b a", "a")
	lost(t, "the dead one ends", s.End(context.Background(), "dead", copiesOf("a b"), true))
	lost(t, "the dead one ends", s.End(context.Background(), "dead", copiesOf("a b"), false))
	busy(t, s, "third", "a")
	busy(t, s, "dead", "b")
	note(t, other, "heir", "b")
	end(t, other, "heir", "a b", true)
	count(t, s, 0)
	lost(t, "the dead one has sent", s.Sent(context.Background(), "dead", copyOf("a")))
	count(t, s, 0) // what has been forgotten does not come back
}

// copiesNotedLate: a copy that was accepted has been accepted, whoever claims it
// when that is noted. The owner is told to give up.
func copiesNotedLate(t *testing.T, s CopyStore) {
	begin(t, s, "slow", "a b", "")
	s.Age(t, lease)
	lost(t, "sent after the lease", s.Sent(context.Background(), "slow", copyOf("a")))
	begin(t, s, "heir", "a b", "a")
	lost(t, "sent under another's claim", s.Sent(context.Background(), "slow", copyOf("b")))
	end(t, s, "heir", "a b", false)
	begin(t, s, "retry", "a b", "a b")
	lost(t, "what nobody has claimed", s.Sent(context.Background(), "slow", copyOf("c")))
}

// copiesEndedLate: what nobody has taken ends as it was asked, and the owner is
// told that the lease was over.
func copiesEndedLate(t *testing.T, s CopyStore) {
	begin(t, s, "slow", "a b", "")
	note(t, s, "slow", "a")
	s.Age(t, lease)
	lost(t, "kept after the lease", s.End(context.Background(), "slow", copiesOf("a b"), false))
	count(t, s, 1)
	begin(t, s, "slower", "a b", "a")
	s.Age(t, lease)
	begin(t, s, "heir", "b", "")
	lost(t, "forgotten after the lease", s.End(context.Background(), "slower", copiesOf("a b"), true))
	count(t, s, 1)
	busy(t, s, "third", "b")
	begin(t, s, "third", "a", "")
}

// copiesClaimedAgain: an owner renews its own claim, and may add to it.
func copiesClaimedAgain(t *testing.T, s CopyStore) {
	begin(t, s, "one", "a", "")
	note(t, s, "one", "a")
	s.Age(t, lease-time.Minute)
	begin(t, s, "one", "a b", "a")
	s.Age(t, 2*time.Minute)
	busy(t, s, "two", "a")
	note(t, s, "one", "b")
	end(t, s, "one", "a b", true)
	count(t, s, 0)
}

// copiesTooOld: what no queue can hold any more counts for nothing, even if
// nobody has purged it.
func copiesTooOld(t *testing.T, s CopyStore) {
	begin(t, s, "one", "a b", "")
	note(t, s, "one", "a")
	note(t, s, "one", "b")
	end(t, s, "one", "a", false)
	s.Age(t, keys.CopiesKept-time.Minute)
	begin(t, s, "two", "a", "a") // a retry, from which on it counts anew
	end(t, s, "two", "a", false)
	s.Age(t, keys.CopiesKept+lease+time.Minute)
	begin(t, s, "three", "a b", "")
	count(t, s, 2)
}

// copiesPurged: each Begin takes some of the old ones away and nothing else.
func copiesPurged(t *testing.T, s CopyStore) {
	const old = 250
	var names []string
	for i := range old {
		names = append(names, fmt.Sprint("old", i))
	}
	all := strings.Join(names, " ")
	begin(t, s, "one", all, "")
	for _, name := range names {
		note(t, s, "one", name)
	}
	end(t, s, "one", all, false)
	s.Age(t, keys.CopiesKept-time.Minute)
	begin(t, s, "two", "kept", "")
	note(t, s, "two", "kept")
	end(t, s, "two", "kept", false)
	count(t, s, old+1)
	s.Age(t, 2*time.Minute)
	before, bites := old+1, 0
	for before > 1 {
		begin(t, s, "three", "new", "")
		end(t, s, "three", "new", true)
		now := s.Count(t)
		if taken := before - now; taken < 1 || taken > 120 {
			t.Fatalf("%d of %d have been taken at once", taken, before)
		}
		before, bites = now, bites+1
	}
	if bites < 2 {
		t.Error("all old copies were purged at once")
	}
	begin(t, s, "four", "kept", "kept")
}

// copiesTwice: a copy that is named twice is one.
func copiesTwice(t *testing.T, s CopyStore) {
	begin(t, s, "one", "a b a", "")
	count(t, s, 2)
	note(t, s, "one", "a")
	end(t, s, "one", "a b a", false)
	begin(t, s, "two", "b a a", "a")
	end(t, s, "two", "a b a", true)
	count(t, s, 0)
}

func copiesNonsense(t *testing.T, s CopyStore) {
	ctx := context.Background()
	if sent, err := s.Begin(ctx, "one", nil, lease); err != nil || len(sent) != 0 {
		t.Errorf("no copies: %v, %v", sent, err)
	}
	if err := s.End(ctx, "one", nil, true); err != nil {
		t.Errorf("no copies: %v", err)
	}
	for _, hash := range [][]byte{nil, {}, []byte("short"), make([]byte, keys.CopyHashSize+1)} {
		if _, err := s.Begin(ctx, "one", [][]byte{copyOf("a"), hash}, lease); !errors.Is(err, keys.ErrStore) {
			t.Errorf("a hash of %d bytes: %v", len(hash), err)
		}
	}
	if _, err := s.Begin(ctx, "", copiesOf("a"), lease); !errors.Is(err, keys.ErrStore) {
		t.Errorf("no owner: %v", err)
	}
	count(t, s, 0)
}

func copiesCancelled(t *testing.T, s CopyStore) {
	begin(t, s, "one", "a", "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Begin(ctx, "two", copiesOf("b"), lease)
	for what, err := range map[string]error{"Begin": err, "Sent": s.Sent(ctx, "one", copyOf("a")), "End": s.End(ctx, "one", copiesOf("a"), true)} {
		if !errors.Is(err, keys.ErrStore) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want ErrStore and Canceled", what, err)
		}
	}
	count(t, s, 1)
	end(t, s, "one", "a", false)
	count(t, s, 0)
}

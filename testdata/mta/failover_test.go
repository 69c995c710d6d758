package mta_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestFailover
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ PostgreSQL: a standby near it, and its primary
//	                                     ║
//	                                     ╚════▶ a listener of the test's own
//
// Under load the primary is killed and comes back, the standby is killed and
// comes back, the primary hangs, and in the end it is gone and the standby is
// promoted. What is deferred is sent again. Nothing is lost, nothing is in the
// clear that should not be, and whatever the servers there can answer goes on.
func TestFailover(t *testing.T) { failOver(t, true) }

// TestFailoverPrimaryFirst is the same for a daemon that names the primary first.
func TestFailoverPrimaryFirst(t *testing.T) { failOver(t, false) }

func failOver(t *testing.T, standbyFirst bool) {
	f := newFailover(t, standbyFirst)
	near := f.db
	if standbyFirst {
		near = f.standby
	}
	f.load(t, func() { f.enter("both there"); time.Sleep(600 * time.Millisecond) })
	f.flows(t, "both there", sealing, passing, splitting)
	if n := f.asked(t, near); n > 1 { // that the domain has no key is forgotten after ten seconds
		t.Errorf("20 messages asked the store %d times, although it tells of all changes", n)
	}

	f.killPrimary(t)
	f.killStandby(t)
	f.hang(t)
	f.promote(t)

	f.deliver(t)
	doubles := f.account(t)
	if most := f.stops * 4 * 3; doubles > most { // four transactions were under way, of three copies
		t.Errorf("%d copies came twice, at most %d were accepted and not yet noted", doubles, most)
	}
	deferred := 0
	for _, a := range f.attempts {
		deferred += min(len(a.refused), 1)
	}
	t.Logf("%d messages, %d attempts of which %d were deferred, %d doubles over %d stops", len(f.letters), len(f.attempts), deferred, doubles, f.stops)
	for _, phase := range []string{"both there", "primary gone", "primary back", "standby gone", "primary hangs", "primary hangs on", "both hang", "primary goes on", "standby promoted"} {
		t.Log(f.summary(phase))
	}
	for _, bad := range []string{"panic", "internal error"} {
		if strings.Contains(f.daemon.Log(), bad) {
			t.Errorf("the log has %q", bad)
		}
	}
}

// killPrimary: lookups go on, nothing can be noted, and nothing is remembered.
func (f *failover) killPrimary(t *testing.T) {
	t.Helper()
	following, cut := strings.Count(f.daemon.Log(), follows), strings.Count(f.daemon.Log(), lost)
	f.stops++
	f.load(t, func() {
		time.Sleep(100 * time.Millisecond)
		f.db.Stop(t)
		f.enter("primary gone")
		time.Sleep(1200 * time.Millisecond)
	})
	f.flows(t, "primary gone", sealing, passing)
	if accepted, refused, longest := f.count("primary gone", splitting, false); accepted > 0 || refused == 0 || longest > 2*time.Second {
		t.Errorf("primary gone: of those split %d were accepted and %d deferred, in up to %v", accepted, refused, longest)
	}
	if !strings.Contains(f.daemon.Log(), "copies in flight must be written") {
		t.Error("the log does not say why what is split was deferred")
	}
	if n := strings.Count(f.daemon.Log(), lost); n <= cut {
		t.Error("the log does not say that changes are not told of")
	}
	if n := f.asked(t, f.standby); n < 20 {
		t.Errorf("20 messages asked the standby %d times while changes could be missed", n)
	}
	f.load(t, func() {
		f.db.Start(t)
		f.followed(t, following+1)
		f.enter("primary back")
		time.Sleep(600 * time.Millisecond)
	})
	f.flows(t, "primary back", sealing, passing, splitting)
	f.standby.CatchUp(t, f.db)
	f.takesEffect(t, "back@bed.test")
}

// killStandby: lookups go to the primary, as all else does.
func (f *failover) killStandby(t *testing.T) {
	t.Helper()
	f.load(t, func() {
		time.Sleep(100 * time.Millisecond)
		f.standby.Stop(t)
		f.enter("standby gone")
		time.Sleep(600 * time.Millisecond)
	})
	f.flows(t, "standby gone", sealing, passing, splitting)
	f.standby.Start(t)
	f.standby.CatchUp(t, f.db)
}

// hang: a server that has gone without a word costs each message no more than
// the timeout for what it asks. Where no server answers, all mail is deferred.
func (f *failover) hang(t *testing.T) {
	t.Helper()
	const timeout = 2 * time.Second // reinjectingConfig says
	following := strings.Count(f.daemon.Log(), follows)
	f.stops++
	f.load(t, func() {
		f.db.Freeze(t)
		f.enter("primary hangs")
		time.Sleep(4 * time.Second)
		f.enter("primary hangs on")
		time.Sleep(500 * time.Millisecond)
		f.standby.Freeze(t)
		f.enter("both hang")
		for range 2 {
			m := f.newLetter(rand.New(rand.NewPCG(0, 0)), 3)
			f.hand(t, m)
			f.wait(m)
		}
		f.enter("")
		f.standby.Thaw(t)
		f.db.Thaw(t)
		f.followed(t, following+1)
		f.enter("primary goes on")
		time.Sleep(600 * time.Millisecond)
	})
	for kind, bound := range map[string]time.Duration{sealing: timeout, passing: timeout, splitting: 6 * timeout} { // four lookups, a claim and its end
		for _, a := range f.attempts {
			hangs := a.began == "primary hangs" || a.began == "both hang"
			if hangs && a.kind == kind && a.took > bound+500*time.Millisecond {
				t.Errorf("%s: one that is to be %s took %v", a.began, kind, a.took)
			}
			if a.began == "both hang" && a.phase == a.began && a.refused == "" {
				t.Errorf("both hang: one to be %s was accepted", a.kind)
			}
		}
	}
	if _, refused, _ := f.count("both hang", anything, false); refused < 2 {
		t.Error("both hang: nobody was deferred, this shows nothing")
	}
	if accepted, _, _ := f.count("primary hangs", splitting, false); accepted > 0 {
		t.Errorf("%d were split although nobody could note it", accepted)
	}
	for _, kind := range []string{sealing, passing} {
		if accepted, refused, longest := f.count("primary hangs on", kind, false); accepted == 0 || refused > 0 {
			t.Errorf("after four seconds the standby is not asked: of those %s %d were accepted, %d deferred, in up to %v", kind, accepted, refused, longest)
		}
	}
	f.flows(t, "primary goes on", sealing, passing, splitting)
}

// promote: the standby is all that there is, and can be written to.
func (f *failover) promote(t *testing.T) {
	t.Helper()
	const nina = "nina@bed.test"
	following, cut := strings.Count(f.daemon.Log(), follows), strings.Count(f.daemon.Log(), lost)
	if got := f.one(t, nina); got != passed {
		t.Fatalf("a message to whom nobody knows was %s", got)
	}
	f.standby.CatchUp(t, f.db)
	f.stops++
	f.load(t, func() {
		time.Sleep(100 * time.Millisecond)
		f.db.Stop(t)
	})
	waitFor(t, "the cache to be out of use", func() bool { return strings.Count(f.daemon.Log(), lost) > cut })
	for range 3 {
		if got := f.one(t, nina); got != passed {
			t.Fatalf("a message to whom nobody knows was %s", got)
		}
	}
	f.daemon.Stop(t)
	f.daemon.Start(t) // it begins with a standby alone
	f.sealed(t, ann, number(f.keys[ann]))
	f.standby.Promote(t)
	f.db = f.standby
	f.sealed(t, nina, f.enrol(t, nina)) // at once, whoever tells of it or not
	f.load(t, func() {
		f.followed(t, following+1)
		f.enter("standby promoted")
		time.Sleep(600 * time.Millisecond)
	})
	f.flows(t, "standby promoted", sealing, passing, splitting)
	f.takesEffect(t, "promoted@bed.test")
	if n := f.asked(t, f.db); n > 1 {
		t.Errorf("20 messages asked the server %d times, although it tells of all changes", n)
	}
}

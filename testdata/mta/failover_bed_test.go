package mta_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// failover is a site of two PostgreSQL servers. The one that can be written to
// is db, which is the standby once that has been promoted.
type failover struct {
	*readers
	standby *bed.Postgres
	daemon  *bed.Daemon
	listen  string
	outlet  *outlet
	stops   int // of a server that copies are noted in

	mu       sync.Mutex
	phase    string
	letters  []*letter
	waiting  []*letter
	attempts []attempt
}

// newFailover starts both, and a daemon that names one of them first.
func newFailover(t *testing.T, standbyFirst bool) *failover {
	t.Helper()
	f := &failover{readers: newReaders(t, ann, bea, cid), outlet: newOutlet(t), listen: fmt.Sprintf("127.0.0.1:%d", bed.FreePort(t))}
	f.db.SQL(t, database, "ALTER SYSTEM SET log_statement = 'all'")
	f.db.SQL(t, database, "SELECT pg_reload_conf()")
	f.standby = f.db.StartStandby(t)
	f.standby.CatchUp(t, f.db)
	f.daemon = bed.StartDaemon(t, reinjectingConfig(t, "inet:"+f.listen, bothServers(f.db, f.standby, standbyFirst), f.outlet.addr))
	f.followed(t, 1)
	return f
}

// bothServers is the URL of a primary and a standby.
func bothServers(primary, standby *bed.Postgres, standbyFirst bool) string {
	first, second := primary, standby
	if standbyFirst {
		first, second = second, first
	}
	return strings.Replace(first.URL("sealmilter", database), "/"+database, fmt.Sprintf(",127.0.0.1:%d/%s", second.Port, database), 1)
}

// letter is a message under way from its sender to everybody.
type letter struct {
	number, token string
	message       client.Message
	to, left      []string
	queued        []*client.Queued
	tries         int
	next          time.Time
}

// attempt is what came of handing a letter in once.
type attempt struct {
	began   string // the phase
	phase   string // the same, or "" where it changed meanwhile
	kind    string
	first   bool
	refused string
	took    time.Duration
}

// The kinds of letters, by what is needed for them.
const (
	sealing   = "sealed"    // one recipient, with a key
	passing   = "passed"    // one without
	splitting = "split"     // several: copies have to be noted
	anything  = "of a kind" // stands for all of them
)

func kindOf(left []string) string {
	switch {
	case len(left) > 1:
		return splitting
	case left[0] == bob:
		return passing
	}
	return sealing
}

func (f *failover) newLetter(random *rand.Rand, kinds int) *letter {
	m := &letter{token: newToken()}
	switch random.IntN(kinds) {
	case 0, 1:
		m.to = []string{[]string{ann, bea, cid}[random.IntN(3)]}
	case 2:
		m.to = []string{bob}
	case 3:
		m.to = []string{ann, bea} // undisclosed: each has a copy
	case 4:
		m.to = []string{bob, cid}
	default:
		m.to = []string{ann, bob, bea, cid}
	}
	m.left = m.to
	f.mu.Lock()
	defer f.mu.Unlock()
	f.letters = append(f.letters, m)
	m.number = fmt.Sprintf("X-Number: %d.", len(f.letters))
	m.message = client.ParseMessage([]byte("From: sender@example.net\n" + m.number + "\nContent-Type: text/plain\n\n" +
		strings.Repeat(m.token+"\n", 1+random.IntN(200))))
	return m
}

// hand hands a letter in once, as an MTA does for an SMTP client.
func (f *failover) hand(t *testing.T, m *letter) {
	t.Helper()
	a := attempt{began: f.now(), kind: kindOf(m.left), first: m.tries == 0}
	m.tries++
	begun := time.Now()
	session, err := client.Dial("tcp", f.listen, deleting)
	if err != nil {
		t.Errorf("the daemon does not answer: %v", err)
		m.next = time.Now().Add(time.Second)
		return
	}
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(m.left...)}, m.message)
	if closing := session.Close(); err == nil {
		err = closing
	}
	if err != nil {
		t.Errorf("to %v: %v", m.left, err)
	}
	a.took = time.Since(begun)
	if result.Queued == nil {
		a.refused = orNothing(result.Final)
	} else {
		m.queued = append(m.queued, result.Queued)
		var left []string
		for n, answer := range result.Recipients {
			if answer.Refused() {
				a.refused = answer.String()
				left = append(left, m.left[n])
			}
		}
		m.left = left
	}
	if strings.HasPrefix(a.refused, "5") {
		t.Errorf("to %v: refused for good: %s", m.to, a.refused)
	}
	m.next = time.Now().Add(300 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.began == f.phase {
		a.phase = f.phase
	}
	f.attempts = append(f.attempts, a)
}

func orNothing(r client.Reply) string {
	if r.Code == 0 {
		return "no answer"
	}
	return r.String()
}

func (f *failover) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phase
}

// enter begins a phase, for what attempts are counted by.
func (f *failover) enter(phase string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
}

// load sends letters, and those again that were deferred, while something
// happens. Two of the senders send to one recipient at a time, so that they are
// not held up where copies cannot be noted.
func (f *failover) load(t *testing.T, happen func()) {
	t.Helper()
	const senders = 4
	end := make(chan struct{})
	var running sync.WaitGroup
	for n := range senders {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))
			for {
				select {
				case <-end:
					return
				case <-time.After(10 * time.Millisecond):
				}
				var m *letter
				if n%2 == 1 {
					m = f.due()
				}
				if m == nil {
					m = f.newLetter(random, 3+3*(n%2))
				}
				f.hand(t, m)
				f.wait(m)
			}
		})
	}
	happen()
	f.enter("")
	close(end)
	running.Wait()
}

// due takes a letter whose time has come, of those that wait. Every second time
// there is none, so that the queue does not hold up what is new.
func (f *failover) due() *letter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.attempts)%2 == 0 || len(f.waiting) == 0 || time.Now().Before(f.waiting[0].next) {
		return nil
	}
	m := f.waiting[0]
	f.waiting = f.waiting[1:]
	return m
}

func (f *failover) wait(m *letter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(m.left) > 0 {
		f.waiting = append(f.waiting, m)
	}
}

// deliver hands in all that waits until nobody is left, as the senders' queues
// do. A claim of a transaction that could not end it is over in the end.
func (f *failover) deliver(t *testing.T) {
	t.Helper()
	for round := 0; len(f.waiting) > 0; round++ {
		if round == 3 {
			f.db.SQL(t, database, "UPDATE sealmilter.copies SET until = now() WHERE owner IS NOT NULL")
		}
		if round == 20 {
			t.Fatalf("%d messages are not accepted, the last attempt was %v", len(f.waiting), f.attempts[len(f.attempts)-1])
		}
		waiting := f.waiting
		f.waiting = nil
		for _, m := range waiting {
			f.hand(t, m)
			f.wait(m)
		}
		if len(f.waiting) > 0 {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// count says what came of the attempts of a phase, and how long the longest took.
func (f *failover) count(phase, kind string, first bool) (accepted, refused int, longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.attempts {
		if a.phase != phase || kind != anything && a.kind != kind || first && !a.first {
			continue
		}
		longest = max(longest, a.took)
		if a.refused == "" {
			accepted++
		} else {
			refused++
		}
	}
	return accepted, refused, longest
}

// flows checks that what is handed in for the first time in a phase is taken.
func (f *failover) flows(t *testing.T, phase string, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		accepted, refused, longest := f.count(phase, kind, true)
		if accepted == 0 || refused > 0 || longest > 2*time.Second {
			t.Errorf("%s: of those %s %d were accepted and %d deferred, in up to %v", phase, kind, accepted, refused, longest)
		}
	}
}

// summary is what came of each kind in a phase.
func (f *failover) summary(phase string) string {
	text := phase + ":"
	for _, kind := range []string{sealing, passing, splitting} {
		accepted, refused, longest := f.count(phase, kind, false)
		text += fmt.Sprintf(" %s %d (%d deferred, %v)", kind, accepted, refused, longest.Round(time.Millisecond))
	}
	return text
}

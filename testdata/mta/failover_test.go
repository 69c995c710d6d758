package mta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
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

// What the daemon logs of its cache.
const (
	follows = "the key store tells of changes"
	lost    = "the key store does not tell of changes"
)

// followed waits until the daemon has said n times that it hears of changes.
func (f *failover) followed(t *testing.T, n int) {
	t.Helper()
	waitFor(t, "the daemon to hear of changes", func() bool { return strings.Count(f.daemon.Log(), follows) >= n })
}

// asked is how often a server was asked for keys while 20 messages were sent to
// Ann, of whom all is known if anything is remembered.
func (f *failover) asked(t *testing.T, server *bed.Postgres) int {
	t.Helper()
	calls := func() int {
		return strings.Count(readFile(t, filepath.Join(server.Dir, "log")), "FROM sealmilter.recipient_keys(")
	}
	key := number(f.keys[ann])
	f.sealed(t, ann, key)
	before := calls()
	for range 20 {
		f.sealed(t, ann, key)
	}
	return calls() - before
}

// sealed sends one message that must be sealed to a key, at the first attempt.
func (f *failover) sealed(t *testing.T, to, key string) {
	t.Helper()
	if got := f.one(t, to); got != key {
		t.Errorf("a message to %s was %s, not sealed to %s", to, got, key)
	}
}

// one sends one message to one recipient, and says what became of it.
func (f *failover) one(t *testing.T, to string) string {
	t.Helper()
	session, err := client.Dial("tcp", f.listen, deleting)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	got, err := fate(session, to, short)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// account looks at all that was delivered.
func (f *failover) account(t *testing.T) (doubles int) {
	t.Helper()
	f.outlet.got(t, "") // when nothing is under way any more
	handed := make(map[string][]handed)
	for _, h := range f.outlet.taken {
		number, _, _ := bytes.Cut(h.text[max(0, bytes.Index(h.text, []byte("X-Number: "))):], []byte("\r"))
		handed[string(number)] = append(handed[string(number)], h)
	}
	for _, m := range f.letters {
		came := make(map[string]int)
		for _, h := range handed[m.number] {
			came[h.to]++
			f.opensAs(t, h.text, h.to, m.token, m.message.Shown())
		}
		for _, queued := range m.queued {
			for _, to := range queued.Recipients {
				came[to]++
				if to != bob {
					f.opensAs(t, queued.Bytes(), to, m.token, m.message.Shown())
				} else if queued.Replaced {
					t.Errorf("%s: what has no key was sealed", m.number)
				}
			}
		}
		for _, to := range m.to {
			if came[to] == 0 {
				t.Errorf("%s: LOST for %s", m.number, to)
			}
			doubles += max(came[to]-1, 0)
			delete(came, to)
		}
		if len(came) > 0 {
			t.Errorf("%s: others have got it too: %v", m.number, came)
		}
		delete(handed, m.number)
	}
	if len(handed) > 0 {
		t.Errorf("%d messages came that nobody has sent", len(handed))
	}
	return doubles
}

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
	f.load(t, func() { f.enter("both there"); time.Sleep(time.Second) })
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
	for _, a := range f.attempts {
		if a.began != a.phase && a.took > time.Second {
			t.Log(a)
		}
	}
	for _, phase := range []string{"both there", "primary gone", "primary back", "standby gone", "primary hangs", "primary hangs on", "primary goes on", "standby promoted"} {
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
		time.Sleep(1500 * time.Millisecond)
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
		time.Sleep(time.Second)
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
		time.Sleep(time.Second)
	})
	f.flows(t, "standby gone", sealing, passing, splitting)
	f.standby.Start(t)
	f.standby.CatchUp(t, f.db)
}

// hang: a server that has gone without a word costs each message no more than
// the timeout for what it asks.
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
		time.Sleep(time.Second)
		f.enter("")
		f.db.Thaw(t)
		f.followed(t, following+1)
		f.enter("primary goes on")
		time.Sleep(time.Second)
	})
	for kind, bound := range map[string]time.Duration{sealing: timeout, passing: timeout, splitting: 6 * timeout} { // four lookups, a claim and its end
		for _, a := range f.attempts {
			if a.began == "primary hangs" && a.kind == kind && a.took > bound+500*time.Millisecond {
				t.Errorf("primary hangs: one that is to be %s took %v", kind, a.took)
			}
		}
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
	f.standby.Promote(t)
	f.db = f.standby
	f.sealed(t, nina, f.enrol(t, nina)) // at once, whoever tells of it or not
	f.load(t, func() {
		f.followed(t, following+1)
		f.enter("standby promoted")
		time.Sleep(time.Second)
	})
	f.flows(t, "standby promoted", sealing, passing, splitting)
	f.takesEffect(t, "promoted@bed.test")
	if n := f.asked(t, f.db); n > 1 {
		t.Errorf("20 messages asked the server %d times, although it tells of all changes", n)
	}
}

// enrol gives somebody a key and returns its number.
func (f *failover) enrol(t *testing.T, address string) string {
	t.Helper()
	key := newKey(t, address, time.Hour, 0)
	f.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, public(t, key)))
	return number(key)
}

// takesEffect enrols somebody of whom it is remembered that there is no key.
func (f *failover) takesEffect(t *testing.T, address string) {
	t.Helper()
	f.one(t, address)
	f.one(t, address)
	key := f.enrol(t, address)
	begun := time.Now()
	for f.one(t, address) != key {
		if time.Since(begun) > time.Second {
			t.Fatalf("the key of %s is not used after a second", address)
		}
	}
}

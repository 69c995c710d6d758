package mta_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

const cid = "cid@bed.test" // has a Curve25519 key

// long is 1 in the long version of the tests, which "make soak" runs, else 0.
var long = strings.Count(os.Getenv("SEALMILTER_SOAK"), "1")

// interruption is a site of which everything can be killed. All connections
// lead over one crossing.
type interruption struct {
	*readers
	*crossing
	daemon *bed.Daemon
	outlet *outlet

	front, back, store *relay // to the daemon, to the listener, to PostgreSQL
	messages           int
	total              tally
}

// tally is what is counted of many messages.
type tally struct {
	messages, attempts, busy int // busy: attempts that met the claim of one that was killed
	doubles, unnoted         int // copies that came twice, and those that were accepted and not noted
}

func newInterruption(t *testing.T) *interruption {
	t.Helper()
	i := &interruption{readers: newReaders(t, ann, bea, cid), crossing: &crossing{}, outlet: newOutlet(t)}
	i.watch(0)
	i.back = i.relay(t, i.outlet.addr)
	i.store = i.relay(t, fmt.Sprintf("127.0.0.1:%d", i.db.Port))
	url := strings.Replace(i.db.URL("sealmilter", database), strconv.Itoa(i.db.Port), strconv.Itoa(i.store.port), 1)
	listen := fmt.Sprintf("127.0.0.1:%d", bed.FreePort(t))
	i.daemon = bed.StartDaemon(t, reinjectingConfig(t, "inet:"+listen, url, i.back.addr()))
	i.front = i.relay(t, listen)
	return i
}

// A fault is what happens while a message is under way.
type fault struct {
	name   string
	happen func(t *testing.T, i *interruption)
	lose   bool // the piece that was held does not arrive
	mend   func(t *testing.T, i *interruption)
}

var faults = []fault{
	{"kill -9 of the daemon", func(t *testing.T, i *interruption) { i.daemon.Kill(t) }, true,
		func(t *testing.T, i *interruption) { i.daemon.Start(t) }},
	{"the end of the listener", func(t *testing.T, i *interruption) { i.back.cut() }, true,
		func(t *testing.T, i *interruption) { i.back.mend() }},
	{"pg_ctl stop -m immediate", func(t *testing.T, i *interruption) { i.db.Stop(t) }, true,
		func(t *testing.T, i *interruption) { i.db.Start(t) }},
	{"the client dropping", func(t *testing.T, i *interruption) { i.front.cut() }, false,
		func(t *testing.T, i *interruption) { i.front.mend() }},
}

// mixed is a message for three people with a key and, where plain, for one
// without. Its number stands in the header and stays readable outside, its
// token in the body.
type mixed struct {
	id, token string
	message   client.Message
	to        []string

	left    []string // who has still to be accepted
	queued  []*client.Queued
	last    error // of the last attempt
	moments []moment
	unnoted int
}

func (i *interruption) newMessage(plain bool, size int) *mixed {
	i.messages++
	m := &mixed{id: fmt.Sprintf("X-Number: %d.", i.messages), token: newToken(), to: []string{ann, bea, cid}}
	if plain {
		m.to = []string{ann, bob, bea, cid}
	}
	m.left = m.to
	filler := strings.Repeat("A line of some length, so that there is something to be sent.\r\n", size/64)
	m.message = client.ParseMessage([]byte("From: sender@example.net\nTo: list@example.net\n" + m.id +
		"\nSubject: hello\nContent-Type: text/plain\n\n" + m.token + "\n" + filler + m.token + "\n"))
	return m
}

// attempt hands a message in once, as an MTA does for an SMTP client. The
// recipients that were refused stay with the sender, and all of them do where
// the message was.
func (i *interruption) attempt(m *mixed) error {
	session, err := client.Dial("tcp", i.front.addr(), deleting)
	if err != nil {
		return err
	}
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(m.left...)}, m.message)
	session.Close()
	if result.Queued == nil {
		return errors.Join(err, errors.New(result.Final.String()))
	}
	// Whatever became of the connection behind the verdict.
	m.queued = append(m.queued, result.Queued)
	var left []string
	for n, answer := range result.Recipients {
		if answer.Refused() {
			left = append(left, m.left[n])
			err = errors.New(answer.String())
		}
	}
	if m.left = left; len(left) == 0 {
		return nil
	}
	return err
}

// deleting is a Postfix of which it is known that it deletes recipients.
var deleting = client.Options{
	Macros:    []string{"{sealmilter_deletes}", "yes"},
	EndMacros: []string{"v", "Postfix 3.7.11, sealmilter_deletes=yes"},
}

// moment is when a fault happens: at a piece that crosses, or where that is 0
// after a delay.
type moment struct {
	fault
	at    int
	delay time.Duration
}

func (m moment) String() string { return fmt.Sprintf("%s at %d (%v)", m.name, m.at, m.delay) }

// disturb makes one attempt, in which something happens, and says whether it has.
func (i *interruption) disturb(t *testing.T, m *mixed, when moment) (happened bool) {
	t.Helper()
	ended := make(chan error, 1)
	i.watch(when.at)
	go func() { ended <- i.attempt(m) }()
	var timer <-chan time.Time
	if when.at == 0 {
		timer = time.After(when.delay)
	}
	select {
	case m.last = <-ended:
	case <-i.reached:
		when.happen(t, i)
		i.resume <- when.lose
		happened = true
	case <-timer:
		when.happen(t, i)
		happened = true
	}
	if happened {
		m.last = <-ended
		when.mend(t, i)
	}
	i.watch(0)
	return happened
}

// deliver hands a message in until it is accepted for everybody, as the sender's
// queue does. In the first attempts the moments come, one in each; it says
// whether all of them have.
func (i *interruption) deliver(t *testing.T, m *mixed, moments ...moment) (all bool) {
	t.Helper()
	all = true
	for tries := 0; len(m.left) > 0; tries++ {
		i.total.attempts++
		if len(moments) > 0 {
			before, accepted := i.unnoted(t, m), len(m.queued)
			if !i.disturb(t, m, moments[0]) {
				all = false
			}
			m.moments, moments = append(m.moments, moments[0]), moments[1:]
			if len(m.queued) == accepted { // else all was forgotten, and nobody comes again
				m.unnoted += max(0, i.unnoted(t, m)-before)
			}
			tries = 0
			continue
		}
		m.last = i.attempt(m)
		switch {
		case m.last != nil && tries == 4:
			i.expire(t)
		case tries == 50:
			t.Fatalf("%v: not accepted in %d attempts, at last %v", m.moments, tries, m.last)
		case m.last != nil:
			time.Sleep(10 * time.Millisecond)
		}
	}
	i.account(t, m)
	return all
}

// unnoted is how many copies of a message the listener has accepted, over how
// many the memory knows of. It grows by those that will come twice.
func (i *interruption) unnoted(t *testing.T, m *mixed) int {
	t.Helper()
	noted, err := strconv.Atoi(i.db.SQL(t, database, "SELECT count(*) FROM sealmilter.copies WHERE sent"))
	if err != nil {
		t.Fatal(err)
	}
	return len(i.outlet.got(t, m.id)) - noted
}

// expire lets the time pass for which a claim outlives its owner. Who comes
// before that is deferred, as five attempts were.
func (i *interruption) expire(t *testing.T) {
	t.Helper()
	if !strings.Contains(i.daemon.Log(), "another transaction has the same copy in flight") {
		t.Error("the message was deferred, but not for the claim of the attempt before")
	}
	left := i.db.SQL(t, database, "SELECT count(*) FROM sealmilter.copies WHERE owner IS NOT NULL AND until > now() + interval '5 minutes'")
	if left != "0" {
		t.Errorf("%s claims live for longer than 5 minutes", left)
	}
	i.total.busy++
	i.db.SQL(t, database, "UPDATE sealmilter.copies SET until = now() WHERE owner IS NOT NULL")
}

// account looks at all that was delivered of one message.
func (i *interruption) account(t *testing.T, m *mixed) {
	t.Helper()
	came := make(map[string]int)
	for _, h := range i.outlet.got(t, m.id) {
		came[h.to]++
		i.opensAs(t, h.text, h.to, m.token, m.message.Shown())
	}
	for _, queued := range m.queued {
		for _, to := range queued.Recipients {
			came[to]++
			if to != bob {
				i.opensAs(t, queued.Bytes(), to, m.token, m.message.Shown())
			} else if queued.Replaced {
				t.Errorf("%v: bob's message was replaced", m.moments)
			}
		}
	}
	doubles := 0
	for _, to := range m.to {
		if came[to] == 0 {
			t.Errorf("%v: LOST for %s", m.moments, to)
		}
		doubles += max(came[to]-1, 0)
		delete(came, to)
	}
	if len(came) > 0 {
		t.Errorf("%v: others have got it too: %v", m.moments, came)
	}
	if doubles > m.unnoted {
		t.Errorf("%v: %d copies came twice, of which %d were accepted and not yet noted", m.moments, doubles, m.unnoted)
	}
	i.total.messages++
	i.total.doubles += doubles
	i.total.unnoted += m.unnoted
	i.outlet.forget()
	i.db.SQL(t, database, "DELETE FROM sealmilter.copies")
}

// TestInterrupted
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                                     ║
//	                                     ╚════▶ a listener of the test's own
//
// All three connections lead over the crossing. At every piece that crosses it,
// one after the other, each of the four is killed in turn; then the sender tries
// again until the message is taken. The short version has the longer of the two
// sequences, in which somebody is let have the message in the clear.
func TestInterrupted(t *testing.T) {
	i := newInterruption(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			i.total = tally{}
			steps := 0
			for _, plain := range []bool{true, false}[:1+long] {
				for at := 1; i.deliver(t, i.newMessage(plain, 1000), moment{fault: f, at: at}); at++ {
					steps++
				}
			}
			i.report(t, fmt.Sprintf("%d steps", steps))
		})
	}
}

// TestInterruptedAtRandom
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                                     ║
//	                                     ╚════▶ a listener of the test's own
//
// Of 100 messages each meets a fault at a moment drawn by chance, and some of
// them a second and a third, in the attempts that follow.
func TestInterruptedAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	i := newInterruption(t)
	var usually []time.Duration // by size: the copies of a large message leave at the same time
	sizes := []int{100_000, 1_000_000}
	for _, size := range sizes {
		m, begun := i.newMessage(true, size), time.Now()
		i.attempt(m)
		usually = append(usually, time.Since(begun))
		i.deliver(t, m)
	}
	moments := 0
	for n := range 100 + 900*long {
		size := random.IntN(10) / 9
		usual := usually[size]
		var drawn []moment
		for len(drawn) == 0 || random.IntN(3) == 0 {
			drawn = append(drawn, moment{fault: faults[random.IntN(len(faults))], delay: time.Duration(random.Int64N(int64(usual)))})
		}
		moments += len(drawn)
		i.deliver(t, i.newMessage(n%2 == 0, sizes[size]), drawn...)
	}
	i.report(t, fmt.Sprintf("%d moments within %v, seed %d", moments, usually, seed))
}

// TestEqualMessages
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                                     ║
//	                                     ╚════▶ a listener of the test's own
//
// Two messages that are equal byte for byte are two, whether one comes behind
// the other or both come at the same moment.
func TestEqualMessages(t *testing.T) {
	i := newInterruption(t)
	first := i.newMessage(true, 1000)
	for _, together := range []bool{false, true} {
		for range 20 {
			second := *first
			one := func(m *mixed) {
				m.left, m.queued = m.to, nil
				for tries := 0; len(m.left) > 0 && tries < 100; tries++ {
					m.last = i.attempt(m)
					time.Sleep(time.Duration(tries) * time.Millisecond)
				}
			}
			if together {
				var both sync.WaitGroup
				both.Go(func() { one(first) })
				both.Go(func() { one(&second) })
				both.Wait()
			} else {
				one(first)
				one(&second)
			}
			came := make(map[string]int)
			for _, h := range i.outlet.got(t, first.id) {
				came[h.to]++
			}
			if want := map[string]int{ann: 2, bea: 2, cid: 2}; !maps.Equal(came, want) || len(first.left)+len(second.left) > 0 {
				t.Errorf("together %v: %v came, the last errors were %v, %v", together, came, first.last, second.last)
			}
			i.outlet.forget()
		}
	}
	waitFor(t, "the memory to be empty", func() bool { return i.db.SQL(t, database, "SELECT count(*) FROM sealmilter.copies") == "0" })
}

func (i *interruption) report(t *testing.T, where string) {
	t.Helper()
	s := i.total
	t.Logf("%s: %d messages in %d attempts, of which %d waited for the end of a claim; %d doubles, where %d copies were accepted and not yet noted",
		where, s.messages, s.attempts, s.busy, s.doubles, s.unnoted)
}

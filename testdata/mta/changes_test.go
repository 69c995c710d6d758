package mta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// What becomes of a message that is not sealed. One that is, is named by the
// keys that it is sealed to.
const (
	passed   = "passed"
	deferred = "deferred"
)

var short = client.ParseMessage([]byte("From: sender@example.net\nSubject: hello\nContent-Type: text/plain\n\nSome words.\n"))

// fate sends a message to one recipient and says what became of it.
func fate(session *client.Session, to string, m client.Message) (string, error) {
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(to)}, m)
	if err != nil {
		return "", err
	}
	return fateOf(result)
}

func fateOf(result client.Result) (string, error) {
	switch {
	case result.Queued == nil && result.Final.Code < 500:
		return deferred, nil
	case result.Queued == nil:
		return "", fmt.Errorf("the answer is %s", result.Final)
	case !result.Queued.Replaced:
		return passed, nil
	}
	return sealedTo(result.Queued.Body)
}

// written is a daemon whose store is written to by somebody else, in SQL.
type written struct {
	daemon  *bed.Daemon
	schema  string // in front of the names of tables
	writers int
	shell   func() *bed.Shell
	db      *bed.Postgres // nil: SQLite
	near    *bed.Postgres // a standby, which lookups ask; nil: there is none
}

const writtenConfig = `
[milter]
listen = "unix:$DIR/sock"
[store]
url = %q
timeout = "2s"
[spool]
directory = "$DIR/spool"
`

func writtenPostgres(t *testing.T, withStandby bool) *written {
	t.Helper()
	w := &written{writers: 4, schema: "sealmilter.", db: newReaders(t).db}
	url := w.db.URL("sealmilter", database)
	if withStandby {
		w.near = w.db.StartStandby(t)
		w.near.CatchUp(t, w.db)
		url = bothServers(w.db, w.near, true)
	}
	w.shell = func() *bed.Shell { return w.db.Shell(t, database) }
	w.daemon = bed.StartDaemon(t, fmt.Sprintf(writtenConfig, url))
	waitFor(t, "the daemon to hear of changes", func() bool { return strings.Contains(w.daemon.Log(), follows) })
	return w
}

func writtenSQLite(t *testing.T) *written {
	t.Helper()
	file := filepath.Join(memoryDir(t), "keys.db")
	w := &written{writers: 4, shell: func() *bed.Shell { return bed.SQLiteShell(t, file) }}
	runProgram(t, "migrate", "--store", "sqlite:"+file)
	w.daemon = bed.StartDaemon(t, fmt.Sprintf(writtenConfig, "sqlite:"+file))
	return w
}

// memoryDir is a folder of which nothing has to reach a disk, as nothing has to
// of the test bed's PostgreSQL either.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bed")
	if err != nil {
		return bed.Dir(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *written) dial(t *testing.T) *client.Session {
	t.Helper()
	s, err := client.Dial("unix", filepath.Join(w.daemon.Dir, "sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// number is what a message sealed to a key names.
func number(key *openpgp.Entity) string { return key.Subkeys[0].PublicKey.KeyIdString() }

// TestChangeToEffect
//
//	an administrator's SQL ──▶ PostgreSQL, or SQLite ◀── sealmilter ◀──milter── this test as the MTA
//
// Of somebody of whom it is remembered that there is no key, one is inserted.
// How long does it take until a message is sealed? It is measured from before
// the statement is sent, which is more than from its COMMIT.
func TestChangeToEffect(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) { writtenPostgres(t, false).takesEffect(t, 100, 1, time.Second) })
	t.Run("a standby answers", func(t *testing.T) { writtenPostgres(t, true).takesEffect(t, 100, 1, time.Second) })
	t.Run("a standby that is behind", func(t *testing.T) {
		w := writtenPostgres(t, true)
		w.near.Delay(t, 600*time.Millisecond)
		w.takesEffect(t, 40, 20, 600*time.Millisecond+time.Second)
	})
	t.Run("SQLite", func(t *testing.T) { writtenSQLite(t).takesEffect(t, 100, 1, time.Second) })
}

// takesEffect enrols so many people, and some of them at once.
func (w *written) takesEffect(t *testing.T, people, together int, limit time.Duration) {
	t.Helper()
	took := make([]time.Duration, people)
	var running sync.WaitGroup
	for n := range together {
		session, shell := w.dial(t), w.shell()
		running.Go(func() {
			for i := n; i < people; i += together {
				address := fmt.Sprintf("new%d@bed.test", i)
				key := newKey(t, address, time.Hour, 0)
				for range 2 {
					if got, err := fate(session, address, short); got != passed || err != nil {
						t.Errorf("before there is a key a message is %s, error %v", got, err)
						return
					}
				}
				begun := time.Now()
				said, err := shell.Do(fmt.Sprintf("INSERT INTO %skeys (address, key) VALUES ('%s', '%s');", w.schema, address, public(t, key)))
				if said != "" || err != nil {
					t.Errorf("inserting a key: %s, error %v", said, err)
					return
				}
				for got := passed; got != number(key); took[i] = time.Since(begun) {
					if got, err = fate(session, address, short); err != nil || got == deferred || time.Since(begun) > 20*time.Second {
						t.Errorf("%v after the key was inserted a message is %s, error %v", time.Since(begun), got, err)
						return
					}
				}
			}
		})
	}
	running.Wait()
	slices.Sort(took)
	p99 := took[people*99/100-1]
	t.Logf("from INSERT to the first sealed message, %d times: median %v, p99 %v, longest %v", people, took[people/2], p99, took[people-1])
	if p99 >= limit {
		t.Errorf("p99 is %v, at most %v is allowed", p99, limit)
	}
}

// person is somebody whose keys are changed, and what was true of them when.
type person struct {
	address string
	steady  bool              // has a key at any time
	pair    []*openpgp.Entity // the two keys

	// As it is in the store now. Only the writer that the person belongs to
	// looks.
	there, enabled bool
	states         [2]string // of the keys, "" of one that is not there
	turn           int       // of a steady one: which of the keys is there

	mu      sync.Mutex
	history []truth
}

// truth is what becomes of a person's messages from some moment on: one between
// that at which the statement was sent, and that at which it was done.
type truth struct {
	fate       string
	sent, done time.Time
}

// fate is what becomes of a message by what is in the store now.
func (p *person) fate() string {
	var active []string
	held := false
	for i, state := range p.states {
		if state == "active" {
			active = append(active, number(p.pair[i]))
		}
		held = held || state == "retired" || state == "revoked"
	}
	slices.Sort(active)
	switch {
	case !p.there, !p.enabled, len(active) == 0 && !held:
		return passed
	case len(active) == 0:
		return deferred
	}
	return strings.Join(active, " ")
}

// becomes notes what is true now.
func (p *person) becomes(fate string, sent, done time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = append(p.history, truth{fate, sent, done})
}

// since says how long before a message's beginning its fate was last the right
// one, which is nothing where it was within the message. It is not right where
// it never was.
func (p *person) since(got string, begun, ended time.Time) (late time.Duration, right bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, was := range p.history {
		if was.fate != got || was.sent.After(ended) {
			continue
		}
		ago := time.Duration(0)
		if i+1 < len(p.history) {
			ago = max(0, begun.Sub(p.history[i+1].done))
		}
		if !right || ago < late {
			late, right = ago, true
		}
	}
	return late, right
}

// writer changes some people, one statement after the other.
type writer struct {
	*written
	shell  *bed.Shell
	random *rand.Rand
	people []*person // who come and go
	steady []*person
	alias  *person // leads to one of the steady
	count  int     // rows that were changed
}

const keyMarks = "AABB" // in the column fingerprint, where no other number tells the keys apart

// say runs a statement, and notes what is true of some people then.
func (w *writer) say(t *testing.T, sql string, of ...*person) {
	sent := time.Now()
	if said, err := w.shell.Do(sql); said != "" || err != nil {
		t.Errorf("%.200s: %s, error %v", sql, said, err)
	}
	for _, p := range of {
		p.becomes(p.fate(), sent, time.Now())
	}
	w.count += max(1, len(of))
}

// in is a list of addresses, as SQL has it.
func in(people []*person) string {
	var list []string
	for _, p := range people {
		list = append(list, "'"+p.address+"'")
	}
	return "address IN (" + strings.Join(list, ", ") + ")"
}

// change makes one statement, of as many people as it can be said of.
func (w *writer) change(t *testing.T, most int) {
	slot := w.random.IntN(2)
	mark := keyMarks[2*slot : 2*slot+2]
	state := []string{"active", "retired", "revoked", "active"}[w.random.IntN(4)]
	enabled := w.random.IntN(3) > 0
	kind := w.random.IntN(10)
	able := func(p *person) bool {
		switch {
		case kind < 4:
			return p.states[slot] == ""
		case kind < 6:
			return p.states[slot] != ""
		case kind < 8:
			return p.states[slot] != "" && p.states[slot] != state
		case kind == 8:
			return p.there && p.enabled != enabled
		}
		return p.there && w.random.IntN(3) == 0
	}
	var chosen []*person
	for _, i := range w.random.Perm(len(w.people)) {
		if p := w.people[i]; len(chosen) < most && able(p) {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		return
	}
	var rows []string
	for _, p := range chosen {
		switch {
		case kind < 4:
			rows = append(rows, fmt.Sprintf("('%s', '%s', '%s')", p.address, public(t, p.pair[slot]), mark))
			p.enabled = p.enabled || !p.there
			p.there, p.states[slot] = true, "active"
		case kind < 6:
			p.states[slot] = ""
		case kind < 8:
			p.states[slot] = state
		case kind == 8:
			p.enabled = enabled
		default:
			p.there, p.states = false, [2]string{}
		}
	}
	switch {
	case kind < 4:
		w.say(t, "INSERT INTO "+w.schema+"keys (address, key, fingerprint) VALUES "+strings.Join(rows, ", ")+";", chosen...)
	case kind < 6:
		w.say(t, "DELETE FROM "+w.schema+"keys WHERE fingerprint = '"+mark+"' AND "+in(chosen)+";", chosen...)
	case kind < 8:
		w.say(t, "UPDATE "+w.schema+"keys SET state = '"+state+"' WHERE fingerprint = '"+mark+"' AND "+in(chosen)+";", chosen...)
	case kind == 8:
		w.say(t, fmt.Sprintf("UPDATE %saccounts SET enabled = %v WHERE %s;", w.schema, enabled, in(chosen)), chosen...)
	default:
		w.say(t, "DELETE FROM "+w.schema+"accounts WHERE "+in(chosen)+";", chosen...)
	}
}

// rotate puts another key in the place of a steady person's, in one transaction.
func (w *writer) rotate(t *testing.T) {
	p := w.steady[w.random.IntN(len(w.steady))]
	old := p.turn
	p.turn = 1 - old
	p.states[old], p.states[p.turn] = "", "active"
	of := []*person{p}
	if w.alias.turn == slices.Index(w.steady, p) {
		w.alias.pair, w.alias.states = p.pair, p.states
		of = append(of, w.alias)
	}
	w.say(t, fmt.Sprintf("BEGIN;\nINSERT INTO %skeys (address, key, fingerprint) VALUES ('%s', '%s', '%s');\nDELETE FROM %skeys WHERE fingerprint = '%s' AND %s;\nCOMMIT;",
		w.schema, p.address, public(t, p.pair[p.turn]), keyMarks[2*p.turn:2*p.turn+2], w.schema, keyMarks[2*old:2*old+2], in(of[:1])), of...)
}

// redirect has the alias lead to another steady person.
func (w *writer) redirect(t *testing.T) {
	w.alias.turn = (w.alias.turn + 1) % len(w.steady)
	to := w.steady[w.alias.turn]
	w.alias.pair, w.alias.states = to.pair, to.states
	w.say(t, fmt.Sprintf("UPDATE %saliases SET target = '%s' WHERE address = '%s';", w.schema, to.address, w.alias.address), w.alias)
}

// newWriter enrols the steady and the alias.
func newWriter(t *testing.T, on *written, n int) *writer {
	t.Helper()
	w := &writer{written: on, shell: on.shell(), random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))}
	pair := func(address string) []*openpgp.Entity {
		return []*openpgp.Entity{newKey(t, address, time.Hour, 0), newKey(t, address, time.Hour, 0)}
	}
	for i := range 25 {
		address := fmt.Sprintf("p%d.%d@bed.test", n, i)
		p := &person{address: address, pair: pair(address)}
		p.becomes(passed, time.Time{}, time.Time{})
		w.people = append(w.people, p)
	}
	for i := range 3 {
		address := fmt.Sprintf("s%d.%d@bed.test", n, i)
		p := &person{address: address, pair: pair(address), steady: true, there: true, enabled: true, states: [2]string{"active", ""}}
		w.say(t, fmt.Sprintf("INSERT INTO %skeys (address, key, fingerprint) VALUES ('%s', '%s', 'AA');", w.schema, address, public(t, p.pair[0])), p)
		w.steady = append(w.steady, p)
	}
	to := w.steady[0]
	w.alias = &person{address: fmt.Sprintf("a%d@bed.test", n), steady: true, there: true, enabled: true, pair: to.pair, states: to.states}
	w.say(t, fmt.Sprintf("INSERT INTO %saliases (address, target) VALUES ('%s', '%s');", w.schema, w.alias.address, to.address), w.alias)
	return w
}

// write changes what it can at a rate, until it is told to end.
func (w *writer) write(t *testing.T, end time.Time, rate float64) {
	w.count = 0
	for begun := time.Now(); time.Now().Before(end); {
		if float64(w.count) > time.Since(begun).Seconds()*rate {
			time.Sleep(time.Millisecond)
			continue
		}
		switch n := w.random.IntN(100); {
		case n == 0:
			w.change(t, len(w.people)) // all of them in one statement
		case n == 1:
			w.redirect(t)
		case n < 12:
			w.rotate(t)
		default:
			w.change(t, 1)
		}
	}
}

// all are the people of some writers.
func all(writers []*writer) (people []*person) {
	for _, w := range writers {
		people = append(append(append(people, w.people...), w.steady...), w.alias)
	}
	return people
}

// TestChangesUnderLoad
//
//	4 administrators' SQL, 10,000 changes a minute ──▶ PostgreSQL, or SQLite ◀── sealmilter ◀──milter── 8 MTAs, 200 messages a second
//
// Keys come and go, change their state and are rotated, accounts are switched
// off and on and removed, and aliases lead elsewhere, one by one and in bulk.
// Each message must meet what was true within it, or at most a second before.
func TestChangesUnderLoad(t *testing.T) {
	length := 5 * time.Second
	if long == 1 {
		length = time.Minute
	}
	t.Run("PostgreSQL", func(t *testing.T) { writtenPostgres(t, false).underLoad(t, length) })
	t.Run("a standby answers", func(t *testing.T) { writtenPostgres(t, true).underLoad(t, length) })
	t.Run("SQLite", func(t *testing.T) { writtenSQLite(t).underLoad(t, length) })
}

func (w *written) underLoad(t *testing.T, length time.Duration) {
	t.Helper()
	const clients, perSecond, perMinute = 8, 200, 10_000
	writers := make([]*writer, w.writers)
	for n := range writers {
		writers[n] = newWriter(t, w, n)
	}
	people := all(writers)
	var running sync.WaitGroup
	begun := time.Now()
	end := begun.Add(length)
	for _, each := range writers {
		running.Go(func() { each.write(t, end, 1.02*perMinute/60/float64(len(writers))) })
	}
	seen := &sightings{keys: make(map[string]*openpgp.Entity)}
	for _, p := range people {
		for _, key := range p.pair {
			seen.keys[number(key)] = key
		}
	}
	for n := range clients {
		session := w.dial(t)
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(begun.UnixNano()), uint64(100+n)))
			for i := 0; time.Now().Before(end); i++ {
				due := begun.Add(time.Duration(float64(i) / (1.02 * perSecond / clients) * float64(time.Second)))
				time.Sleep(time.Until(due))
				seen.send(t, session, people[random.IntN(len(people))], i%20 == 0)
			}
		})
	}
	running.Wait()
	took := time.Since(begun)
	changes := 0
	for _, each := range writers {
		changes += each.count
	}
	aMinute, aSecond := float64(changes)/took.Minutes(), float64(len(seen.list))/took.Seconds()
	t.Logf("%.0f changes a minute and %.0f messages a second for %v: %s", aMinute, aSecond, took.Round(time.Second), seen.judge(t))
	if long == 1 && (aMinute < perMinute || aSecond < perSecond) {
		t.Error("that is too few")
	}
	w.settles(t, people)
}

// settles: a second later all is as it was written last.
func (w *written) settles(t *testing.T, people []*person) {
	t.Helper()
	time.Sleep(time.Second)
	session := w.dial(t)
	for _, p := range people {
		last := p.history[len(p.history)-1]
		if got, err := fate(session, p.address, short); err != nil || got != last.fate {
			t.Errorf("in the end a message to %s is %s, not %s, error %v", p.address, got, last.fate, err)
		}
	}
	if w.db != nil {
		if used := w.db.SQL(t, database, "SELECT pg_notification_queue_usage()"); used != "0" {
			t.Errorf("%s of the server's queue of notifications is in use", used)
		}
	}
	for _, bad := range []string{"panic", "internal error", lost, "the key store did not answer"} {
		if strings.Contains(w.daemon.Log(), bad) {
			t.Errorf("the log has %q", bad)
		}
	}
}

// sightings are what became of messages. Whether that was right is known when
// the writers have ended: what they write can be seen before they know that it
// is done.
type sightings struct {
	keys map[string]*openpgp.Entity // by number

	mu   sync.Mutex
	list []sighting
}

type sighting struct {
	of           *person
	fate         string
	begun, ended time.Time
}

// send sends one message, and opens what became of it if it is told to.
func (s *sightings) send(t *testing.T, session *client.Session, to *person, open bool) {
	saw := sighting{of: to, begun: time.Now()}
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(to.address)}, short)
	saw.ended = time.Now()
	if err == nil {
		saw.fate, err = fateOf(result)
	}
	if err != nil {
		t.Errorf("to %s: %v", to.address, err)
		return
	}
	s.mu.Lock()
	s.list = append(s.list, saw)
	s.mu.Unlock()
	if !open || saw.fate == passed || saw.fate == deferred {
		return
	}
	for number := range strings.SplitSeq(saw.fate, " ") {
		got, err := envelope.Open(result.Queued.Bytes(), &envelope.Secret{OpenPGP: openpgp.EntityList{s.keys[number]}})
		if err != nil || !bytes.Equal(got, short.Shown()) {
			t.Errorf("to %s: opened with %s it is %.100q, error %v", to.address, number, got, err)
		}
	}
}

// judge holds them against what was true.
func (s *sightings) judge(t *testing.T) (summary string) {
	t.Helper()
	const most = time.Second
	var latest, longest time.Duration
	behind := 0
	count := make(map[string]int)
	for _, saw := range s.list {
		kind := saw.fate
		if kind != passed && kind != deferred {
			kind = fmt.Sprintf("sealed to %d", 1+strings.Count(kind, " "))
		}
		count[kind]++
		longest = max(longest, saw.ended.Sub(saw.begun))
		late, right := saw.of.since(saw.fate, saw.begun, saw.ended)
		switch {
		case saw.of.steady && (saw.fate == passed || saw.fate == deferred):
			t.Errorf("a message to %s was %s, who has a key at any time", saw.of.address, saw.fate)
		case !right:
			t.Errorf("a message to %s was %s, which was never right", saw.of.address, saw.fate)
		case late > most:
			t.Errorf("a message to %s was %s, which was right %v before it", saw.of.address, saw.fate, late)
		case late > 0:
			behind++
		}
		latest = max(latest, late)
	}
	return fmt.Sprintf("%v; the longest took %v; %d were as it had been before, by up to %v", count, longest, behind, latest)
}

// sealedTo are the numbers of the keys that an OpenPGP message names, in their
// order.
func sealedTo(body []byte) (string, error) {
	_, rest, found := strings.Cut(string(body), "-----BEGIN PGP MESSAGE-----")
	if !found {
		return "", fmt.Errorf("no OpenPGP message in %.300q", body)
	}
	block, err := armor.Decode(strings.NewReader("-----BEGIN PGP MESSAGE-----" + rest))
	if err != nil {
		return "", err
	}
	var numbers []string
	for packets := packet.NewReader(block.Body); ; {
		next, err := packets.Next()
		key, is := next.(*packet.EncryptedKey)
		if err != nil || !is {
			slices.Sort(numbers)
			return strings.Join(numbers, " "), nil
		}
		numbers = append(numbers, fmt.Sprintf("%016X", key.KeyId))
	}
}

package mta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

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
	for i := range 12 {
		address := fmt.Sprintf("p%d.%d@%s", n, i, w.domain)
		p := &person{address: address, pair: pair(address)}
		p.becomes(passed, time.Time{}, time.Time{})
		w.people = append(w.people, p)
	}
	for i := range 3 {
		address := fmt.Sprintf("s%d.%d@%s", n, i, w.domain)
		p := &person{address: address, pair: pair(address), steady: true, there: true, enabled: true, states: [2]string{"active", ""}}
		w.say(t, fmt.Sprintf("INSERT INTO %skeys (address, key, fingerprint) VALUES ('%s', '%s', 'AA');", w.schema, address, public(t, p.pair[0])), p)
		w.steady = append(w.steady, p)
	}
	to := w.steady[0]
	w.alias = &person{address: fmt.Sprintf("a%d@%s", n, w.domain), steady: true, there: true, enabled: true, pair: to.pair, states: to.states}
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
		switch n := w.random.IntN(200); {
		case n < 4:
			w.change(t, len(w.people)) // all of them in one statement
		case n == 4:
			w.redirect(t)
		case n < 20:
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
	sealed       []byte // of some messages, to be opened
}

// send sends one message, and keeps what became of it if it is told to.
func (s *sightings) send(t *testing.T, session *client.Session, to *person, keep bool) {
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
	if keep && saw.fate != passed && saw.fate != deferred {
		saw.sealed = result.Queued.Bytes()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, saw)
}

// open opens a sealed message with each of the keys that it names.
func (s *sightings) open(t *testing.T, saw sighting) {
	t.Helper()
	for number := range strings.SplitSeq(saw.fate, " ") {
		got, err := envelope.Open(saw.sealed, &envelope.Secret{OpenPGP: openpgp.EntityList{s.keys[number]}})
		if err != nil || !bytes.Equal(got, short.Shown()) {
			t.Errorf("to %s: opened with %s it is %.100q, error %v", saw.of.address, number, got, err)
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
		if saw.sealed != nil {
			s.open(t, saw)
		}
	}
	return fmt.Sprintf("%v; the longest took %v; %d were as it had been before, by up to %v", count, longest, behind, latest)
}

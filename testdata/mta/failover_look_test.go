package mta_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

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
	key := number(f.keys[ann])
	f.sealed(t, ann, key)
	before := countLookups(t, server)
	for range 20 {
		f.sealed(t, ann, key)
	}
	return countLookups(t, server) - before
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

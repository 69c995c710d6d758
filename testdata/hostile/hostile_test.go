// Package hostile_test hands in keys that are made to be expensive, to deceive
// or to be of no use, and their harmless relatives. All are made when the test
// runs, octet by octet: packets_test.go and der_test.go are the tools,
// openpgp_test.go, forms_test.go and certificates_test.go the keys.
package hostile_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// What refusing one may take, on a machine that does nothing else.
const (
	maxTime   = 100 * time.Millisecond * slow
	maxMemory = 32 << 20
)

// handed is something handed in as a key of ann@example.org.
type handed struct {
	name   string
	data   []byte
	reason keys.Reason // "" for one that is taken
	words  string      // of the error
}

// TestRefused: each is refused for its reason, and at once; and where it is in
// the store already, it harms nobody.
func TestRefused(t *testing.T) {
	all := slices.Concat(openPGPRefused(), formsRefused(), certificatesRefused())
	if len(all) < 60 {
		t.Errorf("%d keys, want 60", len(all))
	}
	var slowest time.Duration
	var most uint64
	for _, key := range all {
		t.Run(key.name, func(t *testing.T) {
			var err error
			took, memory := measure(func() { _, _, err = keys.Validate(key.data, strict()) })
			var refusal *keys.Refusal
			switch {
			case !errors.As(err, &refusal):
				t.Fatalf("the error is %v, want a refusal: %s", err, key.reason)
			case refusal.Reason != key.reason || !strings.Contains(refusal.Text, key.words):
				t.Errorf("%s: %s\nwant %s: %s", refusal.Reason, refusal.Text, key.reason, key.words)
			case len(refusal.Text) > 1000 || !strings.ContainsAny(refusal.Text, ";:"):
				t.Errorf("no sentence for a user: %s", refusal.Text)
			}
			if took > maxTime || memory > maxMemory {
				t.Errorf("it took %v and %d KiB", took, memory>>10)
			}
			slowest, most = max(slowest, took), max(most, memory)
			lookUp(t, key.data)
		})
	}
	t.Logf("%d keys, at most %v and %d KiB each", len(all), slowest, most>>10)
}

// TestTaken: harmless relatives of those above are taken, for ann@example.org
// where they name her.
func TestTaken(t *testing.T) {
	for _, key := range slices.Concat(openPGPTaken(), formsTaken(), certificatesTaken()) {
		t.Run(key.name, func(t *testing.T) {
			taken, warnings, err := keys.Validate(key.data, strict())
			if err != nil || len(taken) == 0 || len(warnings) > 0 {
				t.Fatalf("%d keys, warnings %v, error %v", len(taken), warnings, err)
			}
			again, _, err := keys.Validate([]byte(taken[0].Armored()), strict())
			if err != nil || len(again) != 1 || again[0].Armored() != taken[0].Armored() {
				t.Errorf("as it is stored: %d keys, error %v", len(again), err)
			}
			lookUp(t, key.data)
		})
	}
}

// strict are the rules for what a user hands in.
func strict() keys.Rules {
	return keys.Rules{Address: "ann@example.org", Now: noon, Seal: seal}
}

// seal seals a message, as the filter will.
func seal(key *keys.Key) error {
	s, err := envelope.Begin(keys.Form{Method: key.Method, Cipher: keys.AES256}, envelope.Spool{Memory: 1 << 20})
	if err != nil {
		return err
	}
	defer s.Discard()
	if err := s.Header([]envelope.Field{{Name: "Subject", Value: " trial"}}); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	c, err := s.Copy([]*keys.Key{key}, envelope.Addressing{}, noon)
	if err != nil {
		return err
	}
	return c.WriteBody(io.Discard, "\r\n")
}

// measure returns the least time and memory that a few calls took: a busy
// machine only adds to them. The memory is all that was allocated.
func measure(f func()) (took time.Duration, memory uint64) {
	const calls = 5
	for i := range calls {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		f()
		elapsed := time.Since(begin)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if i == 0 {
			took, memory = elapsed, allocated
		}
		took, memory = min(took, elapsed), min(memory, allocated)
		if took < maxTime/4 && memory < maxMemory/4 {
			break
		}
	}
	return took, memory
}

// shelf is a store with one key.
type shelf []byte

func (s shelf) RecipientKeys(_ context.Context, addresses []string) (rows []keys.Row, err error) {
	for _, address := range addresses {
		rows = append(rows, keys.Row{Address: address, Account: address, Known: true, Enabled: true, Key: string(s)})
	}
	return rows, nil
}

func (s shelf) Close() {}

// lookUp finds a key in the store: it is read or is an error, and what is read
// can be sealed to or cannot, but nothing panics.
func lookUp(t *testing.T, data []byte) {
	t.Helper()
	found, err := keys.Lookup(context.Background(), shelf(data), keys.Naming{}, []string{"ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	account := found["ann@example.org"].Accounts[0]
	if len(data) > 0 && (!account.Enrolled() || len(account.Keys)+len(account.Unread) == 0) {
		t.Error("in the store, it is nobody enrolled")
	}
	for _, key := range account.Keys {
		if key.State(noon) <= keys.Expired {
			seal(key)
		}
	}
}

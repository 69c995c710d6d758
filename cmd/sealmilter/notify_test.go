package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestDueWarning: only the nearest threshold counts, and each begins at its
// very moment.
func TestDueWarning(t *testing.T) {
	end := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, test := range []struct {
		before time.Duration
		want   string
	}{
		{31 * day, ""},
		{30*day + time.Second, ""},
		{30 * day, "days-30"},
		{14*day + time.Second, "days-30"},
		{14 * day, "days-14"},
		{7*day + time.Second, "days-14"},
		{7 * day, "days-7"},
		{day + time.Second, "days-7"},
		{day, "days-1"},
		{time.Second, "days-1"},
		{0, "expired"},
		{-1000 * day, "expired"},
	} {
		if got := dueWarning(end, end.Add(-test.before)); got != test.want {
			t.Errorf("%s before: %q, want %q", test.before, got, test.want)
		}
	}
	if got := dueWarning(time.Time{}, end); got != "" {
		t.Errorf("a key without an end: %q", got)
	}
}

// TestIsSent: what is nearer to the end says what is farther too, and another
// end is another matter.
func TestIsSent(t *testing.T) {
	end := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	sent := []keys.Warning{{Kind: "days-14", Expires: end.Local()}, {Kind: "a kind of the future", Expires: end}}
	for kind, want := range map[string]bool{"days-30": true, "days-14": true, "days-7": false, "days-1": false, "expired": false} {
		if got := isSent(kind, end, sent); got != want {
			t.Errorf("%s: %v", kind, got)
		}
		if isSent(kind, end.AddDate(1, 0, 0), sent) {
			t.Errorf("%s: the key was prolonged", kind)
		}
	}
}

func TestDaysLeft(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]int{time.Second: 1, 24 * time.Hour: 1, 24*time.Hour + 1: 2, 0: 0, -time.Hour: 0, -25 * time.Hour: -1} {
		if got := daysLeft(now.Add(left), now); got != want {
			t.Errorf("%s: %d, want %d", left, got, want)
		}
	}
}

// warned is a store of one account that fails where it is told to.
type warned struct {
	keys.Registry
	row     keys.Enrolled
	noted   []keys.Warning
	noteErr error
}

func (w *warned) Keys(context.Context, string) iter.Seq2[keys.Enrolled, error] {
	return func(yield func(keys.Enrolled, error) bool) { yield(w.row, nil) }
}

func (w *warned) WarningsSent(context.Context, int64) ([]keys.Warning, error) { return w.noted, nil }

func (w *warned) NoteWarning(_ context.Context, _ int64, warning keys.Warning) (bool, error) {
	if w.noteErr == nil {
		w.noted = append(w.noted, warning)
	}
	return true, w.noteErr
}

// TestNotedWhenSent: a warning is noted when the MTA has it and not before, and
// nothing more is sent where it cannot be noted.
func TestNotedWhenSent(t *testing.T) {
	st := &warned{row: keys.Enrolled{ID: 1, Address: "near@example.org", Key: testKey(t, "near.asc").Armored(), State: keys.KeyActive}}
	cfg := defaultConfig()
	cfg.Notify.From = "postmaster@example.org"
	sent := 0
	n := &notifier{cfg: cfg, now: time.Now(), st: st, out: io.Discard, progress: newProgress(io.Discard, ""), send: func(context.Context, []string, []byte) error { sent++; return nil }}
	var err error
	if n.template, err = cfg.noticeTemplate(); err != nil {
		t.Fatal(err)
	}
	failing := *n
	failing.send = func(context.Context, []string, []byte) error { return errors.New("no room") }
	if err := failing.run(t.Context()); err != nil || failing.failed != 1 || len(st.noted) > 0 {
		t.Fatalf("the MTA refuses it: %d noted, error %v", len(st.noted), err)
	}
	st.noteErr = keys.ErrStore
	if err := n.run(t.Context()); !errors.Is(err, keys.ErrStore) || sent != 1 {
		t.Fatalf("the store goes away: %d sent, error %v", sent, err)
	}
	st.noteErr = nil
	for range 2 {
		if err := n.run(t.Context()); err != nil || sent != 2 || len(st.noted) != 1 || st.noted[0].Kind != "days-14" {
			t.Fatalf("%d sent, noted %v, error %v", sent, st.noted, err)
		}
	}
}

// TestNonce: what was made is read again in whatever way a person copies it.
func TestNonce(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		nonce := newNonce()
		plain, err := parseNonce(nonce)
		if err != nil || len(plain) != nonceLength || seen[plain] {
			t.Fatalf("%s is %q: %v", nonce, plain, err)
		}
		seen[plain] = true
		again, err := parseNonce(" " + strings.ToLower(strings.ReplaceAll(nonce, "-", " - ")) + "\r\n")
		if err != nil || again != plain {
			t.Errorf("%s, copied, is %q: %v", nonce, again, err)
		}
	}
	if got, err := parseNonce("oOiIlL-0000-0000-0000-00"); err != nil || got != "00111100000000000000" {
		t.Errorf("letters for digits: %q, %v", got, err)
	}
	for _, text := range []string{"", "0000", "0000-0000-0000-0000-000U", "0000-0000-0000-0000-00000", "0000-0000-0000-0000-000é"} {
		if _, err := parseNonce(text); !errors.Is(err, errNoNonce) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestHeaderAddress: what a store has for an address cannot become a field of a
// header, nor a second recipient.
func TestHeaderAddress(t *testing.T) {
	for address, want := range map[string]string{
		"ann@example.org":                      "ann@example.org",
		"änn@bücher.example":                   "änn@xn--bcher-kva.example",
		"ann@example.org\nBcc: x@y":            "",
		"ann@example.org, mallory@example.net": `"ann@example.org, mallory"@example.net`,
		`a b@example.org`:                      `"a b"@example.org`,
		"@example.org":                         "",
	} {
		got, err := headerAddress(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
}

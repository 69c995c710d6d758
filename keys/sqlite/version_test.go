package sqlite

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

var _ keys.Versioned = (*Store)(nil)

func version(t testing.TB, s *Store) int64 {
	t.Helper()
	number, err := s.Version(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// TestVersion: whoever changes the file, it is noticed at once, and what is only
// read changes nothing.
func TestVersion(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, Options{})
	before := version(t, s.Store)
	same := func(what string) {
		t.Helper()
		keyOf(t, s.Store, "ann@example.org")
		if now := version(t, s.Store); now != before {
			t.Errorf("%s: the version was %d and is %d", what, before, now)
		}
	}
	changed := func(what string) {
		t.Helper()
		now := version(t, s.Store)
		if now == before {
			t.Errorf("%s: the version is the same", what)
		}
		before = now
		same(what)
	}
	same("nothing")
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	changed("the Registry of the same process")
	if out, err := shell(t, s, `UPDATE keys SET key = 'BY SHELL';`); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	changed("the sqlite3 shell")
	if out, err := shell(t, s, `BEGIN; DELETE FROM keys; ROLLBACK; SELECT 1;`); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	same("what was taken back")

	// Another file in its place, with other keys, and the same number of changes.
	if out, err := shell(t, s, `UPDATE keys SET key = 'OLD';
.backup '`+strings.ReplaceAll(s.path, "'", "''")+`.new'
UPDATE keys SET key = 'NEW';`); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	changed("the shell again")
	if err := os.Rename(s.path+".new", s.path); err != nil {
		t.Fatal(err)
	}
	changed("another file")
	if got := keyOf(t, s.Store, "ann@example.org"); got != "OLD" {
		t.Errorf("the key is %q, and that of the file OLD", got)
	}
	if out, err := shell(t, s, `UPDATE keys SET key = 'LAST';`); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	changed("the other file")
	if got := keyOf(t, s.Store, "ann@example.org"); got != "LAST" {
		t.Errorf("the key is %q", got)
	}

	if err := os.Rename(s.path, s.path+".gone"); err != nil {
		t.Fatal(err)
	}
	if number, err := s.Version(ctx); !errors.Is(err, keys.ErrStore) {
		t.Errorf("without the file: %d, %v", number, err)
	}
	if err := os.Rename(s.path+".gone", s.path); err != nil {
		t.Fatal(err)
	}
	changed("the file is back")
}

// TestVersionWhileWriting: while somebody writes nobody waits for an answer.
func TestVersionWhileWriting(t *testing.T) {
	s := newStore(t, Options{Timeout: 5 * time.Second})
	before := version(t, s.Store)
	db, err := connect(s.path, time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`BEGIN EXCLUSIVE; INSERT INTO accounts (address) VALUES ('ann@example.org')`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if number, err := s.Version(context.Background()); err == nil && number == before || time.Since(began) > time.Second {
		t.Logf("while a writer holds the file: %d, %v after %v", number, err, time.Since(began))
	}
	if _, err := db.Exec(`COMMIT`); err != nil {
		t.Fatal(err)
	}
	if now := version(t, s.Store); now == before {
		t.Error("the version is the same after a change")
	}
}

// TestVersionOfMany: it can be asked from everywhere, and leaves nothing behind.
func TestVersionOfMany(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	s := newStore(t, Options{Timeout: 100 * time.Millisecond})
	done := make(chan bool)
	for range 8 {
		go func() {
			for range 200 {
				s.Version(context.Background())
				s.RecipientKeys(context.Background(), []string{"ann@example.org"})
			}
			done <- true
		}()
	}
	for range 20 {
		if err := os.Link(s.path, s.path+".x"); err == nil { // a file that is put back
			os.Rename(s.path+".x", s.path)
		}
		s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: time.Now().String()})
	}
	for range 8 {
		<-done
	}
	version(t, s.Store)
	s.Close()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left, there were %d", runtime.NumGoroutine(), goroutines)
		}
	}
}

func BenchmarkVersion(b *testing.B) {
	s := newStore(b, Options{})
	for b.Loop() {
		if _, err := s.Version(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

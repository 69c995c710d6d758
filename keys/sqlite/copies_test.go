package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/storetest"
	"sealmilter/testdata/bed"
)

// copies is a Copies under the suite.
type copies struct {
	*Copies
}

// openedCopies opens a file until the end of the test.
func openedCopies(t testing.TB, path string) copies {
	t.Helper()
	c, err := OpenCopies(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return copies{c}
}

func (c copies) Another(t testing.TB) storetest.Memory { return openedCopies(t, c.path) }

func (c copies) Age(t testing.TB, by time.Duration) {
	t.Helper()
	if _, err := c.db.Exec(`UPDATE copies SET until = until - ?`, by.Milliseconds()); err != nil {
		t.Fatal(err)
	}
}

func (c copies) Count(t testing.TB) (n int) {
	t.Helper()
	if err := c.db.QueryRow(`SELECT count(*) FROM copies`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCopies(t *testing.T) {
	storetest.Copies(t, func(t *testing.T) storetest.CopyStore {
		return openedCopies(t, filepath.Join(folder(t), "copies ?#%20.db"))
	})
}

// TestCopiesFile: the file is the daemon's alone, is found again, and is no
// other.
func TestCopiesFile(t *testing.T) {
	path := filepath.Join(folder(t), "copies.db")
	hash := [][]byte{bytes.Repeat([]byte{7}, keys.CopyHashSize)}
	for round := range 2 {
		c, err := OpenCopies(path)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := c.Begin(context.Background(), fmt.Sprint("owner ", round), hash, -time.Second)
		if err != nil || sent[0] != (round > 0) {
			t.Errorf("round %d: %v, %v", round, sent, err)
		}
		if err := c.Sent(context.Background(), "late", hash[0]); !errors.Is(err, keys.ErrClaimLost) {
			t.Errorf("Sent: %v", err)
		}
		names, err := filepath.Glob(path + "*")
		if err != nil || len(names) != 3 { // the log and its index are beside it
			t.Errorf("%q, %v", names, err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != copiesMode {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
		c.Close()
	}
	if out, err := exec.Command(bed.Need(t, "sqlite3"), path, `PRAGMA user_version = 2`).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := OpenCopies(path); err == nil || !strings.Contains(err.Error(), "newer sealmilter") {
		t.Errorf("a newer file: %v", err)
	}
	for path, want := range map[string]string{
		newStore(t, Options{}).path:          "need a file of their own",
		"copies.db":                          "must begin with /",
		filepath.Join(path, "none", "x.db"):  "not a directory",
		filepath.Join(folder(t), "no", "db"): "make the folder",
	} {
		if _, err := OpenCopies(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	text := filepath.Join(folder(t), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCopies(text); !errors.Is(err, errNotADatabase) {
		t.Errorf("a text: %v", err)
	}
}

// TestCopiesAtOnce: several daemons make the file.
func TestCopiesAtOnce(t *testing.T) {
	path := filepath.Join(folder(t), "copies.db")
	done := make(chan error)
	for range 8 {
		go func() {
			c, err := OpenCopies(path)
			if err == nil {
				c.Close()
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestCopiesHeld: another process has the file for longer than a call may take.
func TestCopiesHeld(t *testing.T) {
	c := openedCopies(t, filepath.Join(folder(t), "copies.db"))
	other := openedCopies(t, c.path)
	tx, err := other.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	hash := [][]byte{make([]byte, keys.CopyHashSize)}
	start := time.Now()
	if _, err := c.Begin(context.Background(), "one", hash, time.Minute); !errors.Is(err, keys.ErrStore) || time.Since(start) > DefaultTimeout {
		t.Errorf("Begin: %v after %v", err, time.Since(start))
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Begin(context.Background(), "one", hash, time.Minute); err != nil {
		t.Error(err)
	}
}

// TestCopiesReadOnly: where the file cannot be written, the message waits.
func TestCopiesReadOnly(t *testing.T) {
	c := openedCopies(t, filepath.Join(folder(t), "copies.db"))
	hash := [][]byte{make([]byte, keys.CopyHashSize)}
	if _, err := c.db.Exec(`PRAGMA query_only = 1`); err != nil {
		t.Fatal(err)
	}
	_, err := c.Begin(context.Background(), "one", hash, time.Minute)
	for what, err := range map[string]error{"Begin": err, "Sent": c.Sent(context.Background(), "one", hash[0])} {
		if !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrClaimLost) {
			t.Errorf("%s: %v, want ErrStore", what, err)
		}
	}
}

// TestCopiesForbidden: that the file, or its folder, is another user's is told
// when it is opened.
func TestCopiesForbidden(t *testing.T) {
	bed.NeedRoot(t)
	dir := bed.Dir(t)
	path := openedCopies(t, filepath.Join(dir, "copies.db")).path
	for path, want := range map[string]string{path: path + " cannot be written by user", path + "2": dir + " cannot be written by user"} {
		if out := asNobody(t, dir, "TestCopiesAsNobody", path); !strings.Contains(out, "refused true: opening the memory of copies in flight: ") ||
			!strings.Contains(out, want) {
			t.Errorf("%s\nwant %q in it", out, want)
		}
	}
}

// TestCopiesAsNobody is the part that runs as another user.
func TestCopiesAsNobody(t *testing.T) {
	if path := os.Getenv("SQLITE_READER_PATH"); path != "" {
		_, err := OpenCopies(path)
		fmt.Printf("refused %v: %v\n", errors.Is(err, ErrRefused), err)
	}
}

// TestCopiesKilled: what was noted when Sent returned is there, although the
// process killed itself at once, with its claim alive.
func TestCopiesKilled(t *testing.T) {
	const variable = "SQLITE_COPIES"
	hashes := [][]byte{bytes.Repeat([]byte{1}, keys.CopyHashSize), bytes.Repeat([]byte{2}, keys.CopyHashSize)}
	ctx := context.Background()
	if path := os.Getenv(variable); path != "" {
		c := openedCopies(t, path)
		if _, err := c.Begin(ctx, "dead", hashes, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := c.Sent(ctx, "dead", hashes[1]); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	path := filepath.Join(folder(t), "copies.db")
	cmd := exec.Command(os.Args[0], "-test.run=^TestCopiesKilled$")
	cmd.Env = append(os.Environ(), variable+"="+path)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process has not been killed: %v: %s", err, out)
	}
	c := openedCopies(t, path)
	if _, err := c.Begin(ctx, "heir", hashes, time.Minute); !errors.Is(err, keys.ErrBusy) {
		t.Errorf("while the lease runs: %v", err)
	}
	c.now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	sent, err := c.Begin(ctx, "heir", hashes, time.Minute)
	if err != nil || sent[0] || !sent[1] {
		t.Errorf("%v, %v", sent, err)
	}
}

// BenchmarkCopies is one transaction of two copies on the disk of the machine.
func BenchmarkCopies(b *testing.B) {
	c := openedCopies(b, filepath.Join(b.TempDir(), "copies.db"))
	ctx := context.Background()
	hashes := [][]byte{bytes.Repeat([]byte{1}, keys.CopyHashSize), bytes.Repeat([]byte{2}, keys.CopyHashSize)}
	var took [3]time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := c.Begin(ctx, "one", hashes, time.Minute); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := c.Sent(ctx, "one", hashes[0]); err != nil {
			b.Fatal(err)
		}
		noted := time.Now()
		if err := c.End(ctx, "one", hashes, true); err != nil {
			b.Fatal(err)
		}
		took[0] += began.Sub(start)
		took[1] += noted.Sub(began)
		took[2] += time.Since(noted)
	}
	for i, name := range []string{"µs/Begin", "µs/Sent", "µs/End"} {
		b.ReportMetric(float64(took[i].Microseconds())/float64(b.N), name)
	}
}

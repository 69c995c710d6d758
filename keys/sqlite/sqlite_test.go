package sqlite

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/storetest"
	"sealmilter/testdata/bed"
)

// store is a Store of a new file, with a second handle for the administrator.
type store struct {
	*Store
}

func (s store) SQL(t testing.TB, statements string) {
	t.Helper()
	// No foreign keys: this is how the sqlite3 shell opens a file.
	db, err := connect(s.path, time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(strings.ReplaceAll(statements, "sealmilter.", "")); err != nil {
		t.Fatalf("%v in %s", err, statements)
	}
}

func (s store) TrySQL(statement string) error {
	_, err := s.write.Exec(strings.ReplaceAll(statement, "sealmilter.", ""))
	return err
}

// folder is a new folder in memory, where the machine has a place for one: the
// suite commits some thousand times, and nothing here is about the disk.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sealmilter")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newStore migrates a new file and opens it.
func newStore(t testing.TB, opts Options) store {
	t.Helper()
	path := filepath.Join(folder(t), "keys ?#%20.db") // a path may hold what a URL may not
	if _, _, err := Migrate(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return store{s}
}

// shell runs statements with the sqlite3 program.
func shell(t *testing.T, s store, statements string) (string, error) {
	t.Helper()
	cmd := exec.Command(bed.Need(t, "sqlite3"), "-bail", s.path)
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// keyOf is the one key of an address.
func keyOf(t testing.TB, s *Store, address string) string {
	t.Helper()
	rows, err := s.RecipientKeys(context.Background(), []string{address})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%q: %d rows, %v", address, len(rows), err)
	}
	return rows[0].Key
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return newStore(t, Options{}) })
}

func TestAddresses(t *testing.T) {
	storetest.Addresses(t, func(t *testing.T, d storetest.Directory) keys.Store {
		s := newStore(t, Options{})
		storetest.Fill(t, s, d)
		return s
	})
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	_, err := Open(context.Background(), path, Options{})
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "sealmilter migrate --store sqlite:"+path) {
		t.Errorf("Open of a missing file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Open made the file")
	}
	if _, err := Open(context.Background(), filepath.Dir(path), Options{}); err == nil {
		t.Error("Open took a folder")
	}
	if _, _, err := Migrate(context.Background(), filepath.Join(path, "none", "keys.db")); err == nil {
		t.Error("Migrate made a file in a folder that is not there")
	}
}

func TestFileVanishes(t *testing.T) {
	s := newStore(t, Options{})
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err == nil {
		t.Error("a key was added to a file that is gone")
	}
	fresh, err := connect(s.path, time.Second, "&_query_only=1")
	if err != nil {
		t.Fatal(err)
	}
	s.read.Swap(fresh).Close()
	if _, err := s.RecipientKeys(context.Background(), []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("lookup: %v, want an error that wraps ErrStore", err)
	}
	if _, err := s.Check(context.Background()); !errors.Is(err, keys.ErrStore) || errors.Is(err, ErrNoSchema) {
		t.Errorf("Check: %v, want an error that wraps ErrStore", err)
	}
	if _, err := os.Stat(s.path); err == nil {
		t.Error("the file was made again")
	}
}

func TestNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("-----BEGIN PGP PUBLIC KEY BLOCK-----\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), path, Options{}); !errors.Is(err, errNotADatabase) {
		t.Errorf("Open: %v", err)
	}
	if _, _, err := Migrate(context.Background(), path); !errors.Is(err, errNotADatabase) {
		t.Errorf("Migrate: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), "-----BEGIN") {
		t.Errorf("Migrate has touched it: %v", err)
	}
}

func TestCheck(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, Options{})
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check of a new store: %q, %v", warnings, err)
	}
	if err := os.Chmod(s.path, 0o666); err != nil {
		t.Fatal(err)
	}
	s.SQL(t, `PRAGMA journal_mode=wal`)
	warnings, err := s.Check(ctx)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "write-ahead") || !strings.Contains(warnings[1], "everybody") {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	s.SQL(t, `DROP TABLE sealmilter.keys`)
	if _, err := s.Check(ctx); !errors.Is(err, ErrNoSchema) || errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "run sealmilter migrate") {
		t.Errorf("Check without a table: %v", err)
	}
	if _, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("lookup without a table: %v", err)
	}
}

// TestShell: what the shell writes is there at the next lookup, with the
// triggers' work done although the shell enforces no foreign keys.
func TestShell(t *testing.T) {
	s := newStore(t, Options{})
	if keyOf(t, s.Store, "ann@example.org") != "" {
		t.Fatal("a new store has keys")
	}
	file := filepath.Join(t.TempDir(), "ann.asc")
	if err := os.WriteFile(file, []byte("KEY\r\nFROM A FILE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := shell(t, s, `INSERT INTO keys (address, key) VALUES ('Ann@Example.org', readfile('`+file+`'));`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.reader().Exec(`DELETE FROM keys`); err == nil {
		t.Error("the connection for lookups has written")
	}
	if got := keyOf(t, s.Store, "ann@example.org"); got != "KEY\r\nFROM A FILE\n" {
		t.Errorf("the key is %q", got)
	}
	if out, err := shell(t, s, `UPDATE accounts SET address = 'anna@example.org'; INSERT OR REPLACE INTO keys (address, key) VALUES ('bob@example.org', 'B');`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if keyOf(t, s.Store, "anna@example.org") == "" || keyOf(t, s.Store, "ann@example.org") != "" || keyOf(t, s.Store, "bob@example.org") != "B" {
		t.Error("the keys did not move with their account")
	}
	if out, err := shell(t, s, `DELETE FROM accounts WHERE address = 'ANNA@example.org'; SELECT count(*) FROM keys;`); err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("keys left after their account: %s, %v", out, err)
	}
	out, err := shell(t, s, `INSERT OR IGNORE INTO keys (address, key) VALUES ('<carol@example.org>', 'C');
		INSERT INTO keys (address, key) VALUES ('<carol@example.org>', 'C');`)
	if err == nil || !strings.Contains(out, "address_in_angle_brackets") {
		t.Errorf("the shell said %q, %v", out, err)
	}
	out, err = shell(t, s, `INSERT INTO keys (address, key) VALUES ('Bob@example.org', 'B');`)
	if err == nil || !strings.Contains(out, "key_is_enrolled_already") {
		t.Errorf("the same key again: the shell said %q, %v", out, err)
	}
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "bob@example.org", Key: "B"}); !errors.Is(err, ErrEnrolledAlready) {
		t.Errorf("the same key again: %v", err)
	}
}

// TestWriterHolds: a writer that commits makes lookups wait, no longer than
// their timeout, and one that was killed in the middle leaves nothing behind
// that a lookup could not clean up.
func TestWriterHolds(t *testing.T) {
	s := newStore(t, Options{Timeout: 300 * time.Millisecond})
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	db, err := connect(s.path, time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`BEGIN EXCLUSIVE; DELETE FROM accounts`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = s.RecipientKeys(context.Background(), []string{"ann@example.org"})
	if !errors.Is(err, keys.ErrStore) || time.Since(start) > 2*time.Second {
		t.Errorf("lookup while a writer holds the file: %v after %v", err, time.Since(start))
	}
	if _, err := db.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if got := keyOf(t, s.Store, "ann@example.org"); got != "KEY" {
		t.Errorf("the key is %q", got)
	}
}

func TestWriterKilled(t *testing.T) {
	s := newStore(t, Options{})
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	// With hardly any cache the shell writes into the file before it commits;
	// then it kills itself.
	out, err := shell(t, s, `PRAGMA cache_size = 2; BEGIN; UPDATE keys SET key = 'HALF';
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
		INSERT INTO keys (address, key) SELECT 'user' || i || '@example.org', hex(randomblob(2000)) FROM n;
.shell kill -9 $PPID
`)
	if err == nil {
		t.Fatalf("the shell has not been killed: %s", out)
	}
	if out != "" {
		t.Fatalf("the shell said %s", out)
	}
	if info, err := os.Stat(s.path + "-journal"); err != nil || info.Size() == 0 {
		t.Fatalf("no journal is left: %v", err)
	}
	if got := keyOf(t, s.Store, "ann@example.org"); got != "KEY" {
		t.Errorf("the key is %q", got)
	}
}

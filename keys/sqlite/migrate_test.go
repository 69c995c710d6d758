package sqlite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

func TestMigrate(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "keys.db")
	if from, to, err := Migrate(ctx, path); err != nil || from != 0 || to < 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&^fileMode != 0 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	s, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.AddKey(ctx, "ann@example.org", "KEY"); err != nil {
		t.Fatal(err)
	}
	if from, to, err := Migrate(ctx, path); err != nil || from != to || to < 1 {
		t.Errorf("a second time from %d to %d, %v", from, to, err)
	}
	if got := keyOf(t, s, "ann@example.org"); got != "KEY" {
		t.Errorf("after a second migration the key is %q", got)
	}
	store{s}.SQL(t, `INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)`)
	if _, _, err := Migrate(ctx, path); err == nil || !strings.Contains(err.Error(), "newer sealmilter") {
		t.Errorf("migrating a newer file: %v", err)
	}
}

func TestMigrateAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	var wait sync.WaitGroup
	var made sync.Map
	for i := range 8 {
		wait.Go(func() {
			from, to, err := Migrate(context.Background(), path)
			if err != nil || to < 1 {
				t.Errorf("from %d to %d, %v", from, to, err)
			}
			if from == 0 {
				made.Store(i, true)
			}
		})
	}
	wait.Wait()
	n := 0
	made.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 8 made the tables", n)
	}
}

func TestMigrateWaits(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockFolder(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := Migrate(ctx, filepath.Join(dir, "keys.db")); err == nil || !strings.Contains(err.Error(), "another migration") {
		t.Errorf("migrating beside another: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys.db")); err == nil {
		t.Error("the file was made")
	}
}

// TestDown: the way back is written, and leads to where it began.
func TestDown(t *testing.T) {
	s := newStore(t, Options{})
	text, err := migrations.ReadFile("migrations/00001_accounts_and_keys.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, down, found := strings.Cut(string(text), "-- +goose Down")
	if !found {
		t.Fatal("no way back")
	}
	s.SQL(t, down)
	if out, err := shell(t, s, `SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' AND name <> 'schema_version';`); err != nil || out != "" {
		t.Errorf("left: %s, %v", out, err)
	}
}

// TestReadOnlyUser: a daemon that may read the file and nothing else looks
// keys up, and cannot exchange one.
func TestReadOnlyUser(t *testing.T) {
	bed.NeedRoot(t)
	dir := bed.Dir(t)
	path := filepath.Join(dir, "keys.db")
	ctx := context.Background()
	if _, _, err := Migrate(ctx, path); err != nil {
		t.Fatal(err)
	}
	const group = 65534
	if err := os.Chown(path, 0, group); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, fileMode); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.AddKey(ctx, "ann@example.org", "KEY"); err != nil {
		t.Fatal(err)
	}
	// The test's own program is run again as that user.
	program := filepath.Join(dir, "test")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestAsReader$", "-test.v")
	cmd.Env = append(os.Environ(), "SQLITE_READER_PATH="+path)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: group, Gid: group}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "read KEY") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAsReader is the part of TestReadOnlyUser that runs as another user.
func TestAsReader(t *testing.T) {
	path := os.Getenv("SQLITE_READER_PATH")
	if path == "" {
		return
	}
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fmt.Println("read", keyOf(t, s, "ann@example.org"))
	if warnings, err := s.Check(context.Background()); err != nil || len(warnings) > 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	if _, err := s.AddKey(context.Background(), "ann@example.org", "FORGED"); err == nil {
		t.Error("the reader has written")
	}
}

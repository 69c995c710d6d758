package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealmilter/keys"
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
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
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
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	if out := asNobody(t, dir, "TestAsReader", path); !strings.Contains(out, "read KEY") {
		t.Error(out)
	}
}

// asNobody runs one of the tests of this program as the user nobody.
func asNobody(t *testing.T, dir, test, path string) string {
	t.Helper()
	program := filepath.Join(dir, "test")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	cmd := exec.Command(program, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "SQLITE_READER_PATH="+path)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
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
	unwritable := path + " cannot be written by user nobody (owner root, group nogroup, mode 0640)"
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "FORGED"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), unwritable) {
		t.Errorf("the reader adds a key: %v", err)
	}
	if err := s.RemoveKey(context.Background(), 1); !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("the reader removes a key: %v", err)
	}
	// There is nothing to migrate, and so nothing to write.
	if from, to, err := Migrate(context.Background(), path); err != nil || from != to {
		t.Errorf("the reader migrates: from %d to %d, %v", from, to, err)
	}
	beside := filepath.Join(filepath.Dir(path), "other.db")
	if _, _, err := Migrate(context.Background(), beside); !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), filepath.Dir(path)+" cannot be written by user nobody (owner root, group root, mode 0755)") {
		t.Errorf("the reader makes a file: %v", err)
	}
}

// TestUnreadable: a file that the daemon's user may not read is a mistake of
// the administrator's, and says whose it is.
func TestUnreadable(t *testing.T) {
	bed.NeedRoot(t)
	dir := bed.Dir(t)
	path := filepath.Join(dir, "closed", "keys.db")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Migrate(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, fileMode); err != nil {
		t.Fatal(err)
	}
	file := path + " cannot be read by user nobody (owner root, group root, mode 0640)"
	if out := asNobody(t, dir, "TestAsStranger", path); !strings.Contains(out, "Open: "+file) || !strings.Contains(out, "Check: "+file) {
		t.Error(out)
	}
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(path) + " cannot be entered by user nobody (owner root, group root, mode 0700)"
	if out := asNobody(t, dir, "TestAsStranger", path); !strings.Contains(out, "Open: "+folder) || !strings.Contains(out, "Check: "+folder) {
		t.Error(out)
	}
}

// TestAsStranger is the part of TestUnreadable that runs as another user.
func TestAsStranger(t *testing.T) {
	path := os.Getenv("SQLITE_READER_PATH")
	if path == "" {
		return
	}
	ctx := context.Background()
	_, err := Open(ctx, path, Options{})
	if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
	fmt.Println(strings.Replace(err.Error(), "opening the key store", "Open", 1))
	// The file was readable when the store was opened.
	s := &Store{path: path, timeout: time.Second}
	if s.write, err = connect(path, s.timeout, "&_query_only=1"); err != nil {
		t.Fatal(err)
	}
	s.read.Store(s.write)
	defer s.write.Close()
	_, err = s.Check(ctx)
	if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) {
		t.Errorf("Check: %v", err)
	}
	fmt.Println("Check:", err)
	if _, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); !errors.Is(err, ErrRefused) || !errors.Is(err, keys.ErrStore) ||
		!strings.Contains(err.Error(), "by user nobody") || strings.Contains(err.Error(), "did not answer") {
		t.Errorf("lookup: %v", err)
	}
	for _, err := range s.Keys(ctx, "") {
		if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) {
			t.Errorf("Keys: %v", err)
		}
	}
	if _, _, err := Migrate(ctx, path); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("Migrate: %v", err)
	}
}

// TestPaths: the path is the same wherever a program was started, and a
// missing folder is named.
func TestPaths(t *testing.T) {
	ctx := context.Background()
	t.Chdir(t.TempDir())
	for _, path := range []string{"keys.db", "./keys.db", "../keys.db", ""} {
		_, _, migrated := Migrate(ctx, path)
		_, opened := Open(ctx, path, Options{})
		for _, err := range []error{migrated, opened} {
			if err == nil || !strings.Contains(err.Error(), "must begin with /, as in sqlite:/var/lib/sealmilter/keys.db") {
				t.Errorf("%q: %v", path, err)
			}
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 0 {
		t.Errorf("made %v, %v", left, err)
	}
	folder := filepath.Join(t.TempDir(), "lib")
	if _, _, err := Migrate(ctx, folder+"/keys.db"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "make the folder "+folder+" first") {
		t.Errorf("Migrate into a folder that is not there: %v", err)
	}
}

// Package sqlite keeps the recipients' keys in one SQLite file, for a site
// that needs no database server. Its tables are those of the PostgreSQL store
// and are written in the same ways: by plain SQL, with the sqlite3 shell for
// one, while the daemon runs, or by the Registry.
//
// The file keeps SQLite's rollback journal. Write-ahead logging would let
// readers go on while a transaction commits, but every reader of such a file
// must be able to write in its folder, and the daemon's user should be able to
// read the keys and not to exchange them. With the rollback journal the folder
// and the file can belong to the administrator; a lookup waits for the moment
// of a commit, within its own timeout.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"sealmilter/keys"
)

// DefaultTimeout is how long one lookup may take where Options name no time.
const DefaultTimeout = 5 * time.Second

const (
	// maxAnswer bounds what one lookup may bring into memory.
	maxAnswer = 64 << 20
	// writeTimeout is how long a change waits for other writers and readers.
	writeTimeout = 30 * time.Second
	// reopen is how long a connection is used. A file that was put in the
	// place of the old one, out of a backup, is read after that time at the
	// latest.
	reopen = time.Minute
)

// Options are a Store's settings.
type Options struct {
	Timeout time.Duration // for one lookup, waiting for a writer included; 0 is DefaultTimeout
	Actor   string        // whose changes these are, for the events
}

// Store is a key store in a SQLite file. It is safe for concurrent use.
type Store struct {
	path    string
	timeout time.Duration
	actor   string
	read    atomic.Pointer[sql.DB] // refuses to write
	write   *sql.DB                // not opened before the first change

	versions sync.Mutex // holds what follows, see Version
	version  int64
	file     identity // that is read
	watching *sql.DB
	watch    *sql.Conn // nil where there is none
	counted  int64     // by the connection
}

// reader is for what is read.
func (s *Store) reader() *sql.DB { return s.read.Load() }

// Open opens the file at path, which begins with a slash and must be there: a
// path that is misspelt must not become an empty store, in which nobody has a
// key. The error wraps ErrRefused where this user may not read the file.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("opening the key store: %w", err)
	}
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the key store: %w, run sealmilter migrate --store sqlite:%s", err, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("opening the key store: %w", forbidden(path, toRead, err))
	case err != nil:
		return nil, fmt.Errorf("opening the key store: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("opening the key store: %s is not a file", path)
	}
	if err := syscall.Access(path, toRead); err != nil {
		return nil, fmt.Errorf("opening the key store: %w", forbidden(path, toRead, err))
	}
	s := &Store{path: path, timeout: opts.Timeout, actor: opts.Actor}
	if s.timeout <= 0 {
		s.timeout = DefaultTimeout
	}
	if s.file, err = identify(path); err != nil {
		return nil, fmt.Errorf("opening the key store: %w", err)
	}
	read, err := connect(path, s.timeout, "&_query_only=1")
	if err != nil {
		return nil, err
	}
	s.read.Store(read)
	if s.watching, err = connect(path, 0, "&_query_only=1"); err != nil {
		return nil, err
	}
	if s.write, err = connect(path, writeTimeout, "&_foreign_keys=1&_txlock=immediate"); err != nil {
		return nil, err
	}
	if err := readHeader(ctx, read); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening the key store: %s: %w", path, err)
	}
	return s, nil
}

// checkPath wants a path that is the same for the daemon, which systemd starts
// in a folder of its own, and for the administrator's shell.
func checkPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the path %q must begin with /, as in sqlite:/var/lib/sealmilter/keys.db", path)
	}
	return nil
}

// errNotADatabase: the file is there and something else.
var errNotADatabase = errors.New("this is not a SQLite database")

// readHeader reads the file's first bytes, so that a file of another kind is
// told at once. Other errors may pass by the first lookup and are left to it.
func readHeader(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `PRAGMA schema_version`); code(err) == sqlite3.SQLITE_NOTADB {
		return errNotADatabase
	}
	return nil
}

// connect prepares connections to the file; none is made yet. They are opened
// for reading and writing (mode=rw), which SQLite turns into reading alone
// where the file's mode allows no more: a reader that may write cleans up
// after a writer that was killed, where one opened with mode=ro would be
// locked out.
func connect(path string, busy time.Duration, options string) (*sql.DB, error) {
	file := url.URL{Scheme: "file", OmitHost: true, Path: path}
	dsn := file.String() + "?mode=rw&_busy_timeout=" + strconv.FormatInt(busy.Milliseconds(), 10) + options
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the key store: %w", err)
	}
	conns := max(4, runtime.NumCPU())
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(reopen)
	return db, nil
}

// Close closes the file.
func (s *Store) Close() {
	s.versions.Lock()
	defer s.versions.Unlock()
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
	s.watching.Close()
	s.reader().Close()
	if s.write != nil {
		s.write.Close()
	}
}

// RecipientKeys implements keys.Store. That this user may not read the file
// is in the error's chain as ErrRefused beside keys.ErrStore.
func (s *Store) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	rows, err := s.ask(ctx, addresses)
	if err != nil {
		if why := s.whyUnread(err); errors.Is(why, ErrRefused) {
			return nil, &told{why.Error(), []error{keys.ErrStore, why}}
		}
		return nil, fmt.Errorf("reading %s: %w: %w", s.path, keys.ErrStore, err)
	}
	return rows, nil
}

// code is SQLite's primary result code, or -1 for an error of another kind.
func code(err error) int {
	var said *sqlite.Error
	if errors.As(err, &said) {
		return said.Code() & 0xff
	}
	return -1
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"sealmilter/keys"
)

// Version implements keys.Versioned: it is another number after each change of
// the file, by whatever program, and after another file was put in its place.
// While somebody writes there is no answer, at once: the error wraps
// keys.ErrStore.
//
// SQLite counts the changes in the file, and a connection tells those that it
// has seen made by others, so that this one is used for nothing else.
func (s *Store) Version(ctx context.Context) (int64, error) {
	s.versions.Lock()
	defer s.versions.Unlock()
	err := s.look(ctx)
	if err == nil {
		return s.version, nil
	}
	s.version++
	if s.watch != nil { // what it has counted so far is of no use for another connection
		s.watch.Close()
		s.watch = nil
	}
	return 0, fmt.Errorf("asking whether %s has changed: %w: %w", s.path, keys.ErrStore, err)
}

// identity is what a file has of its own, whatever it is called.
type identity struct {
	device uint64
	inode  uint64
}

func identify(path string) (identity, error) {
	var found syscall.Stat_t
	if err := syscall.Stat(path, &found); err != nil {
		return identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return identity{uint64(found.Dev), found.Ino}, nil
}

// look brings the version up to date.
func (s *Store) look(ctx context.Context) error {
	now, err := identify(s.path)
	if err != nil {
		return err
	}
	if now != s.file {
		if err := s.reopen(now); err != nil {
			return err
		}
	}
	if s.watch == nil {
		if s.watch, err = s.watching.Conn(ctx); err != nil {
			return err
		}
		s.version++
	}
	var count int64
	// Not with ctx, for which the driver would start a goroutine each time: this
	// waits for nobody.
	if err := s.watch.QueryRowContext(context.WithoutCancel(ctx), `PRAGMA data_version`).Scan(&count); err != nil {
		return err
	}
	if count != s.counted {
		s.counted = count
		s.version++
	}
	return nil
}

// reopen lets lookups read the file that is at the path now. Those under way
// finish with the one that they have begun with.
func (s *Store) reopen(now identity) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a file any more")
	}
	read, err := connect(s.path, s.timeout, "&_query_only=1")
	if err != nil {
		return err
	}
	watching, err := connect(s.path, 0, "&_query_only=1")
	if err != nil {
		read.Close()
		return err
	}
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
	s.version++
	s.file = now
	s.watching.Close()
	s.watching = watching
	old := s.read.Swap(read)
	time.AfterFunc(2*s.timeout, func() { old.Close() }) // a lookup that has just taken it comes to its end
	return nil
}

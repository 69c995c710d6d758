package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	sqlite3 "modernc.org/sqlite/lib"

	"sealmilter/keys"
)

// ErrNoSchema is in the chain of the error with which Check says that the
// file can be read, but has not the tables that the daemon reads.
var ErrNoSchema = errors.New("the database has not what sealmilter needs, run sealmilter migrate")

// Check asks as the daemon does and finds out whether the store will serve.
// The error wraps keys.ErrStore where the file cannot be read, ErrRefused where
// that is because this user may not, and ErrNoSchema where the tables are not
// there. Warnings are what works and should not stay so.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.ask(ctx, []string{"nobody@sealmilter.invalid"}); err != nil {
		// "SQL logic error" is how SQLite calls a table that is not there.
		if code(err) == sqlite3.SQLITE_ERROR {
			return nil, fmt.Errorf("reading %s: %w: %w", s.path, ErrNoSchema, err)
		}
		if why := s.whyUnread(err); errors.Is(why, ErrRefused) {
			return nil, why
		}
		return nil, fmt.Errorf("reading %s: %w: %w", s.path, keys.ErrStore, err)
	}
	var journal string
	if err := s.reader().QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&journal); err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", s.path, keys.ErrStore, err)
	}
	if journal == "wal" {
		warnings = append(warnings, fmt.Sprintf("%s has a write-ahead log: who cannot write in its folder may not be able to read it; "+
			"PRAGMA journal_mode=delete takes it back", s.path))
	}
	if info, err := os.Stat(s.path); err == nil && info.Mode().Perm()&0o002 != 0 {
		warnings = append(warnings, fmt.Sprintf("%s can be written by everybody: whoever exchanges a key reads the mail that follows", s.path))
	}
	return warnings, nil
}

package sqlite

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// fileMode lets the file's group read it: root makes the file, the
	// daemon's group gets it, and the daemon can read the keys and not
	// exchange them. The umask may take more away.
	fileMode = 0o640
	// lockPoll is how often a migration looks whether another has finished.
	lockPoll = 50 * time.Millisecond
)

// Migrate makes the file or brings it up to date, and returns the version of
// its tables before and after. The path begins with a slash, and its folder is
// there. The error wraps ErrRefused where this user may not write in it.
func Migrate(ctx context.Context, path string) (from, to int64, err error) {
	if err := checkPath(path); err != nil {
		return 0, 0, fmt.Errorf("migrating: %w", err)
	}
	path = filepath.Clean(path)
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return 0, 0, fmt.Errorf("migrating %s: %w", path, err)
	}
	defer unlock()
	made, err := makeFile(path, fileMode)
	if err != nil {
		return 0, 0, fmt.Errorf("migrating: %w", err)
	}
	if from, to, err = apply(ctx, path, migrations); err != nil {
		if made { // leave nothing half made
			os.Remove(path)
		}
		return from, to, fmt.Errorf("migrating %s: %w", path, whyUnwritten(path, err))
	}
	return from, to, nil
}

// lockFolder keeps a second migration waiting, for goose looks which
// migrations are due before its transaction begins. The folder is locked and
// not the file: to close a file that SQLite has open elsewhere in the process
// would drop SQLite's own locks on it.
func lockFolder(ctx context.Context, path string) (unlock func(), err error) {
	folder, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("make the folder %s first: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, forbidden(path, toRead, err)
	case err != nil:
		return nil, err
	}
	for {
		err = syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { folder.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			folder.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			folder.Close()
			return nil, fmt.Errorf("waiting for another migration: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// makeFile makes an empty file where there is none. SQLite would make it with
// a mode of its own choice.
func makeFile(path string, mode fs.FileMode) (made bool, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, forbidden(filepath.Dir(path), toWrite, err)
	}
	if err != nil {
		return false, err
	}
	return true, file.Close()
}

func apply(ctx context.Context, path string, migrations fs.FS) (from, to int64, err error) {
	db, err := connect(path, writeTimeout, "&_txlock=immediate")
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if err := readHeader(ctx, db); err != nil {
		return 0, 0, err
	}
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, folder,
		goose.WithTableName("schema_version"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the migrations: %w", err)
	}
	from, target, err := provider.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the version of the tables: %w", err)
	}
	if from > target {
		return from, from, fmt.Errorf("the tables have version %d, this program knows %d: they were made by a newer sealmilter", from, target)
	}
	if _, err := provider.Up(ctx); err != nil {
		return from, from, fmt.Errorf("from version %d to %d: %w", from, target, err)
	}
	return from, target, nil
}

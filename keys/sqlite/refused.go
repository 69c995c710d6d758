package sqlite

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"
)

// ErrRefused is in the chain of an error that no waiting mends: the file or
// its folder is there, and this user may not do with it what is asked.
var ErrRefused = errors.New("the system refused")

// What access(2) is asked for.
const (
	toEnter = 1 // X_OK
	toWrite = 2 // W_OK
	toRead  = 4 // R_OK
)

// told is an error that says what it is in words of its own; those of its
// chain would only repeat them.
type told struct {
	words string
	chain []error
}

func (e *told) Error() string   { return e.words }
func (e *told) Unwrap() []error { return e.chain }

// forbidden names what this user may not read or write, the path or the
// topmost folder on the way to it that is closed, and who may. The file is not
// opened to find out: closing it would drop the locks that SQLite holds on it
// elsewhere in the process.
func forbidden(path string, wanted uint32, cause error) error {
	at, verb := path, "read"
	if wanted == toWrite {
		verb = "written"
	}
	for folder := filepath.Dir(path); ; folder = filepath.Dir(folder) {
		if errors.Is(syscall.Access(folder, toEnter), syscall.EACCES) {
			at, verb = folder, "entered"
		}
		if folder == filepath.Dir(folder) {
			break
		}
	}
	words := fmt.Sprintf("%s cannot be %s by user %s", at, verb, userName(strconv.Itoa(os.Geteuid())))
	if info, err := os.Stat(at); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			words += fmt.Sprintf(" (owner %s, group %s, mode %#o)", userName(strconv.Itoa(int(owner.Uid))),
				groupName(strconv.Itoa(int(owner.Gid))), info.Mode().Perm())
		}
	}
	return &told{words, []error{ErrRefused, cause}}
}

// userName and groupName are the number itself where nobody has it.
func userName(id string) string {
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(id string) string {
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// whyUnread adds to SQLite's "unable to open database file" whose fault it is,
// where that can be told.
func (s *Store) whyUnread(err error) error {
	if code(err) == sqlite3.SQLITE_CANTOPEN && errors.Is(syscall.Access(s.path, toRead), syscall.EACCES) {
		return forbidden(s.path, toRead, err)
	}
	return err
}

// whyUnwritten does so for a change. SQLite writes a journal beside the file,
// so that the folder counts as well.
func whyUnwritten(path string, err error) error {
	switch code(err) {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		for _, at := range []string{path, filepath.Dir(path)} {
			if errors.Is(syscall.Access(at, toWrite), syscall.EACCES) {
				return forbidden(at, toWrite, err)
			}
		}
	}
	return err
}

// ErrEnrolledAlready is in the chain of AddKey's error where the address has a
// key of the same text.
var ErrEnrolledAlready = errors.New("the key is enrolled already")

// enrolledAlready is the name of the index that keeps a key from being
// inserted twice for an address.
const enrolledAlready = "key_is_enrolled_already"

// isEnrolledAlready reads it in SQLite's message, which is all there is.
func isEnrolledAlready(err error) bool {
	return code(err) == sqlite3.SQLITE_CONSTRAINT && strings.Contains(err.Error(), enrolledAlready)
}

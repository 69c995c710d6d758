package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sealmilter/keys"
)

// copiesMode is for the daemon alone: nobody else has to do with the file.
const copiesMode = 0o600

// copiesBusy is how long one call waits for another process, whose changes
// take milliseconds. SQLite does not look at a context while it waits.
const copiesBusy = 2 * time.Second

// copiesVersion is the file's user_version.
const copiesVersion = 1

// A claim's end is in milliseconds since 1970, and owner is NULL where the last
// claim has ended without success.
const copiesSchema = `CREATE TABLE copies (
		hash  BLOB PRIMARY KEY CONSTRAINT hash_is_not_32_bytes CHECK (length(hash) = 32),
		sent  INTEGER NOT NULL DEFAULT 0 CHECK (sent IN (0, 1)),
		owner TEXT CONSTRAINT owner_is_empty CHECK (owner <> ''),
		until INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX copies_until ON copies (until);
	PRAGMA user_version = 1`

// Copies is a file that remembers copies in flight (keys.ErrBusy says what that
// is). It is safe for concurrent use, by several processes of one machine.
//
// It is a file beside the keys, since those may be the administrator's to
// write, and this one is the daemon's. Whoever opens it writes, so that nothing
// speaks against a write-ahead log, with which a commit waits for the disk once
// and not three times.
type Copies struct {
	path string
	db   *sql.DB
	now  func() time.Time
}

// OpenCopies opens the file at path, which begins with a slash, and makes it
// where there is none; its folder is there. The error wraps ErrRefused where
// this user may not write there.
func OpenCopies(path string) (*Copies, error) {
	c, err := openCopies(path)
	if err != nil {
		return nil, fmt.Errorf("opening the memory of copies in flight: %w", err)
	}
	return c, nil
}

func openCopies(path string) (_ *Copies, err error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path %q must begin with /", path)
	}
	path = filepath.Clean(path)
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	made, err := makeFile(path, copiesMode)
	if err != nil {
		return nil, err
	}
	c := &Copies{path: path, now: time.Now}
	if c.db, err = connect(path, copiesBusy, "&_synchronous=FULL&_txlock=immediate"); err != nil {
		return nil, err
	}
	// Whatever is asked writes. One after the other the callers wait in their
	// order; on connections of their own they would sleep and try again.
	c.db.SetMaxOpenConns(1)
	if err := c.prepare(ctx, made); err != nil {
		c.Close()
		if made { // leave nothing half made
			os.Remove(path)
		}
		return nil, fmt.Errorf("%s: %w", path, whyUnwritten(path, err))
	}
	return c, nil
}

// prepare makes the table of a new file, and looks whether an old one is what
// it should be: the file of the keys is not.
func (c *Copies) prepare(ctx context.Context, made bool) error {
	if err := readHeader(ctx, c.db); err != nil {
		return err
	}
	var version, tables int
	if err := c.db.QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version), count(*) FROM sqlite_schema`).
		Scan(&version, &tables); err != nil {
		return err
	}
	switch {
	case version == 0 && tables > 0:
		return errors.New("this is a database for something else: copies in flight need a file of their own")
	case version > copiesVersion:
		return fmt.Errorf("the file has version %d, this program knows %d: it was made by a newer sealmilter", version, copiesVersion)
	}
	if _, err := c.db.ExecContext(ctx, `PRAGMA journal_mode = wal`); err != nil {
		return err
	}
	if version == 0 { // a new file, or one whose maker was killed before this
		if err := c.change(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, copiesSchema)
			return err
		}); err != nil {
			return err
		}
	}
	if !made {
		return nil
	}
	return syncFolder(filepath.Dir(c.path)) // SQLite did not make the file, and has not done it
}

// syncFolder makes a new file's name durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// Close closes the file.
func (c *Copies) Close() { c.db.Close() }

// purgeBite is how many old entries one Begin takes away at most.
const purgeBite = 100

// Begin claims the copies of one transaction for owner until the lease ends,
// and says which of them were sent already by an attempt that did not finish.
// The error wraps keys.ErrBusy where another owner's claim on one of them is
// still alive: nothing is claimed then. Every other wraps keys.ErrStore. An
// owner who has the claim already has it for longer.
func (c *Copies) Begin(ctx context.Context, owner string, copies [][]byte, lease time.Duration) (sent []bool, err error) {
	const claim = `INSERT INTO copies (hash, owner, until) VALUES (?1, ?2, ?3)
		ON CONFLICT (hash) DO UPDATE SET sent = sent AND until > ?5, owner = excluded.owner, until = excluded.until
			WHERE owner IS NULL OR owner = ?2 OR until <= ?4
		RETURNING sent`
	const purge = `DELETE FROM copies WHERE hash IN (SELECT hash FROM copies WHERE until < ?1 ORDER BY until LIMIT ?2)`
	if len(copies) == 0 {
		return nil, nil
	}
	err = c.asked(ctx, func(ctx context.Context, tx *sql.Tx) error {
		sent = make([]bool, len(copies))
		now := c.now()
		until, old := now.Add(lease).UnixMilli(), now.Add(-keys.CopiesKept).UnixMilli()
		for i, hash := range copies {
			err := tx.QueryRowContext(ctx, claim, hash, owner, until, now.UnixMilli(), old).Scan(&sent[i])
			if errors.Is(err, sql.ErrNoRows) {
				return keys.ErrBusy
			}
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, purge, old, purgeBite)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claiming copies: %w", err)
	}
	return sent, nil
}

// Sent notes that a copy was accepted by the re-injection server. It is
// durable when it returns. The error wraps keys.ErrClaimLost where the owner
// does not hold the claim any more, else keys.ErrStore.
func (c *Copies) Sent(ctx context.Context, owner string, copy []byte) error {
	var held bool
	err := c.asked(ctx, func(ctx context.Context, tx *sql.Tx) error {
		// That it has been accepted is true whoever claims it now.
		err := tx.QueryRowContext(ctx, `UPDATE copies SET sent = 1 WHERE hash = ?1 RETURNING coalesce(owner = ?2 AND until > ?3, 0)`,
			copy, owner, c.now().UnixMilli()).Scan(&held)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err == nil && !held {
		err = keys.ErrClaimLost
	}
	if err != nil {
		return fmt.Errorf("noting a copy: %w", err)
	}
	return nil
}

// End ends the claim. With forget the MTA has gone on and nothing is
// remembered; without, what was sent stays remembered for a retry. The error
// wraps keys.ErrClaimLost where the owner did not hold all of the claim any
// more (what was still the owner's has ended all the same), else keys.ErrStore.
func (c *Copies) End(ctx context.Context, owner string, copies [][]byte, forget bool) error {
	if len(copies) == 0 {
		return nil
	}
	copies = slices.Clone(copies)
	slices.SortFunc(copies, slices.Compare[[]byte])
	copies = slices.CompactFunc(copies, slices.Equal[[]byte]) // one that is there twice ends once
	held := true
	err := c.asked(ctx, func(ctx context.Context, tx *sql.Tx) error {
		held = true
		for _, hash := range copies {
			still, err := endOne(ctx, tx, owner, hash, forget, c.now().UnixMilli())
			if err != nil {
				return err
			}
			held = held && still
		}
		return nil
	})
	if err == nil && !held {
		err = keys.ErrClaimLost
	}
	if err != nil {
		return fmt.Errorf("ending the claim on copies: %w", err)
	}
	return nil
}

// endOne says whether the claim on one copy was still held.
func endOne(ctx context.Context, tx *sql.Tx, owner string, hash []byte, forget bool, now int64) (held bool, err error) {
	var until int64
	var sent bool
	err = tx.QueryRowContext(ctx, `SELECT until, sent FROM copies WHERE hash = ?1 AND owner = ?2`, hash, owner).Scan(&until, &sent)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case forget || !sent:
		_, err = tx.ExecContext(ctx, `DELETE FROM copies WHERE hash = ?1`, hash)
	default:
		_, err = tx.ExecContext(ctx, `UPDATE copies SET owner = NULL, until = ?2 WHERE hash = ?1`, hash, now)
	}
	return until > now, err
}

// asked is a change within its time. What the store has decided is said as it
// is, every other error wraps keys.ErrStore.
func (c *Copies) asked(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	err := c.change(ctx, func(tx *sql.Tx) error { return do(ctx, tx) })
	if err == nil || errors.Is(err, keys.ErrBusy) {
		return err
	}
	if why := whyUnwritten(c.path, err); errors.Is(why, ErrRefused) {
		return &told{why.Error(), []error{keys.ErrStore, why}}
	}
	return fmt.Errorf("writing %s: %w: %w", c.path, keys.ErrStore, err)
}

// change is one transaction. It has the file to itself from its beginning
// (_txlock=immediate).
func (c *Copies) change(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

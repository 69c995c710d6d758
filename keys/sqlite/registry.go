package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"sealmilter/keys"
)

// change runs statements in one transaction. Its events have the actor's name,
// which stands in a table of one row meanwhile.
func (s *Store) change(ctx context.Context, run func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if s.actor != "" {
		if _, err := tx.ExecContext(ctx, `INSERT INTO actor (name) VALUES (?)`, s.actor); err != nil {
			return err
		}
	}
	if err := run(tx); err != nil {
		return err
	}
	if s.actor != "" {
		if _, err := tx.ExecContext(ctx, `DELETE FROM actor`); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// changeKey runs one statement, whose first argument is the number of the key
// that it changes.
func (s *Store) changeKey(ctx context.Context, query string, id int64, args ...any) error {
	var changed int64
	err := s.change(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, query, append([]any{id}, args...)...)
		if err == nil {
			changed, err = done.RowsAffected()
		}
		return err
	})
	switch {
	case err != nil:
		return s.refused(err)
	case changed == 0:
		return keys.ErrNoSuchKey
	}
	return nil
}

// AddKey implements keys.Registry. The triggers of the table make the account.
func (s *Store) AddKey(ctx context.Context, key keys.NewKey) (id int64, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		id, err = insertKey(ctx, tx, key)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", key.Address, s.refused(err))
	}
	return id, nil
}

func insertKey(ctx context.Context, tx *sql.Tx, key keys.NewKey) (id int64, err error) {
	options, err := json.Marshal(key.Options)
	if err != nil {
		return 0, err
	}
	const insert = `INSERT INTO keys (address, key, options, state, fingerprint) VALUES (?, ?, ?, ?, nullif(?, ''))`
	done, err := tx.ExecContext(ctx, insert, key.Address, key.Key, string(options), string(cmp.Or(key.State, keys.KeyActive)), key.Fingerprint)
	if err != nil {
		return 0, err
	}
	return done.LastInsertId()
}

// SetKeyOptions implements keys.Registry. What else an administrator has
// written into the options by SQL stays.
func (s *Store) SetKeyOptions(ctx context.Context, id int64, options keys.KeyOptions) error {
	chosen, err := json.Marshal(options)
	if err == nil {
		err = s.changeKey(ctx, `UPDATE keys SET options = json_patch(json_remove(options, '$.aead', '$.oaep', '$.ml_kem'), ?2) WHERE id = ?1`,
			id, string(chosen))
	}
	if err != nil {
		return fmt.Errorf("setting the options of key %d: %w", id, err)
	}
	return nil
}

// RemoveKey implements keys.Registry.
func (s *Store) RemoveKey(ctx context.Context, id int64) error {
	if err := s.changeKey(ctx, `DELETE FROM keys WHERE id = ?1`, id); err != nil {
		return fmt.Errorf("removing key %d: %w", id, err)
	}
	return nil
}

// pageSize is how much of a list is held in memory, see keys.Pages.
const pageSize = 100

// Keys implements keys.Registry. A query that stayed open while the caller does
// something with a key would keep every writer out, the caller's own RemoveKey among
// them.
func (s *Store) Keys(ctx context.Context, address string) iter.Seq2[keys.Enrolled, error] {
	return keys.Pages(pageSize, func(last keys.Enrolled) ([]keys.Enrolled, error) {
		page, err := s.page(ctx, address, last)
		if err != nil {
			err = fmt.Errorf("listing keys: %w", s.refused(err))
		}
		return page, err
	})
}

// page reads the keys that come after last, of one address or of all.
// Their order is that of bytes, as in PostgreSQL.
func (s *Store) page(ctx context.Context, address string, last keys.Enrolled) ([]keys.Enrolled, error) {
	query := `SELECT k.id, k.address, k.key, CAST(strftime('%s', k.added) AS INTEGER),
			a.enabled, coalesce(a.method, ''), a.cipher, k.options, k.state, CAST(strftime('%s', coalesce(k.state_since, k.added)) AS INTEGER),
			coalesce(k.fingerprint, ''), coalesce(k.problem, ''), CAST(strftime('%s', k.checked) AS INTEGER)
		FROM keys AS k JOIN accounts AS a ON a.address = k.address
		WHERE (k.address COLLATE BINARY, k.id) > (?1, ?2)`
	args := []any{last.Address, last.ID, pageSize}
	if address != "" {
		query += ` AND k.address = ?4`
		args = append(args, address)
	}
	rows, err := s.reader().QueryContext(ctx, query+` ORDER BY k.address COLLATE BINARY, k.id LIMIT ?3`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []keys.Enrolled
	for rows.Next() {
		var key keys.Enrolled
		var added, since int64
		var checked sql.NullInt64
		var options []byte
		if err := rows.Scan(&key.ID, &key.Address, &key.Key, &added, &key.Enabled, &key.Method, &key.Cipher, &options,
			&key.State, &since, &key.Fingerprint, &key.Problem, &checked); err != nil {
			return nil, err
		}
		if key.Options, err = keys.ParseKeyOptions(options); err != nil {
			return nil, fmt.Errorf("key %d: %w", key.ID, err)
		}
		key.Chosen = options
		key.Added, key.StateSince = time.Unix(added, 0), time.Unix(since, 0)
		if checked.Valid {
			key.Checked = time.Unix(checked.Int64, 0)
		}
		page = append(page, key)
	}
	return page, rows.Err()
}

// refused keeps apart the ways in which a statement fails: SQLite has read it
// and says no, this user may not (ErrRefused), or there was no answer
// (keys.ErrStore). Its message names the table's constraint, which is named
// for what is wrong.
func (s *Store) refused(err error) error {
	for _, why := range []error{s.whyUnread(err), whyUnwritten(s.path, err)} {
		if errors.Is(why, ErrRefused) {
			return why
		}
	}
	if isEnrolledAlready(err) {
		return &told{ErrEnrolledAlready.Error(), []error{ErrEnrolledAlready, err}}
	}
	switch code(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_ERROR:
		return err
	}
	return fmt.Errorf("%w: %w", keys.ErrStore, err)
}

package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"sealmilter/keys"
)

// AddKey implements keys.Registry. The triggers of the table make the account.
func (s *Store) AddKey(ctx context.Context, address, key string, options keys.KeyOptions) (id int64, err error) {
	chosen, err := json.Marshal(options)
	if err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", address, err)
	}
	const insert = `INSERT INTO keys (address, key, options) VALUES (?, ?, ?)`
	done, err := s.write.ExecContext(ctx, insert, address, key, string(chosen))
	if err == nil {
		id, err = done.LastInsertId()
	}
	if err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", address, s.refused(err))
	}
	return id, nil
}

// SetKeyOptions implements keys.Registry. What else an administrator has
// written into the options by SQL stays.
func (s *Store) SetKeyOptions(ctx context.Context, id int64, options keys.KeyOptions) error {
	chosen, err := json.Marshal(options)
	if err != nil {
		return fmt.Errorf("setting the options of key %d: %w", id, err)
	}
	const update = `UPDATE keys SET options = json_patch(json_remove(options, '$.aead', '$.oaep', '$.ml_kem'), ?) WHERE id = ?`
	done, err := s.write.ExecContext(ctx, update, string(chosen), id)
	if err != nil {
		return fmt.Errorf("setting the options of key %d: %w", id, s.refused(err))
	}
	if changed, err := done.RowsAffected(); err != nil || changed == 0 {
		return fmt.Errorf("setting the options of key %d: %w", id, keys.ErrNoSuchKey)
	}
	return nil
}

// RemoveKey implements keys.Registry.
func (s *Store) RemoveKey(ctx context.Context, id int64) error {
	done, err := s.write.ExecContext(ctx, `DELETE FROM keys WHERE id = ?`, id)
	if err != nil {
		return fmt.Errorf("removing key %d: %w", id, s.refused(err))
	}
	if removed, err := done.RowsAffected(); err != nil || removed == 0 {
		return fmt.Errorf("removing key %d: %w", id, keys.ErrNoSuchKey)
	}
	return nil
}

// pageSize is how many keys Keys holds in memory.
const pageSize = 100

// Keys implements keys.Registry. It reads page by page, each page a query of
// its own: a query that stayed open while the caller does something with a key
// would keep every writer out, the caller's own RemoveKey among them.
func (s *Store) Keys(ctx context.Context, address string) iter.Seq2[keys.Enrolled, error] {
	return func(yield func(keys.Enrolled, error) bool) {
		var last keys.Enrolled
		for {
			page, err := s.page(ctx, address, last)
			if err != nil {
				yield(keys.Enrolled{}, fmt.Errorf("listing keys: %w", s.refused(err)))
				return
			}
			for _, last = range page {
				if !yield(last, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

// page reads the keys that come after last, of one address or of all.
// Their order is that of bytes, as in PostgreSQL.
func (s *Store) page(ctx context.Context, address string, last keys.Enrolled) ([]keys.Enrolled, error) {
	query := `SELECT k.id, k.address, k.key, CAST(strftime('%s', k.added) AS INTEGER),
			a.enabled, coalesce(a.method, ''), a.cipher, k.options
		FROM keys AS k JOIN accounts AS a ON a.address = k.address
		WHERE (k.address COLLATE BINARY, k.id) > (?1, ?2)`
	args := []any{last.Address, last.ID, pageSize}
	if address != "" {
		query += ` AND k.address = ?4`
		args = append(args, address)
	}
	rows, err := s.read.QueryContext(ctx, query+` ORDER BY k.address COLLATE BINARY, k.id LIMIT ?3`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []keys.Enrolled
	for rows.Next() {
		var key keys.Enrolled
		var added int64
		var options []byte
		if err := rows.Scan(&key.ID, &key.Address, &key.Key, &added, &key.Enabled, &key.Method, &key.Cipher, &options); err != nil {
			return nil, err
		}
		if key.Options, err = keys.ParseKeyOptions(options); err != nil {
			return nil, fmt.Errorf("key %d: %w", key.ID, err)
		}
		key.Added = time.Unix(added, 0)
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

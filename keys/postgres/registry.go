package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/keys"
)

// AddKey implements keys.Registry. The trigger of the table makes the account.
func (s *Store) AddKey(ctx context.Context, address, key string) (id int64, err error) {
	const insert = `INSERT INTO sealmilter.keys (address, key) VALUES ($1, $2) RETURNING id`
	if err := s.pool.QueryRow(ctx, insert, address, key).Scan(&id); err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", address, refused(err))
	}
	return id, nil
}

// RemoveKey implements keys.Registry.
func (s *Store) RemoveKey(ctx context.Context, id int64) error {
	done, err := s.pool.Exec(ctx, `DELETE FROM sealmilter.keys WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("removing key %d: %w", id, refused(err))
	}
	if done.RowsAffected() == 0 {
		return fmt.Errorf("removing key %d: %w", id, keys.ErrNoSuchKey)
	}
	return nil
}

// pageSize is how many keys Keys holds in memory.
const pageSize = 100

// Keys implements keys.Registry. It reads page by page, each page a query of
// its own: no connection is held while the caller does something with a key,
// and a caller who stops early does not have the rest sent to nobody.
func (s *Store) Keys(ctx context.Context, address string) iter.Seq2[keys.Enrolled, error] {
	return func(yield func(keys.Enrolled, error) bool) {
		var last keys.Enrolled
		for {
			page, err := s.page(ctx, address, last)
			if err != nil {
				yield(keys.Enrolled{}, fmt.Errorf("listing keys: %w", refused(err)))
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
func (s *Store) page(ctx context.Context, address string, last keys.Enrolled) ([]keys.Enrolled, error) {
	query := `SELECT k.id, k.address, k.key, k.added, a.enabled, coalesce(a.method, ''), a.cipher
		FROM sealmilter.keys AS k JOIN sealmilter.accounts AS a ON a.address = k.address
		WHERE (k.address, k.id) > ($1, $2)`
	args := []any{last.Address, last.ID, pageSize}
	if address != "" {
		query += ` AND k.address =
			(SELECT one.address FROM sealmilter.accounts AS one WHERE lower(one.address) = lower($4::text COLLATE "C"))`
		args = append(args, address)
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY k.address, k.id LIMIT $3`, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Enrolled])
}

// refused keeps apart the two ways in which a statement fails: the server has
// read it and says no, or there was no answer (keys.ErrStore). A table's
// constraint is named for what is wrong, so its name is the whole message.
func refused(err error) error {
	var said *pgconn.PgError
	if !errors.As(err, &said) || len(said.Code) < 2 {
		return fmt.Errorf("%w: %w", keys.ErrStore, err)
	}
	switch said.Code[:2] {
	case "23": // integrity constraint violation
		if said.ConstraintName != "" {
			return fmt.Errorf("%s: %w", strings.ReplaceAll(said.ConstraintName, "_", " "), err)
		}
		return err
	case "22", "25", "42": // bad data, read-only server, no such table or no right to it
		return err
	}
	return fmt.Errorf("%w: %w", keys.ErrStore, err)
}

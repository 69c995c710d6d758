package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"

	"sealmilter/keys"
)

// AddAlias implements keys.Aliases. Not INSERT OR IGNORE: that would leave out
// an address that a CHECK refuses.
func (s *Store) AddAlias(ctx context.Context, address, target string) error {
	const insert = `INSERT INTO aliases (address, target) VALUES (?, ?) ON CONFLICT DO NOTHING`
	err := s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insert, address, target)
		return err
	})
	if err != nil {
		return fmt.Errorf("letting %q lead to %q: %w", address, target, s.refused(err))
	}
	return nil
}

// RemoveAlias implements keys.Aliases.
func (s *Store) RemoveAlias(ctx context.Context, address, target string) (removed int, err error) {
	query, args := `DELETE FROM aliases WHERE address = ?`, []any{address}
	if target != "" {
		query, args = query+` AND target = ?`, append(args, target)
	}
	var count int64
	err = s.change(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, query, args...)
		if err == nil {
			count, err = done.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("removing the alias %q: %w", address, s.refused(err))
	}
	return int(count), nil
}

// Aliases implements keys.Aliases.
func (s *Store) Aliases(ctx context.Context, address string) iter.Seq2[keys.Alias, error] {
	return keys.Pages(pageSize, func(last keys.Alias) ([]keys.Alias, error) {
		page, err := s.aliasPage(ctx, address, last)
		if err != nil {
			err = fmt.Errorf("listing aliases: %w", s.refused(err))
		}
		return page, err
	})
}

// aliasPage reads the ways that come after last, of one alias or of all.
func (s *Store) aliasPage(ctx context.Context, address string, last keys.Alias) ([]keys.Alias, error) {
	query := `SELECT address, target FROM aliases WHERE (address COLLATE BINARY, target COLLATE BINARY) > (?1, ?2)`
	args := []any{last.Address, last.Target, pageSize}
	if address != "" {
		query += ` AND address = ?4`
		args = append(args, address)
	}
	rows, err := s.reader().QueryContext(ctx, query+` ORDER BY address COLLATE BINARY, target COLLATE BINARY LIMIT ?3`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []keys.Alias
	for rows.Next() {
		var alias keys.Alias
		if err := rows.Scan(&alias.Address, &alias.Target); err != nil {
			return nil, err
		}
		page = append(page, alias)
	}
	return page, rows.Err()
}

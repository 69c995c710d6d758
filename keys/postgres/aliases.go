package postgres

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
)

// AddAlias implements keys.Aliases.
func (s *Store) AddAlias(ctx context.Context, address, target string) error {
	const insert = `INSERT INTO sealmilter.aliases (address, target) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	err := s.change(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insert, address, target)
		return err
	})
	if err != nil {
		return fmt.Errorf("letting %q lead to %q: %w", address, target, s.refused(ctx, err))
	}
	return nil
}

// RemoveAlias implements keys.Aliases.
func (s *Store) RemoveAlias(ctx context.Context, address, target string) (removed int, err error) {
	query := `DELETE FROM sealmilter.aliases WHERE lower(address) = lower($1::text COLLATE "C")`
	args := []any{address}
	if target != "" {
		query += ` AND lower(target) = lower($2::text COLLATE "C")`
		args = append(args, target)
	}
	err = s.change(ctx, func(tx pgx.Tx) error {
		done, err := tx.Exec(ctx, query, args...)
		removed = int(done.RowsAffected())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("removing the alias %q: %w", address, s.refused(ctx, err))
	}
	return removed, nil
}

// Aliases implements keys.Aliases.
func (s *Store) Aliases(ctx context.Context, address string) iter.Seq2[keys.Alias, error] {
	return keys.Pages(pageSize, func(last keys.Alias) ([]keys.Alias, error) {
		page, err := s.aliasPage(ctx, address, last)
		if err != nil {
			err = fmt.Errorf("listing aliases: %w", s.refused(ctx, err))
		}
		return page, err
	})
}

// aliasPage reads the ways that come after last, of one alias or of all.
func (s *Store) aliasPage(ctx context.Context, address string, last keys.Alias) ([]keys.Alias, error) {
	query := `SELECT a.address, a.target FROM sealmilter.aliases AS a WHERE (a.address, a.target) > ($1, $2)`
	args := []any{last.Address, last.Target, pageSize}
	if address != "" {
		query += ` AND lower(a.address) = lower($4::text COLLATE "C")`
		args = append(args, address)
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY a.address, a.target LIMIT $3`, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Alias])
}

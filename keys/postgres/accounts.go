package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
)

// Account implements keys.Accounts.
func (s *Store) Account(ctx context.Context, address string) (keys.Choices, error) {
	const query = `SELECT a.address, a.enabled, coalesce(a.method, ''), a.cipher, a.options, a.created
		FROM sealmilter.accounts AS a WHERE lower(a.address) = lower($1::text COLLATE "C")`
	var c keys.Choices
	var options []byte
	err := s.pool.QueryRow(ctx, query, address).Scan(&c.Address, &c.Enabled, &c.Method, &c.Cipher, &options, &c.Created)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return keys.Choices{}, fmt.Errorf("reading the account %q: %w", address, keys.ErrNoSuchAccount)
	case err != nil:
		return keys.Choices{}, fmt.Errorf("reading the account %q: %w", address, s.refused(ctx, err))
	}
	c.Options = options
	return c, nil
}

// SetAccount implements keys.Accounts. An account that is there keeps the
// spelling of its address.
func (s *Store) SetAccount(ctx context.Context, choices keys.Choices) error {
	const upsert = `INSERT INTO sealmilter.accounts (address, enabled, method, cipher, options)
		VALUES ($1, $2, nullif($3, ''), $4, $5::text::jsonb)
		ON CONFLICT (lower(address)) DO UPDATE SET enabled = excluded.enabled, method = excluded.method,
			cipher = excluded.cipher, options = excluded.options`
	err := s.change(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, upsert, choices.Address, choices.Enabled, string(choices.Method),
			string(cmp.Or(choices.Cipher, keys.AES256)), cmp.Or(string(choices.Options), "{}"))
		return err
	})
	if err != nil {
		return fmt.Errorf("storing the account %q: %w", choices.Address, s.refused(ctx, err))
	}
	return nil
}

// WithOptions implements keys.Accounts.
func (s *Store) WithOptions(ctx context.Context) iter.Seq2[keys.Choices, error] {
	return keys.Pages(pageSize, func(last keys.Choices) ([]keys.Choices, error) {
		page, err := s.optionsPage(ctx, last.Address)
		if err != nil {
			err = fmt.Errorf("listing accounts: %w", s.refused(ctx, err))
		}
		return page, err
	})
}

// optionsPage reads the accounts with options that come after an address.
func (s *Store) optionsPage(ctx context.Context, last string) ([]keys.Choices, error) {
	const query = `SELECT a.address, a.enabled, coalesce(a.method, ''), a.cipher, a.options, a.created
		FROM sealmilter.accounts AS a WHERE a.options <> '{}' AND a.address > $1 ORDER BY a.address LIMIT $2`
	rows, err := s.pool.Query(ctx, query, last, pageSize)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Choices])
}

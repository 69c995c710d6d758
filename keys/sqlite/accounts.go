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

	"sealmilter/keys"
)

// Account implements keys.Accounts.
func (s *Store) Account(ctx context.Context, address string) (keys.Choices, error) {
	const query = `SELECT address, enabled, coalesce(method, ''), cipher, options, CAST(strftime('%s', created) AS INTEGER)
		FROM accounts WHERE address = ?`
	var c keys.Choices
	var options string
	var created int64
	err := s.reader().QueryRowContext(ctx, query, address).Scan(&c.Address, &c.Enabled, &c.Method, &c.Cipher, &options, &created)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return keys.Choices{}, fmt.Errorf("reading the account %q: %w", address, keys.ErrNoSuchAccount)
	case err != nil:
		return keys.Choices{}, fmt.Errorf("reading the account %q: %w", address, s.refused(err))
	}
	c.Options, c.Created = json.RawMessage(options), time.Unix(created, 0)
	return c, nil
}

// SetAccount implements keys.Accounts. An account that is there keeps the
// spelling of its address.
func (s *Store) SetAccount(ctx context.Context, choices keys.Choices) error {
	const upsert = `INSERT INTO accounts (address, enabled, method, cipher, options) VALUES (?, ?, nullif(?, ''), ?, ?)
		ON CONFLICT (address) DO UPDATE SET enabled = excluded.enabled, method = excluded.method,
			cipher = excluded.cipher, options = excluded.options`
	err := s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, upsert, choices.Address, choices.Enabled, string(choices.Method),
			string(cmp.Or(choices.Cipher, keys.AES256)), cmp.Or(string(choices.Options), "{}"))
		return err
	})
	if err != nil {
		return fmt.Errorf("storing the account %q: %w", choices.Address, s.refused(err))
	}
	return nil
}

// WithOptions implements keys.Accounts.
func (s *Store) WithOptions(ctx context.Context) iter.Seq2[keys.Choices, error] {
	return keys.Pages(pageSize, func(last keys.Choices) ([]keys.Choices, error) {
		page, err := s.optionsPage(ctx, last.Address)
		if err != nil {
			err = fmt.Errorf("listing accounts: %w", s.refused(err))
		}
		return page, err
	})
}

// optionsPage reads the accounts with options that come after an address.
func (s *Store) optionsPage(ctx context.Context, last string) (page []keys.Choices, err error) {
	const query = `SELECT address, enabled, coalesce(method, ''), cipher, options, CAST(strftime('%s', created) AS INTEGER)
		FROM accounts WHERE options <> '{}' AND address COLLATE BINARY > ? ORDER BY address COLLATE BINARY LIMIT ?`
	rows, err := s.reader().QueryContext(ctx, query, last, pageSize)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c keys.Choices
		var options string
		var created int64
		if err := rows.Scan(&c.Address, &c.Enabled, &c.Method, &c.Cipher, &options, &created); err != nil {
			return nil, err
		}
		c.Options, c.Created = json.RawMessage(options), time.Unix(created, 0)
		page = append(page, c)
	}
	return page, rows.Err()
}

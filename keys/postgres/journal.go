package postgres

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
)

// Events implements keys.Journal.
func (s *Store) Events(ctx context.Context, address string) iter.Seq2[keys.Event, error] {
	return keys.Pages(pageSize, func(last keys.Event) ([]keys.Event, error) {
		page, err := s.eventPage(ctx, address, cmp.Or(last.ID, math.MaxInt64))
		if err != nil {
			err = fmt.Errorf("listing events: %w", s.refused(ctx, err))
		}
		return page, err
	})
}

// eventPage reads the events before a number, of one address or of all.
func (s *Store) eventPage(ctx context.Context, address string, before int64) ([]keys.Event, error) {
	query := `SELECT e.id, e.at, e.who, e.action, coalesce(e.address, ''), coalesce(e.key_id, 0), coalesce(e.fingerprint, ''), e.detail
		FROM sealmilter.events AS e WHERE e.id < $1`
	args := []any{before, pageSize}
	if address != "" {
		query += ` AND lower(e.address) = lower($3::text COLLATE "C")`
		args = append(args, address)
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY e.id DESC LIMIT $2`, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Event])
}

// ForgetEvents implements keys.Journal.
func (s *Store) ForgetEvents(ctx context.Context, before time.Time) (forgotten int64, err error) {
	err = s.change(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT sealmilter.forget_events($1)`, before).Scan(&forgotten)
	})
	if err != nil {
		return 0, fmt.Errorf("forgetting events: %w", s.refused(ctx, err))
	}
	return forgotten, nil
}

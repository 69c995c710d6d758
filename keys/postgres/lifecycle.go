package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
)

// SetKeyState implements keys.Lifecycle.
func (s *Store) SetKeyState(ctx context.Context, id int64, state keys.KeyState) error {
	if err := s.changeKey(ctx, `UPDATE sealmilter.keys SET state = $2 WHERE id = $1`, id, string(state)); err != nil {
		return fmt.Errorf("making key %d %s: %w", id, state, err)
	}
	return nil
}

// Rotate implements keys.Lifecycle.
func (s *Store) Rotate(ctx context.Context, key keys.NewKey) (id int64, retired []int64, err error) {
	options, err := json.Marshal(key.Options)
	if err != nil {
		return 0, nil, fmt.Errorf("rotating the keys of %q: %w", key.Address, err)
	}
	const rotate = `SELECT r.id, r.retired FROM sealmilter.rotate_key($1, $2, nullif($3, ''), $4::text::jsonb) AS r`
	err = s.change(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, rotate, key.Address, key.Key, key.Fingerprint, string(options)).Scan(&id, &retired)
	})
	if err != nil {
		return 0, nil, fmt.Errorf("rotating the keys of %q: %w", key.Address, s.refused(ctx, err))
	}
	return id, retired, nil
}

// Challenge implements keys.Lifecycle.
func (s *Store) Challenge(ctx context.Context, id int64, nonceHash []byte, until time.Time) error {
	if err := s.prove(ctx, `SELECT sealmilter.challenge_key($1, $2, $3)`, id, nonceHash, until); err != nil {
		return fmt.Errorf("challenging the owner of key %d: %w", id, err)
	}
	return nil
}

// Confirm implements keys.Lifecycle.
func (s *Store) Confirm(ctx context.Context, id int64, nonceHash []byte, alone bool) error {
	if err := s.prove(ctx, `SELECT sealmilter.confirm_key($1, $2, $3)`, id, nonceHash, alone); err != nil {
		return fmt.Errorf("confirming key %d: %w", id, err)
	}
	return nil
}

// verdicts are what the functions answer.
var verdicts = map[string]error{
	"challenged":     nil,
	"confirmed":      nil,
	"no such key":    keys.ErrNoSuchKey,
	"not pending":    keys.ErrNotPending,
	"wrong":          keys.ErrWrongAnswer,
	"expired":        keys.ErrChallengeExpired,
	"too many tries": keys.ErrTooManyTries,
}

// prove calls a function that answers with a verdict. A wrong answer has to be
// counted, so that the transaction is committed whatever the verdict.
func (s *Store) prove(ctx context.Context, sql string, args ...any) error {
	var said string
	err := s.change(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql, args...).Scan(&said) })
	if err != nil {
		return s.refused(ctx, err)
	}
	verdict, known := verdicts[said]
	if !known {
		return fmt.Errorf("the server's answer is %q", said)
	}
	return verdict
}

// NoteKey implements keys.Findings.
func (s *Store) NoteKey(ctx context.Context, id int64, text, fingerprint, problem string) error {
	const note = `UPDATE sealmilter.keys SET fingerprint = nullif($2, ''), problem = nullif($3, ''), checked = now()
		WHERE id = $1 AND key = $4`
	if err := s.changeKey(ctx, note, id, fingerprint, problem, text); err != nil {
		return fmt.Errorf("noting what key %d is: %w", id, err)
	}
	return nil
}

// NoteWarning implements keys.Findings.
func (s *Store) NoteWarning(ctx context.Context, id int64, warning keys.Warning) (first bool, err error) {
	const note = `INSERT INTO sealmilter.warnings (key_id, kind, expires) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	switch err = s.changeKey(ctx, note, id, warning.Kind, warning.Expires.Truncate(time.Second)); {
	case errors.Is(err, keys.ErrNoSuchKey): // nothing was inserted
		return false, nil
	case sqlState(err) == foreignKeyViolation:
		err = keys.ErrNoSuchKey
	}
	if err != nil {
		return false, fmt.Errorf("noting a warning for key %d: %w", id, err)
	}
	return true, nil
}

const foreignKeyViolation = "23503"

// WarningsSent implements keys.Findings. It asks the server that is written to:
// a standby may not know yet what was sent.
func (s *Store) WarningsSent(ctx context.Context, id int64) ([]keys.Warning, error) {
	rows, err := s.writable.Query(ctx, `SELECT w.kind, w.expires FROM sealmilter.warnings AS w WHERE w.key_id = $1 ORDER BY w.sent, w.expires, w.kind`, id)
	if err == nil {
		var sent []keys.Warning
		if sent, err = pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Warning]); err == nil {
			return sent, nil
		}
	}
	return nil, fmt.Errorf("reading the warnings for key %d: %w", id, s.refused(ctx, err))
}

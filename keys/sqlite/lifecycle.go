package sqlite

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"sealmilter/keys"
)

// maxTries is how many wrong answers a challenge takes.
const maxTries = 10

// SetKeyState implements keys.Lifecycle.
func (s *Store) SetKeyState(ctx context.Context, id int64, state keys.KeyState) error {
	if err := s.changeKey(ctx, `UPDATE keys SET state = ?2 WHERE id = ?1`, id, string(state)); err != nil {
		return fmt.Errorf("making key %d %s: %w", id, state, err)
	}
	return nil
}

// Rotate implements keys.Lifecycle.
func (s *Store) Rotate(ctx context.Context, key keys.NewKey) (id int64, retired []int64, err error) {
	key.State = keys.KeyActive
	err = s.change(ctx, func(tx *sql.Tx) error {
		if id, err = insertKey(ctx, tx, key); err == nil {
			retired, err = retireOthers(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("rotating the keys of %q: %w", key.Address, s.refused(err))
	}
	return id, retired, nil
}

// retireOthers retires the active keys beside one, of its account and its
// method, and returns their numbers.
func retireOthers(ctx context.Context, tx *sql.Tx, id int64) (retired []int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT k.id, k.key FROM keys AS one JOIN keys AS k ON k.address = one.address
		WHERE one.id = ?1 AND k.state = 'active' ORDER BY k.id`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	methods := make(map[int64]keys.Method)
	var all []int64
	for rows.Next() {
		var other int64
		var text string
		if err := rows.Scan(&other, &text); err != nil {
			return nil, err
		}
		all, methods[other] = append(all, other), methodOf(text)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, other := range all {
		if other == id || methods[other] != methods[id] {
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE keys SET state = 'retired' WHERE id = ?`, other); err != nil {
			return nil, err
		}
		retired = append(retired, other)
	}
	return retired, nil
}

// methodOf is what of a text's format can be told without reading it: armor says
// so, and base64 of DER begins with M, while that of an OpenPGP packet never does.
func methodOf(text string) keys.Method {
	switch {
	case strings.Contains(text, "-----BEGIN PGP"):
		return keys.OpenPGP
	case strings.Contains(text, "-----BEGIN "), strings.HasPrefix(strings.TrimSpace(text), "M"):
		return keys.SMIME
	}
	return keys.OpenPGP
}

// Challenge implements keys.Lifecycle.
func (s *Store) Challenge(ctx context.Context, id int64, nonceHash []byte, until time.Time) error {
	err := s.prove(ctx, id, func(tx *sql.Tx, _ challenge) (error, error) {
		_, err := tx.ExecContext(ctx, `UPDATE keys SET challenge = ?2, challenge_until = ?3, challenge_tries = 0 WHERE id = ?1`,
			id, nonceHash, until.Unix())
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("challenging the owner of key %d: %w", id, err)
	}
	return nil
}

// Confirm implements keys.Lifecycle.
func (s *Store) Confirm(ctx context.Context, id int64, nonceHash []byte, alone bool) error {
	err := s.prove(ctx, id, func(tx *sql.Tx, c challenge) (verdict, err error) {
		switch {
		case len(c.hash) == 0 || time.Now().Unix() >= c.until.Int64:
			return keys.ErrChallengeExpired, nil
		case c.tries >= maxTries:
			return keys.ErrTooManyTries, nil
		case subtle.ConstantTimeCompare(nonceHash, c.hash) != 1:
			_, err := tx.ExecContext(ctx, `UPDATE keys SET challenge_tries = challenge_tries + 1 WHERE id = ?`, id)
			return keys.ErrWrongAnswer, err
		}
		if _, err = tx.ExecContext(ctx, `UPDATE keys SET state = 'active' WHERE id = ?`, id); err == nil && alone {
			_, err = retireOthers(ctx, tx, id)
		}
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("confirming key %d: %w", id, err)
	}
	return nil
}

// challenge is what has been asked of a pending key's owner.
type challenge struct {
	hash  []byte
	until sql.NullInt64
	tries int
}

// prove runs one step of a proof on a pending key. The verdict is the caller's,
// while an error undoes the step: a wrong answer has to be counted.
func (s *Store) prove(ctx context.Context, id int64, step func(tx *sql.Tx, c challenge) (verdict, err error)) error {
	var verdict error
	err := s.change(ctx, func(tx *sql.Tx) error {
		var state string
		var c challenge
		err := tx.QueryRowContext(ctx, `SELECT state, challenge, challenge_until, challenge_tries FROM keys WHERE id = ?`, id).
			Scan(&state, &c.hash, &c.until, &c.tries)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			verdict, err = keys.ErrNoSuchKey, nil
		case err == nil && state != string(keys.KeyPending):
			verdict = keys.ErrNotPending
		case err == nil:
			verdict, err = step(tx, c)
		}
		return err
	})
	if err != nil {
		return s.refused(err)
	}
	return verdict
}

// NoteKey implements keys.Findings.
func (s *Store) NoteKey(ctx context.Context, id int64, text, fingerprint, problem string) error {
	const note = `UPDATE keys SET fingerprint = nullif(?2, ''), problem = nullif(?3, ''), checked = CURRENT_TIMESTAMP
		WHERE id = ?1 AND key = ?4`
	if err := s.changeKey(ctx, note, id, fingerprint, problem, text); err != nil {
		return fmt.Errorf("noting what key %d is: %w", id, err)
	}
	return nil
}

// NoteWarning implements keys.Findings.
func (s *Store) NoteWarning(ctx context.Context, id int64, warning keys.Warning) (first bool, err error) {
	const note = `INSERT INTO warnings (key_id, kind, expires) VALUES (?1, ?2, ?3) ON CONFLICT (key_id, kind, expires) DO NOTHING`
	switch err = s.changeKey(ctx, note, id, warning.Kind, warning.Expires.Unix()); {
	case errors.Is(err, keys.ErrNoSuchKey): // nothing was inserted
		return false, nil
	case code(err) == sqlite3.SQLITE_CONSTRAINT && strings.Contains(err.Error(), "FOREIGN KEY"):
		err = keys.ErrNoSuchKey
	}
	if err != nil {
		return false, fmt.Errorf("noting a warning for key %d: %w", id, err)
	}
	return true, nil
}

// WarningsSent implements keys.Findings.
func (s *Store) WarningsSent(ctx context.Context, id int64) ([]keys.Warning, error) {
	sent, err := s.warnings(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading the warnings for key %d: %w", id, s.refused(err))
	}
	return sent, nil
}

func (s *Store) warnings(ctx context.Context, id int64) (sent []keys.Warning, err error) {
	rows, err := s.reader().QueryContext(ctx, `SELECT kind, expires FROM warnings WHERE key_id = ? ORDER BY sent, expires, kind`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var warning keys.Warning
		var expires int64
		if err := rows.Scan(&warning.Kind, &expires); err != nil {
			return nil, err
		}
		warning.Expires = time.Unix(expires, 0)
		sent = append(sent, warning)
	}
	return sent, rows.Err()
}

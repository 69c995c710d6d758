package sqlite

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"time"

	"sealmilter/keys"
)

// Events implements keys.Journal.
func (s *Store) Events(ctx context.Context, address string) iter.Seq2[keys.Event, error] {
	return keys.Pages(pageSize, func(last keys.Event) ([]keys.Event, error) {
		page, err := s.eventPage(ctx, address, cmp.Or(last.ID, math.MaxInt64))
		if err != nil {
			err = fmt.Errorf("listing events: %w", s.refused(err))
		}
		return page, err
	})
}

// eventPage reads the events before a number, of one address or of all. The text
// that a key had after an event is the one that the next event about it has
// kept, or the one that it has now; what is removed has kept its own.
func (s *Store) eventPage(ctx context.Context, address string, before int64) ([]keys.Event, error) {
	query := `SELECT e.id, CAST(strftime('%s', e.at) AS INTEGER), coalesce(e.who, ''), e.action, coalesce(e.address, ''),
			coalesce(e.key_id, 0), coalesce(e.fingerprint, ''), e.detail,
			CASE WHEN e.fingerprint IS NOT NULL OR e.key_id IS NULL THEN NULL WHEN e.action = 'key removed' THEN e.key
			ELSE coalesce((SELECT next.key FROM events AS next WHERE next.key_id = e.key_id AND next.id > e.id AND next.key IS NOT NULL
				ORDER BY next.id LIMIT 1), (SELECT k.key FROM keys AS k WHERE k.id = e.key_id)) END
		FROM events AS e WHERE e.id < ?1`
	args := []any{before, pageSize}
	if address != "" {
		query += ` AND e.address = ?3`
		args = append(args, address)
	}
	rows, err := s.reader().QueryContext(ctx, query+` ORDER BY e.id DESC LIMIT ?2`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []keys.Event
	for rows.Next() {
		var event keys.Event
		var at int64
		var detail string
		var key sql.NullString
		if err := rows.Scan(&event.ID, &at, &event.Who, &event.Action, &event.Address, &event.KeyID, &event.Fingerprint, &detail, &key); err != nil {
			return nil, err
		}
		event.At, event.Detail = time.Unix(at, 0), json.RawMessage(detail)
		if key.Valid {
			if event.Detail, err = withDigest(event.Detail, key.String); err != nil {
				return nil, fmt.Errorf("event %d: %w", event.ID, err)
			}
		}
		page = append(page, event)
	}
	return page, rows.Err()
}

// withDigest adds the SHA-256 of a key's text to what is said of it.
func withDigest(detail json.RawMessage, key string) (json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(detail, &all); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(key))
	all["sha256"] = json.RawMessage(`"` + hex.EncodeToString(sum[:]) + `"`)
	return json.Marshal(all)
}

// ForgetEvents implements keys.Journal. Times are kept in whole seconds.
func (s *Store) ForgetEvents(ctx context.Context, before time.Time) (forgotten int64, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		const forget = `INSERT INTO forget_events (before) VALUES (?)`
		if _, err := tx.ExecContext(ctx, forget, before.UTC().Format(time.DateTime)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT detail ->> 'count' FROM events WHERE action = 'events forgotten' ORDER BY id DESC LIMIT 1`).Scan(&forgotten)
	})
	if err != nil {
		return 0, fmt.Errorf("forgetting events: %w", s.refused(err))
	}
	return forgotten, nil
}

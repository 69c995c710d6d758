package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
)

// AddKeys enrols keys as AddKey does, all of them or none, and returns their
// numbers. It is one statement, so that the triggers that write events and tell
// of changes run once.
func (s *Store) AddKeys(ctx context.Context, all []keys.NewKey) (ids []int64, err error) {
	var addresses, texts, options, states, fingerprints []string
	for _, key := range all {
		chosen, err := json.Marshal(key.Options)
		if err != nil {
			return nil, fmt.Errorf("adding %d keys: %w", len(all), err)
		}
		addresses, texts, options = append(addresses, key.Address), append(texts, key.Key), append(options, string(chosen))
		states, fingerprints = append(states, string(cmp.Or(key.State, keys.KeyActive))), append(fingerprints, key.Fingerprint)
	}
	const insert = `INSERT INTO sealmilter.keys (address, key, options, state, fingerprint)
		SELECT n.address, n.key, n.options::jsonb, n.state, nullif(n.fingerprint, '')
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
			AS n (address, key, options, state, fingerprint, place) ORDER BY n.place
		RETURNING id`
	err = s.change(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, insert, addresses, texts, options, states, fingerprints)
		if err == nil {
			ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("adding %d keys: %w", len(all), s.refused(ctx, err))
	}
	return ids, nil
}

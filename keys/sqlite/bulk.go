package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"sealmilter/keys"
)

// AddKeys enrols keys as AddKey does, all of them or none, and returns their
// numbers. An import waits for the disk once, and not for every key.
func (s *Store) AddKeys(ctx context.Context, all []keys.NewKey) (ids []int64, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		for _, key := range all {
			id, err := insertKey(ctx, tx, key)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("adding %d keys: %w", len(all), s.refused(err))
	}
	return ids, nil
}

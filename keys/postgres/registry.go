package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/keys"
)

// change runs statements in one transaction, on the server that can be written
// to. Its events have the actor's name.
func (s *Store) change(ctx context.Context, run func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.writable, func(tx pgx.Tx) error {
		if s.actor != "" {
			if _, err := tx.Exec(ctx, `SELECT pg_catalog.set_config('sealmilter.actor', $1, true)`, s.actor); err != nil {
				return err
			}
		}
		return run(tx)
	})
}

// changeKey runs one statement, whose first argument is the number of the key
// that it changes.
func (s *Store) changeKey(ctx context.Context, sql string, id int64, args ...any) error {
	var changed int64
	err := s.change(ctx, func(tx pgx.Tx) error {
		done, err := tx.Exec(ctx, sql, append([]any{id}, args...)...)
		changed = done.RowsAffected()
		return err
	})
	switch {
	case err != nil:
		return s.refused(ctx, err)
	case changed == 0:
		return keys.ErrNoSuchKey
	}
	return nil
}

// AddKey implements keys.Registry. The trigger of the table makes the account.
func (s *Store) AddKey(ctx context.Context, key keys.NewKey) (id int64, err error) {
	options, err := json.Marshal(key.Options)
	if err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", key.Address, err)
	}
	const insert = `INSERT INTO sealmilter.keys (address, key, options, state, fingerprint)
		VALUES ($1, $2, $3::text::jsonb, $4, nullif($5, '')) RETURNING id`
	err = s.change(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, insert, key.Address, key.Key, string(options), string(cmp.Or(key.State, keys.KeyActive)), key.Fingerprint).Scan(&id)
	})
	if err != nil {
		return 0, fmt.Errorf("adding a key for %q: %w", key.Address, s.refused(ctx, err))
	}
	return id, nil
}

// SetKeyOptions implements keys.Registry. What else an administrator has
// written into the options by SQL stays.
func (s *Store) SetKeyOptions(ctx context.Context, id int64, options keys.KeyOptions) error {
	chosen, err := json.Marshal(options)
	if err == nil {
		err = s.changeKey(ctx, `UPDATE sealmilter.keys SET options = (options - '{aead,oaep,ml_kem}'::text[]) || $2::text::jsonb WHERE id = $1`,
			id, string(chosen))
	}
	if err != nil {
		return fmt.Errorf("setting the options of key %d: %w", id, err)
	}
	return nil
}

// RemoveKey implements keys.Registry.
func (s *Store) RemoveKey(ctx context.Context, id int64) error {
	if err := s.changeKey(ctx, `DELETE FROM sealmilter.keys WHERE id = $1`, id); err != nil {
		return fmt.Errorf("removing key %d: %w", id, err)
	}
	return nil
}

// pageSize is how much of a list is held in memory, see keys.Pages.
const pageSize = 100

// Keys implements keys.Registry.
func (s *Store) Keys(ctx context.Context, address string) iter.Seq2[keys.Enrolled, error] {
	return keys.Pages(pageSize, func(last keys.Enrolled) ([]keys.Enrolled, error) {
		page, err := s.page(ctx, address, last)
		if err != nil {
			err = fmt.Errorf("listing keys: %w", s.refused(ctx, err))
		}
		return page, err
	})
}

// page reads the keys that come after last, of one address or of all.
func (s *Store) page(ctx context.Context, address string, last keys.Enrolled) ([]keys.Enrolled, error) {
	query := `SELECT k.id, k.address, k.key, k.added, a.enabled, coalesce(a.method, ''), a.cipher, k.options,
			k.state, coalesce(k.state_since, k.added), coalesce(k.fingerprint, ''), coalesce(k.problem, ''),
			coalesce(k.checked, '0001-01-01 00:00:00Z'), k.options
		FROM sealmilter.keys AS k JOIN sealmilter.accounts AS a ON a.address = k.address
		WHERE (k.address, k.id) > ($1, $2)`
	args := []any{last.Address, last.ID, pageSize}
	if address != "" {
		query += ` AND k.address =
			(SELECT one.address FROM sealmilter.accounts AS one WHERE lower(one.address) = lower($4::text COLLATE "C"))`
		args = append(args, address)
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY k.address, k.id LIMIT $3`, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keys.Enrolled])
}

// ErrEnrolledAlready is in the chain of AddKey's error where the address has a
// key of the same text.
var ErrEnrolledAlready = errors.New("the key is enrolled already")

// enrolledAlready is the name of the index that keeps a key from being
// inserted twice for an address.
const enrolledAlready = "key_is_enrolled_already"

// refused keeps apart the ways in which a statement fails: the server has read
// it and says no, it says no to this role (ErrRefused), it has no such tables
// or columns (ErrRefused on a site with tables of its own, else ErrNoSchema), or there
// was no answer (keys.ErrStore). A table's constraint is named for what is
// wrong, so its name is the whole message.
func (s *Store) refused(ctx context.Context, err error) error {
	var failed *pgconn.ConnectError
	var said *pgconn.PgError
	if errors.As(err, &failed) || !errors.As(err, &said) || len(said.Code) < 2 {
		return unanswered(err)
	}
	switch {
	case said.ConstraintName == enrolledAlready:
		return &told{ErrEnrolledAlready.Error(), []error{ErrEnrolledAlready, err}}
	case said.ConstraintName != "":
		return fmt.Errorf("%s: %w", strings.ReplaceAll(said.ConstraintName, "_", " "), err)
	case slices.Contains([]string{insufficientPrivilege, undefinedTable, undefinedColumn, invalidSchemaName}, said.Code):
		has, _ := look(ctx, s.pool) // what is not known is taken for not there
		switch {
		case has.site != "":
			return has.siteOwn()
		case said.Code == insufficientPrivilege:
			return unmanaged(err)
		}
		return fmt.Errorf("%w: %w", ErrNoSchema, err)
	}
	switch said.Code[:2] {
	case "25":
		if said.Code == readOnlyTransaction {
			return refusal(err, "this server can only be read, as a standby: name the one that can be written to, alone or behind it with a comma between them")
		}
		return err
	case "22", "23", "42": // bad data
		return err
	}
	return unanswered(err)
}

// unmanaged says that a role, the daemon's perhaps, is none that may manage
// keys. That it becomes one is no advice: what the daemon's role may do, whoever
// breaks into the daemon may do.
func unmanaged(err error) error {
	return refusal(err, "this role may not manage keys: give the URL of one that may with --store, a member of sealmilter_admin, "+
		"and leave the daemon's role as it is; "+rolesFile+" makes sealmilter_admin, and is to be loaded again after a migrate")
}

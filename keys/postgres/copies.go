package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sealmilter/keys"
)

// Copies is the database's memory of copies in flight (keys.ErrBusy says what
// that is). It is safe for concurrent use, by many hosts at once. Each method
// is one call of one function, a transaction of its own.
type Copies struct {
	pool    *pgxpool.Pool
	timeout time.Duration
}

// Copies shares the store's connections and is closed with it.
func (s *Store) Copies() *Copies { return &Copies{pool: s.writable, timeout: s.timeout} }

// writablePool is the pool for what is written. Lookups take the first of
// several hosts that answers, or the one that target_session_attrs prefers, be it
// a standby; writing passes a standby by and takes the next.
func writablePool(ctx context.Context, config *pgxpool.Config, lookups *pgxpool.Pool) (*pgxpool.Pool, error) {
	first := config.ConnConfig
	another := func(f *pgconn.FallbackConfig) bool { return f.Host != first.Host || f.Port != first.Port }
	if !slices.ContainsFunc(first.Fallbacks, another) {
		return lookups, nil
	}
	config = config.Copy()
	config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	return pgxpool.NewWithConfig(ctx, config)
}

// Begin claims the copies of one transaction for owner until the lease ends,
// and says which of them were sent already by an attempt that did not finish.
// The error wraps keys.ErrBusy where another owner's claim on one of them is
// still alive: nothing is claimed then. Every other wraps keys.ErrStore. An
// owner who has the claim already has it for longer.
func (c *Copies) Begin(ctx context.Context, owner string, copies [][]byte, lease time.Duration) (sent []bool, err error) {
	if len(copies) == 0 {
		return nil, nil
	}
	const begin = `SELECT sealmilter.copies_begin($1::text, $2::bytea[], $3::interval)`
	if _, err := c.call(ctx, "copies_begin", begin, &sent, owner, copies, lease); err != nil {
		return nil, fmt.Errorf("claiming copies: %w", err)
	}
	if sent == nil {
		return nil, fmt.Errorf("claiming copies: %w", keys.ErrBusy)
	}
	if len(sent) != len(copies) {
		return nil, fmt.Errorf("claiming copies: %w: sealmilter.copies_begin has answered for %d of %d", keys.ErrStore, len(sent), len(copies))
	}
	return sent, nil
}

// Sent notes that a copy was accepted by the re-injection server. It is
// durable when it returns. The error wraps keys.ErrClaimLost where the owner
// does not hold the claim any more, else keys.ErrStore.
func (c *Copies) Sent(ctx context.Context, owner string, copy []byte) error {
	var held bool
	_, err := c.call(ctx, "copies_sent", `SELECT sealmilter.copies_sent($1::text, $2::bytea)`, &held, owner, copy)
	if err == nil && !held {
		err = keys.ErrClaimLost
	}
	if err != nil {
		return fmt.Errorf("noting a copy: %w", err)
	}
	return nil
}

// End ends the claim. With forget the MTA has gone on and nothing is
// remembered; without, what was sent stays remembered for a retry. The error
// wraps keys.ErrClaimLost where the owner did not hold all of the claim any
// more (what was still the owner's has ended all the same), else keys.ErrStore.
func (c *Copies) End(ctx context.Context, owner string, copies [][]byte, forget bool) error {
	if len(copies) == 0 {
		return nil
	}
	var held bool
	again, err := c.call(ctx, "copies_end", `SELECT sealmilter.copies_end($1::text, $2::bytea[], $3::boolean)`, &held, owner, copies, forget)
	if err == nil && !held && !again { // a second call may have found the work of the first
		err = keys.ErrClaimLost
	}
	if err != nil {
		return fmt.Errorf("ending the claim on copies: %w", err)
	}
	return nil
}

// call calls one function and reads the one value that it answers. It calls a
// second time, and says so, where the fault may have been the pooled
// connection's: to claim, to note and to end can each be done twice. Errors
// wrap keys.ErrStore.
func (c *Copies) call(ctx context.Context, function, query string, answer any, args ...any) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	again, err = c.once(ctx, query, answer, args)
	if again && ctx.Err() == nil {
		c.pool.Reset() // the other idle connections are as old as this one
		_, err = c.once(ctx, query, answer, args)
	}
	if err != nil {
		return again, fmt.Errorf("calling sealmilter.%s: %w", function, deferring(unwritten(function, err)))
	}
	return again, nil
}

// once says whether an error may be the fault of the pooled connection.
func (c *Copies) once(ctx context.Context, query string, answer any, args []any) (stale bool, err error) {
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return false, err // a new connection was tried
	}
	defer conn.Release()
	err = conn.QueryRow(ctx, query, args...).Scan(answer)
	return err != nil && (conn.Conn().IsClosed() || planChanged(err)), err
}

// readOnly is the server's code for a change that it may not make, as a
// standby answers.
const readOnly = "25006"

// unwritten sorts the error of a call of one of the functions of copies.sql.
func unwritten(function string, err error) error {
	switch code := sqlState(err); {
	case code == readOnly, errors.Is(err, pgconn.ErrReadOnlyConnection):
		said := strings.TrimPrefix(words(unanswered(err)), keys.ErrStore.Error()+": ")
		return &told{"the server is read-only, a standby perhaps, and copies in flight must be written: " + said, []error{keys.ErrStore, err}}
	case code == insufficientPrivilege:
		return refusal(err, "this role may not call sealmilter."+function+": load "+rolesFile+" again")
	case slices.Contains(unsuited, code):
		return fmt.Errorf("%w: %w", ErrNoSchema, err)
	}
	return unanswered(err)
}

// checkCopies looks in the catalogue, which everybody may read, whether this
// role may call the functions of copies.sql. Keys are looked up without them,
// so that what is missing is a warning.
func checkCopies(ctx context.Context, conn *pgx.Conn) (warnings []string, err error) {
	const query = `SELECT coalesce(pg_catalog.string_agg('sealmilter.' || f.name, ', ' ORDER BY f.name) FILTER (WHERE p.oid IS NULL), ''),
			coalesce(pg_catalog.string_agg('sealmilter.' || f.name, ', ' ORDER BY f.name) FILTER (WHERE p.oid IS NOT NULL
				AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')), '')
		FROM (VALUES ('copies_begin', 'text, bytea[], interval'), ('copies_sent', 'text, bytea'),
			('copies_end', 'text, bytea[], boolean')) AS f (name, arguments)
		LEFT JOIN (pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = 'sealmilter')
			ON p.proname = f.name AND pg_catalog.oidvectortypes(p.proargtypes) = f.arguments`
	var missing, closed string
	if err := conn.QueryRow(ctx, query).Scan(&missing, &closed); err != nil {
		return nil, err
	}
	const deferred = ": mail that must be split will be deferred: "
	if missing != "" {
		warnings = append(warnings, "there is no "+strings.ReplaceAll(missing, ", ", ", no ")+deferred+
			"run sealmilter migrate, or with tables of your own load "+copiesFile+", and then "+rolesFile+" again")
	}
	if closed != "" {
		warnings = append(warnings, "this role may not call "+closed+deferred+"load "+rolesFile+" again")
	}
	return warnings, nil
}

// Package postgres keeps the recipients' keys in PostgreSQL.
//
// The daemon asks it for keys by one function, sealmilter.recipient_keys(text[]).
// The tables behind the function are the administrator's: they are written by
// plain SQL or by the Registry, and a site with tables of its own replaces the
// function. Copies in flight it notes by three functions more (Copies), and
// it needs no right but to call these four.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sealmilter/keys"
)

// DefaultTimeout is how long one lookup may take where Options name no time.
// Sendmail waits ten seconds for a milter's answer, Postfix thirty.
const DefaultTimeout = 5 * time.Second

// maxAnswer bounds what one lookup may bring into memory. It is a thousand
// recipients with a dozen large keys each; a site's own function that joins
// wrongly, or an account somebody has filled, must not take the daemon down.
const maxAnswer = 64 << 20

// Options are a Store's settings.
type Options struct {
	Timeout time.Duration // for one lookup, all attempts included; 0 is DefaultTimeout
	Actor   string        // whose changes these are, for the events; "" is the role's own name
}

// Store is a key store in PostgreSQL. It is safe for concurrent use.
type Store struct {
	pool     *pgxpool.Pool
	writable *pgxpool.Pool // for what is written; the same one, unless several hosts are named
	timeout  time.Duration
	actor    string
	lag      *lag
}

// Open makes a Store of a connection string, a URL or keywords and values as
// psql takes them, with several hosts if need be. The server need not be up,
// now or later: a lookup connects when it must. The string may also say
// pool_max_conns and default_query_exec_mode (exec, behind a pooler that does
// not know prepared statements).
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the connection string: %w", err)
	}
	s := &Store{timeout: opts.Timeout, actor: opts.Actor, lag: &lag{}}
	if s.timeout <= 0 {
		s.timeout = DefaultTimeout
	}
	bound(config, s.timeout)
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("opening the connection pool: %w", err)
	}
	if s.writable, err = writablePool(ctx, config, s.pool); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("opening the connection pool: %w", err)
	}
	return s, nil
}

// bound divides a lookup's time between the hosts, so that one that swallows
// packets leaves enough of it for the next: pgx itself would wait for two
// minutes. A ping of a pooled connection gets the same share. What the
// connection string says stands.
func bound(config *pgxpool.Config, timeout time.Duration) {
	share := timeout / time.Duration(len(config.ConnConfig.Fallbacks)+2)
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = share
	}
	if config.PingTimeout == 0 {
		config.PingTimeout = share
	}
	nameApplication(config.ConnConfig)
}

// nameApplication lets an administrator find the connection in
// pg_stat_activity.
func nameApplication(config *pgx.ConnConfig) {
	if _, named := config.RuntimeParams["application_name"]; !named {
		config.RuntimeParams["application_name"] = "sealmilter"
	}
}

// Close gives back the connections.
func (s *Store) Close() {
	s.pool.Close()
	s.writable.Close()
}

// RecipientKeys implements keys.Store. It asks a second time, once, where the
// first time failed for a reason that lies in the pool and not in the server:
// the connection had died since it was last used, or the function has been
// replaced by one with other column types since it was prepared. What the
// server itself refuses, to let this role in or to let it call the function,
// is in the error's chain as ErrRefused beside keys.ErrStore.
func (s *Store) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	rows, stale, err := s.ask(ctx, addresses)
	if stale && ctx.Err() == nil {
		// The other idle connections are as old as this one.
		s.pool.Reset()
		rows, _, err = s.ask(ctx, addresses)
	}
	if err != nil {
		return nil, fmt.Errorf("calling sealmilter.recipient_keys: %w", deferring(uncalled(err, false)))
	}
	return rows, nil
}

// deferring makes keys.ErrStore of an error whatever it is: the message waits.
// Where the server has answered, the words do not say that it has not. Whether
// to migrate would help, Check finds out.
func deferring(err error) error {
	switch {
	case errors.Is(err, keys.ErrStore):
		return err
	case errors.Is(err, ErrNoSchema):
		return &told{words(err) + ": sealmilter check says what to do", []error{keys.ErrStore, err}}
	}
	return &told{err.Error(), []error{keys.ErrStore, err}}
}

const lookup = `SELECT address, account, enabled, method, cipher, key, options FROM sealmilter.recipient_keys($1::text[])`

// ask calls the function once. It says whether an error may be the fault of
// the pooled connection.
func (s *Store) ask(ctx context.Context, addresses []string) (_ []keys.Row, stale bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, false, err // a new connection was tried, there is nothing to try again
	}
	defer conn.Release()
	rows, err := s.askOn(ctx, conn.Conn(), addresses)
	if err == nil {
		return rows, false, nil
	}
	return nil, conn.Conn().IsClosed() || planChanged(err), err
}

// askOn asks one server. Where that may be a standby, it is asked first how far
// it has come; from version 14 on a server says by itself, and again when it is
// promoted, that it is none. Whether it is one cannot be told from the connection
// string: a name may stand for several servers, or for a proxy before them.
//
// A standby that is behind a change of what was asked would answer for as long as
// it is, and where its replication has stopped for good: the primary is asked then.
func (s *Store) askOn(ctx context.Context, conn *pgx.Conn, addresses []string) ([]keys.Row, error) {
	if !s.lag.watched() || conn.PgConn().ParameterStatus("in_hot_standby") == "off" {
		answer, err := conn.Query(ctx, lookup, addresses)
		if err != nil {
			return nil, err
		}
		return collect(answer, len(addresses))
	}
	var batch pgx.Batch
	batch.Queue(replayed)
	batch.Queue(lookup, addresses)
	both := conn.SendBatch(ctx, &batch)
	defer both.Close()
	var position *int64
	if err := both.QueryRow().Scan(&position); err != nil {
		return nil, err
	}
	answer, err := both.Query()
	if err != nil {
		return nil, err
	}
	rows, err := collect(answer, len(addresses))
	if err == nil {
		err = both.Close()
	}
	if err == nil && position != nil && s.lag.answered(*position, addresses, rows) && s.writable != s.pool {
		if newer, err := s.askPrimary(ctx, addresses); err == nil {
			return newer, nil
		}
	}
	return rows, err
}

// askPrimary asks the server that is written to. Where that hangs, enough of the
// time is left for the answer that is there already.
func (s *Store) askPrimary(ctx context.Context, addresses []string) ([]keys.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout/4)
	defer cancel()
	answer, err := s.writable.Query(ctx, lookup, addresses)
	if err != nil {
		return nil, err
	}
	return collect(answer, len(addresses))
}

// planChanged tells whether a prepared statement is no longer what the server
// has: its result type changed (0A000, feature_not_supported, is what
// PostgreSQL calls that), or a pooler handed out another session (26000).
func planChanged(err error) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && (said.Code == "0A000" || said.Code == "26000")
}

// collect reads an answer. A site's own function may leave any choice NULL. An
// account that is neither enabled nor not is nobody who is enrolled; one that
// has a key all the same is an answer that cannot be acted upon: false would
// let its mail pass in plaintext.
func collect(answer pgx.Rows, expected int) ([]keys.Row, error) {
	defer answer.Close()
	rows := make([]keys.Row, 0, expected)
	size := 0
	for answer.Next() {
		var row keys.Row
		var account, method, cipher, key *string
		var enabled *bool
		var options []byte
		if err := answer.Scan(&row.Address, &account, &enabled, &method, &cipher, &key, &options); err != nil {
			return nil, err
		}
		if enabled == nil && key != nil {
			return nil, errors.New("a row with a key has neither true nor false in enabled")
		}
		row.Known = account != nil && enabled != nil
		row.Account, row.Key, row.Options = text(account), text(key), options
		row.Method, row.Cipher = keys.Method(text(method)), keys.Cipher(text(cipher))
		row.Enabled = enabled != nil && *enabled
		if size += len(row.Key) + len(row.Options); size > maxAnswer {
			return nil, fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
		}
		rows = append(rows, row)
	}
	return rows, answer.Err()
}

// text is the empty string for NULL.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

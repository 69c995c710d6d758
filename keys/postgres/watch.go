package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/keys"
)

// channel is where the triggers of our tables tell which address has changed:
// the address in lower case, or nothing for more than they list.
const channel = "sealmilter_changes"

// lookupFunction is the SHA-256 of recipient_keys as the last migration makes
// it. Another one is the site's own.
const lookupFunction = "3e6760d82c40c9f54c776e7624d3e91169b08f6e56f4bfb7b93f3993b738b214"

// The times of watching. A server that has gone without a word is noticed
// within a beat and its timeout, and until then what it would tell is missed.
const (
	beat        = time.Second
	beatTimeout = 2 * time.Second
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 5 * time.Second
)

// WatchOptions are what Watch needs to know.
type WatchOptions struct {
	// TTL is how long an answer may be used where the site has put a function
	// of its own in the place of recipient_keys, whose tables tell nobody of
	// changes. 0: not at all.
	TTL time.Duration
	// Event is told what an operator should know: that changes are told of
	// again, or why they are not, and that once for each reason in turn.
	Event func(following bool, err error)
}

// Watch tells a follower of every change until the context ends. It keeps a
// connection of its own to the server that can be written to, since a standby
// knows no LISTEN, and makes it anew whenever it breaks. It does not return an
// error: whatever fails, the follower has lost the store for that time. One
// Watch of a store runs at a time.
func (s *Store) Watch(ctx context.Context, follower keys.Follower, opts WatchOptions) {
	w := &watch{store: s, follower: follower, opts: opts}
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		w.report(false, err)
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// watch is what Watch knows.
type watch struct {
	store    *Store
	follower keys.Follower
	opts     WatchOptions
	reported string

	conn   *pgx.Conn // that listens
	looked time.Time
	seen   string // what tells of changes, as it was when the follower was told; "" when it was not
}

// once watches until its connection breaks. The follower has lost the store
// before the connection is closed, which may take its time.
func (w *watch) once(ctx context.Context) (err error) {
	config := w.store.writable.Config().ConnConfig
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	if w.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return fmt.Errorf("connecting to hear of changes: %w", unanswered(err))
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatTimeout)
		defer cancel()
		w.conn.Close(closing)
	}()
	defer w.lose()
	w.seen = ""
	if err := w.listen(ctx); err != nil {
		return err
	}
	for {
		if err := w.next(ctx); err != nil {
			return err
		}
	}
}

func (w *watch) lose() {
	w.follower.Lose()
	w.store.lag.end()
}

// listen begins to hear. What was changed before it, the server that answers
// lookups may not have yet.
func (w *watch) listen(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if _, err := w.conn.Exec(within, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listening for changes: %w", unanswered(err))
	}
	position, err := w.position(within)
	if err != nil {
		return err
	}
	w.store.lag.begin(w.follower, position)
	return w.look(ctx)
}

var (
	// errOwnFunction: where a site's own tables answer, nobody tells of changes.
	errOwnFunction = errors.New("sealmilter.recipient_keys is the site's own, whose tables tell nobody of changes")
	// errSilent: what is written while triggers do not run is told by nobody.
	errSilent = errors.New("the triggers of sealmilter's tables that tell of changes are not all there and enabled, \"replicated\" with ENABLE ALWAYS")
	// errSubscriber: no trigger runs for what another server's log brings.
	errSubscriber = errors.New("sealmilter's tables come to this server by logical replication, which tells nobody of changes")
	// errPooler: what it hands on next may be another session, that hears nothing.
	errPooler = errors.New("a pooler stands before the server, and who listens needs a session of its own: name the server itself")
)

// tellers is how many triggers tell of changes: those of keys, accounts and
// aliases, without those that only write events.
const tellers = 16

// lookAround asks for all that makes changes known: the session, the function
// that answers, whether rows come in by logical replication, and the triggers.
// What identifies them is another after each change of them, as where they were
// disabled and enabled again in between: then "replicated" is enabled as the
// others are, and does not run where it is the only one to tell.
const lookAround = `SELECT pg_catalog.pg_backend_pid(), coalesce((SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex')
		FROM pg_catalog.pg_proc AS p WHERE p.oid = pg_catalog.to_regprocedure('sealmilter.recipient_keys(text[])')), ''),
	count(*) FILTER (WHERE t.tgenabled = 'A' OR t.tgenabled = 'O' AND t.tgname <> 'replicated'), coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid), ''),
	EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS r
		WHERE r.srrelid IN (pg_catalog.to_regclass('sealmilter.keys'), pg_catalog.to_regclass('sealmilter.accounts'), pg_catalog.to_regclass('sealmilter.aliases')))
	FROM pg_catalog.pg_trigger AS t
	WHERE t.tgrelid IN (pg_catalog.to_regclass('sealmilter.keys'), pg_catalog.to_regclass('sealmilter.accounts'), pg_catalog.to_regclass('sealmilter.aliases'))
		AND t.tgname IN ('inserted', 'inserted_by_another', 'updated', 'deleted', 'truncated', 'replicated')`

// look finds out whether the server still answers, and whether the tables that
// tell of changes are those that are asked, and says so to the follower where
// that is another answer than before.
func (w *watch) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	var pid uint32
	var function, triggers string
	var enabled int
	var subscribed bool
	err := w.conn.QueryRow(ctx, lookAround).Scan(&pid, &function, &enabled, &triggers, &subscribed)
	switch {
	case err != nil:
		return fmt.Errorf("listening for changes: %w", unanswered(err))
	case function == "":
		return fmt.Errorf("asking which function answers: %w", ErrNoSchema)
	case pid != w.conn.PgConn().PID():
		return errPooler
	}
	w.looked = time.Now()
	switch {
	case function != lookupFunction:
		triggers, err = "", errOwnFunction // whatever they do
	case subscribed:
		triggers, err = "subscribed", errSubscriber
	case enabled != tellers:
		err = errSilent
	}
	now := function + " " + triggers
	if now == w.seen {
		return nil
	}
	w.seen = now
	if err != nil {
		w.follower.FollowFor(w.opts.TTL)
	} else {
		w.follower.Follow()
	}
	w.report(err == nil, err)
	return nil
}

// report tells the operator what is new.
func (w *watch) report(following bool, err error) {
	now := "following"
	if !following {
		now = err.Error()
	}
	if now == w.reported || w.opts.Event == nil {
		return
	}
	w.reported = now
	w.opts.Event(following, err)
}

// next waits for one change and takes with it what has come beside, but does
// not wait for longer than a beat.
func (w *watch) next(ctx context.Context) error {
	wait, cancel := context.WithDeadline(ctx, w.looked.Add(beat))
	defer cancel()
	count := 0
	for {
		told, err := w.conn.WaitForNotification(wait)
		if err != nil {
			if wait.Err() == nil || ctx.Err() != nil || w.conn.IsClosed() {
				return fmt.Errorf("waiting for changes: %w", unanswered(err))
			}
			break
		}
		count++
		w.store.lag.note(told.Payload)
		w.follower.Changed(told.Payload)
		cancel() // what has come already is there without waiting
	}
	if count > 0 {
		asking, cancel := context.WithTimeout(ctx, beatTimeout)
		defer cancel()
		position, err := w.position(asking)
		if err != nil {
			return err
		}
		w.store.lag.settle(position, count)
	}
	if time.Since(w.looked) >= beat {
		return w.look(ctx)
	}
	return nil
}

// position is where the server is in its log: behind all changes that it has
// told of.
func (w *watch) position(ctx context.Context) (position int64, err error) {
	const query = `SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint`
	if err := w.conn.QueryRow(ctx, query).Scan(&position); err != nil {
		return 0, fmt.Errorf("asking how far the server is: %w", unanswered(err))
	}
	return position, nil
}

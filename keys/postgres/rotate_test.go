package postgres

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealmilter/testdata/bed"
)

// TestRotateAtOnce: of two who let a key take the place of the others at the same
// moment, the later one has done so to the key of the other too.
func TestRotateAtOnce(t *testing.T) {
	ctx := context.Background()
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	one, other := opened(t, server.URL("postgres", database), Options{}), opened(t, server.URL("postgres", database), Options{})
	begin := func(s *Store) pgx.Tx {
		tx, err := s.pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tx.Rollback(ctx) }) // before the pool is closed, which waits for it
		return tx
	}
	pending := func(key string) string {
		return server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key, state, challenge, challenge_until)
			VALUES ('ann@example.org', '`+key+`', 'pending', sha256('n'), now() + '1 hour') RETURNING id`)
	}
	hash := sha256.Sum256([]byte("n"))
	for _, test := range []struct {
		name          string
		first, second func() (sql string, args []any)
	}{
		{"rotate and rotate", func() (string, []any) { return `SELECT sealmilter.rotate_key('ann@example.org', 'A')`, nil },
			func() (string, []any) { return `SELECT sealmilter.rotate_key('ann@example.org', 'B')`, nil }},
		{"confirm and confirm", func() (string, []any) {
			return `SELECT sealmilter.confirm_key(` + pending("C") + `, $1, true)`, []any{hash[:]}
		},
			func() (string, []any) {
				return `SELECT sealmilter.confirm_key(` + pending("D") + `, $1, true)`, []any{hash[:]}
			}},
		{"the page and rotate", func() (string, []any) {
			return `SELECT sealmilter.portal_confirm('ann@example.org', ` + pending("E") + `, $1, true)`, []any{hash[:]}
		}, func() (string, []any) { return `SELECT sealmilter.rotate_key('ann@example.org', 'F')`, nil }},
		{"rotate and the page", func() (string, []any) { return `SELECT sealmilter.rotate_key('ann@example.org', 'G')`, nil }, func() (string, []any) {
			return `SELECT sealmilter.portal_confirm('ann@example.org', ` + pending("H") + `, $1, true)`, []any{hash[:]}
		}},
	} {
		server.SQL(t, database, `DELETE FROM sealmilter.accounts; INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org')`)
		first, firstArgs := test.first()
		second, secondArgs := test.second()
		a, b := begin(one), begin(other)
		if _, err := a.Exec(ctx, first, firstArgs...); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := b.Exec(ctx, second, secondArgs...)
			done <- err
		}()
		time.Sleep(300 * time.Millisecond) // the second is under way, or waits for the first
		if err := a.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if err := b.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if active := server.SQL(t, database, `SELECT count(*) FROM sealmilter.keys WHERE state = 'active'`); active != "1" {
			t.Errorf("%s: %s keys are active", test.name, active)
		}
	}
}

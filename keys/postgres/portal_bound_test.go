package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/testdata/bed"
)

// TestPortalBound: a user who goes on to bring keys and to confirm them cannot make
// the answer of lookups so long that it is none: it is that of every group that
// the user is in.
func TestPortalBound(t *testing.T) {
	ctx := context.Background()
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) VALUES ('bob@example.org', 'BOB');
		INSERT INTO sealmilter.aliases (address, target) VALUES ('team@example.org', 'ann@example.org'), ('team@example.org', 'bob@example.org')`)
	portal, s := opened(t, server.URL("sealmilter_portal", database), Options{}), daemon(t, server, database)
	const propose = `SELECT sealmilter.portal_propose('ann@example.org', $1, NULL)`
	var refused *pgconn.PgError
	var last int64
	for i := range 70 {
		err := portal.pool.QueryRow(ctx, propose, fmt.Sprintf("%d ", i)+strings.Repeat("x", 1<<20-10)).Scan(&last)
		if errors.As(err, &refused) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{`SELECT sealmilter.portal_challenge('ann@example.org', $1, sha256('n'), now() + '1 hour')`,
			`SELECT sealmilter.portal_confirm('ann@example.org', $1, sha256('n'), true)`} {
			if _, err := portal.pool.Exec(ctx, step, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.RecipientKeys(ctx, []string{"team@example.org"}); err != nil {
		t.Errorf("a group is not found any more: %v", err)
	}
	if refused == nil || refused.Code != "54000" {
		t.Errorf("refused: %v", refused)
	}
	if _, err := portal.pool.Exec(ctx, `SELECT sealmilter.portal_remove('ann@example.org', $1)`, last); err != nil {
		t.Fatal(err)
	}
	if err := portal.pool.QueryRow(ctx, propose, "ANOTHER").Scan(&last); err != nil {
		t.Errorf("after one was removed: %v", err)
	}
}

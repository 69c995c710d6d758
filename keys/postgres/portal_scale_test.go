package postgres

import (
	"context"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestPortalAtScale: what the page does for one user takes no longer where
// there are many others.
func TestPortalAtScale(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	server.SQL(t, database, contrib(t, "roles.sql"))
	server.SQL(t, database, `INSERT INTO sealmilter.accounts (address) SELECT 'u' || n || '@example.org' FROM generate_series(1, 50000) AS n`)
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) SELECT 'u' || n || '@example.org', 'KEY' FROM generate_series(1, 50000) AS n`)
	server.SQL(t, database, `ANALYZE`)
	portal := opened(t, server.URL("sealmilter_portal", database), Options{})
	for _, call := range []string{
		`SELECT sealmilter.portal_keys('u7@example.org')`,
		`SELECT sealmilter.portal_enabled('u7@example.org', false)`,
		`SELECT sealmilter.portal_choices('u7@example.org', NULL, NULL)`,
		`SELECT sealmilter.portal_propose('u7@example.org', 'NEW', NULL)`,
		`SELECT sealmilter.portal_retire('u7@example.org', 7)`,
		`SELECT sealmilter.portal_remove('u7@example.org', 7)`,
	} {
		began := time.Now()
		if _, err := portal.pool.Exec(context.Background(), call); err != nil {
			t.Errorf("%s: %v", call, err)
		}
		took := time.Since(began)
		t.Log(took, call)
		if took > 200*time.Millisecond {
			t.Errorf("%v: %s", took, call)
		}
	}
}

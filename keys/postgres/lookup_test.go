package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// fill opens all connections that the pool may have, does something with each
// and gives them back at once.
func fill(t *testing.T, s *Store, use func(*pgxpool.Conn)) {
	t.Helper()
	var held []*pgxpool.Conn
	for range s.pool.Stat().MaxConns() {
		conn, err := s.pool.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		use(conn)
		held = append(held, conn)
	}
	for _, conn := range held {
		conn.Release()
	}
}

// lookUpOn runs the lookup on a connection, which prepares it there.
func lookUpOn(t *testing.T) func(*pgxpool.Conn) {
	return func(conn *pgxpool.Conn) {
		rows, err := conn.Query(context.Background(), lookup, []string{"ann@example.org"})
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// testPlanChanged: a site makes the function anew with other column types
// while every connection of the pool has it prepared. PostgreSQL says "cached
// plan must not change result type", and nobody notices.
func testPlanChanged(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	s := daemon(t, server, database)
	fill(t, s, lookUpOn(t))
	server.SQL(t, database, siteFunction("varchar(2000)", `
		SELECT u, u, true, NULL::text, NULL::text, 'SITE KEY'::varchar(2000), NULL::jsonb FROM unnest(addresses) AS u`))
	// Without the retry this is what a lookup meets.
	_, stale, err := s.ask(context.Background(), []string{"ann@example.org"})
	if err == nil || !stale || !planChanged(err) {
		t.Fatalf("a prepared plan is stale %v, %v: this test shows nothing", stale, err)
	}
	for range 2 * int(s.pool.Stat().MaxConns()) {
		expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|SITE KEY")
	}
	// Made anew with the same types, it is not even noticed.
	s.pool.Reset()
	fill(t, s, lookUpOn(t))
	server.SQL(t, database, siteFunction("varchar(2000)", `
		SELECT u, u, true, NULL::text, NULL::text, 'NEW KEY'::varchar(2000), NULL::jsonb FROM unnest(addresses) AS u`))
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|NEW KEY")
	// Gone for good, it is a failed lookup at the second attempt too.
	server.SQL(t, database, `DROP FUNCTION sealmilter.recipient_keys(text[])`)
	if _, err := s.RecipientKeys(context.Background(), []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("without the function: %v", err)
	}
}

// siteFunction is what a site loads in the place of the function. The type of
// the column key is the caller's.
func siteFunction(keyType, query string) string {
	return `DROP FUNCTION IF EXISTS sealmilter.recipient_keys(text[]);
		CREATE FUNCTION sealmilter.recipient_keys(addresses text[])
		RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key ` + keyType + `, options jsonb)
		LANGUAGE sql VOLATILE AS $$` + query + `$$;
		GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) TO sealmilter;`
}

// testSlowFunction: the timeout is that of the whole lookup.
func testSlowFunction(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	s := opened(t, server.URL("sealmilter", database), Options{Timeout: 300 * time.Millisecond})
	server.SQL(t, database, siteFunction("text", `
		SELECT u, NULL::text, NULL::boolean, NULL::text, NULL::text, NULL::text, NULL::jsonb
		FROM pg_sleep(CASE WHEN addresses[1] LIKE 'slow%' THEN 20 ELSE 0 END), unnest(addresses) AS u`))
	start := time.Now()
	_, err := s.RecipientKeys(context.Background(), []string{"slow@example.org"})
	if !errors.Is(err, keys.ErrStore) || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")
}

// testSiteFunction: the store passes on what a site's function answers and
// invents nothing, and what cannot be acted upon is a failed lookup.
func testSiteFunction(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	s := daemon(t, server, database)
	for _, test := range []struct {
		name, rows string
		want       []string // nil: the lookup fails
	}{
		{"no row", `SELECT 'a'::text, 'a'::text, true, ''::text, ''::text, 'K'::text, '{}'::jsonb WHERE false`, []string{}},
		{"one of two", `SELECT addresses[1], 'x'::text, true, NULL::text, NULL::text, 'K'::text, NULL::jsonb`, []string{"a@example.org|x|true|K"}},
		{"all but enabled NULL", `SELECT addresses[1], NULL::text, true, NULL::text, NULL::text, NULL::text, NULL::jsonb`,
			[]string{"a@example.org||true|"}},
		{"a key of nobody", `SELECT addresses[1], NULL::text, true, NULL::text, NULL::text, 'K'::text, NULL::jsonb`,
			[]string{"a@example.org||true|K"}},
		{"address NULL", `SELECT NULL::text, 'x'::text, true, NULL::text, NULL::text, 'K'::text, NULL::jsonb`, nil},
		{"an alias' end outside", `SELECT addresses[1], 'x'::text, NULL::boolean, NULL::text, NULL::text, NULL::text, NULL::jsonb`,
			[]string{"a@example.org|x|false|"}},
		{"enabled NULL beside an account with a key", `SELECT addresses[1], 'x'::text, NULL::boolean, NULL::text, NULL::text, 'K'::text, NULL::jsonb`, nil},
		{"enabled NULL beside a key", `SELECT addresses[1], NULL::text, NULL::boolean, NULL::text, NULL::text, 'K'::text, NULL::jsonb`, nil},
		{"an error", `SELECT addresses[1], 'x'::text, (1/length(left(addresses[1], 0))) = 1, NULL::text, NULL::text, 'K'::text, NULL::jsonb`, nil},
	} {
		server.SQL(t, database, siteFunction("text", test.rows))
		if test.want != nil {
			expect(t, ask(t, s, "a@example.org", "b@example.org"), test.want...)
			continue
		}
		rows, err := s.RecipientKeys(context.Background(), []string{"a@example.org", "b@example.org"})
		if !errors.Is(err, keys.ErrStore) || rows != nil {
			t.Errorf("%s: %v, %v, want an error that wraps ErrStore", test.name, rows, err)
		}
	}
}

// testHosts: the first host of two is not there.
func testHosts(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	dead := bed.FreePort(t)
	for _, dsn := range []string{
		fmt.Sprintf("postgres://sealmilter@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable", dead, server.Port, database),
		fmt.Sprintf("host=127.0.0.1,%s port=%d,%d user=sealmilter dbname=%s target_session_attrs=any", server.Dir, dead, server.Port, database),
	} {
		expect(t, ask(t, opened(t, dsn, Options{}), "ann@example.org"), "ann@example.org||false|")
	}
	url := fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/%s", dead, server.Port, database)
	if from, to, err := Migrate(context.Background(), url); err != nil || from != to {
		t.Errorf("Migrate: from %d to %d, %v", from, to, err)
	}
}

// testSilentHost: the first host takes the connection and says nothing. It
// costs its share of the lookup's time, and no more.
func testSilentHost(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dsn := fmt.Sprintf("postgres://sealmilter@%s,127.0.0.1:%d/%s", silent.Addr(), server.Port, database)
	s := opened(t, dsn, Options{Timeout: 3 * time.Second})
	start := time.Now()
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("it took only %v: was the first host asked?", took)
	}
}

// forbidden is what the daemon's role must be refused.
var forbidden = []string{
	`SELECT * FROM sealmilter.accounts`,
	`SELECT key FROM sealmilter.keys`,
	`SELECT * FROM sealmilter.schema_version`,
	`INSERT INTO sealmilter.accounts (address) VALUES ('bob@example.org')`,
	`INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'FORGED')`,
	`UPDATE sealmilter.accounts SET enabled = false`,
	`UPDATE sealmilter.keys SET key = 'FORGED'`,
	`DELETE FROM sealmilter.accounts`,
	`DELETE FROM sealmilter.keys`,
	`TRUNCATE sealmilter.accounts, sealmilter.keys`,
	`SELECT target FROM sealmilter.aliases`,
	`INSERT INTO sealmilter.aliases (address, target) VALUES ('ann@example.org', 'mallory@example.org')`,
	`DELETE FROM sealmilter.aliases`,
	`SELECT sealmilter.alias_ends('ann@example.org')`,
	`CREATE TABLE sealmilter.mine (a int)`,
	`DROP FUNCTION sealmilter.recipient_keys(text[])`,
	`CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
		RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
		LANGUAGE sql AS $$ SELECT u, u, true, '', '', 'FORGED', NULL::jsonb FROM unnest(addresses) AS u $$`,
	`ALTER FUNCTION sealmilter.recipient_keys(text[]) SET search_path = public`,
	`SET ROLE sealmilter_owner`,
}

// testDaemonRole: the daemon's role may look up, and nothing else.
func testDaemonRole(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	server.SQL(t, database, contrib(t, "roles.sql")) // a second time
	ctx := context.Background()
	s := daemon(t, server, database)
	id, err := opened(t, server.URL("postgres", database), Options{}).AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|KEY")
	for _, statement := range forbidden {
		if _, err := s.pool.Exec(ctx, statement); err == nil || !strings.Contains(err.Error(), "SQLSTATE 42501") {
			t.Errorf("the daemon's role was not refused: %s: %v", statement, err)
		}
	}
	unmanaged := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrNoSuchKey) || !strings.Contains(err.Error(),
			"this role may not manage keys: give the URL of one that may with --store, a member of sealmilter_admin, and leave the daemon's role as it is; ") ||
			strings.Contains(err.Error(), "GRANT") {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	_, err = s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "FORGED"})
	unmanaged("AddKey", err)
	unmanaged("RemoveKey", s.RemoveKey(ctx, id))
	for _, err := range s.Keys(ctx, "") {
		unmanaged("Keys", err)
	}
	unmanaged("AddAlias", s.AddAlias(ctx, "ann@example.org", "mallory@example.org"))
	unmanaged("SetAccount", s.SetAccount(ctx, keys.Choices{Address: "ann@example.org"}))
	_, err = s.Account(ctx, "ann@example.org")
	unmanaged("Account", err)
	if _, _, err = Migrate(ctx, server.URL("sealmilter", database)); !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) ||
		!strings.Contains(err.Error(), "this role may not migrate: give the URL of a superuser, or of a member of sealmilter_owner, with --store, and leave the daemon's role as it is") {
		t.Errorf("Migrate: %v, want a refusal", err)
	}
	// The caller's own tables and search_path lead the function nowhere.
	fill(t, s, func(conn *pgxpool.Conn) {
		if _, err := conn.Exec(ctx, `CREATE TEMPORARY TABLE keys (address text, key text);
			CREATE TEMPORARY TABLE accounts (address text); SET search_path = pg_temp, public`); err != nil {
			t.Fatal(err)
		}
	})
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|KEY")
}

// testStranger: another role of the cluster may not even look up.
func testStranger(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	server.SQL(t, database, `CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sealmilter TO stranger`)
	stranger := opened(t, server.URL("stranger", database), Options{})
	if rows, err := stranger.RecipientKeys(context.Background(), []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("a stranger's lookup: %v, %v", rows, err)
	}
}

// TestServerAway stops the server and starts it again, under a store that
// stays open.
func TestServerAway(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	s := daemon(t, server, database)
	ctx := context.Background()
	fill(t, s, lookUpOn(t))

	server.Stop(t)
	for range 2 { // the stale connections, then none
		start := time.Now()
		_, err := s.RecipientKeys(ctx, []string{"ann@example.org"})
		if !errors.Is(err, keys.ErrStore) || time.Since(start) > time.Second {
			t.Errorf("server stopped: %v after %v", err, time.Since(start))
		}
	}
	if _, err := s.Check(ctx); !errors.Is(err, keys.ErrStore) || errors.Is(err, ErrNoSchema) {
		t.Errorf("server stopped: Check: %v", err)
	}
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("server stopped: AddKey: %v", err)
	}
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); !errors.Is(err, keys.ErrStore) {
		t.Errorf("server stopped: Migrate: %v", err)
	}
	late := daemon(t, server, database) // Open does not need the server

	server.Start(t)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")
	expect(t, ask(t, late, "ann@example.org"), "ann@example.org||false|")

	// Between two lookups, and within the second in which pgx does not try a
	// connection before it uses it: all of them are stale, one retry is enough.
	fill(t, s, lookUpOn(t))
	server.SQL(t, database, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'sealmilter'`)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")

	fill(t, s, lookUpOn(t))
	server.Stop(t)
	server.Start(t)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")
}

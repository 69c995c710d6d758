package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/storetest"
	"sealmilter/testdata/bed"
)

// copies is a Copies under the suite, called by the daemon's role.
type copies struct {
	*Copies
	server   *bed.Postgres
	database string
}

func (c copies) Another(t testing.TB) storetest.Memory {
	return daemon(t, c.server, c.database).Copies()
}

func (c copies) Age(t testing.TB, by time.Duration) {
	t.Helper()
	c.server.SQL(t, c.database, fmt.Sprintf(`UPDATE sealmilter.copies SET until = until - interval '%d milliseconds'`, by.Milliseconds()))
}

func (c copies) Count(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(c.server.SQL(t, c.database, `SELECT count(*) FROM sealmilter.copies`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// two are copies that a test has.
var two = [][]byte{bytes.Repeat([]byte{1}, keys.CopyHashSize), bytes.Repeat([]byte{2}, keys.CopyHashSize)}

func testCopies(t *testing.T, server *bed.Postgres) {
	for name, make := range map[string]func(testing.TB, *bed.Postgres) string{
		"own tables": migrated, "PostfixAdmin": func(t testing.TB, server *bed.Postgres) string { return postfixadmin(t.(*testing.T), server) },
	} {
		t.Run(name, func(t *testing.T) {
			database := make(t, server)
			storetest.Copies(t, func(t *testing.T) storetest.CopyStore {
				server.SQL(t, database, `TRUNCATE sealmilter.copies`)
				return copies{daemon(t, server, database).Copies(), server, database}
			})
		})
	}
}

// testCopiesRole: the daemon's role may call the three functions, and has no
// other way to what they keep.
func testCopiesRole(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	s := daemon(t, server, database)
	if _, err := s.Copies().Begin(ctx, "one", two, time.Minute); err != nil {
		t.Fatal(err)
	}
	const tampering = `SELECT hash FROM sealmilter.copies; SELECT count(*) FROM sealmilter.copies;
		INSERT INTO sealmilter.copies (hash, until) VALUES (sha256('x'), now()); UPDATE sealmilter.copies SET sent = true;
		DELETE FROM sealmilter.copies; TRUNCATE sealmilter.copies; DROP TABLE sealmilter.copies; SELECT hash FROM sealmilter.copies FOR UPDATE;
		ALTER FUNCTION sealmilter.copies_begin(text, bytea[], interval) RESET search_path;
		DROP FUNCTION sealmilter.copies_sent(text, bytea); SELECT key FROM sealmilter.keys`
	for _, statement := range strings.Split(tampering, ";") {
		if _, err := s.pool.Exec(ctx, statement); sqlState(err) != insufficientPrivilege {
			t.Errorf("the daemon's role was not refused: %s: %v", statement, err)
		}
	}
	callable := server.SQL(t, database, `SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc AS p
		WHERE p.pronamespace = 'sealmilter'::regnamespace AND has_function_privilege('sealmilter', p.oid, 'EXECUTE')`)
	if callable != "copies_begin copies_end copies_sent recipient_keys" {
		t.Errorf("the daemon's role may call %s", callable)
	}
	server.SQL(t, database, `CREATE ROLE passer_by LOGIN; GRANT USAGE ON SCHEMA sealmilter TO passer_by`)
	_, err := opened(t, server.URL("passer_by", database), Options{}).Copies().Begin(ctx, "one", two, time.Minute)
	if !errors.Is(err, keys.ErrStore) || !errors.Is(err, ErrRefused) {
		t.Errorf("a stranger begins: %v", err)
	}
	// What the caller has made leads the functions nowhere.
	caller := opened(t, server.URL("sealmilter", database)+"&search_path=pg_temp,public&pool_max_conns=1", Options{})
	if _, err := caller.pool.Exec(ctx, `CREATE TEMPORARY TABLE copies (hash bytea, sent boolean, owner text, until timestamptz)`); err != nil {
		t.Fatal(err)
	}
	if _, err := caller.Copies().Begin(ctx, "another", two, time.Minute); !errors.Is(err, keys.ErrBusy) {
		t.Errorf("with a table of the caller's: %v", err)
	}
}

// testCopiesUpgrade: a site that migrates and does not load roles.sql is told,
// and looks keys up as before; so is one with tables of its own.
func testCopiesUpgrade(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	warned := func(s *Store, want string) {
		t.Helper()
		warnings, err := s.Check(ctx)
		if err != nil || want == "" && len(warnings) != 0 || want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], want)) {
			t.Errorf("Check: %q, %v, want %q", warnings, err, want)
		}
	}
	const begin, load = "calling sealmilter.copies_begin: ", "load contrib/postgres/roles.sql"
	database := version1(t, server)
	s := daemon(t, server, database)
	warned(s, "older sealmilter")
	if _, err := s.Copies().Begin(ctx, "one", two, time.Minute); !errors.Is(err, keys.ErrStore) || !errors.Is(err, ErrNoSchema) ||
		!strings.Contains(err.Error(), begin) || !strings.Contains(err.Error(), "sealmilter check says what to do") {
		t.Errorf("in version 1: %v", err)
	}
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); err != nil {
		t.Fatal(err)
	}
	warned(s, "may not call sealmilter.copies_begin, sealmilter.copies_end, sealmilter.copies_sent: mail that must be split will be deferred: "+load)
	if _, err := s.Copies().Begin(ctx, "one", two, time.Minute); !errors.Is(err, keys.ErrStore) || !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), begin) || !strings.Contains(err.Error(), load) {
		t.Errorf("without roles.sql: %v", err)
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|Ann@example.org|true|ANN")
	server.SQL(t, database, contrib(t, "roles.sql"))
	warned(s, "")
	if _, err := s.Copies().Begin(ctx, "one", two, time.Minute); err != nil {
		t.Error(err)
	}

	site := newDatabase(t, server)
	server.SQL(t, site, `CREATE ROLE reader; CREATE SCHEMA sealmilter AUTHORIZATION reader;`+siteFunction("text",
		`SELECT u, u, true, u, u, u, '{}'::jsonb FROM unnest(addresses) AS u`)+contrib(t, "roles.sql"))
	warned(daemon(t, server, site), "there is no sealmilter.copies_begin, no sealmilter.copies_end, no sealmilter.copies_sent")
	for range 2 {
		server.SQL(t, site, contrib(t, "copies.sql")+contrib(t, "roles.sql"))
		if owners := server.SQL(t, site, strings.Replace(owners, "UNION SELECT proowner", "UNION SELECT 'reader'::regrole UNION SELECT proowner", 1)+
			` WHERE o <> 'postgres'::regrole`); owners != "reader" {
			t.Errorf("the owners are %q", owners)
		}
	}
	warned(daemon(t, server, site), "")
	if _, err := daemon(t, server, site).Copies().Begin(ctx, "one", two, time.Minute); err != nil {
		t.Error(err)
	}
}

// testCopiesBySuperuser: where the schema is a superuser's, what copies.sql
// makes is not.
func testCopiesBySuperuser(t *testing.T, server *bed.Postgres) {
	database := newDatabase(t, server)
	server.SQL(t, database, `CREATE SCHEMA sealmilter;`+siteFunction("text", `SELECT u, u, true, u, u, u, '{}'::jsonb FROM unnest(addresses) AS u`)+
		contrib(t, "copies.sql")+contrib(t, "roles.sql"))
	if owners := server.SQL(t, database, owners); owners != "postgres,sealmilter_owner" { // the schema and the site's function
		t.Errorf("the owners are %q", owners)
	}
	c := daemon(t, server, database).Copies()
	if _, err := c.Begin(context.Background(), "one", two, time.Minute); err != nil {
		t.Error(err)
	}
}

// testCopiesReadOnly: a standby takes no note, and the error says why. Keys are
// looked up there.
func testCopiesReadOnly(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	server.SQL(t, "postgres", `ALTER DATABASE `+database+` SET default_transaction_read_only = on`)
	s := daemon(t, server, database)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")
	_, err := s.Copies().Begin(ctx, "one", two, time.Minute)
	for what, err := range map[string]error{"Begin": err, "Sent": s.Copies().Sent(ctx, "one", two[0]), "End": s.Copies().End(ctx, "one", two, true)} {
		if !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrClaimLost) || !strings.Contains(err.Error(), "the server is read-only, a standby perhaps") ||
			strings.Contains(err.Error(), keys.ErrStore.Error()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "the server can only be read, as a standby, and the URL names no other") {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	_, err = opened(t, server.URL("postgres", database), Options{}).AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"})
	if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "this server can only be read, as a standby: name the one that can be written to") {
		t.Errorf("AddKey: %v, want a refusal", err)
	}
}

// testCopiesDurable: a site may commit without waiting for the disk. These
// functions wait.
func testCopiesDurable(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	for _, call := range []string{`copies_begin('one', ARRAY[sha256('x')], '1 min')`, `copies_sent('one', sha256('x'))`, `copies_end('one', ARRAY[sha256('x')], false)`} {
		for set, want := range map[string]string{"off": "on", "local": "local", "on": "on"} {
			if got := server.SQL(t, database, `BEGIN; SET LOCAL synchronous_commit = `+set+`; DO $$ BEGIN PERFORM sealmilter.`+call+`; END $$;
				SHOW synchronous_commit; COMMIT; SHOW synchronous_commit`); got != want+"\non" {
				t.Errorf("%s where synchronous_commit is %s: %q", call, set, got)
			}
		}
	}
}

// testCopiesPlan: a table that has grown is read by its indexes.
func testCopiesPlan(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	server.SQL(t, database, `INSERT INTO sealmilter.copies (hash, sent, until)
		SELECT sha256(i::text::bytea), true, now() - i * interval '1 second' FROM generate_series(1, 50000) AS i; ANALYZE`)
	const some = `ARRAY(SELECT sha256(i::text::bytea) FROM generate_series(49950, 50050) AS i)`
	plan := server.SQL(t, database, `LOAD 'auto_explain';
		SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET client_min_messages = log;
		SELECT cardinality(sealmilter.copies_begin('one', `+some+`, '1 min')); SELECT sealmilter.copies_sent('one', sha256('50000'));
		SELECT sealmilter.copies_end('one', `+some+`, false)`)
	indexScans(t, plan, "in a large table", "copies_until", "copies_pkey")
}

// TestCopiesServerAway: the server is killed between two notes. What has been
// noted is there when it comes back.
func TestCopiesServerAway(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	ctx := context.Background()
	c := daemon(t, server, database).Copies()
	if _, err := c.Begin(ctx, "one", two, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := c.Sent(ctx, "one", two[0]); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	_, err := c.Begin(ctx, "two", two, time.Minute)
	for what, err := range map[string]error{"Begin": err, "Sent": c.Sent(ctx, "one", two[1]), "End": c.End(ctx, "one", two, false)} {
		if !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrBusy) || errors.Is(err, keys.ErrClaimLost) {
			t.Errorf("server stopped: %s: %v, want ErrStore", what, err)
		}
	}
	server.Start(t)
	if _, err := c.Begin(ctx, "two", two, time.Minute); !errors.Is(err, keys.ErrBusy) {
		t.Errorf("Begin: %v, want ErrBusy", err)
	}
	// Its connections are cut off between two calls: nobody notices.
	const cut = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'sealmilter'`
	server.SQL(t, database, cut)
	if err := c.Sent(ctx, "one", two[1]); err != nil {
		t.Errorf("Sent: %v", err)
	}
	server.SQL(t, database, cut)
	if err := c.End(ctx, "one", two, false); err != nil {
		t.Errorf("End: %v", err)
	}
	server.SQL(t, database, cut)
	sent, err := c.Begin(ctx, "two", two, time.Minute)
	if err != nil || !sent[0] || !sent[1] {
		t.Errorf("Begin: %v, %v", sent, err)
	}
}

// TestCopiesHosts: of two hosts the first is read-only. Keys are asked of it,
// copies are noted on the other. Where only the first is left, they are not.
func TestCopiesHosts(t *testing.T) {
	standby, primary := bed.StartPostgres(t), bed.StartPostgres(t)
	for _, server := range []*bed.Postgres{standby, primary} {
		server.CreateDatabase(t, "mail")
		if _, _, err := Migrate(context.Background(), server.URL("postgres", "mail")); err != nil {
			t.Fatal(err)
		}
		server.SQL(t, "mail", contrib(t, "roles.sql"))
	}
	standby.SQL(t, "mail", `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'OF THE STANDBY');
		ALTER DATABASE mail SET default_transaction_read_only = on`)
	s := opened(t, fmt.Sprintf("postgres://sealmilter@127.0.0.1:%d,127.0.0.1:%d/mail", standby.Port, primary.Port), Options{})
	ctx := context.Background()
	for range 2 {
		if _, err := s.Copies().Begin(ctx, "one", two, time.Minute); err != nil {
			t.Fatal(err)
		}
		expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|OF THE STANDBY")
	}
	primary.Stop(t)
	_, err := s.Copies().Begin(ctx, "two", two, time.Minute)
	if !errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "the server is read-only") || strings.Contains(err.Error(), keys.ErrStore.Error()) {
		t.Errorf("Begin: %v", err)
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|OF THE STANDBY")
}

// BenchmarkCopies is one transaction of two copies, on a server that waits for
// the disk.
func BenchmarkCopies(b *testing.B) {
	server := bed.StartPostgres(b)
	server.SQL(b, "postgres", `ALTER SYSTEM SET fsync = on`)
	server.SQL(b, "postgres", `SELECT pg_reload_conf()`)
	database := migrated(b, server)
	if set := server.SQL(b, database, `SELECT current_setting('fsync'), current_setting('synchronous_commit')`); set != "on|on" {
		b.Fatal(set)
	}
	c := daemon(b, server, database).Copies()
	ctx := context.Background()
	var took [3]time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := c.Begin(ctx, "one", two, time.Minute); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := c.Sent(ctx, "one", two[0]); err != nil {
			b.Fatal(err)
		}
		noted := time.Now()
		if err := c.End(ctx, "one", two, true); err != nil {
			b.Fatal(err)
		}
		took[0] += began.Sub(start)
		took[1] += noted.Sub(began)
		took[2] += time.Since(noted)
	}
	for i, name := range []string{"µs/Begin", "µs/Sent", "µs/End"} {
		b.ReportMetric(float64(took[i].Microseconds())/float64(b.N), name)
	}
}

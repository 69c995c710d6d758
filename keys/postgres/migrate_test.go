package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

func testMigrate(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := newDatabase(t, server)
	url := server.URL("postgres", database)
	from, to, err := Migrate(ctx, url+"&pool_max_conns=3")
	if err != nil || from != 0 || to < 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	admin := opened(t, url, Options{})
	if _, err := admin.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	if again, still, err := Migrate(ctx, url); err != nil || again != to || still != to {
		t.Errorf("a second time from %d to %d, %v", again, still, err)
	}
	expect(t, ask(t, admin, "ann@example.org"), "ann@example.org|ann@example.org|true|KEY")
	if left := server.SQL(t, database, `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`); left != "0" {
		t.Errorf("%s things were made outside of the schema", left)
	}
	server.SQL(t, database, `INSERT INTO sealmilter.schema_version (version_id, is_applied) VALUES (9999, true)`)
	if _, _, err := Migrate(ctx, url); err == nil || !strings.Contains(err.Error(), "newer sealmilter") {
		t.Errorf("migrating a newer schema: %v", err)
	}
}

func testMigrateAtOnce(t *testing.T, server *bed.Postgres) {
	// Two databases, so that the role of the cluster is raced for as well.
	var made atomic.Int64
	var wait sync.WaitGroup
	for range 2 {
		url := server.URL("postgres", newDatabase(t, server))
		for range 4 {
			wait.Go(func() {
				from, to, err := Migrate(context.Background(), url)
				if err != nil || to < 1 {
					t.Errorf("from %d to %d, %v", from, to, err)
				}
				if from == 0 {
					made.Add(1)
				}
			})
		}
	}
	wait.Wait()
	if made.Load() != 2 {
		t.Errorf("%d of 8 made the schema, want one in each database", made.Load())
	}
}

// TestOwnerRace: the role of the owner, which belongs to the whole cluster, is
// being made by the migration of another database at this moment.
func TestOwnerRace(t *testing.T) {
	server := bed.StartPostgres(t)
	database := newDatabase(t, server)
	ctx := context.Background()
	other := opened(t, server.URL("postgres", "postgres"), Options{})
	tx, err := other.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, `CREATE ROLE sealmilter_owner NOLOGIN`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := Migrate(ctx, server.URL("postgres", database))
		done <- err
	}()
	const waiting = `SELECT count(*) FROM pg_locks WHERE NOT granted`
	for server.SQL(t, "postgres", waiting) == "0" {
		select {
		case err := <-done:
			t.Fatalf("the migration did not wait for the other: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// testOwner: where a superuser migrates, nothing belongs to one.
func testOwner(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	if owners := server.SQL(t, database, owners); owners != "sealmilter_owner" {
		t.Errorf("the owners are %q", owners)
	}
	if can := server.SQL(t, database, `SELECT rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolbypassrls
		FROM pg_roles WHERE rolname = 'sealmilter_owner'`); can != "f|f|f|f|f" {
		t.Errorf("the owner may %s", can)
	}
}

// owners is everybody who owns something in the schema.
const owners = `SELECT string_agg(DISTINCT pg_get_userbyid(o), ',') FROM (
	SELECT nspowner FROM pg_namespace WHERE nspname = 'sealmilter'
	UNION SELECT relowner FROM pg_class WHERE relnamespace = 'sealmilter'::regnamespace
	UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'sealmilter'::regnamespace) AS all_of (o)`

// testMigrateAsOwner: the owner of a database who is no superuser migrates,
// and owns the schema.
func testMigrateAsOwner(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	server.SQL(t, "postgres", `CREATE ROLE "mail-Admin" LOGIN`)
	database := newDatabase(t, server)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=mail-Admin dbname=%s", server.Port, database)
	if _, _, err := Migrate(ctx, dsn); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "permission denied") ||
		!strings.Contains(err.Error(), "this role may not make the schema") {
		t.Errorf("migrating without the right to make a schema: %v", err)
	}
	server.SQL(t, "postgres", `ALTER DATABASE `+database+` OWNER TO "mail-Admin"`)
	if from, to, err := Migrate(ctx, dsn); err != nil || from != 0 || to < 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	if owners := server.SQL(t, database, owners); owners != "mail-Admin" {
		t.Errorf("the owners are %q", owners)
	}
	server.SQL(t, database, contrib(t, "roles.sql"))
	admin := opened(t, dsn, Options{})
	if _, err := admin.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	s := daemon(t, server, database)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|KEY")
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	// A superuser who comes later takes nothing away from the owner.
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); err != nil {
		t.Error(err)
	}
	if owners := server.SQL(t, database, owners); owners != "mail-Admin" {
		t.Errorf("after a superuser, the owners are %q", owners)
	}
}

// testMigrateAfterSuperuser: a superuser made the schema by hand.
func testMigrateAfterSuperuser(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := newDatabase(t, server)
	server.SQL(t, database, `CREATE SCHEMA sealmilter`)
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); err != nil {
		t.Fatal(err)
	}
	if owners := server.SQL(t, database, owners); owners != "sealmilter_owner" {
		t.Errorf("the owners are %q", owners)
	}
	// A member of the owner's role is an administrator.
	server.SQL(t, database, `CREATE ROLE keyadmin LOGIN; GRANT sealmilter_owner TO keyadmin`)
	if from, to, err := Migrate(ctx, server.URL("keyadmin", database)); err != nil || from != to {
		t.Errorf("as a member of the owner's role: from %d to %d, %v", from, to, err)
	}
	admin := opened(t, server.URL("keyadmin", database), Options{})
	if _, err := admin.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Error(err)
	}
	// A schema that is another's is left alone.
	other := newDatabase(t, server)
	server.SQL(t, other, `CREATE SCHEMA sealmilter; GRANT ALL ON SCHEMA sealmilter TO keyadmin`)
	if _, _, err := Migrate(ctx, server.URL("keyadmin", other)); !errors.Is(err, ErrRefused) {
		// COMMENT ON SCHEMA needs its owner.
		t.Errorf("migrating a schema that belongs to a superuser: %v", err)
	}
}

// testMigrateSite: a site with tables of its own has nothing to migrate, and
// gets no table from whoever tries.
func testMigrateSite(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	written := newDatabase(t, server)
	server.SQL(t, written, `CREATE SCHEMA sealmilter; GRANT USAGE ON SCHEMA sealmilter TO sealmilter;`+
		siteFunction("text", `SELECT u, u, true, u, u, u, '{}'::jsonb FROM unnest(addresses) AS u`))
	for _, database := range []string{written, postfixadmin(t, server)} {
		const things = `SELECT oid, 'class' FROM pg_class WHERE relnamespace = 'sealmilter'::regnamespace
			UNION SELECT oid, 'function' FROM pg_proc WHERE pronamespace = 'sealmilter'::regnamespace ORDER BY 1`
		const tables = `SELECT relname FROM pg_class WHERE relnamespace = 'sealmilter'::regnamespace AND relkind = 'r' AND relname <> 'copies'`
		before := server.SQL(t, database, things)
		owned := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(),
				"this database has a function sealmilter.recipient_keys(text[]) of its own (a site with tables of its own): "+
					"migrate and key are for sealmilter's own tables only") {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, role := range []string{"postgres", "sealmilter"} {
			url := server.URL(role, database)
			_, _, err := Migrate(ctx, url)
			owned(role+" migrates", err)
			s := opened(t, url, Options{})
			_, err = s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"})
			owned(role+" adds", err)
			owned(role+" removes", s.RemoveKey(ctx, 1))
			for _, err := range s.Keys(ctx, "") {
				owned(role+" lists", err)
			}
		}
		if after := server.SQL(t, database, things); after != before || server.SQL(t, database, tables) != "" {
			t.Errorf("in the schema were\n%s\nand are\n%s", before, after)
		}
	}
}

// testNotMigrated: the commands for keys say what is missing.
func testNotMigrated(t *testing.T, server *bed.Postgres) {
	s := opened(t, server.URL("postgres", newDatabase(t, server)), Options{})
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"}); !errors.Is(err, ErrNoSchema) || errors.Is(err, keys.ErrStore) {
		t.Errorf("AddKey: %v", err)
	}
}

// testComments: \d+ explains everything.
func testComments(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	silent := server.SQL(t, database, `
		SELECT 'schema' WHERE obj_description('sealmilter'::regnamespace, 'pg_namespace') IS NULL
		UNION ALL SELECT 'table ' || relname FROM pg_class
			WHERE relnamespace = 'sealmilter'::regnamespace AND relkind = 'r' AND obj_description(oid, 'pg_class') IS NULL
		UNION ALL SELECT 'column ' || relname || '.' || attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
			WHERE relnamespace = 'sealmilter'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
				AND col_description(attrelid, attnum) IS NULL
		UNION ALL SELECT 'function ' || proname FROM pg_proc
			WHERE pronamespace = 'sealmilter'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL`)
	if silent != "" {
		t.Errorf("without a comment:\n%s", silent)
	}
	if open := server.SQL(t, database, `SELECT proname FROM pg_proc
		WHERE pronamespace = 'sealmilter'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE')`); open != "" {
		t.Errorf("everybody may call %s", open)
	}
}

// testLocale: in a Turkish locale lower('I') is no i. The store folds by the
// rules of ASCII.
func testLocale(t *testing.T, server *bed.Postgres) {
	database := newDatabase(t, server)
	server.SQL(t, "postgres", `DROP DATABASE `+database)
	server.SQL(t, "postgres", `CREATE DATABASE `+database+` TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'`)
	if lower := server.SQL(t, database, `SELECT lower('INFO')`); lower == "info" {
		t.Fatalf("lower('INFO') is %q: this test shows nothing", lower)
	}
	url := server.URL("postgres", database)
	if _, _, err := Migrate(context.Background(), url); err != nil {
		t.Fatal(err)
	}
	server.SQL(t, database, contrib(t, "roles.sql")+`
		INSERT INTO sealmilter.keys (address, key) VALUES ('INFO@EXAMPLE.DIGITAL', 'KEY 1'), ('info@example.digital', 'KEY 2')`)
	for _, asked := range []string{"info@example.digital", "INFO@EXAMPLE.DIGITAL"} {
		expect(t, ask(t, daemon(t, server, database), asked),
			asked+"|INFO@example.digital|true|KEY 1", asked+"|INFO@example.digital|true|KEY 2")
	}
	listed := 0
	for key, err := range opened(t, url, Options{}).Keys(context.Background(), "INFO@Example.Digital") {
		if err != nil || key.Address != "INFO@example.digital" {
			t.Errorf("listed %+v, %v", key, err)
		}
		listed++
	}
	if listed != 2 {
		t.Errorf("%d keys listed of 2", listed)
	}
}

// testExplain: a lookup reads the indexes, before and after the planner has
// statistics.
func testExplain(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key)
		SELECT 'user' || i || '@example.org', repeat(md5(i::text), 30) FROM generate_series(1, 2000) AS i;
		INSERT INTO sealmilter.accounts (address) SELECT '@' || i || '.example.org' FROM generate_series(1, 200) AS i;
		INSERT INTO sealmilter.aliases (address, target)
			SELECT 'user' || i || '@example.org', 'user' || (i + 5) || '@example.org' FROM generate_series(1, 30) AS i
			UNION ALL SELECT 'alias' || i || '@example.org', 'user' || i || '@example.org' FROM generate_series(1, 2000) AS i`)
	plan := func(when string) {
		t.Helper()
		indexScans(t, planOf(t, server, database), when, "accounts_address_any_case", "Index Cond: (address = a.address)",
			"alias_is_there_already", "SELECT array_agg(found.source)")
	}
	plan("without statistics")
	server.SQL(t, database, `ANALYZE`)
	plan("with statistics")
}

// planOf is the plan of the query inside the function, as the server runs it.
func planOf(t *testing.T, server *bed.Postgres, database string) string {
	t.Helper()
	return server.SQL(t, database, `LOAD 'auto_explain';
		SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET client_min_messages = log;
		SELECT count(*) FROM sealmilter.recipient_keys(ARRAY(SELECT 'USER' || i || '@example.org' FROM generate_series(1, 50) AS i))`)
}

// indexScans fails where the plan has a scan of a whole table or not the
// indexes named.
func indexScans(t *testing.T, plan, when string, indexes ...string) {
	t.Helper()
	if strings.Contains(plan, "JIT:") {
		t.Errorf("%s: the plan is compiled, which takes longer than the lookup", when)
	}
	if whole := regexp.MustCompile(`Seq Scan on \w+`).FindString(plan); whole != "" {
		t.Errorf("%s: %s", when, whole)
	}
	for _, index := range indexes {
		if !strings.Contains(plan, index) {
			t.Errorf("%s: the index %s is not used:\n%s", when, index, plan)
		}
	}
}

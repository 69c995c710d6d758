package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// The migrations, oldest first.
var versions = []string{"migrations/00001_accounts_and_keys.sql", "migrations/00002_aliases_and_domains.sql", "copies.sql", "migrations/00004_key_options.sql",
	"migrations/00005_lifecycle.sql"}

func script(t *testing.T, version int) string {
	t.Helper()
	text, err := migrations.ReadFile(versions[version-1])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goDown takes a database from a version to the one before, as goose would.
func goDown(t *testing.T, server *bed.Postgres, database string, version int) {
	t.Helper()
	down, found := copiesDown, true
	if version != 3 {
		_, down, found = strings.Cut(script(t, version), "-- +goose Down")
	}
	if !found {
		t.Fatal("no way back")
	}
	server.SQL(t, database, down)
}

// version1 makes a database as version 1 made it, with the daemon's role and
// ann's key.
func version1(t *testing.T, server *bed.Postgres) string {
	t.Helper()
	ctx := context.Background()
	database := newDatabase(t, server)
	config, err := pgx.ParseConfig(server.URL("postgres", database))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	owner, err := makeSchema(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	first := fstest.MapFS{versions[0]: {Data: []byte(script(t, 1))}}
	if from, to, err := apply(ctx, config, owner, first); err != nil || from != 0 || to != 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	server.SQL(t, database, contrib(t, "roles.sql")+`INSERT INTO sealmilter.keys (address, key) VALUES ('Ann@example.org', 'ANN');
		UPDATE sealmilter.accounts SET options = '{"a": 1}'`)
	return database
}

// testUpgrade: what was enrolled stays enrolled, the daemon that runs may go
// on asking, and the way back is a way back.
func testUpgrade(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := version1(t, server)
	s := daemon(t, server, database)
	fill(t, s, lookUpOn(t)) // prepared by a daemon that is not started anew
	admin := opened(t, server.URL("postgres", database), Options{})
	if err := admin.AddAlias(ctx, "info@example.org", "ann@example.org"); !errors.Is(err, ErrNoSchema) {
		t.Errorf("an alias in version 1: %v", err)
	}
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "older sealmilter") {
		t.Errorf("Check in version 1: %q, %v", warnings, err)
	}
	for range 2 {
		if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != 1 || to != int64(len(versions)) {
			t.Fatalf("from %d to %d, %v", from, to, err)
		}
		if err := admin.AddAlias(ctx, "info@example.org", "ann@example.org"); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.AddKey(ctx, keys.NewKey{Address: "@example.org", Key: "DOMAIN"}); err != nil {
			t.Fatal(err)
		}
		expect(t, ask(t, s, "ann@example.org", "info@example.org"),
			"ann@example.org|Ann@example.org|true|ANN", "info@example.org|Ann@example.org|true|ANN")
		server.SQL(t, database, contrib(t, "roles.sql"))
		if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
			t.Errorf("Check: %q, %v", warnings, err)
		}
		if owners := server.SQL(t, database, owners); owners != "sealmilter_owner" {
			t.Errorf("the owners are %q", owners)
		}
		goDown(t, server, database, 5)
		goDown(t, server, database, 4)
		goDown(t, server, database, 3)
		goDown(t, server, database, 2)
		server.SQL(t, database, `DELETE FROM sealmilter.schema_version WHERE version_id >= 2`)
		expect(t, ask(t, s, "ann@example.org", "info@example.org", "@example.org"),
			"@example.org||false|", "ann@example.org|Ann@example.org|true|ANN", "info@example.org||false|")
		const domain = `INSERT INTO sealmilter.keys (address, key) VALUES ('@example.org', 'DOMAIN')`
		if _, err := admin.pool.Exec(ctx, domain); err == nil || !strings.Contains(err.Error(), "address_without_local_part") {
			t.Errorf("a domain in version 1: %v", err)
		}
	}
}

// testUpgradeSite: a function that a site has put in the place of ours, beside
// our tables, is not overwritten, and the error says what to do.
func testUpgradeSite(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := version1(t, server)
	server.SQL(t, database, siteFunction("text", `SELECT u, u, true, NULL::text, NULL::text, 'SITE KEY', NULL::jsonb FROM unnest(addresses) AS u`))
	for range 2 {
		_, _, err := Migrate(ctx, server.URL("postgres", database))
		if !errors.Is(err, ErrRefused) || errors.Is(err, keys.ErrStore) ||
			!strings.Contains(err.Error(), "sealmilter.recipient_keys is not as sealmilter has made it (SQLSTATE 55000): drop the function and migrate") {
			t.Errorf("Migrate: %v", err)
		}
	}
	expect(t, ask(t, daemon(t, server, database), "bob@example.org"), "bob@example.org|bob@example.org|true|SITE KEY")
	server.SQL(t, database, `DROP FUNCTION sealmilter.recipient_keys(text[])`)
	if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != 1 || to != int64(len(versions)) {
		t.Errorf("from %d to %d, %v", from, to, err)
	}
	server.SQL(t, database, contrib(t, "roles.sql"))
	expect(t, ask(t, daemon(t, server, database), "ann@example.org"), "ann@example.org|Ann@example.org|true|ANN")
}

// testUpgradeOptions: in version 3 no key has options, and whoever would give it
// some hears that the tables are old; what the daemon's role may call, it may
// call on, and the way back forgets the options and nothing else.
func testUpgradeOptions(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	admin := opened(t, server.URL("postgres", database), Options{})
	s := daemon(t, server, database)
	id, err := admin.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "ANN", Options: keys.KeyOptions{AEAD: keys.GCM}})
	if err != nil {
		t.Fatal(err)
	}
	const rights = `SELECT proacl FROM pg_proc WHERE proname = 'recipient_keys' AND pronamespace = 'sealmilter'::regnamespace`
	granted := server.SQL(t, database, rights)
	for range 2 {
		goDown(t, server, database, 5)
		goDown(t, server, database, 4)
		server.SQL(t, database, `DELETE FROM sealmilter.schema_version WHERE version_id >= 4`)
		expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|ANN")
		_, adding := admin.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "NEW"})
		for what, err := range map[string]error{"setting options": admin.SetKeyOptions(ctx, id, keys.KeyOptions{OAEP: true}), "adding": adding} {
			if !errors.Is(err, ErrNoSchema) {
				t.Errorf("%s in version 3: %v", what, err)
			}
		}
		if warnings, err := s.Check(ctx); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "older sealmilter") {
			t.Errorf("Check in version 3: %q, %v", warnings, err)
		}
		if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != 3 || to != 5 {
			t.Fatalf("from %d to %d, %v", from, to, err)
		}
		if now := server.SQL(t, database, rights); now != granted {
			t.Errorf("the rights were %s and are %s", granted, now)
		}
		if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
			t.Errorf("Check: %q, %v", warnings, err)
		}
		if rows, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); err != nil || len(rows) != 1 || string(rows[0].Options) != "{}" {
			t.Errorf("after the way back: %+v, %v", rows, err)
		}
		if err := admin.SetKeyOptions(ctx, id, keys.KeyOptions{OAEP: true}); err != nil {
			t.Error(err)
		}
		if rows, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); err != nil || len(rows) != 1 || string(rows[0].Options) != `{"key": {"oaep": true}}` {
			t.Errorf("with options: %+v, %v", rows, err)
		}
	}
	// A function that a site has put beside our tables since, as in version 2.
	goDown(t, server, database, 5)
	goDown(t, server, database, 4)
	server.SQL(t, database, `DELETE FROM sealmilter.schema_version WHERE version_id >= 4;
		DROP FUNCTION sealmilter.recipient_keys(text[])`)
	server.SQL(t, database, siteFunction("text", `SELECT u, u, true, NULL::text, NULL::text, 'SITE KEY', '{"key": {"aead": "gcm"}}'::jsonb FROM unnest(addresses) AS u`))
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not as sealmilter has made it") {
		t.Errorf("Migrate: %v", err)
	}
	if columns := server.SQL(t, database, `SELECT count(*) FROM pg_attribute WHERE attrelid = 'sealmilter.keys'::regclass AND attname = 'options'`); columns != "0" {
		t.Error("half of a migration was made")
	}
	server.SQL(t, database, `DROP FUNCTION sealmilter.recipient_keys(text[])`)
	if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != 3 || to != 5 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	if open := server.SQL(t, database, `SELECT has_function_privilege('public', 'sealmilter.recipient_keys(text[])', 'EXECUTE')`); open != "f" {
		t.Error("everybody may call the new function")
	}
	if owners := server.SQL(t, database, owners); owners != "sealmilter_owner" {
		t.Errorf("the owners are %q", owners)
	}
}

// testUpgradeStates: keys that were there are active and are since they were
// added, what the daemon's role may call it may call on, and the way back brings
// into use nothing that was not.
func testUpgradeStates(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	admin := opened(t, server.URL("postgres", database), Options{})
	s := daemon(t, server, database)
	goDown(t, server, database, 5)
	server.SQL(t, database, `DELETE FROM sealmilter.schema_version WHERE version_id = 5;
		INSERT INTO sealmilter.keys (address, key, added) VALUES ('ann@example.org', 'ANN', '2024-01-02')`)
	fill(t, s, lookUpOn(t))
	const rights = `SELECT proacl FROM pg_proc WHERE proname IN ('recipient_keys', 'copies_begin') AND pronamespace = 'sealmilter'::regnamespace ORDER BY proname`
	granted := server.SQL(t, database, rights)
	if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != 4 || to != 5 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	if now := server.SQL(t, database, rights); now != granted || !strings.Contains(now, "sealmilter=X") {
		t.Errorf("the rights were %s and are %s", granted, now)
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|ANN")
	for key, err := range admin.Keys(ctx, "") {
		if err != nil || key.State != keys.KeyActive || !key.StateSince.Equal(key.Added) || key.Added.Year() != 2024 {
			t.Errorf("%+v, %v", key, err)
		}
	}
	for _, key := range []keys.NewKey{{Address: "ann@example.org", Key: "OLD", State: keys.KeyRetired}, {Address: "ann@example.org", Key: "NEW", State: keys.KeyPending},
		{Address: "bob@example.org", Key: "BOB", State: keys.KeyRetired}, {Address: "carol@example.org", Key: "CAROL", State: keys.KeyRevoked}} {
		if _, err := admin.AddKey(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	goDown(t, server, database, 5)
	expect(t, ask(t, s, "ann@example.org", "bob@example.org", "carol@example.org"), "ann@example.org|ann@example.org|true|ANN",
		"bob@example.org|bob@example.org|true|BOB", "carol@example.org|carol@example.org|true|revoked, number 5")
	server.SQL(t, database, `DELETE FROM sealmilter.schema_version WHERE version_id = 5;`+
		siteFunction("text", `SELECT u, u, true, NULL::text, NULL::text, 'SITE KEY', NULL::jsonb FROM unnest(addresses) AS u`))
	if _, _, err := Migrate(ctx, server.URL("postgres", database)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not as sealmilter has made it") {
		t.Errorf("Migrate: %v", err)
	}
	if columns := server.SQL(t, database, `SELECT count(*) FROM pg_attribute WHERE attrelid = 'sealmilter.keys'::regclass AND attname = 'state'`); columns != "0" {
		t.Error("half of a migration was made")
	}
}

// testDown: the way back is written, and leads to where it began.
func testDown(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	for version := len(versions); version > 0; version-- {
		goDown(t, server, database, version)
	}
	left := server.SQL(t, database, `SELECT relname FROM pg_class WHERE relnamespace = 'sealmilter'::regnamespace AND relkind = 'r'
		UNION SELECT proname FROM pg_proc WHERE pronamespace = 'sealmilter'::regnamespace`)
	if left != "schema_version" {
		t.Errorf("left: %s", left)
	}
}

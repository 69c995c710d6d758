package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

func testCheck(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	empty := newDatabase(t, server)
	s := opened(t, server.URL("postgres", empty), Options{})
	const migrate = "run sealmilter migrate"
	noSchema := func(when string, words ...string) {
		t.Helper()
		_, err := s.Check(ctx)
		if !errors.Is(err, ErrNoSchema) || errors.Is(err, keys.ErrStore) {
			t.Errorf("%s: %v, want ErrNoSchema", when, err)
			return
		}
		for _, part := range words {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q in it", when, err, part)
			}
		}
		// What a site has written itself, migrate would not mend.
		if words[0] != migrate && (strings.Contains(err.Error(), migrate) || !strings.Contains(err.Error(), "README.md")) {
			t.Errorf("%s: %v, want the README and not migrate", when, err)
		}
		if when == "a column of another type" {
			return
		}
		if _, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) || strings.Contains(err.Error(), migrate) ||
			!strings.Contains(err.Error(), "sealmilter check says what to do") {
			t.Errorf("%s: lookup: %v, want an error that wraps ErrStore", when, err)
		}
	}
	noSchema("an empty database", migrate)
	server.SQL(t, empty, `CREATE SCHEMA sealmilter`)
	noSchema("an empty schema", migrate)
	server.SQL(t, empty, `CREATE FUNCTION sealmilter.recipient_keys(addresses text) RETURNS text LANGUAGE sql AS 'SELECT 1'`)
	noSchema("another argument", "there is only sealmilter.recipient_keys(text), it must take one text[]")
	server.SQL(t, empty, `CREATE FUNCTION sealmilter.recipient_keys(addresses text[]) RETURNS TABLE (address text, key text)
		LANGUAGE sql AS $$ SELECT u, u FROM unnest(addresses) AS u $$`)
	noSchema("other columns", `no column "account" (text)`, `no column "enabled" (bool)`, `no column "method" (text)`,
		`no column "cipher" (text)`, `no column "options" (jsonb)`)
	server.SQL(t, empty, `DROP FUNCTION sealmilter.recipient_keys(text[]); CREATE FUNCTION sealmilter.recipient_keys(addresses text[])
		RETURNS SETOF record LANGUAGE sql AS $$ SELECT u, u FROM unnest(addresses) AS u $$`)
	noSchema("no columns", "a column definition list is required")
	server.SQL(t, empty, siteFunction("bytea", `SELECT u, u, true, u, u, NULL::bytea, '{}'::jsonb FROM unnest(addresses) AS u`))
	noSchema("a column of another type", `"key" is of type bytea, it should be text`)
	server.SQL(t, empty, `CREATE TABLE mailbox (username text); `+siteFunction("text",
		`SELECT u, u, true, u, u, m.username, '{}'::jsonb FROM unnest(addresses) AS u JOIN mailbox AS m ON m.username = u`)+`DROP TABLE mailbox`)
	if _, err := s.Check(ctx); !errors.Is(err, ErrNoSchema) || !strings.Contains(err.Error(), `"mailbox" does not exist`) ||
		strings.Contains(err.Error(), migrate) {
		t.Errorf("a function that reads what is not there: %v", err)
	}

	database := migrated(t, server)
	if warnings, err := daemon(t, server, database).Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check as the daemon: %q, %v", warnings, err)
	}
}

// testCheckWarnings: what works and should not stay so is told.
func testCheckWarnings(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	warned := func(s *Store, want ...string) {
		t.Helper()
		warnings, err := s.Check(context.Background())
		if err != nil || len(warnings) != len(want) {
			t.Errorf("%q, %v, want %d warnings", warnings, err, len(want))
			return
		}
		for i := range want {
			if !strings.Contains(warnings[i], want[i]) {
				t.Errorf("%q, want %q in it", warnings[i], want[i])
			}
		}
	}
	s := daemon(t, server, database)
	warned(opened(t, server.URL("postgres", database), Options{}), "is a superuser: the daemon needs only")
	server.SQL(t, database, `GRANT INSERT ON sealmilter.keys TO sealmilter`)
	warned(s, "may write tables")
	server.SQL(t, database, `REVOKE INSERT ON sealmilter.keys FROM sealmilter; GRANT UPDATE (enabled) ON sealmilter.accounts TO sealmilter`)
	warned(s, "may write tables")
	server.SQL(t, database, `REVOKE UPDATE (enabled) ON sealmilter.accounts FROM sealmilter; GRANT SELECT ON sealmilter.accounts TO sealmilter`)
	warned(s, "may read tables")
	server.SQL(t, database, `REVOKE SELECT ON sealmilter.accounts FROM sealmilter; GRANT SELECT (key) ON sealmilter.keys TO sealmilter`)
	warned(s, "may read tables")
	server.SQL(t, database, `REVOKE SELECT (key) ON sealmilter.keys FROM sealmilter; GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) TO PUBLIC`)
	warned(s, "every role may call")
	server.SQL(t, database, `ALTER FUNCTION sealmilter.recipient_keys(text[]) OWNER TO postgres;
		ALTER FUNCTION sealmilter.recipient_keys(text[]) RESET search_path`)
	warned(s, "the superuser \"postgres\"", "no search_path", "every role may call")
	server.SQL(t, database, siteFunction("text", `SELECT u, u, true, u, u, u, '{}'::jsonb FROM unnest(addresses) AS u WHERE u LIKE 'ann@%'`)+
		`REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC`)
	warned(s, "has no row for an address that nobody is enrolled under")
}

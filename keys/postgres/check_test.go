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
	noSchema := func(when string) {
		t.Helper()
		_, err := s.Check(ctx)
		if !errors.Is(err, ErrNoSchema) || errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "run sealmilter migrate") {
			t.Errorf("%s: %v, want ErrNoSchema", when, err)
		}
		if _, err := s.RecipientKeys(ctx, []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) && when != "a column of another type" {
			t.Errorf("%s: lookup: %v, want an error that wraps ErrStore", when, err)
		}
	}
	noSchema("an empty database")
	server.SQL(t, empty, `CREATE SCHEMA sealmilter`)
	noSchema("an empty schema")
	server.SQL(t, empty, `CREATE FUNCTION sealmilter.recipient_keys(addresses text) RETURNS text LANGUAGE sql AS 'SELECT 1'`)
	noSchema("another argument")
	server.SQL(t, empty, `CREATE FUNCTION sealmilter.recipient_keys(addresses text[]) RETURNS TABLE (address text, key text)
		LANGUAGE sql AS $$ SELECT u, u FROM unnest(addresses) AS u $$`)
	noSchema("other columns")
	server.SQL(t, empty, siteFunction("bytea", `SELECT u, u, true, u, u, NULL::bytea, '{}'::jsonb FROM unnest(addresses) AS u`))
	noSchema("a column of another type")
	if _, err := s.Check(ctx); err == nil || !strings.Contains(err.Error(), `"key" is of type bytea, it should be text`) {
		t.Errorf("a column of another type: %v", err)
	}

	database := migrated(t, server)
	if warnings, err := daemon(t, server, database).Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check as the daemon: %q, %v", warnings, err)
	}
	server.SQL(t, database, `REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM sealmilter`)
	if _, err := daemon(t, server, database).Check(ctx); !errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "roles.sql") {
		t.Errorf("Check without the right to call: %v", err)
	}
	if _, err := opened(t, server.URL("sealmilter", "nosuch"), Options{}).Check(ctx); !errors.Is(err, keys.ErrStore) {
		t.Errorf("Check of a database that is not there: %v", err)
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
	server.SQL(t, database, `REVOKE INSERT ON sealmilter.keys FROM sealmilter; GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) TO PUBLIC`)
	warned(s, "every role may call")
	server.SQL(t, database, `ALTER FUNCTION sealmilter.recipient_keys(text[]) OWNER TO postgres;
		ALTER FUNCTION sealmilter.recipient_keys(text[]) RESET search_path`)
	warned(s, "the superuser \"postgres\"", "no search_path", "every role may call")
	server.SQL(t, database, siteFunction("text", `SELECT u, u, true, u, u, u, '{}'::jsonb FROM unnest(addresses) AS u WHERE u LIKE 'ann@%'`)+
		`REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC`)
	warned(s, "has no row for an address that nobody is enrolled under")
}

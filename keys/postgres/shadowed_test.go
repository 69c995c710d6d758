package postgres

import (
	"context"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// shadows are functions of a role that may make some where the server looks for
// names that nobody has qualified: each suits a call of ours better than the
// server's own does, does what that one does, and makes its maker a superuser if
// whoever calls it is one.
const shadows = `
	CREATE FUNCTION public.take() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE 'RESET ROLE';
		EXECUTE 'ALTER ROLE mallory SUPERUSER';
	EXCEPTION WHEN insufficient_privilege OR feature_not_supported THEN NULL;
	END $$;
	CREATE FUNCTION public.convert_to(a text, b text) RETURNS bytea LANGUAGE plpgsql AS $$
	BEGIN PERFORM public.take(); RETURN pg_catalog.convert_to(a, b::name); END $$;
	CREATE FUNCTION public.hashtextextended(a text, b integer) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN PERFORM public.take(); RETURN pg_catalog.hashtextextended(a, b::bigint); END $$;
	CREATE FUNCTION public.format(a text, b name) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN PERFORM public.take(); RETURN pg_catalog.format(a, b); END $$;
	CREATE FUNCTION public.has_function_privilege(a text, b oid, c text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN PERFORM public.take(); RETURN pg_catalog.has_function_privilege(a::name, b, c); END $$;`

// TestShadowed: where another role may make functions in the schema public, as
// the owner of a database may, and everybody in one that was first made before
// version 15, nothing that a superuser does for sealmilter calls them.
func TestShadowed(t *testing.T) {
	ctx := context.Background()
	server := bed.StartPostgres(t)
	server.SQL(t, "postgres", `CREATE ROLE mallory LOGIN`)
	untouched := func(after string) {
		t.Helper()
		if server.SQL(t, "postgres", `SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'`) != "f" {
			t.Errorf("after %s, who owns the database is a superuser", after)
			server.SQL(t, "postgres", `ALTER ROLE mallory NOSUPERUSER`)
		}
	}
	database := newDatabase(t, server)
	server.SQL(t, database, `ALTER DATABASE `+database+` OWNER TO mallory; SET ROLE mallory;`+shadows)
	superuser := server.URL("postgres", database)
	if _, _, err := Migrate(ctx, superuser); err != nil {
		t.Fatal(err)
	}
	untouched("sealmilter migrate")
	index := server.SQL(t, database, `SELECT pg_get_indexdef('sealmilter.key_is_enrolled_already'::regclass)`)
	if strings.Contains(index, "public.") {
		t.Errorf("the index is %s", index)
	}
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'A')`)
	untouched("an INSERT")
	for _, name := range []string{"copies.sql", "roles.sql"} {
		server.SQL(t, database, contrib(t, name))
		untouched(name)
	}
	s := opened(t, superuser, Options{})
	if _, err := s.Check(ctx); err != nil {
		t.Fatal(err)
	}
	untouched("sealmilter check")
}

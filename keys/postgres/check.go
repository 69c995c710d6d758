package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"sealmilter/keys"
)

// ErrNoSchema is in the chain of the error with which Check says that the
// server answers, but has not the function that the daemon calls.
var ErrNoSchema = errors.New("the database has not what sealmilter needs, run sealmilter migrate")

// columns are the frozen columns of recipient_keys, in the order of the query.
var columns = []struct {
	name  string
	types []uint32
}{
	{"address", []uint32{pgtype.TextOID}},
	{"account", []uint32{pgtype.TextOID}},
	{"enabled", []uint32{pgtype.BoolOID}},
	{"method", []uint32{pgtype.TextOID}},
	{"cipher", []uint32{pgtype.TextOID}},
	{"key", []uint32{pgtype.TextOID}},
	{"options", []uint32{pgtype.JSONBOID, pgtype.JSONOID}},
}

// nobody is an address that cannot be enrolled (RFC 6761, section 6.4).
const nobody = "nobody@sealmilter.invalid"

// Check asks the function as the daemon does, and finds out whether the store
// will serve. The error wraps keys.ErrStore where the server does not answer
// or does not let this role ask, and ErrNoSchema where the function is not
// there or is not the right one. Warnings are what works and should not stay
// so. It needs no right but the daemon's own.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w: %w", keys.ErrStore, err)
	}
	defer conn.Release()
	answered, err := probe(ctx, conn.Conn())
	if err != nil {
		return nil, fmt.Errorf("calling sealmilter.recipient_keys: %w", err)
	}
	if !answered {
		warnings = append(warnings, "sealmilter.recipient_keys has no row for an address that nobody is enrolled under: "+
			"mail to such addresses will be deferred")
	}
	found, err := inspect(ctx, conn.Conn())
	if err != nil {
		return nil, fmt.Errorf("inspecting sealmilter.recipient_keys: %w: %w", keys.ErrStore, err)
	}
	return append(warnings, found...), nil
}

// probe calls the function for an address that is certainly not enrolled. It
// says whether the answer had a row for it, as it must.
func probe(ctx context.Context, conn *pgx.Conn) (answered bool, err error) {
	// Not prepared: a plan that is cached says nothing of the function today.
	rows, err := conn.Query(ctx, lookup, pgx.QueryExecModeExec, []string{nobody})
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			answered = true
		}
		err = rows.Err()
	}
	if err != nil {
		return false, explain(err)
	}
	fields := rows.FieldDescriptions()
	for i, column := range columns {
		if !slices.Contains(column.types, fields[i].DataTypeOID) {
			return false, fmt.Errorf("%w: its column %q is of type %s, it should be %s", ErrNoSchema, column.name,
				typeName(conn, fields[i].DataTypeOID), typeName(conn, column.types[0]))
		}
	}
	return answered, nil
}

// explain sorts the error of a probe.
func explain(err error) error {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		switch said.Code {
		case "3F000", "42883", "42703", "42P01": // no schema, function, column, table
			return fmt.Errorf("%w: %w", ErrNoSchema, err)
		case "42501":
			return fmt.Errorf("%w: this role may not call it, see contrib/postgres/roles.sql: %w", keys.ErrStore, err)
		}
	}
	return fmt.Errorf("%w: %w", keys.ErrStore, err)
}

// inspect looks the function up in the catalogue, which everybody may read.
// The tables are looked up by name and not by a cast to regclass: a site's own
// function does without them.
func inspect(ctx context.Context, conn *pgx.Conn) (warnings []string, err error) {
	const query = `SELECT p.prosecdef, coalesce(array_to_string(p.proconfig, ' '), ''), owner.rolname, owner.rolsuper,
			has_function_privilege('public', p.oid, 'EXECUTE'), me.rolname, me.rolsuper,
			EXISTS (SELECT FROM pg_catalog.pg_class AS t WHERE t.relnamespace = n.oid AND t.relkind = 'r'
				AND has_table_privilege(t.oid, 'INSERT, UPDATE, DELETE'))
		FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
		JOIN pg_catalog.pg_roles AS owner ON owner.oid = p.proowner
		JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user
		WHERE n.nspname = 'sealmilter' AND p.proname = 'recipient_keys'
			AND pg_catalog.oidvectortypes(p.proargtypes) = 'text[]'`
	var definer, ownerSuper, public, super, writes bool
	var config, owner, me string
	err = conn.QueryRow(ctx, query).Scan(&definer, &config, &owner, &ownerSuper, &public, &me, &super, &writes)
	if err != nil {
		return nil, err
	}
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	if definer && ownerSuper {
		warn("sealmilter.recipient_keys runs with the rights of the superuser %q: give it to a role that can only read the keys", owner)
	}
	if definer && !strings.Contains(config, "search_path=") {
		warn("sealmilter.recipient_keys runs with its owner's rights and has no search_path of its own: whoever calls it can lead it to other tables")
	}
	if public {
		warn("every role may call sealmilter.recipient_keys: REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC")
	}
	if super {
		warn("the role %q is a superuser: the daemon needs only what contrib/postgres/roles.sql grants", me)
	} else if writes {
		warn("the role %q may write tables of the schema sealmilter: the daemon needs only what contrib/postgres/roles.sql grants", me)
	}
	return warnings, nil
}

// typeName is the name that PostgreSQL prints for a type.
func typeName(conn *pgx.Conn, oid uint32) string {
	if t, known := conn.TypeMap().TypeForOID(oid); known {
		return t.Name
	}
	return fmt.Sprintf("number %d", oid)
}

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
// server answers, but has not the function that the daemon calls, or has one
// that is not as it must be. Where migrate would mend it, the error says so.
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
// will serve. The error wraps keys.ErrStore where the server does not answer,
// ErrRefused where it does not let this role in or ask, and ErrNoSchema where
// the function is not there or is not the right one. Warnings are what works
// and should not stay so. It needs no right but the daemon's own.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", unanswered(err))
	}
	defer conn.Release()
	answered, err := probe(ctx, conn.Conn())
	if err != nil {
		return nil, fmt.Errorf("calling sealmilter.recipient_keys: %w", diagnose(ctx, conn.Conn(), err))
	}
	if !answered {
		warnings = append(warnings, "sealmilter.recipient_keys has no row for an address that nobody is enrolled under: "+
			"mail to such addresses will be deferred")
	}
	found, err := inspect(ctx, conn.Conn())
	if err != nil {
		return nil, fmt.Errorf("inspecting sealmilter.recipient_keys: %w: %w", keys.ErrStore, err)
	}
	warnings = append(warnings, found...)
	if has, err := look(ctx, conn); err == nil && has.old {
		return append(warnings, "the tables are those of an older sealmilter: run sealmilter migrate, and load "+rolesFile+" again"), nil
	}
	if found, err = checkCopies(ctx, conn.Conn()); err != nil {
		return nil, fmt.Errorf("looking for sealmilter.copies_begin: %w: %w", keys.ErrStore, err)
	}
	warnings = append(warnings, found...)
	if s.writable == s.pool {
		if found, err = checkWritable(ctx, conn.Conn()); err != nil {
			return nil, fmt.Errorf("asking whether the server can be written to: %w: %w", keys.ErrStore, err)
		}
		warnings = append(warnings, found...)
	}
	return warnings, nil
}

// checkWritable warns where the only server that is named is a standby. Keys are
// found there, so that nothing else would tell.
func checkWritable(ctx context.Context, conn *pgx.Conn) (warnings []string, err error) {
	var readOnly string
	if err := conn.QueryRow(ctx, `SHOW transaction_read_only`).Scan(&readOnly); err != nil {
		return nil, err
	}
	if readOnly == "on" {
		warnings = append(warnings, "the server can only be read, as a standby, and the URL names no other: mail that must be split will be deferred, "+
			"and every lookup asks the server: name the primary behind it")
	}
	return warnings, nil
}

// probe calls the function for an address that is certainly not enrolled. It
// says whether the answer had a row for it, as it must.
func probe(ctx context.Context, conn *pgx.Conn) (answered bool, err error) {
	// Not prepared: a plan that is cached says nothing of the function today.
	rows, err := conn.Query(ctx, lookup, pgx.QueryExecModeExec, []string{nobody})
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		answered = true
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	return answered, misshapen(conn, rows.FieldDescriptions())
}

// diagnose finds out why a probe has failed. What migrate would not mend does
// not advise it.
func diagnose(ctx context.Context, conn *pgx.Conn, failure error) error {
	if errors.Is(failure, ErrNoSchema) { // the columns have told
		return failure
	}
	has, _ := look(ctx, conn) // what is not known is taken for not there
	failed := uncalled(failure, has.callable)
	if !errors.Is(failed, ErrNoSchema) {
		return failed
	}
	switch function, err := conn.Prepare(ctx, "", `SELECT * FROM sealmilter.recipient_keys(NULL::text[])`); {
	case err != nil && sqlState(err) == "": // the connection is gone
		return failed
	case err == nil:
		if err := misshapen(conn, function.Fields); err != nil {
			return err
		}
		return &told{"it fails: " + words(failure) + ": mend the function, or what it reads", []error{ErrNoSchema, failure}}
	case sqlState(err) == undefinedFunction && has.site != "":
		return unsuitable("there is only " + has.site + ", it must take one text[]")
	case sqlState(err) != undefinedFunction && sqlState(err) != invalidSchemaName:
		return unsuitable(words(err))
	}
	return failed
}

// unsuitable is the error for a function that is there and is not the one that
// the daemon calls. To migrate is no way out: a site has written it.
func unsuitable(what string) error {
	return &told{what + "; what it must be is in " + readme, []error{ErrNoSchema}}
}

// misshapen compares the function's columns with what they must be.
func misshapen(conn *pgx.Conn, fields []pgconn.FieldDescription) error {
	var wrong []string
	for _, column := range columns {
		i := slices.IndexFunc(fields, func(f pgconn.FieldDescription) bool { return f.Name == column.name })
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("it has no column %q (%s)", column.name, typeName(conn, column.types[0])))
		} else if !slices.Contains(column.types, fields[i].DataTypeOID) {
			wrong = append(wrong, fmt.Sprintf("its column %q is of type %s, it should be %s", column.name,
				typeName(conn, fields[i].DataTypeOID), typeName(conn, column.types[0])))
		}
	}
	if wrong == nil {
		return nil
	}
	return unsuitable(strings.Join(wrong, ", "))
}

// inspect looks the function up in the catalogue, which everybody may read.
// The tables are looked up by name and not by a cast to regclass: a site's own
// function does without them.
func inspect(ctx context.Context, conn *pgx.Conn) (warnings []string, err error) {
	const query = `SELECT p.prosecdef, coalesce(pg_catalog.array_to_string(p.proconfig, ' '), ''), owner.rolname, owner.rolsuper,
			pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE'), me.rolname, me.rolsuper,
			coalesce((SELECT pg_catalog.bool_or(pg_catalog.has_any_column_privilege(t.oid, 'INSERT, UPDATE') OR pg_catalog.has_table_privilege(t.oid, 'DELETE, TRUNCATE'))
				FROM pg_catalog.pg_class AS t WHERE t.relnamespace = n.oid AND t.relkind = 'r'), false),
			coalesce((SELECT pg_catalog.bool_or(pg_catalog.has_any_column_privilege(t.oid, 'SELECT'))
				FROM pg_catalog.pg_class AS t WHERE t.relnamespace = n.oid AND t.relkind = 'r'), false)
		FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
		JOIN pg_catalog.pg_roles AS owner ON owner.oid = p.proowner
		JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user
		WHERE n.nspname = 'sealmilter' AND p.proname = 'recipient_keys'
			AND pg_catalog.oidvectortypes(p.proargtypes) = 'text[]'`
	var definer, ownerSuper, public, super, writes, reads bool
	var config, owner, me string
	err = conn.QueryRow(ctx, query).Scan(&definer, &config, &owner, &ownerSuper, &public, &me, &super, &writes, &reads)
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
	const enough = "the daemon needs only what contrib/postgres/roles.sql grants"
	switch {
	case super:
		warn("the role %q is a superuser: %s", me, enough)
	case writes:
		warn("the role %q may write tables of the schema sealmilter: %s", me, enough)
	case reads:
		warn("the role %q may read tables of the schema sealmilter, and with them every key and address: %s", me, enough)
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

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/keys"
)

// ErrRefused is in the chain of an error that no waiting mends: every server
// that was asked has answered, and what it lacks or forbids only an
// administrator can change. The words of the error say what to do.
var ErrRefused = errors.New("PostgreSQL refused")

// told is an error that says what it is in words of its own; those of its
// chain would repeat or contradict them.
type told struct {
	words string
	chain []error
}

func (e *told) Error() string   { return e.words }
func (e *told) Unwrap() []error { return e.chain }

// refusal is an error of a server that has answered, and what to do about it.
func refusal(err error, advice string) error {
	return &told{fmt.Sprintf("%v: %s: %s", ErrRefused, words(err), advice), []error{ErrRefused, err}}
}

// The server's codes that are told apart here (PostgreSQL, appendix A).
const (
	invalidPassword       = "28P01"
	invalidCatalogName    = "3D000" // there is no such database
	insufficientPrivilege = "42501"
	undefinedTable        = "42P01"
	undefinedColumn       = "42703"
	undefinedFunction     = "42883"
	invalidSchemaName     = "3F000"
	readOnlyTransaction   = "25006"
)

// sqlState is the server's code, or "" for an error that is not the server's.
func sqlState(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return ""
}

// unanswered sorts the error of a statement that says nothing of the function
// or the tables: that of a connection refused for good wraps ErrRefused, every
// other keys.ErrStore.
func unanswered(err error) error {
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		return unconnected(failed)
	}
	return fmt.Errorf("%w: %w", keys.ErrStore, err)
}

// uncalled sorts the error of a call of sealmilter.recipient_keys. Callable
// says that this role may call it for certain.
func uncalled(err error, callable bool) error {
	var failed *pgconn.ConnectError
	var said *pgconn.PgError
	if errors.As(err, &failed) || !errors.As(err, &said) {
		return unanswered(err)
	}
	switch {
	case said.Code == insufficientPrivilege && (callable || said.Where != ""): // what is inside says where
		return refusal(err, "sealmilter.recipient_keys may not read what it reads: it must be SECURITY DEFINER, and its owner needs SELECT")
	case said.Code == insufficientPrivilege:
		return refusal(err, "this role may not call sealmilter.recipient_keys: load "+rolesFile+", which lets the role sealmilter call it")
	case slices.Contains(unsuited, said.Code):
		return fmt.Errorf("%w: %w", ErrNoSchema, err)
	}
	return unanswered(err)
}

// unsuited are the codes that a call meets where the function is not there, or
// is not the one that is called: no schema, function, column or table, no
// columns at all, no function.
var unsuited = []string{invalidSchemaName, undefinedFunction, undefinedColumn, undefinedTable, "42601", "42809"}

// unconnected makes one line of a failed connection, in which each host stands
// once with what decided. Where one of several hosts was only away, it may be
// the one that would have let this role in: then nothing is refused for good.
func unconnected(failed *pgconn.ConnectError) error {
	var hosts, lines []string
	causes := make(map[string][]error)
	for _, attempt := range attempts(failed) {
		host, cause := place(attempt)
		if causes[host] == nil {
			hosts = append(hosts, host)
		}
		causes[host] = append(causes[host], cause)
	}
	kind, advice := ErrRefused, ""
	for _, host := range hosts {
		for _, cause := range decisive(causes[host]) {
			if !permanent(sqlState(cause)) {
				kind = keys.ErrStore
			} else if advice == "" {
				advice = advise(failed.Config, sqlState(cause))
			}
			lines = append(lines, host+words(cause))
		}
	}
	text := kind.Error() + ": " + strings.Join(slices.Compact(lines), "; ")
	if advice != "" {
		text += ": " + advice
	}
	return &told{text, []error{kind, failed}}
}

// attempts are the errors that pgx has joined, one for each try: of a host
// with TLS, of the same without, of the next.
func attempts(err error) []error {
	for at := err; at != nil; at = errors.Unwrap(at) {
		if many, ok := at.(interface{ Unwrap() []error }); ok {
			return many.Unwrap()
		}
	}
	return []error{err}
}

// place takes an attempt's error apart. Its type is pgx's own, its text is
// "address (host as it was given): cause". What has an "@" in it is no host:
// it is the rest of a password that was not escaped in a URL.
func place(attempt error) (host string, cause error) {
	cause = attempt
	var unresolved *net.DNSError
	if errors.As(attempt, &unresolved) {
		host, cause = unresolved.Name, errors.New(unresolved.Err)
	} else if inner := errors.Unwrap(attempt); inner != nil {
		address, given, _ := strings.Cut(strings.TrimSuffix(attempt.Error(), ": "+inner.Error()), " (")
		given = strings.TrimSuffix(given, ")")
		host, cause = address, inner
		if plain, _, err := net.SplitHostPort(address); err == nil && plain != given {
			host = given + " (" + address + ")"
		}
	}
	switch {
	case strings.Contains(host, "@"):
		return `a host with an "@" in its name (in a password write %40): `, cause
	case host != "":
		host += ": "
	}
	return host, cause
}

// decisive are the causes that count of one host's: what the server itself has
// said, with TLS or without, or else what came last.
func decisive(causes []error) []error {
	said := slices.DeleteFunc(slices.Clone(causes), func(err error) bool { return sqlState(err) == "" })
	if len(said) == 0 {
		return causes[len(causes)-1:]
	}
	return said
}

// permanent tells whether the server says so to everybody who comes like this.
// It may also be starting up, shutting down or full, which passes.
func permanent(code string) bool {
	for _, class := range []string{"22", "28", "3D", "42"} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return false
}

// advise says what to do about a connection that was refused.
func advise(config *pgconn.Config, code string) string {
	switch {
	case code == invalidPassword:
		return "the password is wrong, or there is no such role"
	case strings.HasPrefix(code, "28"):
		advice := "pg_hba.conf does not let this role in, or there is no such role"
		if me, err := user.Current(); err == nil && strings.HasPrefix(config.Host, "/") {
			advice += fmt.Sprintf("; by peer it lets in the system's user of the role's name, and this is %s", me.Username)
		}
		return advice
	case code == invalidCatalogName:
		return fmt.Sprintf("there is no database %q: createdb %s", config.Database, config.Database)
	case code == insufficientPrivilege:
		return "this role may not connect to the database: load " + rolesFile
	}
	return ""
}

// words are an error's own, without what stands beside them already.
func words(err error) string {
	var said *pgconn.PgError
	var op *net.OpError
	switch {
	case errors.As(err, &said):
		return fmt.Sprintf("%s (SQLSTATE %s)", said.Message, said.Code)
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &op):
		cause := op.Err
		for errors.Unwrap(cause) != nil {
			cause = errors.Unwrap(cause)
		}
		return cause.Error()
	}
	return err.Error()
}

const (
	rolesFile  = "contrib/postgres/roles.sql (installed: share/doc/sealmilter/postgres/roles.sql)"
	copiesFile = "copies.sql from the same folder"
	readme     = `contrib/postgres/README.md, "With tables of your own"`
)

// belongings are what a database has of sealmilter.
type belongings struct {
	owner    string // of the schema, "" where there is none
	tables   bool   // sealmilter's own, in which migrate and key write
	old      bool   // tables that migrate has to bring up to date
	site     string // recipient_keys as a site has written it, "" where there is none
	callable bool   // recipient_keys, by this role
}

// querier is a connection or a pool of them.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// look finds out what the database has of sealmilter, in the catalogue, which
// everybody may read. A function beside which there are no tables of
// sealmilter's own is the site's.
func look(ctx context.Context, db querier) (has belongings, err error) {
	const query = `SELECT
		coalesce((SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'sealmilter'), ''),
		2 = (SELECT count(*) FROM pg_catalog.pg_class AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
			WHERE n.nspname = 'sealmilter' AND t.relkind = 'r' AND t.relname IN ('accounts', 'keys')),
		2 > (SELECT count(*) FROM pg_catalog.pg_class AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
			WHERE n.nspname = 'sealmilter' AND t.relkind = 'r' AND t.relname IN ('aliases', 'copies'))
			OR NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS c JOIN pg_catalog.pg_class AS t ON t.oid = c.attrelid
				JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
				WHERE n.nspname = 'sealmilter' AND t.relname = 'keys' AND c.attname = 'state' AND NOT c.attisdropped),
		coalesce((SELECT pg_catalog.string_agg('sealmilter.recipient_keys(' || pg_catalog.oidvectortypes(p.proargtypes) || ')', ', ')
			FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
			WHERE n.nspname = 'sealmilter' AND p.proname = 'recipient_keys'), ''),
		EXISTS (SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
			WHERE n.nspname = 'sealmilter' AND p.proname = 'recipient_keys'
				AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))`
	if err := db.QueryRow(ctx, query).Scan(&has.owner, &has.tables, &has.old, &has.site, &has.callable); err != nil {
		return belongings{}, err
	}
	if has.tables {
		has.site = ""
	}
	has.old = has.old && has.tables
	return has, nil
}

// siteOwn says that the tables are not there and are not to be.
func (has belongings) siteOwn() error {
	return &told{fmt.Sprintf("this database has a function %s of its own (a site with tables of its own): "+
		"migrate and key are for sealmilter's own tables only", has.site), []error{ErrRefused}}
}

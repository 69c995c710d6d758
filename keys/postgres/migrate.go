package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"sealmilter/keys"
)

//go:embed migrations/*.sql
var migrations embed.FS

// copiesUp is version 3. It is no file of goose's because sites whose tables
// are their own load the same text, with psql, which would go on to the way
// back: contrib/postgres/copies.sql is a link to it.
//
//go:embed copies.sql
var copiesUp string

const copiesDown = `DROP FUNCTION sealmilter.copies_begin(text, bytea[], interval), sealmilter.copies_sent(text, bytea),
	sealmilter.copies_end(text, bytea[], boolean);
DROP TABLE sealmilter.copies;`

const (
	// ownerRole owns the schema where a superuser migrates. recipient_keys
	// runs with its owner's rights, which must not be a superuser's.
	ownerRole = "sealmilter_owner"
	// migrateLock is the number of the advisory lock: "sealmilt" in ASCII.
	migrateLock = 0x7365616c6d696c74
	// migrateConnect is how long to try each host where the connection string
	// does not say.
	migrateConnect = 10 * time.Second
)

// Migrate makes the schema or brings it up to date, and returns its version
// before and after. Several hosts may do so at once: one migrates, the others
// wait and find it done. A database with a site's own function is left as it
// is. The error wraps ErrRefused where an administrator must do otherwise.
func Migrate(ctx context.Context, dsn string) (from, to int64, err error) {
	pool, err := pgxpool.ParseConfig(dsn) // knows the pool's settings and takes them out
	if err != nil {
		return 0, 0, fmt.Errorf("reading the connection string: %w", err)
	}
	config := pool.ConnConfig
	nameApplication(config)
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = migrateConnect
	}
	if config.ValidateConnect == nil { // of several hosts, take the one that can be written
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// The lock is the session's and goes with this connection, whatever
	// happens to the process. It is our own and not goose's because it must
	// hold while the schema is made that goose's table is in.
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, 0, fmt.Errorf("migrating: %w", unanswered(err))
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, ownNames); err != nil {
		return 0, 0, fmt.Errorf("migrating: %w", unanswered(err))
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrateLock)); err != nil {
		return 0, 0, fmt.Errorf("waiting for another migration: %w: %w", keys.ErrStore, err)
	}
	has, err := look(ctx, conn)
	if err != nil {
		return 0, 0, fmt.Errorf("migrating: %w", unanswered(err))
	}
	if has.site != "" {
		return 0, 0, fmt.Errorf("migrating: %w", has.siteOwn())
	}
	owner, err := makeSchema(ctx, conn)
	if err != nil {
		return 0, 0, fmt.Errorf("making the schema sealmilter: %w", mayNotMigrate(err, has.owner))
	}
	from, to, err = apply(ctx, config, owner, migrations, goose.NewGoMigration(3, runs(copiesUp), runs(copiesDown)))
	return from, to, mayNotMigrate(err, owner)
}

// notAsMade is the code with which a migration says that it does not overwrite
// what a site has written.
const notAsMade = "55000"

// mayNotMigrate says what to do where this role may not migrate, or would
// destroy something.
func mayNotMigrate(err error, owner string) error {
	var said *pgconn.PgError
	switch {
	case errors.As(err, &said) && said.Code == notAsMade:
		return refusal(err, said.Hint)
	case sqlState(err) != insufficientPrivilege:
		return err
	case owner == "":
		return refusal(err, "this role may not make the schema: use the URL of a superuser, or of the database's owner, with --store")
	}
	if !plainName.MatchString(owner) {
		owner = pgx.Identifier{owner}.Sanitize()
	}
	return fmt.Errorf("migrating: %w", refusal(err, fmt.Sprintf("this role may not migrate: give the URL of a superuser, "+
		"or of a member of %s, with --store, and leave the daemon's role as it is", owner)))
}

// plainName matches a role's name that SQL takes without quotes.
var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// makeSchema makes the schema where there is none and returns the role that
// owns it. That role is never a superuser if this one can help it.
func makeSchema(ctx context.Context, conn *pgx.Conn) (owner string, err error) {
	const who = `SELECT me.rolname, me.rolsuper, coalesce(o.rolname, ''), coalesce(o.rolsuper, false)
		FROM pg_catalog.pg_roles AS me
		LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'sealmilter'
		LEFT JOIN pg_catalog.pg_roles AS o ON o.oid = n.nspowner
		WHERE me.rolname = current_user`
	var me string
	var super, ownerSuper bool
	if err := conn.QueryRow(ctx, who).Scan(&me, &super, &owner, &ownerSuper); err != nil {
		return "", err
	}
	var statements []string
	switch {
	case owner != "" && !ownerSuper:
		return owner, nil
	case super && owner == "":
		owner, statements = ownerRole, []string{makeOwner, `CREATE SCHEMA sealmilter AUTHORIZATION ` + ownerRole}
	case super:
		owner, statements = ownerRole, []string{makeOwner, `ALTER SCHEMA sealmilter OWNER TO ` + ownerRole}
	case owner == "":
		owner, statements = me, []string{`CREATE SCHEMA sealmilter`}
	default: // a superuser made the schema and gave this role the right to create in it
		return me, nil
	}
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	return owner, nil
}

// ownNames has names looked up where only a superuser can make any. Who may make
// functions in the schema public, as the database's owner may, could put one there
// that suits a call better than the server's own, and it would run with the rights
// of whoever migrates.
const ownNames = `SET search_path = pg_catalog, pg_temp`

// makeOwner makes the owner's role. Roles belong to the cluster and the lock
// to one database, so another migration may be making it at this moment.
const makeOwner = `DO $$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '` + ownerRole + `') THEN
		CREATE ROLE ` + ownerRole + ` NOLOGIN;
		COMMENT ON ROLE ` + ownerRole + ` IS 'Owns the tables and functions of sealmilter; nobody logs in as it.';
	END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$`

// runs is a migration that runs a text as it is, without a transaction but the
// text's own.
func runs(text string) *goose.GoFunc {
	return &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, text)
		return err
	}}
}

// apply runs the migrations as the owner, so that what they make is the
// owner's without another word.
func apply(ctx context.Context, config *pgx.ConnConfig, owner string, migrations fs.FS, more ...*goose.Migration) (from, to int64, err error) {
	become := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, ownNames+`; SET ROLE `+pgx.Identifier{owner}.Sanitize())
		return err
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(become))
	defer db.Close()
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, folder,
		goose.WithTableName("sealmilter.schema_version"), goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(more...))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the migrations: %w", err)
	}
	from, target, err := provider.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the version of the schema: %w", err)
	}
	if from > target {
		return from, from, fmt.Errorf("the schema has version %d, this program knows %d: it was made by a newer sealmilter", from, target)
	}
	if _, err := provider.Up(ctx); err != nil {
		return from, from, fmt.Errorf("migrating from version %d to %d: %w", from, target, err)
	}
	return from, target, nil
}

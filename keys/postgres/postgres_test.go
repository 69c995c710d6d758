package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sealmilter/keys"
	"sealmilter/keys/storetest"
	"sealmilter/testdata/bed"
)

// TestPostgres runs all tests that can share one server; each has a database
// of its own.
func TestPostgres(t *testing.T) {
	server := bed.StartPostgres(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, server *bed.Postgres)
	}{
		{"Store", testStore},
		{"Addresses", testAddresses},
		{"Open", testOpen},
		{"PlanChanged", testPlanChanged},
		{"SlowFunction", testSlowFunction},
		{"SiteFunction", testSiteFunction},
		{"Hosts", testHosts},
		{"SilentHost", testSilentHost},
		{"DaemonRole", testDaemonRole},
		{"Stranger", testStranger},
		{"Owner", testOwner},
		{"Check", testCheck},
		{"CheckWarnings", testCheckWarnings},
		{"Migrate", testMigrate},
		{"MigrateAtOnce", testMigrateAtOnce},
		{"MigrateAsOwner", testMigrateAsOwner},
		{"MigrateAfterSuperuser", testMigrateAfterSuperuser},
		{"MigrateSite", testMigrateSite},
		{"NotMigrated", testNotMigrated},
		{"Refused", testRefused},
		{"Unconnected", testUnconnected},
		{"EnrolledAlready", testEnrolledAlready},
		{"Upgrade", testUpgrade},
		{"UpgradeSite", testUpgradeSite},
		{"UpgradeOptions", testUpgradeOptions},
		{"UpgradeStates", testUpgradeStates},
		{"Down", testDown},
		{"Comments", testComments},
		{"Locale", testLocale},
		{"Explain", testExplain},
		{"Readme", testReadme},
		{"Postfixadmin", testPostfixadmin},
		{"PostfixadminExplain", testPostfixadminExplain},
		{"Copies", testCopies},
		{"CopiesRole", testCopiesRole},
		{"CopiesUpgrade", testCopiesUpgrade},
		{"CopiesBySuperuser", testCopiesBySuperuser},
		{"CopiesReadOnly", testCopiesReadOnly},
		{"CopiesDurable", testCopiesDurable},
		{"CopiesPlan", testCopiesPlan},
		{"Roles", testRoles},
		{"Portal", testPortal},
		{"Actor", testActor},
		{"Twins", testTwins},
		{"Backup", testBackup},
		{"WatchChanges", testWatchChanges},
		{"WatchOwnFunction", testWatchOwnFunction},
		{"WatchPooler", testWatchPooler},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, server) })
	}
}

var databases atomic.Int64

// newDatabase makes an empty database and returns its name.
func newDatabase(t testing.TB, server *bed.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("mail%d", databases.Add(1))
	server.CreateDatabase(t, name)
	return name
}

// migrated makes a database with the schema in it and the daemon's role.
func migrated(t testing.TB, server *bed.Postgres) string {
	t.Helper()
	name := newDatabase(t, server)
	if _, _, err := Migrate(context.Background(), server.URL("postgres", name)); err != nil {
		t.Fatal(err)
	}
	server.SQL(t, name, contrib(t, "roles.sql"))
	return name
}

// contrib reads a file that a site loads.
func contrib(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "contrib", "postgres", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// opened opens a store until the end of the test.
func opened(t testing.TB, dsn string, opts Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// daemon opens a database as the daemon does.
func daemon(t testing.TB, server *bed.Postgres, database string) *Store {
	t.Helper()
	return opened(t, server.URL("sealmilter", database), Options{})
}

// ask is a lookup that must succeed, as lines in order.
func ask(t testing.TB, s keys.Store, addresses ...string) []string {
	t.Helper()
	rows, err := s.RecipientKeys(context.Background(), addresses)
	if err != nil {
		t.Fatalf("looking up %q: %v", addresses, err)
	}
	var lines []string
	for _, row := range rows {
		lines = append(lines, fmt.Sprintf("%s|%s|%v|%s", row.Address, row.Account, row.Enabled, row.Key))
	}
	slices.Sort(lines)
	return lines
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// conforming is a store whose lookups go through the daemon's role and whose
// changes through the administrator's.
type conforming struct {
	*Store
	daemon *Store
	sql    func(t testing.TB, statements string)
}

func (s conforming) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	return s.daemon.RecipientKeys(ctx, addresses)
}

func (s conforming) SQL(t testing.TB, statements string) {
	t.Helper()
	s.sql(t, statements)
}

func (s conforming) TrySQL(statement string) error {
	_, err := s.pool.Exec(context.Background(), statement)
	return err
}

func newConforming(t *testing.T, server *bed.Postgres) conforming {
	t.Helper()
	database := migrated(t, server)
	return conforming{
		Store:  opened(t, server.URL("postgres", database), Options{}),
		daemon: daemon(t, server, database),
		sql: func(t testing.TB, statements string) {
			t.Helper()
			server.SQL(t, database, statements)
		},
	}
}

func testStore(t *testing.T, server *bed.Postgres) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return newConforming(t, server) })
}

func testOpen(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	for _, dsn := range []string{
		server.URL("sealmilter", database),
		server.URL("sealmilter", database) + "&pool_max_conns=2&default_query_exec_mode=exec",
		fmt.Sprintf("host=%s port=%d user=sealmilter dbname=%s", server.Dir, server.Port, database),
		fmt.Sprintf("host=%s port=%d user=sealmilter dbname=%s application_name=mine", server.Dir, server.Port, database),
	} {
		expect(t, ask(t, opened(t, dsn, Options{}), "ann@example.org"), "ann@example.org||false|")
	}
	for _, dsn := range []string{"postgres://user:secret@host:port/db", "postgres://h/db?sslmode=never", "mail", "sqlite:/x"} {
		s, err := Open(context.Background(), dsn, Options{})
		if err == nil {
			s.Close()
			t.Errorf("Open(%q) took it", dsn)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in the error: %v", err)
		}
		if _, _, err := Migrate(context.Background(), dsn); err == nil {
			t.Errorf("Migrate(%q) took it", dsn)
		}
	}
	var name string
	s := daemon(t, server, database)
	if err := s.pool.QueryRow(context.Background(), `SHOW application_name`).Scan(&name); err != nil || name != "sealmilter" {
		t.Errorf("the connection is named %q, %v", name, err)
	}
}

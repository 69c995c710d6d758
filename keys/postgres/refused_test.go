package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// refusedWith wants a store that nobody but an administrator can mend: Check
// says so, and a lookup defers all the same. Both say the words.
func refusedWith(t *testing.T, s *Store, words ...string) {
	t.Helper()
	_, checked := s.Check(context.Background())
	if !errors.Is(checked, ErrRefused) || errors.Is(checked, keys.ErrStore) || errors.Is(checked, ErrNoSchema) {
		t.Errorf("Check: %v, want ErrRefused alone", checked)
	}
	_, asked := s.RecipientKeys(context.Background(), []string{"ann@example.org"})
	if !errors.Is(asked, ErrRefused) || !errors.Is(asked, keys.ErrStore) {
		t.Errorf("lookup: %v, want ErrRefused and keys.ErrStore", asked)
	}
	for _, err := range []error{checked, asked} {
		if err == nil || strings.Contains(err.Error(), keys.ErrStore.Error()) || strings.Contains(err.Error(), "secret") {
			t.Errorf("the words are %v", err)
			continue
		}
		for _, part := range words {
			if strings.Count(err.Error(), part) != 1 {
				t.Errorf("%v\nwant %q in it, once", err, part)
			}
		}
	}
}

func testRefused(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	server.SQL(t, database, `CREATE ROLE visitor LOGIN`)
	host := fmt.Sprintf("127.0.0.1:%d: ", server.Port)
	s := daemon(t, server, database)
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org||false|")

	refusedWith(t, opened(t, server.URL("sealmilter", "nosuch"), Options{}), host, `database "nosuch" does not exist`,
		`there is no database "nosuch": createdb nosuch`)
	refusedWith(t, opened(t, server.URL("nobody", database), Options{}), host, "SQLSTATE 28000", "there is no such role")
	refusedWith(t, opened(t, server.URL("sealmilter", database)+"&nonsense=1", Options{}), host, "nonsense")
	refusedWith(t, opened(t, server.URL("visitor", database), Options{}), "SQLSTATE 42501", "load contrib/postgres/roles.sql")

	const mayNotCall = "this role may not call sealmilter.recipient_keys: load contrib/postgres/roles.sql"
	server.SQL(t, database, `REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM sealmilter`)
	refusedWith(t, s, mayNotCall) // its connections are open still
	server.SQL(t, database, `REVOKE USAGE ON SCHEMA sealmilter FROM sealmilter`)
	refusedWith(t, s, mayNotCall)
	server.SQL(t, database, contrib(t, "roles.sql")+`ALTER TABLE sealmilter.keys OWNER TO postgres; REVOKE ALL ON sealmilter.keys FROM sealmilter_owner`)
	refusedWith(t, s, "permission denied for table keys", "its owner needs SELECT")
	server.SQL(t, database, `REVOKE CONNECT ON DATABASE `+database+` FROM PUBLIC, sealmilter`)
	refusedWith(t, daemon(t, server, database), host, "may not connect to the database: load contrib/postgres/roles.sql")

	// A server that is full, or one host of several that is away, may let this
	// role in later.
	server.SQL(t, database, contrib(t, "roles.sql")+`ALTER ROLE visitor CONNECTION LIMIT 0`)
	away := fmt.Sprintf("postgres://visitor@127.0.0.1:%d,127.0.0.1:%d/nosuch", bed.FreePort(t), server.Port)
	for _, url := range []string{server.URL("visitor", database), away} {
		if _, err := opened(t, url, Options{}).Check(context.Background()); !errors.Is(err, keys.ErrStore) || errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want ErrStore", url, err)
		}
	}
}

// testUnconnected: of a failed connection each host is named once, with what
// decided, on one line.
func testUnconnected(t *testing.T, server *bed.Postgres) {
	one, two := bed.FreePort(t), bed.FreePort(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct{ dsn, want string }{
		{fmt.Sprintf("postgres://u:secret@127.0.0.1:%d/mail", one), fmt.Sprintf("127.0.0.1:%d: connection refused", one)},
		{fmt.Sprintf("postgres://u:secret@127.0.0.1:%d,127.0.0.1:%d/mail?sslmode=prefer", one, two),
			fmt.Sprintf("127.0.0.1:%d: connection refused; 127.0.0.1:%d: connection refused", one, two)},
		{fmt.Sprintf("postgres://u:secret@127.0.0.1:%d/mail?sslmode=require", server.Port),
			fmt.Sprintf("127.0.0.1:%d: tls error: server refused TLS connection", server.Port)},
		{"host=/no/such/folder port=5432 user=u password=secret dbname=mail", "/no/such/folder/.s.PGSQL.5432: no such file or directory"},
		{fmt.Sprintf("postgres://u:secret@%s/mail?connect_timeout=1", silent.Addr()), silent.Addr().String() + ": no answer in time"},
		{"postgres://u:top@secret@sealmilter.invalid/mail", `a host with an "@" in its name (in a password write %40): `},
	} {
		s := opened(t, test.dsn, Options{})
		_, _, migrated := Migrate(context.Background(), test.dsn)
		_, checked := s.Check(context.Background())
		_, asked := s.RecipientKeys(context.Background(), []string{"ann@example.org"})
		_, added := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"})
		for what, err := range map[string]error{"migrating": migrated, "connecting": checked,
			"calling sealmilter.recipient_keys": asked, `adding a key for "ann@example.org"`: added} {
			want := what + ": " + keys.ErrStore.Error() + ": " + test.want
			if err == nil || !errors.Is(err, keys.ErrStore) || errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), want) ||
				strings.Contains(err.Error(), "secret") || !strings.HasSuffix(test.want, ": ") && err.Error() != want {
				t.Errorf("%s\n got %v\nwant %s", test.dsn, err, want)
			}
		}
	}
}

// TestSeveralAddresses: a host's name stands with its addresses.
func TestSeveralAddresses(t *testing.T) {
	s := opened(t, fmt.Sprintf("postgres://u:secret@localhost:%d/mail", bed.FreePort(t)), Options{})
	_, err := s.Check(context.Background())
	if err == nil || strings.Count(err.Error(), "localhost (127.0.0.1:") != 1 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

// testEnrolledAlready: plain SQL is told by the index's name, and by no more
// of the key than its hash.
func testEnrolledAlready(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	s := opened(t, server.URL("postgres", database), Options{})
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddKey(context.Background(), keys.NewKey{Address: "Ann@example.org", Key: "KEY"}); !errors.Is(err, ErrEnrolledAlready) {
		t.Errorf("AddKey: %v", err)
	}
	site := postfixadmin(t, server)
	server.SQL(t, site, rows)
	for database, insert := range map[string]string{
		database: `INSERT INTO sealmilter.keys (address, key) VALUES ('ANN@example.org', 'KEY')`,
		site:     `INSERT INTO openpgp_key (username, key) VALUES ('bob@example.org', 'BOB')`,
	} {
		_, err := opened(t, server.URL("postgres", database), Options{}).pool.Exec(context.Background(), insert)
		if err == nil || !strings.Contains(err.Error(), "key_is_enrolled_already") || strings.Contains(err.Error(), "BOB") {
			t.Errorf("%s: %v", insert, err)
		}
	}
}

// hba is Debian's pg_hba.conf, and a map, since the machine of a test has no
// system user by the name of the daemon's role.
const (
	hba = `local all postgres peer
local all all peer map=bed
host all all 127.0.0.1/32 scram-sha-256
`
	ident = "bed nobody sealmilter\n"
)

// TestAuthentication: a server that lets in by peer and by password, as Debian
// sets one up. Whatever README.md does as postgres is done as that user.
func TestAuthentication(t *testing.T) {
	bed.NeedRoot(t)
	server := bed.StartPostgres(t)
	server.SQL(t, "postgres", `CREATE DATABASE mail; CREATE ROLE keeper LOGIN PASSWORD 'right'`)
	for name, text := range map[string]string{"pg_hba.conf": hba, "pg_ident.conf": ident} {
		if err := os.WriteFile(filepath.Join(server.Dir, "data", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server.Stop(t)
	server.Start(t)

	address := fmt.Sprintf("127.0.0.1:%d", server.Port)
	for _, user := range []string{"keeper", "nosuch"} {
		s := opened(t, "postgres://"+user+":secret@"+address+"/mail", Options{})
		refusedWith(t, s, address+": ", "SQLSTATE 28P01", "the password is wrong")
	}
	peer := fmt.Sprintf("postgres://%%s/mail?host=%s&port=%d", server.Dir, server.Port)
	refusedWith(t, opened(t, fmt.Sprintf(peer, "sealmilter@"), Options{}), server.Dir+"/.s.PGSQL.", "SQLSTATE 28000",
		"pg_hba.conf does not let this role in", "by peer it lets in the system's user of the role's name, and this is root")

	asUser(t, server.Dir, "postgres", "TestAsAdministrator", fmt.Sprintf(peer, ""))
	asUser(t, server.Dir, "nobody", "TestAsDaemon", fmt.Sprintf(peer, "sealmilter@"))
}

// asUser runs one of the tests below as another system user.
func asUser(t *testing.T, dir, name, test, url string) {
	t.Helper()
	program := filepath.Join(bed.Dir(t), "test")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	account, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	var uid, gid uint32
	if _, err := fmt.Sscan(account.Uid, &uid); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(account.Gid, &gid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "POSTGRES_PEER_URL="+url, "POSTGRES_ROLES="+contrib(t, "roles.sql"))
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "done as "+name) {
		t.Errorf("as %s: %v: %s", name, err, out)
	}
}

// TestAsAdministrator is the part of TestAuthentication that runs as postgres.
func TestAsAdministrator(t *testing.T) {
	url := os.Getenv("POSTGRES_PEER_URL")
	if url == "" {
		return
	}
	ctx := context.Background()
	if from, to, err := Migrate(ctx, url); err != nil || from != 0 || to < 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	roles := exec.Command(bed.Need(t, "psql", "/usr/lib/postgresql/*/bin"), "-X", "-q", url)
	roles.Stdin = strings.NewReader(os.Getenv("POSTGRES_ROLES"))
	if out, err := roles.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := opened(t, url, Options{})
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("done as postgres")
}

// TestAsDaemon is the part that runs as the daemon's user.
func TestAsDaemon(t *testing.T) {
	url := os.Getenv("POSTGRES_PEER_URL")
	if url == "" {
		return
	}
	s := opened(t, url, Options{Timeout: 10 * time.Second})
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|ann@example.org|true|KEY")
	if warnings, err := s.Check(context.Background()); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	fmt.Println("done as nobody")
}

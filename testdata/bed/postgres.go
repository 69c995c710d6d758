package bed

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Postgres is a private PostgreSQL server whose superuser is "postgres",
// trusted without a password.
type Postgres struct {
	Dir  string // its folder; the unix socket is in Dir
	Port int

	bin  string
	cred *syscall.Credential
}

// StartPostgres makes a cluster and starts it. It is stopped at the end of
// the test.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	initdb := Need(t, "initdb", "/usr/lib/postgresql/*/bin")
	// The other programs stand beside initdb itself, not beside a link to it.
	initdb, err := filepath.EvalSymlinks(initdb)
	if err != nil {
		t.Fatal(err)
	}
	p := &Postgres{Dir: Dir(t), Port: FreePort(t), bin: filepath.Dir(initdb)}
	if os.Getuid() == 0 {
		p.cred = credential(t, "postgres") // initdb refuses to run as root
		if err := os.Chown(p.Dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	p.run(t, "initdb", "-D", p.data(), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
	conf := fmt.Sprintf("listen_addresses='127.0.0.1'\nport=%d\nunix_socket_directories='%s'\nfsync=off\n", p.Port, p.Dir)
	f, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(conf); err != nil {
		t.Fatal(err)
	}
	f.Close()
	p.Start(t)
	t.Cleanup(func() { p.Stop(t) })
	return p
}

// Start starts the server again after Stop, on the same port.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "-D", p.data(), "-l", filepath.Join(p.Dir, "log"), "-w", "start")
}

// Stop stops the server at once and waits until it is gone. Stopping a
// stopped server does nothing.
func (p *Postgres) Stop(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(p.data(), "postmaster.pid")); err != nil {
		return
	}
	p.run(t, "pg_ctl", "-D", p.data(), "-m", "immediate", "-w", "stop")
}

// CreateDatabase makes an empty database, owned by the superuser.
func (p *Postgres) CreateDatabase(t testing.TB, name string) {
	t.Helper()
	p.run(t, "createdb", "-h", p.Dir, "-p", strconv.Itoa(p.Port), "-U", "postgres", name)
}

// SQL runs statements with psql as the superuser, stops at the first error,
// and returns what psql printed, unaligned and without headings.
func (p *Postgres) SQL(t testing.TB, database, sql string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", p.Dir, "-p", strconv.Itoa(p.Port), "-U", "postgres", "-d", database, "-f", "-")
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// URL is the connection string of a database for one user, over TCP.
func (p *Postgres) URL(user, database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", user, p.Port, database)
}

func (p *Postgres) data() string { return filepath.Join(p.Dir, "data") }

func (p *Postgres) run(t testing.TB, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = p.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	// pg_ctl leaves the server running with the output it was given: a pipe
	// would never close, so the output goes to a file.
	out, err := os.CreateTemp(p.Dir, "out")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		t.Fatalf("%s: %v\n%s", program, err, said)
	}
}

// credential is the identity of a system user, with its groups.
func credential(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		Skip(t, err.Error())
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		g, _ := strconv.ParseUint(id, 10, 32)
		cred.Groups = append(cred.Groups, uint32(g))
	}
	return cred
}

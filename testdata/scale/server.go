package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// server is a PostgreSQL of our own, reached by its unix socket alone. The test
// bed's belongs to tests.
type server struct {
	dir  string
	bin  string
	cred *syscall.Credential // nil: ours
}

// port names the socket; the folder keeps it apart from all others.
const port = "5432"

// startServer makes a cluster and starts it.
func startServer(accounts int) (*server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, bin: bin}
	if err := s.start(accounts); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// programs is the folder of PostgreSQL's programs; pgbench must be there too.
func programs() (string, error) {
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
		if len(found) == 0 {
			return "", errors.New("PostgreSQL is not installed")
		}
		initdb = found[len(found)-1]
	}
	if initdb, err = filepath.EvalSymlinks(initdb); err != nil {
		return "", err
	}
	bin := filepath.Dir(initdb)
	if _, err := os.Stat(filepath.Join(bin, "pgbench")); err != nil {
		return "", fmt.Errorf("pgbench is not installed beside initdb: %w", err)
	}
	return bin, nil
}

func (s *server) start(accounts int) error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if os.Getuid() == 0 { // initdb refuses to run as root
		var err error
		if s.cred, err = credential("postgres"); err != nil {
			return err
		}
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return err
		}
	}
	if err := s.run("initdb", "-D", s.data(), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"); err != nil {
		return err
	}
	// Everything is as a server comes, but for the buffers: those of a server
	// that a million accounts are given to are not Debian's 128 MB.
	buffers := max(128, accounts/500)
	conf := fmt.Sprintf("listen_addresses=''\nport=%s\nunix_socket_directories='%s'\nfsync=off\nmax_wal_size=8GB\nshared_buffers=%dMB\n",
		port, s.dir, buffers)
	file, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(conf); err != nil {
		return err
	}
	if err := s.run("pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-w", "start"); err != nil {
		return err
	}
	return s.run("createdb", "-h", s.dir, "-p", port, "-U", "postgres", "scale")
}

// close stops the server and removes all that it had.
func (s *server) close() {
	if _, err := os.Stat(filepath.Join(s.data(), "postmaster.pid")); err == nil {
		if err := s.run("pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "stop"); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
		}
	}
	os.RemoveAll(s.dir)
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// url is the connection string for one user.
func (s *server) url(user string) string {
	return fmt.Sprintf("postgres://%s@/scale?host=%s&port=%s", user, s.dir, port)
}

func (s *server) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.url("postgres"))
}

func (s *server) version(ctx context.Context) (version string, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SHOW server_version").Scan(&version)
	return version, err
}

// run runs one of PostgreSQL's programs. pg_ctl leaves the server running with
// the output that it was given: a pipe would never close.
func (s *server) run(program string, args ...string) error {
	out, err := os.CreateTemp(s.dir, "out")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w\n%s", program, err, said)
	}
	return nil
}

// credential is the identity of a system user.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

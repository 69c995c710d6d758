package bed

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// StartStandby makes a streaming standby of a running server, with its tables
// and roles, and starts it on a port of its own. It answers queries. It is
// stopped at the end of the test.
func (p *Postgres) StartStandby(t testing.TB) *Postgres {
	t.Helper()
	s := &Postgres{Dir: Dir(t), Port: FreePort(t), bin: p.bin, cred: p.cred}
	if s.cred != nil {
		if err := os.Chown(s.Dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-U", "postgres",
		"-D", s.data(), "-X", "stream", "-c", "fast", "--no-sync")
	s.configure(t, fmt.Sprintf("port=%d\nunix_socket_directories='%s'\nprimary_conninfo='host=127.0.0.1 port=%d user=postgres'\n"+
		"wal_retrieve_retry_interval='200ms'\n", s.Port, s.Dir, p.Port))
	if err := os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Delay has a standby apply what it is sent so much later.
func (p *Postgres) Delay(t testing.TB, by time.Duration) {
	t.Helper()
	p.configure(t, fmt.Sprintf("recovery_min_apply_delay='%dms'\n", by.Milliseconds()))
	p.run(t, "pg_ctl", "-D", p.data(), "reload")
}

// Promote makes a standby a server of its own, that can be written to.
func (p *Postgres) Promote(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "-D", p.data(), "-w", "promote")
}

// StopFast stops the server when its clients have been sent away and its
// standbys have all that there is.
func (p *Postgres) StopFast(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "-D", p.data(), "-m", "fast", "-w", "stop")
}

// CatchUp waits until a standby has all that its primary has now.
func (p *Postgres) CatchUp(t testing.TB, primary *Postgres) {
	t.Helper()
	position := primary.SQL(t, "postgres", "SELECT pg_current_wal_lsn()")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if p.SQL(t, "postgres", fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s'", position)) == "t" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the standby does not come as far as %s", position)
		}
	}
}

// Freeze stops all processes of the server where they are, as a machine that
// hangs does: its connections stay, new ones are taken by the kernel, and
// nobody answers. Thaw lets them go on; the end of the test does so too.
func (p *Postgres) Freeze(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { p.signal(t, syscall.SIGCONT) })
	p.signal(t, syscall.SIGSTOP)
	p.signal(t, syscall.SIGSTOP) // what was forked in the meantime
}

// Thaw ends Freeze.
func (p *Postgres) Thaw(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

// signal signals the server and its children. A server that is not there is
// none to signal.
func (p *Postgres) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("postmaster.pid begins with %q", first)
	}
	syscall.Kill(postmaster, sig)
	for _, child := range children(postmaster) {
		syscall.Kill(child, sig)
	}
}

// children are the processes whose parent a process is.
func children(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, _ := os.ReadFile(stat) // whose process has ended meanwhile is empty
		_, rest, found := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); found && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// configure adds lines to postgresql.conf. What is said last counts.
func (p *Postgres) configure(t testing.TB, lines string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(lines); err != nil {
		t.Fatal(err)
	}
}

// Shell is psql or sqlite3 with a session that stays open: a statement takes as
// long as the server takes for it, and no program has to start.
type Shell struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// Shell opens a session of the superuser.
func (p *Postgres) Shell(t testing.TB, database string) *Shell {
	t.Helper()
	return startShell(t, filepath.Join(p.bin, "psql"), "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port),
		"-U", "postgres", "-d", database)
}

// SQLiteShell opens a session with a file, which waits where another writes.
func SQLiteShell(t testing.TB, file string) *Shell {
	t.Helper()
	return startShell(t, Need(t, "sqlite3"), "-batch", "-cmd", ".timeout 5000", file)
}

func startShell(t testing.TB, program string, args ...string) *Shell {
	t.Helper()
	cmd := exec.Command(program, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	both, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
		both.Close()
	})
	return &Shell{in: in, out: bufio.NewReader(both)}
}

// Do runs statements, and returns what was printed when they are done, which is
// an error's text too. The error is that the session has ended.
func (s *Shell) Do(sql string) (string, error) {
	const done = "the-statements-are-done"
	if _, err := io.WriteString(s.in, sql+"\nSELECT '"+done+"';\n"); err != nil {
		return "", err
	}
	var printed strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return printed.String() + line, fmt.Errorf("the session has ended: %w", err)
		}
		if line == done+"\n" {
			return printed.String(), nil
		}
		printed.WriteString(line)
	}
}

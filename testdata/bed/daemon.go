package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Daemon is a sealmilter that runs as a process of its own.
type Daemon struct {
	Dir  string // its folder; the spool is Dir/spool
	args []string
	cmd  *exec.Cmd
	gone chan error // gets the end of the process
}

// program builds sealmilter once for all tests of a process.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bed-program")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sealmilter")
	out, err := exec.Command("go", "build", "-o", path, "sealmilter/cmd/sealmilter").CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return path, err
})

// RemoveProgram removes what Program has built. TestMain calls it in the end.
func RemoveProgram() {
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
}

// Program is the path of a sealmilter built from this tree.
func Program(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("building sealmilter: %v", err)
	}
	return path
}

// StartDaemon runs "sealmilter serve" with a configuration, of which "$DIR" is
// replaced by the daemon's folder, and waits until it listens. It is stopped
// at the end of the test, and its log is shown where the test failed.
func StartDaemon(t testing.TB, config string) *Daemon {
	t.Helper()
	d := &Daemon{Dir: Dir(t)}
	if err := os.Mkdir(filepath.Join(d.Dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.Dir, "sealmilter.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "$DIR", d.Dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.args = []string{"serve", "--config", file}
	t.Cleanup(func() {
		d.Stop(t)
		if t.Failed() {
			t.Logf("sealmilter:\n%s", d.Log())
		}
	})
	d.Start(t)
	return d
}

// Start starts a daemon again that was stopped or killed.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(d.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	before := len(d.Log())
	d.cmd = exec.Command(Program(t), d.args...)
	d.cmd.Stderr = log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.gone = make(chan error, 1)
	go func(cmd *exec.Cmd, gone chan error) { gone <- cmd.Wait() }(d.cmd, d.gone)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(d.Log()[before:], "listening"); {
		select {
		case err := <-d.gone:
			d.cmd = nil
			t.Fatalf("sealmilter did not start: %v\n%s", err, d.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("sealmilter does not listen:\n%s", d.Log())
		}
	}
}

// Stop ends the daemon with SIGTERM and waits for it. It must exit with 0.
// Stopping a stopped daemon does nothing.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.gone:
		if err != nil {
			t.Errorf("sealmilter ended with %v", err)
		}
	case <-time.After(90 * time.Second):
		d.cmd.Process.Kill()
		t.Errorf("sealmilter did not end at SIGTERM")
	}
	d.cmd = nil
}

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	d.cmd.Process.Kill()
	<-d.gone
	d.cmd = nil
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log is all that the daemon has logged.
func (d *Daemon) Log() string {
	log, _ := os.ReadFile(d.logFile())
	return string(log)
}

func (d *Daemon) logFile() string { return filepath.Join(d.Dir, "log") }

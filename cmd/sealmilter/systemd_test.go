package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// serviceManager is the other end of NOTIFY_SOCKET.
type serviceManager struct {
	address  string
	messages chan string
}

func newServiceManager(t *testing.T, address string) *serviceManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &serviceManager{address, make(chan string, 1000)}
	go func() {
		defer close(m.messages)
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			m.messages <- string(buffer[:n])
		}
	}()
	return m
}

// next is the next message, but for those of the watchdog.
func (m *serviceManager) next(t *testing.T) string {
	t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case message := <-m.messages:
			if message != "WATCHDOG=1" {
				return message
			}
		case <-timeout:
			t.Fatal("the service manager waits in vain")
		}
	}
}

// announces checks that the next message has the lines, and returns it.
func (m *serviceManager) announces(t *testing.T, lines ...string) string {
	t.Helper()
	message := m.next(t)
	for _, line := range lines {
		if !strings.Contains("\n"+message+"\n", "\n"+line) {
			t.Errorf("the service manager was told %q, want the line %q", message, line)
		}
	}
	return message
}

// served is a "sealmilter serve" as systemd would start it.
type served struct {
	*exec.Cmd
	store string
	log   *lockedBuffer
}

// lockedBuffer is what a process writes and a test reads.
type lockedBuffer struct {
	text chan bytes.Buffer
}

func newLockedBuffer() *lockedBuffer {
	b := &lockedBuffer{make(chan bytes.Buffer, 1)}
	b.text <- bytes.Buffer{}
	return b
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	text := <-b.text
	defer func() { b.text <- text }()
	return text.Write(p)
}

func (b *lockedBuffer) String() string {
	text := <-b.text
	defer func() { b.text <- text }()
	return text.String()
}

// program is this very program, which testscript has put into PATH.
func program(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("sealmilter")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// noRaceSleep: under -race every program would sleep for a second at its end.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

// serve prepares the program with a store and passed sockets. The shell in
// front of it knows the process id that LISTEN_PID must be.
func serve(t *testing.T, config string, sockets []*os.File, environment ...string) *served {
	t.Helper()
	dir := bed.Dir(t)
	s := &served{store: filepath.Join(dir, "keys.db"), log: newLockedBuffer()}
	migrate := exec.Command(program(t), "migrate", "--store", "sqlite:"+s.store)
	migrate.Env = append(os.Environ(), noRaceSleep)
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "$DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", program(t), "serve", "--config", file, "--store", "sqlite:"+s.store)
	s.Env = append(append(os.Environ(), noRaceSleep), environment...)
	s.Stderr = s.log
	s.ExtraFiles = sockets
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sealmilter:\n%s", s.log)
		}
	})
	return s
}

func (s *served) start(t *testing.T) {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill() })
}

// stop ends the program with SIGTERM; it must exit with 0.
func (s *served) stop(t *testing.T) {
	t.Helper()
	s.Process.Signal(syscall.SIGTERM)
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// fails runs the program, which must exit with a code and say something.
func (s *served) fails(t *testing.T, code int, text string) {
	t.Helper()
	s.start(t)
	s.Wait()
	if got := s.ProcessState.ExitCode(); got != code || !strings.Contains(s.log.String(), text) {
		t.Errorf("exit code %d, want %d and %q:\n%s", got, code, text, s.log)
	}
}

// TestNotify follows a service from its start to its end, over a socket with a
// path and over an abstract one.
func TestNotify(t *testing.T) {
	for _, address := range []string{filepath.Join(bed.Dir(t), "notify"), fmt.Sprintf("@sealmilter-test-%d", os.Getpid())} {
		t.Run(address[:1], func(t *testing.T) {
			systemd := newServiceManager(t, address)
			s := serve(t, "milter.listen = \"unix:$DIR/sock\"\nmilter.shutdown_timeout = \"7s\"\n", nil, "NOTIFY_SOCKET="+address)
			s.start(t)
			sock := filepath.Join(filepath.Dir(s.store), "sock")
			systemd.announces(t, "READY=1\n", "STATUS=serving on "+sock+"\n")
			s.Process.Signal(syscall.SIGHUP)
			systemd.announces(t, "RELOADING=1\n", "MONOTONIC_USEC=")
			systemd.announces(t, "READY=1\n", "STATUS=serving on "+sock+"\n")
			os.WriteFile(filepath.Join(filepath.Dir(s.store), "c.toml"), []byte("x = 1\n"), 0o600)
			s.Process.Signal(syscall.SIGHUP)
			systemd.announces(t, "RELOADING=1\n")
			systemd.announces(t, "READY=1\n", "STATUS=serving on "+sock+"; the new configuration is not used: ")
			s.Process.Signal(syscall.SIGTERM)
			systemd.announces(t, "STOPPING=1\n", "EXTEND_TIMEOUT_USEC=12000000\n")
			if err := s.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Nothing of the conversation reaches a child of ours.
func TestNotifyEnvironment(t *testing.T) {
	variables := map[string]string{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": fmt.Sprint(os.Getpid()),
		"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}
	for name, value := range variables {
		t.Setenv(name, value)
	}
	m := newManager()
	if m.socket != "@x" || m.watchdog != 2*time.Second {
		t.Errorf("%+v", m)
	}
	if passed, err := takePassedSockets(); len(passed) > 0 || err != nil {
		t.Errorf("sockets for another process: %v, error %v", passed, err)
	}
	for name := range variables {
		if value, there := os.LookupEnv(name); there {
			t.Errorf("%s is %q still", name, value)
		}
	}
	for _, wrong := range []map[string]string{
		{"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1"},
		{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
		{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "-1"},
		{"WATCHDOG_USEC": "1"},
	} {
		for name, value := range wrong {
			t.Setenv(name, value)
		}
		if m := newManager(); m.watchdog != 0 {
			t.Errorf("%v: a watchdog of %v", wrong, m.watchdog)
		}
	}
}

// TestWatchdogOfProgram: the pings come at half of the time, and leave no
// trace in the log.
func TestWatchdogOfProgram(t *testing.T) {
	systemd := newServiceManager(t, filepath.Join(bed.Dir(t), "notify"))
	s := serve(t, "milter.listen = [\"unix:$DIR/sock\", \"inet:0.0.0.0:0\"]\nlog.level = \"debug\"\n", nil, "NOTIFY_SOCKET="+systemd.address, "WATCHDOG_USEC=400000")
	s.start(t)
	systemd.announces(t, "READY=1")
	for last := time.Now(); len(systemd.messages) < 5; time.Sleep(10 * time.Millisecond) {
		if time.Since(last) > 10*time.Second {
			t.Fatalf("%d pings in 10 s", len(systemd.messages))
		}
	}
	// One that stands still sends none.
	s.Process.Signal(syscall.SIGSTOP)
	time.Sleep(50 * time.Millisecond)
	for len(systemd.messages) > 0 {
		<-systemd.messages
	}
	time.Sleep(600 * time.Millisecond)
	if n := len(systemd.messages); n > 0 {
		t.Errorf("%d pings of a stopped process", n)
	}
	s.Process.Signal(syscall.SIGCONT)
	s.stop(t)
	if log := s.log.String(); strings.Contains(log, "connection broken") || strings.Contains(log, "negotiation") {
		t.Errorf("the log has traces of the watchdog:\n%s", log)
	}
}

// What the watchdog takes for life, and what not.
func TestWatchdogLook(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	var open atomic.Int64
	w := watchdog{manager: &manager{}, listeners: []listener{{Listener: dead}}, open: &open, most: 10, mute: map[string]bool{}}
	if err := w.look(50 * time.Millisecond); err == nil {
		t.Error("an address that does not answer is taken for alive")
	}
	open.Store(10)
	if err := w.look(50 * time.Millisecond); err != nil {
		t.Errorf("an address with all connections taken: %v", err)
	}
	open.Store(9)
	if err := w.look(50 * time.Millisecond); err == nil {
		t.Error("one place is free and the address does not answer")
	}
}

// Package bed starts the real servers that the tests meet: PostgreSQL,
// Postfix and others, each in a folder of its own, on loopback and on a free
// port, stopped by its own process id. What a machine lacks skips the test
// that needs it; with REQUIRE_SERVERS=1 it fails the test instead.
package bed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Need returns the path of a program, looked up in PATH and then in dirs
// (glob patterns, the last match wins). A program that is not there skips the
// test, or fails it where REQUIRE_SERVERS is set.
func Need(t testing.TB, program string, dirs ...string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, program))
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	Skip(t, program+" is not installed")
	return ""
}

// NeedRoot skips a test that cannot run without root, or fails it where
// REQUIRE_SERVERS is set.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		Skip(t, "this needs root")
	}
}

// Skip skips the test for want of something that the machine lacks, or fails
// it where REQUIRE_SERVERS is set.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_SERVERS") == "1" {
		t.Fatalf("REQUIRE_SERVERS=1: %s", why)
	}
	t.Skip(why)
}

// FreePort returns a TCP port on which nothing listens at 127.0.0.1, and which
// is the test's until its end, although servers that it starts open it later
// and perhaps more than once. It is below those that the system gives to
// connections and to listeners that ask for any, and no other test gets it, in
// whatever process: a name among the abstract unix sockets stands for it, which
// goes with the process at the latest.
func FreePort(t testing.TB) int {
	t.Helper()
	first, past := firstPort, ephemeralPort(t)
	at := rand.IntN(past - first)
	for range past - first {
		port := first + at
		at = (at + 1) % (past - first)
		claim, err := net.Listen("unix", claimName(port))
		if err != nil {
			continue // another test's
		}
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			ln.Close()
			t.Cleanup(func() { claim.Close() })
			return port
		}
		claim.Close()
	}
	t.Fatalf("no port between %d and %d is free", first, past)
	return 0
}

func claimName(port int) string { return fmt.Sprintf("@sealmilter-test-port-%d", port) }

// firstPort is above the ports that services are commonly given.
const firstPort = 12000

// ephemeralPort is the first of the ports that the system gives out by itself.
func ephemeralPort(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscan(string(text), &port); err != nil || port <= firstPort {
		return 65536 // those are all that there are
	}
	return port
}

// Dir makes a folder below /tmp that other users may enter, as the servers
// that drop to their own user must, and removes it at the end of the test. Its
// path is short enough for a unix socket in it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

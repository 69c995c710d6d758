// Package bed starts the real servers that the tests meet: PostgreSQL,
// Postfix and others, each in a folder of its own, on loopback and on a free
// port, stopped by its own process id. What a machine lacks skips the test
// that needs it; with REQUIRE_SERVERS=1 it fails the test instead.
package bed

import (
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

// FreePort returns a TCP port that nothing listened on at 127.0.0.1 a moment
// ago.
func FreePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
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

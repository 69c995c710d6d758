package bed

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RSS is the resident memory of a process now, in bytes, and PeakRSS the most
// that it ever was.
func RSS(t testing.TB, pid int) int64     { t.Helper(); return memory(t, pid, "VmRSS") }
func PeakRSS(t testing.TB, pid int) int64 { t.Helper(); return memory(t, pid, "VmHWM") }

// ResetPeakRSS makes PeakRSS count from now on.
func ResetPeakRSS(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(proc(pid, "clear_refs"), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// CPU is the processor time that a process has used, in user mode and in the
// kernel, in steps of 10 ms.
func CPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The program's name is in parentheses and may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, proc(5)
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// ListDescriptors are the files and sockets that a process has open, as /proc
// names them, such as "/path", "socket:[4711]" or "/path (deleted)".
func ListDescriptors(t testing.TB, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(proc(pid, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		// One that is closed meanwhile is none: reading our own list opens one.
		if target, err := os.Readlink(proc(pid, "fd", e.Name())); err == nil {
			open = append(open, target)
		}
	}
	return open
}

// memory reads one line of /proc/PID/status, such as "VmRSS:   1234 kB".
func memory(t testing.TB, pid int, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(proc(pid, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		value, found := strings.CutPrefix(line, name+":")
		if !found {
			continue
		}
		var kB int64
		if _, err := fmt.Sscanf(value, "%d kB", &kB); err != nil {
			t.Fatalf("%s of process %d: %q", name, pid, line)
		}
		return kB << 10
	}
	t.Fatalf("process %d has no %s", pid, name)
	return 0
}

func proc(pid int, name ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, name...)...)
}

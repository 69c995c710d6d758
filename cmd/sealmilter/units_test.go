package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

const units = "../../contrib/systemd"

// mostExposure is what systemd-analyze may find open, in tenths of its scale
// of ten.
const mostExposure = "14"

// TestUnits: systemd takes the unit files, and finds the daemon confined.
func TestUnits(t *testing.T) {
	analyze := bed.Need(t, "systemd-analyze")
	dir := bed.Dir(t)
	names := []string{"sealmilter.service", "sealmilter.socket", "sealmilter-notify.service", "sealmilter-notify.timer"}
	var files []string
	for _, name := range names {
		files = append(files, filepath.Join(dir, name))
		// The program is looked for, and need not be installed here.
		text := strings.ReplaceAll(read(t, filepath.Join(units, name)), "/usr/local/sbin/sealmilter", program(t))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	service := filepath.Join(dir, "sealmilter.service")
	for _, args := range [][]string{
		append([]string{"verify", "--man=no"}, files...),
		{"security", "--offline=true", "--no-pager", "--threshold=" + mostExposure, service},
	} {
		out, err := exec.Command(analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The user's file is one that systemd-sysusers understands.
func TestSysusers(t *testing.T) {
	sysusers := bed.Need(t, "systemd-sysusers")
	file, err := filepath.Abs(filepath.Join(units, "sealmilter.sysusers"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sysusers, "--root="+bed.Dir(t), "--dry-run", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Creating user 'sealmilter'") {
		t.Errorf("%v: %s", err, out)
	}
}

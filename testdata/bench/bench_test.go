package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
	"sealmilter/testdata/report"
)

func TestMain(m *testing.M) {
	code := m.Run()
	bed.RemoveProgram()
	os.Exit(code)
}

// TestQuick runs the whole program, with the real peers, on small sizes. What
// it measures so says nothing; that it measures everything is what counts.
func TestQuick(t *testing.T) {
	for _, peer := range []string{"gpg", "rnp", "sqop", "openssl"} {
		bed.Need(t, peer)
	}
	dir := t.TempDir()
	program, numbers := filepath.Join(dir, "bench"), filepath.Join(dir, "bench.json")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	table, err := exec.Command(program, "--quick", "--program", bed.Program(t), "--json", numbers).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, table)
	}
	text, err := os.ReadFile(numbers)
	if err != nil {
		t.Fatal(err)
	}
	var lines []struct {
		report.Line
		Ratio float64
	}
	if err := json.Unmarshal(text, &lines); err != nil {
		t.Fatal(err)
	}
	// The bar of issue 6, each pair once.
	bars := map[string]float64{
		"OpenPGP AES-256 armored, whole process, ":                      1.6, // of one of the three
		"OpenPGP AES-256 armored, in process, AES-CTR+SHA-1+base64":     0.55,
		"S/MIME AES-256-CBC base64, whole process, openssl cms -stream": 1.5,
		"S/MIME AES-256-CBC base64, in process, AES-CBC+base64":         0.85,
		"4 KiB OpenPGP, key parsed, Curve25519, two X25519":             1.5,
		"4 KiB OpenPGP, key parsed, RSA-2048, one public operation":     2.5,
		"4 KiB S/MIME, key parsed, RSA-2048, one public operation":      2.5,
		"heap beyond the spool, OpenPGP":                                4 << 20,
		"heap beyond the spool, S/MIME AES-256-CBC":                     4 << 20,
		"heap beyond the spool, OpenPGP SEIPDv2 AES-256-GCM":            4 << 20,
		"heap beyond the spool, OpenPGP SEIPDv2 AES-256-OCB":            4 << 20,
	}
	for _, l := range lines {
		if !strings.Contains(string(table), l.What) {
			t.Errorf("%q is not in the table", l.What)
		}
		ours := !strings.HasPrefix(l.What, "limit: ")
		both := ours && l.Kind != report.Heap
		switch {
		case l.Absent != "":
			t.Errorf("%s: %s", l.What, l.Absent)
		case ours && l.Ours <= 0, !(ours && !both) && l.Theirs <= 0, both && l.Ratio <= 0, l.Size <= 0:
			t.Errorf("%s has numbers that are none: %+v", l.What, l)
		}
		if l.Bar == 0 {
			continue
		}
		what := l.What
		if l.Best {
			what = what[:strings.LastIndex(what, " ")+1]
		}
		if bars[what] != l.Bar {
			t.Errorf("%s has the bar %v, not %v", l.What, l.Bar, bars[what])
		}
		delete(bars, what)
	}
	for what := range bars {
		t.Errorf("%q is not held to its bar", what)
	}
	for _, peer := range []string{"gpg", "rnp", "sqop"} {
		if n := strings.Count(string(table), ", whole process, "+peer); n != 3 {
			t.Errorf("%s is measured at %d sizes", peer, n)
		}
	}
	rows := strings.Split(strings.TrimSpace(string(table)), "\n")
	if last := rows[len(rows)-1]; !strings.HasSuffix(last, " of 11 ratios are at their bar or better") {
		t.Errorf("the last line is %q", last)
	}
	t.Logf("\n%s", table)
}

// TestProgramIsMissing: a program that is not there is no line of the table.
func TestProgramIsMissing(t *testing.T) {
	if _, err := newBench(settings{program: filepath.Join(t.TempDir(), "gone"), rounds: 1, scale: 1}); err == nil {
		t.Error("a bench without a program was made")
	}
}

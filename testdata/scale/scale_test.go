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

// TestQuick runs the whole program with few accounts. What it measures so says
// little; that it measures everything is what counts.
func TestQuick(t *testing.T) {
	bed.Need(t, "initdb", "/usr/lib/postgresql/*/bin")
	bed.Need(t, "pgbench", "/usr/lib/postgresql/*/bin")
	dir := t.TempDir()
	program, numbers := filepath.Join(dir, "scale"), filepath.Join(dir, "scale.json")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	table, err := exec.Command(program, "--quick", "--json", numbers).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, table)
	}
	text, err := os.ReadFile(numbers)
	if err != nil {
		t.Fatal(err)
	}
	var lines []report.Line
	if err := json.Unmarshal(text, &lines); err != nil {
		t.Fatal(err)
	}
	// The lines that must be there, and the bars of issue 7 and those beside them.
	bars := map[string]float64{
		"import: keys by COPY, accounts made by the trigger":   0,
		"import: accounts by COPY, then their keys":            0,
		"import: aliases by COPY":                              0,
		"size of the database":                                 0,
		"size of the database, an account":                     0,
		"plans of lookups that read by indexes alone":          1,
		"pgx: prepared point select, p50":                      0,
		"pgx: prepared point select, p99":                      0,
		"query of one recipient, all its names, unparsed, p50": 0,
		"query of one recipient, all its names, unparsed, p99": 2,
		"lookup without cache, parsed, p50":                    0,
		"lookup without cache, parsed, p99":                    2,
		"lookup without cache, an alias, p50":                  0,
		"lookup without cache, an alias, p99":                  0,
		"lookup without cache, nobody, p50":                    0,
		"lookup without cache, nobody, p99":                    0,
		"parsing alone, p50":                                   0,
		"parsing alone, p99":                                   0,
		"lookup cached, p50":                                   0.05,
		"lookup cached, p99":                                   0,
		"lookups of 8 clients, cached":                         0,
		"heap of a full cache, ":                               1.1, // and how many keys those were
		"heap of a cache of 2 MiB, 5,000 random lookups":       1.1,
		"names found in that cache, Zipf 1.1":                  0,
		"names held in that cache":                             0,
		"heap of a cache of 2 MiB, full of nobody":             1.1,
		"names held in that cache, of nobody":                  0,
		"INSERT until a cached lookup has it, p50 of 20":       0,
		"INSERT until a cached lookup has it, p99 of 20":       1,
		"INSERT until a cached lookup has it, max of 20":       0,
	}
	for _, l := range lines {
		if !strings.Contains(string(table), l.What) {
			t.Errorf("%q is not in the table", l.What)
		}
		what := l.What
		if full, is := strings.CutSuffix(what, " parsed keys"); is {
			what = full[:strings.LastIndex(full, " ")+1]
		}
		bar, expected := bars[what]
		switch {
		case !expected:
			t.Errorf("%q was not expected, or is there twice", what)
		case l.Bar != bar:
			t.Errorf("%s has the bar %v, not %v", what, l.Bar, bar)
		case l.Ours <= 0, l.Beside != "" && l.Theirs <= 0:
			t.Errorf("%s has numbers that are none: %+v", what, l)
		}
		delete(bars, what)
	}
	for what := range bars {
		t.Errorf("%q is missing", what)
	}
	rows := strings.Split(strings.TrimSpace(string(table)), "\n")
	if !strings.Contains(string(table), " of 8 ratios are at their bar or better\n") {
		t.Errorf("the last lines are %q", rows[max(0, len(rows)-3):])
	}
	// Whatever the machine does, lookups read by indexes alone.
	if strings.Contains(string(table), "a plan that does not use the indexes") {
		t.Error("a lookup reads a whole table")
	}
	t.Logf("\n%s", table)
}

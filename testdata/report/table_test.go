package report

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestTableOfSizes: the table of testdata/bench.
func TestTableOfSizes(t *testing.T) {
	lines := []Line{
		{What: "large, one", Kind: Speed, Size: 50 << 20, Ours: 0.25, Theirs: 0.5, Bar: 1.6, Best: true},
		{What: "large, two", Kind: Speed, Size: 50 << 20, Ours: 0.25, Theirs: 1},
		{What: "large, three", Kind: Speed, Size: 50 << 20, Absent: "not installed"},
		{What: "small", Kind: Cost, Size: 4 << 10, Ours: 0.0003, Theirs: 0.0001, Bar: 1.5},
		{What: "heap", Kind: Heap, Size: 100 << 20, Ours: 300 << 10, Bar: 4 << 20},
		{What: "limit", Kind: Speed, Size: 10 << 20, Theirs: 0.0015},
	}
	var text strings.Builder
	if err := WriteTable(&text, lines); err != nil {
		t.Fatal(err)
	}
	const want = `WHAT                   SIZE     OURS      THEIRS      RATIO          BAR
large, one (the best)  50 MiB   210 MB/s  105 MB/s    2.00x          at least 1.60x  ok
large, two             50 MiB   210 MB/s  52.4 MB/s   4.00x          -
large, three           50 MiB   -         -           not installed  -
small                  4 KiB    300µs     100µs       3.00x          at most 1.50x   below
heap                   100 MiB  300 KiB   -           -              at most 4 MiB   ok
limit                  10 MiB   -         6,991 MB/s  -              -
2 of 3 ratios are at their bar or better
`
	if text.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", text.String(), want)
	}
	if AllAtBar(lines) || !AllAtBar(lines[:2]) || AllAtBar(lines[2:3]) || !AllAtBar(lines[4:]) {
		t.Error("--strict looks at the wrong lines")
	}
	encoded, err := json.Marshal(lines[0])
	if want := `{"what":"large, one","kind":"speed","size":52428800,"ours":0.25,"theirs":0.5,"bar":1.6,"best":true,"ratio":2,"at_bar":true}`; err != nil || string(encoded) != want {
		t.Errorf("as JSON a line is %s, error %v", encoded, err)
	}
}

// TestTableOfOthers: the table of testdata/scale, which says what theirs is.
func TestTableOfOthers(t *testing.T) {
	lines := []Line{
		{What: "import", Kind: Rate, Ours: 12345, Beside: "one by one", Theirs: 1000},
		{What: "size", Kind: Bytes, Ours: 3 << 30},
		{What: "lookup, p99", Kind: Time, Ours: 0.0003, Beside: "pgbench p99", Theirs: 0.0001, Bar: 2},
		{What: "cached", Kind: Time, Ours: 0.000004, Beside: "uncached", Theirs: 0.000512, Bar: 0.05},
		{What: "cache", Kind: Bytes, Ours: 70 << 20, Beside: "its setting", Theirs: 64 << 20, Bar: 1.1},
		{What: "plans", Kind: Count, Ours: 99, Beside: "plans seen", Theirs: 100, Bar: 1},
		{What: "found", Kind: Share, Ours: 0.875},
		{What: "nothing", Kind: Time, Beside: "uncached", Theirs: 0.0004, Bar: 0.05},
	}
	var text strings.Builder
	if err := WriteTable(&text, lines); err != nil {
		t.Fatal(err)
	}
	const want = `WHAT         OURS      BESIDE       THEIRS   RATIO    BAR
import       12,345/s  one by one   1,000/s  12.35x   -
size         3.00 GiB  -            -        -        -
lookup, p99  300µs     pgbench p99  100µs    3.00x    at most 2.00x    below
cached       4µs       uncached     512µs    0.0078x  at most 0.0500x  ok
cache        70 MiB    its setting  64 MiB   1.09x    at most 1.10x    ok
plans        99        plans seen   100      0.99x    at least 1.00x   below
found        87.5 %    -            -        -        -
nothing      0s        uncached     400µs    -        at most 0.0500x  below
2 of 5 ratios are at their bar or better
`
	if text.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", text.String(), want)
	}
	if AllAtBar(lines) || !AllAtBar(lines[:2]) || !AllAtBar(lines[3:5]) || AllAtBar(lines[5:]) {
		t.Error("--strict looks at the wrong lines")
	}
	encoded, err := json.Marshal(lines[3])
	if want := `{"what":"cached","kind":"time","ours":0.000004,"beside":"uncached","theirs":0.000512,"bar":0.05,"ratio":0.0078125,"at_bar":true}`; err != nil || string(encoded) != want {
		t.Errorf("as JSON a line is %s, error %v", encoded, err)
	}
}

func TestTimeText(t *testing.T) {
	for seconds, want := range map[float64]string{0.0000012346: "1.23µs", 0.00034567: "345.7µs", 0.0123456: "12.35ms", 1.23456789: "1.235s"} {
		if got := (Line{Kind: Time}).number(seconds); got != want {
			t.Errorf("%v seconds are written %s, not %s", seconds, got, want)
		}
	}
}

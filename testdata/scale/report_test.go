package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTimes(t *testing.T) {
	for _, test := range []struct {
		values     times
		half, most float64
	}{
		{nil, 0, 0},
		{times{7}, 7, 7},
		{times{9, 1}, 9, 9},
		{times{100, 2, 3}, 3, 100},
	} {
		if half, most := test.values.at(0.5), test.values.at(1); half != test.half || most != test.most {
			t.Errorf("of %v the middle is said to be %v and the largest %v", test.values, half, most)
		}
	}
	hundred := make(times, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	if got := hundred.at(p99); got != 100 {
		t.Errorf("p99 of 1 to 100 is said to be %v", got)
	}
	rounds := []times{{1, 2, 8}, {10, 20, 30}, {4, 5, 6}}
	if middle, quiet := across(rounds, 0.5), across(rounds, p99); middle != 5 || quiet != 6 {
		t.Errorf("the median of the rounds' medians is said to be %v, the quietest p99 %v", middle, quiet)
	}
}

// TestContest: all take their turns.
func TestContest(t *testing.T) {
	var order strings.Builder
	note := func(who string) func() (times, error) {
		return func() (times, error) { order.WriteString(who); return times{1}, nil }
	}
	taken, err := contest(3, contestant{"a", note("a")}, contestant{"b", note("b")})
	if err != nil || order.String() != "ababab" || len(taken) != 2 || len(taken[0]) != 3 {
		t.Errorf("the order was %q, the times %v, error %v", order.String(), taken, err)
	}
}

func TestTable(t *testing.T) {
	lines := []line{
		{What: "import", Kind: rate, Ours: 12345, Beside: "one by one", Theirs: 1000},
		{What: "size", Kind: bytes, Ours: 3 << 30},
		{What: "lookup, p99", Kind: took, Ours: 0.0003, Beside: "pgbench p99", Theirs: 0.0001, Bar: 2},
		{What: "cached", Kind: took, Ours: 0.000004, Beside: "uncached", Theirs: 0.000512, Bar: 0.05},
		{What: "cache", Kind: bytes, Ours: 70 << 20, Beside: "its setting", Theirs: 64 << 20, Bar: 1.1},
		{What: "plans", Kind: count, Ours: 99, Beside: "plans seen", Theirs: 100, Bar: 1},
		{What: "found", Kind: share, Ours: 0.875},
		{What: "nothing", Kind: took, Beside: "uncached", Theirs: 0.0004, Bar: 0.05},
	}
	var text strings.Builder
	if err := writeTable(&text, lines); err != nil {
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
	if allAtBar(lines) || !allAtBar(lines[:2]) || !allAtBar(lines[3:5]) || allAtBar(lines[5:]) {
		t.Error("--strict looks at the wrong lines")
	}
	encoded, err := json.Marshal(lines[3])
	if want := `{"what":"cached","kind":"time","ours":0.000004,"beside":"uncached","theirs":0.000512,"bar":0.05,"ratio":0.0078125,"at_bar":true}`; err != nil || string(encoded) != want {
		t.Errorf("as JSON a line is %s, error %v", encoded, err)
	}
}

func TestTimeText(t *testing.T) {
	for seconds, want := range map[float64]string{0.0000012346: "1.23µs", 0.00034567: "345.7µs", 0.0123456: "12.35ms", 1.23456789: "1.235s"} {
		if got := (line{Kind: took}).number(seconds); got != want {
			t.Errorf("%v seconds are written %s, not %s", seconds, got, want)
		}
	}
}

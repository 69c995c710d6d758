package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{100, 2, 3}, 3},
		{[]float64{5, 1, 100, 4, 3}, 4},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := len(test.values)
		if got := median(test.values); got != test.want || len(test.values) != before {
			t.Errorf("the median of %v is said to be %v, not %v", test.values, got, test.want)
		}
	}
}

// TestContest: all take their turns, and the first round is not counted.
func TestContest(t *testing.T) {
	var order strings.Builder
	note := func(who string) func() error {
		return func() error { order.WriteString(who); return nil }
	}
	medians, err := settings{rounds: 2, wall: true}.contest(ownTime, contestant{name: "a", do: note("a")}, contestant{name: "b", do: note("b"), times: 2})
	if err != nil || order.String() != "abbabbabb" {
		t.Errorf("the order was %q, error %v", order.String(), err)
	}
	if len(medians) != 2 || medians[0] <= 0 || medians[1] <= 0 {
		t.Errorf("the medians are %v", medians)
	}
}

func TestBars(t *testing.T) {
	for _, test := range []struct {
		line  line
		ratio float64
		good  bool
	}{
		{line{Kind: speed, Ours: 1, Theirs: 2, Bar: 1.6}, 2, true},
		{line{Kind: speed, Ours: 1, Theirs: 1.5, Bar: 1.6}, 1.5, false},
		{line{Kind: speed, Ours: 2, Theirs: 1, Bar: 0.5}, 0.5, true},
		{line{Kind: speed, Theirs: 1, Bar: 0.5}, 0, false},
		{line{Kind: cost, Ours: 3, Theirs: 2, Bar: 1.5}, 1.5, true},
		{line{Kind: cost, Ours: 4, Theirs: 2, Bar: 1.5}, 2, false},
		{line{Kind: cost, Ours: 0, Theirs: 2, Bar: 1.5}, 0, false},
		{line{Kind: heap, Ours: 1 << 20, Bar: 4 << 20}, 1 << 20, true},
		{line{Kind: heap, Ours: 5 << 20, Bar: 4 << 20}, 5 << 20, false},
		{line{Kind: speed, Ours: 1, Theirs: 2, Bar: 1.6, Absent: "not installed"}, 2, false},
	} {
		if test.line.ratio() != test.ratio || test.line.atBar() != test.good {
			t.Errorf("%+v: the ratio is %v, at its bar: %v", test.line, test.line.ratio(), test.line.atBar())
		}
	}
}

func TestTable(t *testing.T) {
	lines := []line{
		{What: "large, one", Kind: speed, Size: 50 << 20, Ours: 0.25, Theirs: 0.5, Bar: 1.6, Best: true},
		{What: "large, two", Kind: speed, Size: 50 << 20, Ours: 0.25, Theirs: 1},
		{What: "large, three", Kind: speed, Size: 50 << 20, Absent: "not installed"},
		{What: "small", Kind: cost, Size: 4 << 10, Ours: 0.0003, Theirs: 0.0001, Bar: 1.5},
		{What: "heap", Kind: heap, Size: 100 << 20, Ours: 300 << 10, Bar: 4 << 20},
		{What: "limit", Kind: speed, Size: 10 << 20, Theirs: 0.0015},
	}
	var text strings.Builder
	if err := writeTable(&text, lines); err != nil {
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
	if allAtBar(lines) || !allAtBar(lines[:2]) || allAtBar(lines[2:3]) || !allAtBar(lines[4:]) {
		t.Error("--strict looks at the wrong lines")
	}
	encoded, err := json.Marshal(lines[0])
	if want := `{"what":"large, one","kind":"speed","size":52428800,"ours":0.25,"theirs":0.5,"bar":1.6,"best":true,"ratio":2,"at_bar":true}`; err != nil || string(encoded) != want {
		t.Errorf("as JSON a line is %s, error %v", encoded, err)
	}
}

package main

import (
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

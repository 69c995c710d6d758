package main

import (
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

package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sealmilter/testdata/report"
)

// clock is what a contest reads before and after.
type clock func() time.Duration

// The clocks. What is measured never waits, so that on a core of its own the
// processor's time is the time that passes; and on one that others use too, it
// is the part of it that is not theirs.
func wall() time.Duration { return time.Since(started) }

func ownTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		panic("internal error: " + err.Error())
	}
	return time.Duration(now.Nano())
}

// childrenTime is that of all children that have ended.
func childrenTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &used); err != nil {
		panic("internal error: " + err.Error())
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

var started = time.Now()

// contestant is something that takes time.
type contestant struct {
	name string
	do   func() error
	// times is how often it is done for one reading of the clock, where it
	// takes less than the clock and the scheduler can tell apart. 0 is once.
	times int
}

// contest lets all take their turns, round after round, and returns the median
// of each in seconds. The first round warms up and is not counted.
func (s settings) contest(read clock, all ...contestant) ([]float64, error) {
	if s.wall {
		read = wall
	}
	taken := make([][]float64, len(all))
	for round := range s.rounds + 1 {
		for i, c := range all {
			times := max(c.times, 1)
			begin := read()
			for range times {
				if err := c.do(); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
			if each := (read() - begin).Seconds() / float64(times); round > 0 {
				taken[i] = append(taken[i], each)
			}
		}
	}
	medians := make([]float64, len(all))
	for i := range all {
		medians[i] = median(taken[i])
	}
	return medians, nil
}

// duel is a contest of two in this process, as a line.
func (s settings) duel(l report.Line, ours, theirs contestant) (report.Line, error) {
	medians, err := s.contest(ownTime, ours, theirs)
	if err == nil {
		l.Ours, l.Theirs = medians[0], medians[1]
	}
	return l, err
}

// median is the middle of the values; of an even number the mean of the two
// in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

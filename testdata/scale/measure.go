package main

import (
	"runtime"
	"slices"
	"time"
)

// times are how long each of many things took, in seconds.
type times []float64

// timed does something so often and notes how long it took each time.
func timed(often int, do func() error) (times, error) {
	taken := make(times, 0, often)
	for range often {
		began := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		taken = append(taken, time.Since(began).Seconds())
	}
	return taken, nil
}

// at is the value that so large a part of all is not above.
func (t times) at(part float64) float64 {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

// contestant is something that takes time, over and over.
type contestant struct {
	name string
	turn func() (times, error)
}

// contest lets all take their turns, round after round.
func contest(rounds int, all ...contestant) ([][]times, error) {
	taken := make([][]times, len(all))
	for range rounds {
		for i, c := range all {
			turn, err := c.turn()
			if err != nil {
				return nil, err
			}
			taken[i] = append(taken[i], turn)
		}
	}
	return taken, nil
}

// across is the median of the rounds' medians; and of what is farther out that
// of the quietest round, since in the others it is other programs that make
// some wait.
func across(rounds []times, part float64) float64 {
	var values times
	for _, round := range rounds {
		values = append(values, round.at(part))
	}
	if part == 0.5 {
		return values.at(0.5)
	}
	return slices.Min(values)
}

// liveHeap is what the heap holds without its garbage.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

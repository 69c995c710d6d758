// Package report is how the programs that measure say what they found: testdata/bench
// how fast mail is sealed, testdata/scale how very many keys are kept.
//
// A line is one pair: what was measured, ours, theirs beside it, the ratio, and
// the bar that the ratio is held to. Numbers alone say more about the machine
// than about the program, and the machine is another one tomorrow; what was
// measured on it in the same run, in turns, is what they can be held against. A
// line without a bar is there to be compared with.
//
// The same lines are a table for people and JSON for programs. The JSON has all
// digits, in seconds, bytes and pieces, and what follows from them: the ratio,
// and whether it is at its bar.
package report

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Kind says what the numbers of a line are, how its ratio is made and which way
// its bar stands.
type Kind string

// The kinds. The ratio is ours/theirs, and at most the bar, where nothing else
// is said.
const (
	Speed Kind = "speed" // seconds for a message; theirs/ours, and at least the bar
	Cost  Kind = "cost"  // seconds for a message
	Heap  Kind = "heap"  // bytes, without another side: the bar is an amount itself
	Time  Kind = "time"  // seconds
	Bytes Kind = "bytes"
	Rate  Kind = "rate"  // in a second
	Share Kind = "share" // of 1
	Count Kind = "count" // at least the bar
)

// Line is one line of the table. A number of 0 is none.
type Line struct {
	What   string  `json:"what"`
	Kind   Kind    `json:"kind"`
	Size   int64   `json:"size,omitempty"` // of the message, in bytes
	Ours   float64 `json:"ours,omitempty"`
	Beside string  `json:"beside,omitempty"` // what theirs is, where What does not say it
	Theirs float64 `json:"theirs,omitempty"`
	Bar    float64 `json:"bar,omitempty"`
	Best   bool    `json:"best,omitempty"`    // theirs is the best of several
	Absent string  `json:"missing,omitempty"` // why there are no numbers
}

// Ratio is what the bar is held against. 0 is none.
func (l Line) Ratio() float64 {
	switch {
	case l.Kind == Heap:
		return l.Ours
	case l.Ours == 0 || l.Theirs == 0:
		return 0
	case l.Kind == Speed:
		return l.Theirs / l.Ours
	}
	return l.Ours / l.Theirs
}

// AtBar says whether a line that has a bar is as good as that. What could not
// be measured is not.
func (l Line) AtBar() bool {
	switch {
	case l.Absent != "" || l.Ratio() == 0:
		return false
	case l.atLeast():
		return l.Ratio() >= l.Bar
	}
	return l.Ratio() <= l.Bar
}

// atLeast says whether more is better.
func (l Line) atLeast() bool { return l.Kind == Speed || l.Kind == Count }

// AllAtBar says whether all lines that have a bar are as good as that, and no
// line is without its numbers.
func AllAtBar(lines []Line) bool {
	for _, l := range lines {
		if l.Absent != "" || l.Bar > 0 && !l.AtBar() {
			return false
		}
	}
	return true
}

// MarshalJSON adds to the numbers what follows from them.
func (l Line) MarshalJSON() ([]byte, error) {
	type plain Line
	return json.Marshal(struct {
		plain
		Ratio float64 `json:"ratio,omitempty"`
		AtBar bool    `json:"at_bar,omitempty"`
	}{plain(l), l.Ratio(), l.Bar > 0 && l.AtBar()})
}

// WriteJSON writes the lines to a file, whose folder it makes. Without a name
// there is nothing to do: nobody has asked for the file.
func WriteJSON(name string, lines []Line) error {
	if name == "" {
		return nil
	}
	text, err := json.MarshalIndent(lines, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

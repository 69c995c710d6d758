package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// kind says what the numbers of a line are, and how its ratio is made.
type kind string

const (
	speed kind = "speed" // seconds; the ratio is theirs/ours, and at least the bar
	cost  kind = "cost"  // seconds; the ratio is ours/theirs, and at most the bar
	heap  kind = "heap"  // bytes, without another side; at most the bar
)

// line is one line of the table. A number of 0 is none.
type line struct {
	What   string  `json:"what"`
	Kind   kind    `json:"kind"`
	Size   int64   `json:"size"` // of the message, in bytes
	Ours   float64 `json:"ours,omitempty"`
	Theirs float64 `json:"theirs,omitempty"`
	Bar    float64 `json:"bar,omitempty"`
	Best   bool    `json:"best,omitempty"`    // theirs is the best of several
	Absent string  `json:"missing,omitempty"` // why there are no numbers
}

// ratio is what the bar is held against.
func (l line) ratio() float64 {
	switch {
	case l.Kind == heap:
		return l.Ours
	case l.Ours == 0 || l.Theirs == 0:
		return 0
	case l.Kind == cost:
		return l.Ours / l.Theirs
	}
	return l.Theirs / l.Ours
}

// atBar says whether a line that has a bar is as good as that.
func (l line) atBar() bool {
	switch {
	case l.Absent != "" || l.ratio() == 0:
		return false
	case l.Kind == speed:
		return l.ratio() >= l.Bar
	}
	return l.ratio() <= l.Bar
}

// MarshalJSON adds to the numbers what follows from them.
func (l line) MarshalJSON() ([]byte, error) {
	type plain line
	return json.Marshal(struct {
		plain
		Ratio float64 `json:"ratio,omitempty"`
		AtBar bool    `json:"at_bar,omitempty"`
	}{plain(l), l.ratio(), l.Bar > 0 && l.atBar()})
}

func allAtBar(lines []line) bool {
	for _, l := range lines {
		if l.Absent != "" || l.Bar > 0 && !l.atBar() {
			return false
		}
	}
	return true
}

// writeTable writes the lines in columns, and how many are at their bars.
func writeTable(w io.Writer, lines []line) error {
	var text strings.Builder
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "WHAT\tSIZE\tOURS\tTHEIRS\tRATIO\tBAR\t")
	barred, good := 0, 0
	for _, l := range lines {
		cells := l.cells()
		if l.Bar > 0 {
			barred++
			if l.atBar() {
				good++
			}
		}
		fmt.Fprintln(columns, strings.Join(cells, "\t"))
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	for row := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(row, " \n")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d ratios are at their bar or better\n", good, barred)
	return err
}

func (l line) cells() []string {
	what := l.What
	if l.Best {
		what += " (the best)"
	}
	cells := []string{what, sizeText(l.Size), l.number(l.Ours), l.number(l.Theirs), "-", "-", ""}
	switch {
	case l.Absent != "":
		cells[4] = l.Absent
	case l.Kind == heap:
	case l.ratio() > 0:
		cells[4] = fmt.Sprintf("%.2fx", l.ratio())
	}
	if l.Bar > 0 {
		cells[5] = map[kind]string{
			speed: fmt.Sprintf("at least %.2fx", l.Bar),
			cost:  fmt.Sprintf("at most %.2fx", l.Bar),
			heap:  "at most " + sizeText(int64(l.Bar)),
		}[l.Kind]
		cells[6] = "below"
		if l.atBar() {
			cells[6] = "ok"
		}
	}
	return cells
}

// small is the size up to which a time says more than a rate.
const small = 64 << 10

// number shows seconds as a rate or, of a small message, as the time.
func (l line) number(n float64) string {
	switch {
	case n == 0:
		return "-"
	case l.Kind == heap:
		return sizeText(int64(n))
	case l.Size > small:
		return grouped(float64(l.Size)/n/1e6) + " MB/s"
	}
	return time.Duration(n * 1e9).Round(100 * time.Nanosecond).String()
}

// grouped is a number of at least three digits with commas between thousands.
func grouped(n float64) string {
	if n < 100 {
		return fmt.Sprintf("%.1f", n)
	}
	digits := fmt.Sprintf("%.0f", n)
	for at := utf8.RuneCountInString(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func sizeText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// kind says what the numbers of a line are, and which way its bar stands.
type kind string

const (
	took  kind = "time"  // seconds; the ratio is at most the bar
	bytes kind = "bytes" // the ratio is at most the bar
	rate  kind = "rate"  // in a second; without a bar
	share kind = "share" // of 1; without a bar
	count kind = "count" // the ratio is at least the bar
)

// line is one line of the table. A number of 0 is none.
type line struct {
	What   string  `json:"what"`
	Kind   kind    `json:"kind"`
	Ours   float64 `json:"ours"`
	Beside string  `json:"beside,omitempty"` // what theirs is
	Theirs float64 `json:"theirs,omitempty"`
	Bar    float64 `json:"bar,omitempty"`
}

// ratio is what the bar is held against.
func (l line) ratio() float64 {
	if l.Theirs == 0 {
		return 0
	}
	return l.Ours / l.Theirs
}

// atBar says whether a line that has a bar is as good as that.
func (l line) atBar() bool {
	switch {
	case l.Ours == 0 || l.Theirs == 0:
		return false
	case l.Kind == count:
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
		if l.Bar > 0 && !l.atBar() {
			return false
		}
	}
	return true
}

// writeTable writes the lines in columns, and how many are at their bars.
func writeTable(w io.Writer, lines []line) error {
	var text strings.Builder
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "WHAT\tOURS\tBESIDE\tTHEIRS\tRATIO\tBAR\t")
	barred, good := 0, 0
	for _, l := range lines {
		if l.Bar > 0 {
			barred++
			if l.atBar() {
				good++
			}
		}
		fmt.Fprintln(columns, strings.Join(l.cells(), "\t"))
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
	cells := []string{l.What, l.number(l.Ours), "-", "-", "-", "-", ""}
	if l.Beside != "" {
		cells[2], cells[3] = l.Beside, l.number(l.Theirs)
	}
	if ratio := l.ratio(); ratio > 0 {
		cells[4] = ratioText(ratio)
	}
	if l.Bar == 0 {
		return cells
	}
	cells[5], cells[6] = "at most "+ratioText(l.Bar), "below"
	if l.Kind == count {
		cells[5] = "at least " + ratioText(l.Bar)
	}
	if l.atBar() {
		cells[6] = "ok"
	}
	return cells
}

// ratioText has more digits where there is nothing before the point.
func ratioText(ratio float64) string {
	if ratio < 0.1 {
		return fmt.Sprintf("%.4fx", ratio)
	}
	return fmt.Sprintf("%.2fx", ratio)
}

func (l line) number(n float64) string {
	switch l.Kind {
	case took:
		return timeText(time.Duration(n * 1e9))
	case bytes:
		return sizeText(int64(n))
	case rate:
		return grouped(n) + "/s"
	case share:
		return fmt.Sprintf("%.1f %%", 100*n)
	}
	return grouped(n)
}

// timeText has three or four digits.
func timeText(d time.Duration) string {
	unit := 10 * time.Nanosecond
	for d >= 10_000*unit && unit < time.Second/100 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// grouped is a whole number with commas between thousands.
func grouped(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func sizeText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the lines in columns, and how many are at their bars. The
// columns of sizes and of what theirs is are there if a line has one.
func WriteTable(w io.Writer, lines []Line) error {
	rows := [][]string{{"WHAT", "SIZE", "OURS", "BESIDE", "THEIRS", "RATIO", "BAR", ""}}
	barred, good := 0, 0
	for _, l := range lines {
		rows = append(rows, l.cells())
		if l.Bar > 0 {
			barred++
			if l.AtBar() {
				good++
			}
		}
	}
	sized := slices.ContainsFunc(lines, func(l Line) bool { return l.Size > 0 })
	named := slices.ContainsFunc(lines, func(l Line) bool { return l.Beside != "" })
	var text strings.Builder
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if !named {
			row = slices.Delete(row, 3, 4)
		}
		if !sized {
			row = slices.Delete(row, 1, 2)
		}
		fmt.Fprintln(columns, strings.Join(row, "\t"))
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

// cells are those of all columns.
func (l Line) cells() []string {
	cells := []string{l.What, "-", l.number(l.Ours), "-", "-", "-", "-", ""}
	if l.Best {
		cells[0] += " (the best)"
	}
	if l.Size > 0 {
		cells[1] = Size(l.Size)
	}
	if l.Beside != "" {
		cells[3] = l.Beside
	}
	if l.Beside != "" || l.Theirs != 0 {
		cells[4] = l.number(l.Theirs)
	}
	switch ratio := l.Ratio(); {
	case l.Absent != "":
		cells[5] = l.Absent
	case l.Kind != Heap && ratio > 0:
		cells[5] = ratioText(ratio)
	}
	if l.Bar > 0 {
		cells[6], cells[7] = l.barText(), "below"
		if l.AtBar() {
			cells[7] = "ok"
		}
	}
	return cells
}

func (l Line) barText() string {
	switch {
	case l.Kind == Heap:
		return "at most " + Size(int64(l.Bar))
	case l.atLeast():
		return "at least " + ratioText(l.Bar)
	}
	return "at most " + ratioText(l.Bar)
}

// small is the size of a message up to which a time says more than a rate.
const small = 64 << 10

func (l Line) number(n float64) string {
	switch {
	case n == 0 && l.Size > 0: // nothing about a message takes nothing: it was not measured
		return "-"
	case l.Kind == Heap || l.Kind == Bytes:
		return Size(int64(n))
	case l.Kind == Rate:
		return Grouped(n) + "/s"
	case l.Kind == Share:
		return fmt.Sprintf("%.1f %%", 100*n)
	case l.Kind == Count:
		return Grouped(n)
	case l.Size > small:
		return speedText(float64(l.Size) / n)
	}
	return timeText(time.Duration(n * 1e9))
}

// ratioText has more digits where there is nothing before the point.
func ratioText(ratio float64) string {
	if ratio < 0.1 {
		return fmt.Sprintf("%.4fx", ratio)
	}
	return fmt.Sprintf("%.2fx", ratio)
}

// speedText has at least three digits.
func speedText(bytesPerSecond float64) string {
	if n := bytesPerSecond / 1e6; n >= 100 {
		return Grouped(n) + " MB/s"
	}
	return fmt.Sprintf("%.1f MB/s", bytesPerSecond/1e6)
}

// timeText has three or four digits.
func timeText(d time.Duration) string {
	unit := 10 * time.Nanosecond
	for d >= 10_000*unit && unit < time.Second/100 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// Grouped is a whole number with commas between thousands.
func Grouped(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// Size is a number of bytes in the unit that leaves few digits before the
// point, and without any behind it where they would all be 0.
func Size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

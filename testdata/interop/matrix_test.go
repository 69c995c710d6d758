// Package interop_test holds what others make of what we write: a matrix with
// a row for each way to seal and a column for each program that reads.
//
// A row is one message, sealed by the engine in this process (seal_test.go,
// choices_test.go). A column is one program with the secret keys of all rows,
// as far as it takes them. A cell is
//
//	opened   byte for byte; in a mail program, text and subject as they should be
//	cannot   with the program's own word below the table
//	·        not of the program's kind: no S/MIME in gpg
//
// Each default opens in every program that reads its kind. Every other choice
// opens in one program at least that is not ours, or says why it is experimental.
// What a reader is known not to open stands in limits_test.go, with the reason:
// one that suddenly can, or suddenly cannot, is noticed.
//
// make test runs the rows against the programs that start fast; make interop
// against all of them.
package interop_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sealmilter/keys"
)

// whole says whether every column is to run: make interop asks for that.
func whole() bool { return os.Getenv("SEALMILTER_INTEROP") == "1" }

// column is a program that reads.
type column struct {
	name    string
	methods []keys.Method
	slow    bool // only where the whole matrix is asked for
	// read opens messages and says how each went.
	read func(t *testing.T, all []*sealed) []result
}

// columns are the programs in the order of the table.
var columns = []column{
	{"gpg", openPGP, false, readGnuPG},
	{"gpgsm", smime, false, readGPGSM},
	{"sq", openPGP, false, readSQ},
	{"sqop", openPGP, false, readSQOP},
	{"rnp", openPGP, false, readRNP},
	{"OpenPGP.js", openPGP, true, readOpenPGPJS},
	{"openssl", smime, false, readOpenSSL},
	{"NSS", smime, false, readNSS},
	{"neomutt", both, true, readNeomutt},
	{"Thunderbird", both, true, readThunderbird},
}

var (
	openPGP = []keys.Method{keys.OpenPGP}
	smime   = []keys.Method{keys.SMIME}
	both    = []keys.Method{keys.OpenPGP, keys.SMIME}
)

// result is how a program fared with one message. The zero result is none.
type result struct {
	opened bool
	word   string // the program's own, where it did not
}

func cannot(format string, args ...any) result {
	return result{word: oneLine(fmt.Sprintf(format, args...))}
}

// payload is the result of a program that gave these bytes.
func payload(s *sealed, got []byte) result {
	if bytes.Equal(s.original(got), s.shown) {
		return result{opened: true}
	}
	return cannot("it opened as %d bytes that are others, beginning %.60q", len(got), got)
}

// oneLine is what a program says, in one line of the table.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 150 {
		text = text[:150] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// TestMatrix
//
//	the engine, in this process ────▶ gpg, gpgsm, sq, sqop, rnp, OpenPGP.js, openssl, NSS
//	                            ════ maildir ════▶ neomutt
//	                            ════ maildir, Dovecot, IMAP ════▶ Thunderbird
func TestMatrix(t *testing.T) {
	rows := sealAll(t)
	table := make(map[string]map[string]result) // by row and column
	for _, s := range rows {
		table[s.name] = make(map[string]result)
	}
	for _, c := range columns {
		var mine []*sealed
		for _, s := range rows {
			if slices.Contains(c.methods, s.form.Method) && s.mail != nil {
				mine = append(mine, s)
			}
		}
		if c.slow && !whole() || len(mine) == 0 {
			continue
		}
		// A reader that is missing skips its own column.
		t.Run(c.name, func(t *testing.T) {
			for i, r := range c.read(t, mine) {
				table[mine[i].name][c.name] = r
			}
		})
	}
	for _, s := range rows {
		judge(t, s, table[s.name])
	}
	t.Log("\n" + render(rows, table))
}

// judge holds a row to what is known of its readers, and to its promise.
func judge(t *testing.T, s *sealed, cells map[string]result) {
	t.Helper()
	if s.mail == nil {
		t.Errorf("%s: the engine does not seal this: %s", s.name, s.refused)
		return
	}
	opened := 0
	for _, c := range columns {
		r, tried := cells[c.name]
		if !tried {
			continue
		}
		reason, limited := limited(s.name, c.name)
		switch {
		case r.opened:
			opened++
			if limited {
				surprise(t, "%s: %s opens it now, of which we have noted: %s", s.name, c.name, reason)
			}
		case !limited:
			t.Errorf("%s: %s does not open it: %s", s.name, c.name, r.word)
		}
		if limited && s.standard {
			t.Errorf("%s is a default, which no reader may be unable to open; of %s we have noted: %s", s.name, c.name, reason)
		}
	}
	switch {
	case opened > 0 && s.experimental != "":
		surprise(t, "%s is marked as experimental, and is opened by a program that is not ours", s.name)
	case opened == 0 && s.experimental == "" && whole():
		t.Errorf("%s: no program that is not ours opens it, and nothing says why it is offered", s.name)
	}
}

// surprise is good news that the notes do not know yet. It fails where all is
// looked at closely: elsewhere a newer program is no fault.
func surprise(t *testing.T, format string, args ...any) {
	t.Helper()
	if whole() {
		t.Errorf(format, args...)
	} else {
		t.Logf(format, args...)
	}
}

// render makes the table, and below it the words of those that cannot.
func render(rows []*sealed, table map[string]map[string]result) string {
	const none, yes = "·", "opened"
	grid := [][]string{{""}}
	for _, c := range columns {
		grid[0] = append(grid[0], c.name)
	}
	var notes []string
	for _, s := range rows {
		line := []string{s.name}
		for _, c := range columns {
			r, tried := table[s.name][c.name]
			switch {
			case !slices.Contains(c.methods, s.form.Method):
				line = append(line, none)
			case !tried:
				line = append(line, "-")
			case r.opened:
				line = append(line, yes)
			default:
				line = append(line, "cannot")
				notes = append(notes, fmt.Sprintf("%s: %s: %s", s.name, c.name, r.word))
			}
		}
		switch {
		case s.mail == nil:
			line = append(line, "not sealed: "+s.refused)
		case s.standard:
			line = append(line, "default")
		case s.experimental != "":
			line = append(line, "experimental: "+s.experimental)
		}
		grid = append(grid, line)
	}
	var text strings.Builder
	for _, line := range grid {
		var row strings.Builder
		for i, cell := range line {
			width := 0
			for _, other := range grid {
				if i < len(other) && i <= len(columns) {
					width = max(width, utf8.RuneCountInString(other[i]))
				}
			}
			row.WriteString(cell + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(cell))) + "  ")
		}
		text.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	return text.String() + "· not of its kind, - not tried in this run\n" + strings.Join(notes, "\n")
}

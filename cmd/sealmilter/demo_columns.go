package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	columnWidth    = 58 // of each of the two columns, in characters
	columnLines    = 40 // that are shown of a message
	beginningLines = 10 // that are shown where there is one column
)

// lines are the lines of a message as a terminal can show them.
func lines(message []byte) []string {
	text := strings.ReplaceAll(string(message), "\r\n", "\n")
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range all {
		all[i] = printable(strings.ReplaceAll(line, "\t", "    "))
	}
	return all
}

// sideBySide prints the beginnings of two texts beside each other.
func sideBySide(w io.Writer, leftTitle string, left []string, rightTitle string, right []string) {
	row := func(a, b string) {
		a = cut(a)
		pad := strings.Repeat(" ", columnWidth-utf8.RuneCountInString(a))
		fmt.Fprintln(w, strings.TrimRight("   "+a+pad+" | "+cut(b), " "))
	}
	row(leftTitle, rightTitle)
	row(strings.Repeat("-", columnWidth), strings.Repeat("-", columnWidth))
	for i := range min(max(len(left), len(right)), columnLines) {
		row(at(left, i), at(right, i))
	}
	row(more(left), more(right))
}

// beginning prints some lines of a text, from one with a beginning on.
func beginning(w io.Writer, title string, text []string, from string) {
	start := max(0, slices.IndexFunc(text, func(line string) bool { return strings.HasPrefix(line, from) }))
	text = text[start:]
	fmt.Fprintf(w, "   %s\n   %s\n", title, strings.Repeat("-", columnWidth))
	for _, line := range text[:min(len(text), beginningLines)] {
		fmt.Fprintln(w, strings.TrimRight("   "+line, " "))
	}
	if len(text) > beginningLines {
		fmt.Fprintf(w, "   … and %d more lines\n", len(text)-beginningLines)
	}
}

func at(text []string, i int) string {
	if i < len(text) {
		return text[i]
	}
	return ""
}

func more(text []string) string {
	if len(text) <= columnLines {
		return ""
	}
	return fmt.Sprintf("… and %d more lines", len(text)-columnLines)
}

// cut shortens a line to the width of a column.
func cut(line string) string {
	if utf8.RuneCountInString(line) <= columnWidth {
		return line
	}
	return string([]rune(line)[:columnWidth-1]) + "…"
}

package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"sealmilter/keys"
)

// maxRecord is the most that one record of a table may have, in bytes: a key
// with its quotes doubled, and an address. A quote that is never closed would
// make one record of all the rest.
const maxRecord = 2*keys.MaxKeySize + 4096

// errLongRecord is what recordLimit says.
var errLongRecord = errors.New("it is longer than a key can be: is a quote not closed?")

// recordLimit lets through no more than left.
type recordLimit struct {
	r    io.Reader
	left int
}

func (l *recordLimit) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLongRecord
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// headings are what the first line of a table may call an address.
var headings = []string{"address", "email", "e-mail", "mail", "mailbox", "recipient", "account", "user", "username"}

// readTable hands on the keys of a table: an address, and the text of a key or
// the name of its file, which is looked for below the table's folder.
func readTable(path string, each func(handedText) error) error {
	file, err := openRegular(path)
	if err != nil {
		return failure("reading the table: %s: %w", path, err)
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, pieceSize)
	begin, _ := in.Peek(pieceSize)
	if bytes.HasPrefix(begin, []byte("\xef\xbb\xbf")) {
		in.Discard(3)
		begin = begin[3:]
	}
	if bytes.IndexByte(begin, 0) >= 0 {
		return failure("reading the table: %s is no text in UTF-8: save it as that", path)
	}
	limit := &recordLimit{in, maxRecord}
	table := csv.NewReader(limit)
	table.Comma = delimiterOf(begin)
	table.FieldsPerRecord = -1
	table.TrimLeadingSpace = true
	line := 0
	for first := true; ; first = false {
		limit.left = maxRecord
		record, err := table.Read()
		line = lineOf(table, record, err, line)
		h := handedText{file: path, place: fmt.Sprintf("line %d", line)}
		var broken *csv.ParseError
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, errLongRecord):
			h.problem = &keys.Refusal{Reason: keys.ReasonDamaged, Text: err.Error() + " The rest was not read"}
			return each(h)
		case errors.As(err, &broken):
			h.problem = &keys.Refusal{Reason: keys.ReasonDamaged, Text: broken.Err.Error()}
		case err != nil:
			return failure("reading the table: %w", err)
		case first && slices.Contains(headings, strings.ToLower(strings.TrimSpace(record[0]))):
			continue
		case strings.TrimSpace(strings.Join(record, "")) == "": // as spreadsheets write an empty row
			continue
		case len(record) < 2 || strings.TrimSpace(record[1]) == "":
			h.address = strings.TrimSpace(record[0])
			h.problem = &keys.Refusal{Reason: keys.ReasonNoKey, Text: fmt.Sprintf("it has no key: expected an address and a file or a key, with %q between them", table.Comma)}
		default:
			h.address = strings.TrimSpace(record[0])
			h.data, h.problem = keyOfRecord(filepath.Dir(path), record[1])
		}
		if err := each(h); err != nil {
			return err
		}
	}
}

// delimiterOf is the one that the first line has more of.
func delimiterOf(begin []byte) rune {
	line, _, _ := bytes.Cut(begin, []byte("\n"))
	if bytes.Count(line, []byte(";")) > bytes.Count(line, []byte(",")) {
		return ';'
	}
	return ','
}

// lineOf is where a record begins; one that was not read to its end begins behind
// the last.
func lineOf(table *csv.Reader, record []string, err error, last int) int {
	var broken *csv.ParseError
	if errors.As(err, &broken) {
		return broken.StartLine
	}
	if len(record) == 0 {
		return last + 1
	}
	line, _ := table.FieldPos(0)
	return line
}

// maxFileName is longer than any path that a table should have, and shorter than
// a key in bare base64.
const maxFileName = 255

// keyOfRecord tells the text of a key from the name of a file.
func keyOfRecord(folder, field string) ([]byte, error) {
	if strings.Contains(field, blockBegin) || strings.Contains(field, "\n") || len(field) > maxFileName {
		return []byte(field), nil
	}
	name := strings.TrimSpace(field)
	if !filepath.IsAbs(name) {
		name = filepath.Join(folder, name)
	}
	file, err := openRegular(name)
	if err != nil {
		return nil, &keys.Refusal{Reason: keys.ReasonNoKey, Text: fmt.Sprintf("the file %q cannot be read: %s", field, err)}
	}
	defer file.Close()
	return readKeyData(file)
}

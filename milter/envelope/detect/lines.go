package detect

import (
	"bytes"
	"errors"
)

// maxLine is the longest line of a message without its end (RFC 5322, section
// 2.1.1). No program that seals writes lines anywhere near it.
const maxLine = 998

// lines cuts what is written to it into lines, which end with CRLF or, as some
// servers show them, with LF.
type lines struct {
	// line takes a line without its end, which is good until it returns.
	line func(line []byte) error
	rest []byte // of a line that is not complete, its CR included
}

func (l *lines) write(chunk []byte) error {
	for len(chunk) > 0 {
		end := bytes.IndexByte(chunk, '\n')
		if end < 0 {
			return l.keep(chunk)
		}
		line := chunk[:end]
		if len(l.rest) > 0 {
			if err := l.keep(line); err != nil {
				return err
			}
			line = l.rest
		}
		if err := l.pass(bytes.TrimSuffix(line, []byte("\r"))); err != nil {
			return err
		}
		l.rest = l.rest[:0]
		chunk = chunk[end+1:]
	}
	return nil
}

// keep holds back the beginning of a line.
func (l *lines) keep(piece []byte) error {
	if len(l.rest)+len(piece) > maxLine+len("\r") {
		return errLine
	}
	l.rest = append(l.rest, piece...)
	return nil
}

var errLine = errors.New("it has a line that is too long, or has control characters in it")

// pass passes a line on that is one to everybody: a CR or a NUL in it is a
// line end to some programs, and the end of the text to others.
func (l *lines) pass(line []byte) error {
	if len(line) > maxLine {
		return errLine
	}
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7F {
			return errLine
		}
	}
	return l.line(line)
}

// finish passes on a last line that has no end.
func (l *lines) finish() error {
	if len(l.rest) == 0 {
		return nil
	}
	return l.pass(l.rest)
}

// isBlank says whether a line has nothing but white space.
func isBlank(line []byte) bool { return len(bytes.Trim(line, " \t")) == 0 }

// Package lines writes base64 in lines of one length, as MIME (RFC 2045,
// section 6.8) and OpenPGP's armor (RFC 9580, section 6) have it.
package lines

import (
	"encoding/base64"
	"io"
)

const (
	// textBuffer is how much text is gathered before it goes out.
	textBuffer = 32 << 10
	// batch is how many lines are encoded in one go.
	batch = 64
)

// Writer is an io.WriteCloser that encodes what is written to it, each line
// with its end, the last one too.
type Writer struct {
	w      io.Writer
	octets int // of a line; its columns are a third more
	eol    string

	rest    []byte // octets of a line that is not full
	encoded []byte // a batch without line ends
	text    []byte // lines that wait to be written
	err     error  // of the writer behind
}

// New encodes to w with octets in a line, a multiple of three, and eol at the
// end of each.
func New(w io.Writer, octets int, eol string) *Writer {
	columns := base64.StdEncoding.EncodedLen(octets)
	return &Writer{
		w: w, octets: octets, eol: eol,
		rest:    make([]byte, 0, octets),
		encoded: make([]byte, batch*columns),
		text:    make([]byte, 0, textBuffer+batch*(columns+len(eol))),
	}
}

// Size is the length of size octets encoded with octets in a line and line
// ends of eol bytes.
func Size(size int64, octets, eol int) int64 {
	count := (size + int64(octets) - 1) / int64(octets)
	return (size+2)/3*4 + count*int64(eol)
}

// Write encodes p. An error of the writer behind is final.
func (l *Writer) Write(p []byte) (int, error) {
	written := len(p)
	if len(l.rest) > 0 {
		n := min(l.octets-len(l.rest), len(p))
		l.rest, p = append(l.rest, p[:n]...), p[n:]
		if len(l.rest) == l.octets {
			l.encode(l.rest)
			l.rest = l.rest[:0]
		}
	}
	for len(p) >= l.octets && l.err == nil {
		n := min(len(p)/l.octets, batch) * l.octets
		l.encode(p[:n])
		p = p[n:]
	}
	if l.err != nil {
		return 0, l.err
	}
	l.rest = append(l.rest, p...)
	return written, nil
}

// Flush writes the lines that are full.
func (l *Writer) Flush() error {
	l.flush()
	return l.err
}

// Close writes the last line.
func (l *Writer) Close() error {
	if len(l.rest) > 0 {
		l.encode(l.rest)
		l.rest = l.rest[:0]
	}
	l.flush()
	return l.err
}

// encode encodes a batch of full lines, or less than one.
func (l *Writer) encode(octets []byte) {
	columns := base64.StdEncoding.EncodedLen(l.octets)
	encoded := l.encoded[:base64.StdEncoding.EncodedLen(len(octets))]
	base64.StdEncoding.Encode(encoded, octets)
	text := l.text
	for ; len(encoded) > columns; encoded = encoded[columns:] {
		text = append(text, encoded[:columns]...)
		text = append(text, l.eol...)
	}
	text = append(text, encoded...)
	l.text = append(text, l.eol...)
	if len(l.text) >= textBuffer {
		l.flush()
	}
}

func (l *Writer) flush() {
	if l.err == nil && len(l.text) > 0 {
		_, l.err = l.w.Write(l.text)
	}
	l.text = l.text[:0]
}

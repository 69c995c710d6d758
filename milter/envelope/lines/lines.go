// Package lines writes base64 in lines of one length, as MIME (RFC 2045,
// section 6.8) and OpenPGP's armor (RFC 9580, section 6) have it.
package lines

import (
	"encoding/base64"
	"io"
	"slices"
)

// textBuffer is how much text is gathered before it goes out.
const textBuffer = 32 << 10

// Writer is an io.WriteCloser that encodes what is written to it, each line
// with its end, the last one too.
type Writer struct {
	w      io.Writer
	octets int // of a line
	width  int // of a line with its end, in characters
	eol    string

	rest []byte // octets of a line that is not full
	text []byte // lines that wait to be written
	err  error  // of the writer behind
}

// New encodes to w with octets in a line, a multiple of three, and eol at the
// end of each.
func New(w io.Writer, octets int, eol string) *Writer {
	return &Writer{w: w, octets: octets, width: octets/3*4 + len(eol), eol: eol}
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
		// encode leaves room for a line at least.
		count := min(len(p)/l.octets, max(1, (textBuffer-len(l.text))/l.width))
		l.encode(p[:count*l.octets])
		p = p[count*l.octets:]
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
		l.text = base64.StdEncoding.AppendEncode(l.text, l.rest)
		l.text = append(l.text, l.eol...)
		l.rest = l.rest[:0]
	}
	l.flush()
	return l.err
}

// encode encodes full lines. The text grows with them: most messages are far
// shorter than the buffer.
func (l *Writer) encode(octets []byte) {
	l.text = slices.Grow(l.text, len(octets)/l.octets*l.width)
	out := l.text[len(l.text):cap(l.text)]
	line, eol := l.octets, l.eol
	for ; len(octets) > 0; octets = octets[line:] {
		out = encodeLine(out, octets[:line])
		for i := range len(eol) { // shorter than what copy takes to begin
			out[i] = eol[i]
		}
		out = out[len(eol):]
	}
	l.text = l.text[:cap(l.text)-len(out)]
	if len(l.text)+l.width > textBuffer {
		l.flush()
	}
}

func (l *Writer) flush() {
	if l.err == nil && len(l.text) > 0 {
		_, l.err = l.w.Write(l.text)
	}
	l.text = l.text[:0]
}

package cms

import (
	"encoding/base64"
	"io"
)

// Base64 in MIME (RFC 2045, section 6.8): 57 octets make a line of 76
// characters.
const (
	lineOctets  = 57
	lineColumns = 76
)

// textBuffer is how much text is gathered before it goes out.
const textBuffer = 32 << 10

// Base64Writer is an io.WriteCloser that encodes a message for MIME, each line
// with its end, the last one too.
type Base64Writer struct {
	w   io.Writer
	eol string

	rest []byte // octets of a line that is not full
	text []byte // lines that wait to be written
	err  error  // of the writer behind
}

// NewBase64Writer encodes to w with eol at the end of each line.
func NewBase64Writer(w io.Writer, eol string) *Base64Writer {
	return &Base64Writer{
		w: w, eol: eol,
		rest: make([]byte, 0, lineOctets),
		text: make([]byte, 0, textBuffer+lineColumns+len(eol)),
	}
}

// Base64Size is the length of size octets encoded with line ends of eol bytes.
func Base64Size(size int64, eol int) int64 {
	lines := (size + lineOctets - 1) / lineOctets
	return (size+2)/3*4 + lines*int64(eol)
}

// Write encodes p. An error of the writer behind is final.
func (b *Base64Writer) Write(p []byte) (int, error) {
	written := len(p)
	if len(b.rest) > 0 {
		n := min(lineOctets-len(b.rest), len(p))
		b.rest, p = append(b.rest, p[:n]...), p[n:]
		if len(b.rest) < lineOctets {
			return written, b.err
		}
		b.line(b.rest)
		b.rest = b.rest[:0]
	}
	for len(p) >= lineOctets && b.err == nil {
		b.line(p[:lineOctets])
		p = p[lineOctets:]
	}
	if b.err != nil {
		return 0, b.err
	}
	b.rest = append(b.rest, p...)
	return written, nil
}

// Close writes the last line.
func (b *Base64Writer) Close() error {
	if len(b.rest) > 0 {
		b.line(b.rest)
		b.rest = b.rest[:0]
	}
	b.flush()
	return b.err
}

func (b *Base64Writer) line(octets []byte) {
	b.text = base64.StdEncoding.AppendEncode(b.text, octets)
	b.text = append(b.text, b.eol...)
	if len(b.text) >= textBuffer {
		b.flush()
	}
}

func (b *Base64Writer) flush() {
	if b.err == nil {
		_, b.err = b.w.Write(b.text)
	}
	b.text = b.text[:0]
}

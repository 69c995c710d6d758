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

// lineBatch is how many lines are encoded at a time, and then cut: that is
// quicker than to call the encoder for each.
const lineBatch = 64

// textBuffer is how much text is gathered before it goes out.
const textBuffer = 32 << 10

// Base64Writer is an io.WriteCloser that encodes a message for MIME, each line
// with its end, the last one too.
type Base64Writer struct {
	w   io.Writer
	eol string

	rest    []byte // octets of a line that is not full
	encoded []byte // the batch without line ends
	text    []byte // lines that wait to be written
	err     error  // of the writer behind
}

// NewBase64Writer encodes to w with eol at the end of each line.
func NewBase64Writer(w io.Writer, eol string) *Base64Writer {
	return &Base64Writer{
		w: w, eol: eol,
		rest:    make([]byte, 0, lineOctets),
		encoded: make([]byte, lineBatch*lineColumns),
		text:    make([]byte, 0, textBuffer+lineBatch*(lineColumns+len(eol))),
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
		if len(b.rest) == lineOctets {
			b.lines(b.rest)
			b.rest = b.rest[:0]
		}
	}
	for len(p) >= lineOctets && b.err == nil {
		n := min(len(p)/lineOctets, lineBatch) * lineOctets
		b.lines(p[:n])
		p = p[n:]
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
		b.lines(b.rest)
		b.rest = b.rest[:0]
	}
	b.flush()
	return b.err
}

// lines encodes a batch of full lines, or less than one.
func (b *Base64Writer) lines(octets []byte) {
	encoded := b.encoded[:base64.StdEncoding.EncodedLen(len(octets))]
	base64.StdEncoding.Encode(encoded, octets)
	text := b.text
	for ; len(encoded) > lineColumns; encoded = encoded[lineColumns:] {
		text = append(text, encoded[:lineColumns]...)
		text = append(text, b.eol...)
	}
	text = append(text, encoded...)
	b.text = append(text, b.eol...)
	if len(b.text) >= textBuffer {
		b.flush()
	}
}

func (b *Base64Writer) flush() {
	if b.err == nil && len(b.text) > 0 {
		_, b.err = b.w.Write(b.text)
	}
	b.text = b.text[:0]
}

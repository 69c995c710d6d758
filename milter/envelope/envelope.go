// Package envelope turns a message into a sealed MIME entity: header and body
// stream in, the entity comes out, and nothing else happens here. There are
// no sockets, no database and no log; this is the part to audit.
//
// What is encrypted, the payload, is the message whole: every header field as
// the filter was shown it, in its order, an empty line, the body. So that any
// OpenPGP program gives back the message byte for byte, and the sender's DKIM
// signature verifies on it again. One thing may be added, see addedType.
//
// The message is encrypted once, while it streams in. Copies for different
// recipients differ in their key packets only, which are small.
package envelope

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"sealmilter/keys"
)

// Field is a header field. Value is all that follows the colon, its leading
// white space included, without the line end; the lines of a folded field are
// joined by LF, as the milter protocol shows them.
type Field struct {
	Name  string
	Value string
}

// Size is the length of the field with LF line ends, in bytes.
func (f Field) Size() int64 { return int64(len(f.Name) + len(":") + len(f.Value) + len("\n")) }

// Sealing is one message while it is encrypted. The way is Begin, Header,
// Write for each piece of the body, Close, Copy for each copy; and Discard in
// the end, whatever happened. It is not safe for concurrent use.
type Sealing struct {
	method method
	spool  *spool
}

// method encrypts one message, and wraps it up for each group of readers.
type method interface {
	io.WriteCloser
	// addsType says whether a payload without a Content-Type field gets one.
	addsType() bool
	// copyFor makes the copy for some keys, once the message is closed.
	copyFor(to []*keys.Key, now time.Time) (*Copy, error)
}

// Begin starts a message that is sealed with one method and cipher.
func Begin(name keys.Method, cipher keys.Cipher, where Spool) (*Sealing, error) {
	s := &Sealing{spool: &spool{settings: where}}
	var err error
	switch name {
	case keys.OpenPGP:
		s.method, err = beginPGPMIME(s.spool, cipher)
	case keys.SMIME:
		s.method, err = beginSMIME(s.spool, cipher)
	default:
		err = fmt.Errorf("sealing with %q is not supported", name)
	}
	if err != nil {
		s.Discard()
		return nil, err
	}
	return s, nil
}

// addedType is put in front of a header that has no Content-Type field:
// Thunderbird shows the whole header of such a payload as text. It is what
// RFC 2045, section 5.2, assumes there anyway; the parameter marks it as ours.
// A header that begins with these very bytes gets it too, so that whoever
// opens the payload takes it off exactly once wherever it stands first.
const addedType = "Content-Type: text/plain; x-added=sealmilter\r\n"

// Header seals the message's header and the empty line behind it.
func (s *Sealing) Header(fields []Field) error {
	var header bytes.Buffer
	typed := false
	for _, f := range fields {
		typed = typed || strings.EqualFold(f.Name, "Content-Type")
		header.WriteString(f.Name)
		header.WriteByte(':')
		header.WriteString(crlf(f.Value))
		header.WriteString("\r\n")
	}
	if s.method.addsType() && (!typed || bytes.HasPrefix(header.Bytes(), []byte(addedType))) {
		if _, err := s.Write([]byte(addedType)); err != nil {
			return err
		}
	}
	header.WriteString("\r\n")
	_, err := s.Write(header.Bytes())
	return err
}

// Original takes off a payload what Header added to it, and gives back the
// message as the filter was shown it.
func Original(payload []byte) []byte {
	return bytes.TrimPrefix(payload, []byte(addedType))
}

// Write seals the next piece of the body.
func (s *Sealing) Write(body []byte) (int, error) { return s.method.Write(body) }

// Close ends the message.
func (s *Sealing) Close() error { return s.method.Close() }

// Discard gives back what the message took in memory and on disk. Copies of
// it cannot be written any more. The zero Sealing holds nothing.
func (s *Sealing) Discard() {
	if s.spool != nil {
		s.spool.close()
	}
}

// Copy seals the message to keys, as they are good at the moment now. It is
// called once for each group of recipients who may know of each other.
func (s *Sealing) Copy(to []*keys.Key, now time.Time) (*Copy, error) {
	c, err := s.method.copyFor(to, now)
	if err != nil {
		return nil, err
	}
	c.spool = s.spool
	return c, nil
}

// crlf writes the line breaks of a folded value as RFC 5322 has them: LF
// becomes CRLF. A CR is content, wherever it stands.
func crlf(value string) string { return strings.ReplaceAll(value, "\n", "\r\n") }

// Copy is one sealed copy of a message, a MIME entity. It can be written any
// number of times until its Sealing is discarded.
type Copy struct {
	fields []Field
	// The body is text around one encoded object, and the object is what is
	// this copy's own, then what all copies share. Text has LF line ends.
	opening, closing string
	prefix           []byte
	spool            *spool
	octets           int // that make a line
	encoder          func(w io.Writer, eol string) encoder
	encodedSize      func(size int64, eol int) int64
}

// Fields returns the header fields of the entity, of which MIME-Version is
// none.
func (c *Copy) Fields() []Field { return c.fields }

// Size is the length of the body that WriteBody writes with line ends of eol
// bytes.
func (c *Copy) Size(eol int) int64 {
	text := c.opening + c.closing
	breaks := strings.Count(text, "\n")
	return int64(len(text)+breaks*(eol-1)) + c.encodedSize(int64(len(c.prefix))+c.spool.size, eol)
}

// WriteBody writes the entity's body with eol, CRLF or LF, at the end of each
// line. All of it is ASCII.
func (c *Copy) WriteBody(w io.Writer, eol string) error {
	if _, err := io.WriteString(w, withEOL(c.opening, eol)); err != nil {
		return err
	}
	encoder := c.encoder(w, eol)
	if _, err := encoder.Write(c.prefix); err != nil {
		return err
	}
	if _, err := c.spool.WriteTo(encoder); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(w, withEOL(c.closing, eol))
	return err
}

func withEOL(text, eol string) string { return strings.ReplaceAll(text, "\n", eol) }

// Package envelope turns a message into a sealed MIME entity: header and body
// stream in, the entity comes out, and nothing else happens here. There are
// no sockets, no database and no log; this is the part to audit.
//
// What is encrypted, the payload, is the message whole: every header field as
// the filter was shown it, in its order, an empty line, the body. So that any
// OpenPGP program gives back the message byte for byte, and the sender's DKIM
// signature verifies on it again. What may be added stands between those bytes
// and comes off again without a doubt: a Content-Type field where there is none,
// and what header protection says of the header, see addedType and payloadMark.
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
	method     method
	spool      *spool
	protection keys.HeaderProtection
}

// Addressing is how the readers of a copy are named in it, and by which way its
// key goes to them, beyond what the options of a key say.
type Addressing struct {
	Hidden       bool // OpenPGP: key packets that name nobody (RFC 9580, section 5.1.8)
	OAEP         bool // S/MIME: RSAES-OAEP to every RSA certificate (RFC 3560)
	SubjectKeyID bool // S/MIME: by the subject key identifier, where the certificate has one
}

// method encrypts one message, and wraps it up for each group of readers.
type method interface {
	io.WriteCloser
	// addsType says whether a payload without a Content-Type field gets one.
	addsType() bool
	// copyFor makes the copy for some keys, once the message is closed.
	copyFor(to []*keys.Key, how Addressing, now time.Time) (*Copy, error)
	// discard gives back what the method itself holds of the message.
	discard()
}

// Begin starts a message that is sealed in one form.
func Begin(form keys.Form, where Spool) (*Sealing, error) {
	s := &Sealing{spool: &spool{settings: where}, protection: form.Protection}
	var err error
	switch form.Method {
	case keys.OpenPGP:
		s.method, err = beginPGPMIME(s.spool, form)
	case keys.SMIME:
		s.method, err = beginSMIME(s.spool, form, where.Budget)
	default:
		err = fmt.Errorf("sealing with %q is not supported", form.Method)
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
// opens the payload takes it off exactly once wherever it stands first. Under
// header protection the payload has a Content-Type field of another kind, see
// protect.
const addedType = "Content-Type: text/plain; x-added=sealmilter\r\n"

// Header seals the message's header and the empty line behind it.
func (s *Sealing) Header(fields []Field) error {
	return writeHeader(s, fields, s.protection, s.method.addsType())
}

// Original takes off a payload what Header added to it, and gives back the
// message as the filter was shown it.
func Original(payload []byte) []byte {
	if original, typed := bytes.CutPrefix(payload, []byte(addedType)); typed {
		return original
	}
	return unmark(payload)
}

// Write seals the next piece of the body.
func (s *Sealing) Write(body []byte) (int, error) { return s.method.Write(body) }

// Close ends the message.
func (s *Sealing) Close() error { return s.method.Close() }

// Discard gives back what the message took in memory and on disk. Copies of
// it cannot be written any more. The zero Sealing holds nothing.
func (s *Sealing) Discard() {
	if s.method != nil {
		s.method.discard()
	}
	if s.spool != nil {
		s.spool.close()
	}
}

// Copy seals the message to keys, as they are good at the moment now. It is
// called once for each group of recipients who may know of each other.
func (s *Sealing) Copy(to []*keys.Key, how Addressing, now time.Time) (*Copy, error) {
	c, err := s.method.copyFor(to, how, now)
	if err != nil {
		return nil, err
	}
	c.spool, c.protection = s.spool, s.protection
	return c, nil
}

// crlf writes the line breaks of a folded value as RFC 5322 has them: LF
// becomes CRLF. A CR is content, wherever it stands.
func crlf(value string) string { return strings.ReplaceAll(value, "\n", "\r\n") }

// Copy is one sealed copy of a message, a MIME entity. It can be written any
// number of times until its Sealing is discarded.
type Copy struct {
	fields     []Field
	protection keys.HeaderProtection
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

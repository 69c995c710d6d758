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
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"sealmilter/keys"
	"sealmilter/milter/envelope/openpgp"
)

// Field is a header field. Value is all that follows the colon, its leading
// white space included, without the line end; the lines of a folded field are
// joined by LF, as the milter protocol shows them.
type Field struct {
	Name  string
	Value string
}

// Sealing is one message while it is encrypted. The way is Begin, Header,
// Write for each piece of the body, Close, Copy for each copy; and Discard in
// the end, whatever happened. It is not safe for concurrent use.
type Sealing struct {
	spool     *spool
	encrypter *openpgp.Encrypter
}

// Begin starts a message that is sealed with one method and cipher.
func Begin(method keys.Method, cipher keys.Cipher, where Spool) (*Sealing, error) {
	if method != keys.OpenPGP {
		return nil, fmt.Errorf("sealing with %q is not supported", method)
	}
	function := openpgp.AES256
	if cipher == keys.AES128 {
		function = openpgp.AES128
	}
	s := &Sealing{spool: &spool{settings: where}}
	encrypter, err := openpgp.NewEncrypter(s.spool, function)
	if err != nil {
		return nil, err
	}
	s.encrypter = encrypter
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
	if !typed || bytes.HasPrefix(header.Bytes(), []byte(addedType)) {
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
func (s *Sealing) Write(body []byte) (int, error) { return s.encrypter.Write(body) }

// Close ends the message.
func (s *Sealing) Close() error { return s.encrypter.Close() }

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
	var public []*packet.PublicKey
	seen := make(map[string]bool)
	for _, key := range to {
		for _, p := range key.OpenPGPKeys(now) {
			if !seen[string(p.Fingerprint)] {
				seen[string(p.Fingerprint)] = true
				public = append(public, p)
			}
		}
	}
	if len(public) == 0 {
		return nil, errors.New("no key to seal to")
	}
	prefix, err := s.encrypter.Prefix(public)
	if err != nil {
		return nil, err
	}
	boundary, err := newBoundary()
	if err != nil {
		return nil, err
	}
	return &Copy{prefix: prefix, spool: s.spool, boundary: boundary}, nil
}

// newBoundary makes a MIME boundary that no armor can contain: its lines have
// no underscore.
func newBoundary() (string, error) {
	random := make([]byte, 15)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("making a boundary: %w", err)
	}
	return "sealed_" + hex.EncodeToString(random), nil
}

// crlf writes the line breaks of a folded value as RFC 5322 has them: LF
// becomes CRLF. A CR is content, wherever it stands.
func crlf(value string) string { return strings.ReplaceAll(value, "\n", "\r\n") }

// Copy is one sealed copy of a message, a PGP/MIME entity (RFC 3156, section
// 4). It can be written any number of times until its Sealing is discarded.
type Copy struct {
	prefix   []byte
	spool    *spool
	boundary string
}

// Fields returns the header fields of the entity, of which MIME-Version is
// none.
func (c *Copy) Fields() []Field {
	return []Field{{"Content-Type", " multipart/encrypted; protocol=\"application/pgp-encrypted\";\n\tboundary=\"" + c.boundary + "\""}}
}

// opening and closing are the body around the armored message.
func (c *Copy) opening() string {
	return "This message was sealed to its recipient's OpenPGP key when it arrived.\n" +
		"\n--" + c.boundary + "\n" +
		"Content-Type: application/pgp-encrypted\n" +
		"Content-Description: PGP/MIME version identification\n" +
		"\nVersion: 1\n" +
		"\n--" + c.boundary + "\n" +
		"Content-Type: application/octet-stream; name=\"encrypted.asc\"\n" +
		"Content-Description: OpenPGP encrypted message\n" +
		"Content-Disposition: inline; filename=\"encrypted.asc\"\n\n"
}

func (c *Copy) closing() string { return "\n--" + c.boundary + "--\n" }

// Size is the length of the body that WriteBody writes with line ends of eol
// bytes.
func (c *Copy) Size(eol int) int64 {
	text := c.opening() + c.closing()
	breaks := strings.Count(text, "\n")
	armored := openpgp.ArmoredSize(int64(len(c.prefix))+c.spool.size, eol)
	return int64(len(text)+breaks*(eol-1)) + armored
}

// WriteBody writes the entity's body with eol, CRLF or LF, at the end of each
// line. All of it is ASCII.
func (c *Copy) WriteBody(w io.Writer, eol string) error {
	if _, err := io.WriteString(w, strings.ReplaceAll(c.opening(), "\n", eol)); err != nil {
		return err
	}
	armor := openpgp.NewArmorWriter(w, eol)
	if _, err := armor.Write(c.prefix); err != nil {
		return err
	}
	if _, err := c.spool.WriteTo(armor); err != nil {
		return err
	}
	if err := armor.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.ReplaceAll(c.closing(), "\n", eol))
	return err
}

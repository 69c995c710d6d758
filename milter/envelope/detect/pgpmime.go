package detect

import (
	"bytes"
	"errors"
	"regexp"
	"strings"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// maxPartHeader bounds the header of a part, in bytes.
const maxPartHeader = 1 << 10

// preambles are what programs that seal write for those that know no MIME
// (RFC 2046, section 5.1.1): we; Enigmail, Thunderbird, GPGMail and others;
// and those that say it of any multipart. Other words there are plaintext.
var preambles = regexp.MustCompile(`^(This message was sealed to its recipient's OpenPGP key when it arrived\.` +
	`|This is an OpenPGP/MIME encrypted message \(RFC (2440|3156|4880|9580)( and (2440|3156|4880|9580))?\)\.?` +
	`|This is a multi-part message in MIME format\.{0,3})$`)

// section is where in a PGP/MIME message a line stands.
type section int

const (
	inPreamble section = iota
	inVersionHeader
	inVersion
	inMessageHeader
	inMessage
	inEpilogue
)

// pgpMIME is a PGP/MIME message (RFC 3156, section 4). Each line of it is
// one of those that such a message must have, or an empty one.
type pgpMIME struct {
	lines
	armor     armored
	delimiter []byte // "--" and the boundary
	at        section
	spoke     bool // the preamble has its sentence, or the version part its line
	header    []envelope.Field
	size      int // of the header
}

func newPGPMIME(e *entity) (*pgpMIME, error) {
	switch {
	case !strings.EqualFold(e.params["protocol"], "application/pgp-encrypted"):
		return nil, errors.New("it is multipart/encrypted, but not by the protocol of PGP/MIME")
	case !isBoundary(e.params["boundary"]):
		return nil, errors.New("its boundary is missing, or is one that programs read in different ways")
	case !e.isPlain(true):
		return nil, errors.New("it is multipart/encrypted with a Content-Transfer-Encoding, which must not be")
	}
	m := &pgpMIME{delimiter: []byte("--" + e.params["boundary"])}
	m.lines.line = m.next
	return m, nil
}

// isBoundary says whether text is a boundary (RFC 2046, section 5.1.1) and has
// no blank.
func isBoundary(text string) bool {
	const others = "'()+_,-./:=?"
	return text != "" && len(text) <= 70 && strings.IndexFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(others, r)
	}) < 0
}

func (m *pgpMIME) name() (string, keys.Method) { return "OpenPGP (PGP/MIME)", keys.OpenPGP }

// next takes the next line. What begins like a delimiter is one to some
// programs, whatever follows on the line.
func (m *pgpMIME) next(line []byte) error {
	if after, is := bytes.CutPrefix(line, m.delimiter); is {
		return m.delimit(after)
	}
	switch m.at {
	case inPreamble:
		return m.say(line, preambles.Match, "there is text in front of its first part")
	case inVersionHeader, inMessageHeader:
		return m.headerLine(line)
	case inVersion:
		return m.say(line, isVersion, "its first part holds something besides \"Version: 1\"")
	case inMessage:
		return m.armor.line(line)
	}
	if !isBlank(line) {
		return errors.New("there is text behind its last part")
	}
	return nil
}

func isVersion(line []byte) bool { return string(bytes.TrimRight(line, " \t")) == "Version: 1" }

// say takes a line where there may be one of a kind among blank ones.
func (m *pgpMIME) say(line []byte, allowed func([]byte) bool, otherwise string) error {
	if isBlank(line) {
		return nil
	}
	if m.spoke || !allowed(line) {
		return errors.New(otherwise)
	}
	m.spoke = true
	return nil
}

// delimit takes a delimiter; after is what stands behind the boundary.
func (m *pgpMIME) delimit(after []byte) error {
	last := bytes.HasPrefix(after, []byte("--"))
	if !isBlank(bytes.TrimPrefix(after, []byte("--"))) {
		return errors.New("it has a line that only begins like a boundary")
	}
	switch {
	case m.at == inPreamble && !last:
		m.at = inVersionHeader
	case m.at == inVersion && !last:
		if !m.spoke {
			return errors.New("its first part does not say \"Version: 1\"")
		}
		m.at = inMessageHeader
	case m.at == inMessage && last:
		m.at = inEpilogue
	default:
		return errors.New("its parts are not the two of a PGP/MIME message")
	}
	m.header, m.size, m.spoke = nil, 0, false
	return nil
}

// headerLine takes a line of a part's header.
func (m *pgpMIME) headerLine(line []byte) error {
	if m.size += len(line) + 1; m.size > maxPartHeader {
		return errors.New("a part has too long a header")
	}
	if len(line) == 0 {
		return m.headerEnd()
	}
	if line[0] == ' ' || line[0] == '\t' {
		if len(m.header) == 0 {
			return errors.New("a part has a header that begins in the middle of a field")
		}
		m.header[len(m.header)-1].Value += "\n" + string(line)
		return nil
	}
	name, value, is := strings.Cut(string(line), ":")
	if !is || !strings.HasPrefix(strings.ToLower(name), "content-") {
		return errors.New("a part has a header that holds more than Content fields")
	}
	m.header = append(m.header, envelope.Field{Name: name, Value: value})
	return nil
}

// headerEnd judges the header of a part.
func (m *pgpMIME) headerEnd() error {
	e, err := readEntity(m.header)
	if err != nil {
		return err
	}
	want := "application/pgp-encrypted"
	if m.at == inMessageHeader {
		want = "application/octet-stream"
	}
	if e.kind != want || !e.isPlain(true) {
		return errors.New("a part is not " + want + " in plain lines")
	}
	m.at++
	return nil
}

func (m *pgpMIME) end() ([]keys.ReaderID, error) {
	if err := m.lines.finish(); err != nil {
		return nil, err
	}
	if m.at != inEpilogue {
		return nil, errors.New("its last boundary is missing")
	}
	return m.armor.finish()
}

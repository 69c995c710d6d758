package detect

import (
	"bytes"
	"errors"

	"sealmilter/keys"
)

// smime is an S/MIME message: one CMS object and nothing else. Its type may
// claim what it likes of the object (smime-type): the object says itself what
// it is. One that travels as application/octet-stream under the name smime.p7m
// is not taken: it is an attachment to many a mail program.
type smime struct {
	lines
	base64 radix64
	ber    ber
	object cmsObject
	binary bool // not in base64
	begun  bool // there was base64
	ended  bool // there was a blank line behind it
}

func newSMIME(e *entity) (*smime, error) {
	m := &smime{}
	m.ber.visitor = &m.object
	m.base64.to = m.ber.write
	m.lines.line = m.base64Line
	switch e.encoding {
	case "base64":
	case "binary", "8bit":
		m.binary = true
	default:
		return nil, errors.New("it says S/MIME, but is neither in base64 nor binary")
	}
	return m, nil
}

func (m *smime) name() (string, keys.Method) { return "S/MIME", keys.SMIME }

func (m *smime) write(chunk []byte) error {
	if !m.binary {
		return m.lines.write(chunk)
	}
	return m.writeBinary(chunk)
}

// writeBinary passes on such small pieces that none reaches behind the end of
// the object, where servers end the last line of what they carry.
func (m *smime) writeBinary(chunk []byte) error {
	for len(chunk) > 0 && !m.ber.ended {
		n := 1
		if m.ber.left > 0 {
			n = int(min(int64(len(chunk)), m.ber.left))
		}
		if err := m.ber.write(chunk[:n]); err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	if len(bytes.Trim(chunk, "\r\n")) > 0 {
		return errors.New("something stands behind the S/MIME object")
	}
	return nil
}

func (m *smime) base64Line(line []byte) error {
	if isBlank(line) {
		m.ended = m.begun
		return nil
	}
	if m.ended {
		return errors.New("there is text behind the S/MIME object")
	}
	m.begun = true
	return m.base64.line(line)
}

func (m *smime) end() ([]keys.ReaderID, error) {
	if !m.binary {
		if err := m.lines.finish(); err != nil {
			return nil, err
		}
		if err := m.base64.finish(); err != nil {
			return nil, err
		}
	}
	if !m.ber.ended {
		return nil, errors.New("the S/MIME object is missing or cut off")
	}
	if len(m.object.readers) == 0 {
		return nil, errors.New("it is encrypted to no certificate")
	}
	return m.object.readers, nil
}

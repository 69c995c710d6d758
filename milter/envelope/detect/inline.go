package detect

import (
	"errors"
	"strings"

	"sealmilter/keys"
)

// inline is a plain text that is one armored message.
type inline struct {
	lines
	armor armored
}

// newInline takes no text that is encoded: what gateways make of an armor as
// quoted-printable is read by some mail programs and not by others.
func newInline(e *entity) (*inline, error) {
	if !e.isPlain(false) {
		return nil, errors.New("it is a text that is encoded, by its Content-Transfer-Encoding")
	}
	if !isASCII(e.params["charset"]) {
		return nil, errors.New("it is a text in a charset in which armor may read as something else")
	}
	m := &inline{}
	m.lines.line = m.armor.line
	return m, nil
}

// isASCII says whether all ASCII is itself in a charset, which it is not in
// UTF-7 or EBCDIC.
func isASCII(charset string) bool {
	charset = strings.ToLower(charset)
	switch charset {
	case "", "us-ascii", "utf-8":
		return true
	}
	for _, family := range []string{"iso-8859-", "windows-125", "koi8-"} {
		if strings.HasPrefix(charset, family) {
			return true
		}
	}
	return false
}

func (m *inline) name() (string, keys.Method) { return "armored OpenPGP", keys.OpenPGP }

func (m *inline) end() ([]keys.ReaderID, error) {
	if err := m.lines.finish(); err != nil {
		return nil, err
	}
	return m.armor.finish()
}

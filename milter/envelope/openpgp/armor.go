package openpgp

import (
	"encoding/base64"
	"io"

	"sealmilter/milter/envelope/lines"
)

// LineOctets make a line of armor (RFC 9580, section 6), which has 64 characters.
const LineOctets = 48

const (
	armorHead = "-----BEGIN PGP MESSAGE-----"
	armorTail = "-----END PGP MESSAGE-----"
)

// ArmorWriter is an io.WriteCloser that armors a message, with its checksum:
// readers of the time before RFC 9580 ask for one.
type ArmorWriter struct {
	w      io.Writer
	eol    string
	lines  *lines.Writer
	crc    CRC24
	opened bool
}

// NewArmorWriter armors to w with eol at the end of each line.
func NewArmorWriter(w io.Writer, eol string) *ArmorWriter {
	return &ArmorWriter{w: w, eol: eol, lines: lines.New(w, LineOctets, eol), crc: NewCRC24()}
}

// ArmoredSize is the length of size octets armored with line ends of eol
// bytes.
func ArmoredSize(size int64, eol int) int64 {
	const checksum = len("=AAAA")
	const others = 4 // lines: head, an empty one, checksum, tail
	return int64(len(armorHead)+len(armorTail)+checksum+others*eol) + lines.Size(size, LineOctets, eol)
}

// Write armors p.
func (a *ArmorWriter) Write(p []byte) (int, error) {
	if err := a.open(); err != nil {
		return 0, err
	}
	a.crc = a.crc.Update(p)
	return a.lines.Write(p)
}

// Close writes the last line, the checksum and the tail.
func (a *ArmorWriter) Close() error {
	if err := a.open(); err != nil {
		return err
	}
	if err := a.lines.Close(); err != nil {
		return err
	}
	octets := a.crc.Octets()
	checksum := base64.StdEncoding.EncodeToString(octets[:])
	_, err := io.WriteString(a.w, "="+checksum+a.eol+armorTail+a.eol)
	return err
}

// Flush writes the lines that are full.
func (a *ArmorWriter) Flush() error { return a.lines.Flush() }

func (a *ArmorWriter) open() error {
	if a.opened {
		return nil
	}
	a.opened = true
	_, err := io.WriteString(a.w, armorHead+a.eol+a.eol)
	return err
}

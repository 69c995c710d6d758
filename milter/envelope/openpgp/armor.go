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

// Armor is how one copy of a message is armored: all of it but the octets.
type Armor struct {
	checksum string // its line, or none
}

// Armor is that of the copy with such a prefix. Readers of the time before RFC
// 9580 ask for a checksum. That of the body was made while it was encrypted.
func (e *Encrypter) Armor(prefix []byte) Armor {
	body, wanted := e.sealer.checksum()
	if !wanted {
		return Armor{}
	}
	octets := NewCRC24().Update(prefix).join(body, e.w.octets).Octets()
	return Armor{checksum: "=" + base64.StdEncoding.EncodeToString(octets[:])}
}

// Size is the length of size octets armored with line ends of eol bytes.
func (a Armor) Size(size int64, eol int) int64 {
	ends := 3 // lines: head, an empty one, tail
	if a.checksum != "" {
		ends++
	}
	return int64(len(armorHead)+len(a.checksum)+len(armorTail)+ends*eol) + lines.Size(size, LineOctets, eol)
}

// Writer armors to w with eol at the end of each line.
func (a Armor) Writer(w io.Writer, eol string) *ArmorWriter {
	return &ArmorWriter{w: w, eol: eol, lines: lines.New(w, LineOctets, eol), checksum: a.checksum}
}

// ArmorWriter is an io.WriteCloser that armors a message. The checksum is that
// of the whole copy, also where others write some of its lines.
type ArmorWriter struct {
	w        io.Writer
	eol      string
	lines    *lines.Writer
	checksum string
	opened   bool
}

// Write armors p.
func (a *ArmorWriter) Write(p []byte) (int, error) {
	if err := a.open(); err != nil {
		return 0, err
	}
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
	closing := armorTail + a.eol
	if a.checksum != "" {
		closing = a.checksum + a.eol + closing
	}
	_, err := io.WriteString(a.w, closing)
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

package openpgp

import (
	"encoding/base64"
	"io"
)

// Armor (RFC 9580, section 6): 48 octets make a line of 64 characters.
const (
	armorHead   = "-----BEGIN PGP MESSAGE-----"
	armorTail   = "-----END PGP MESSAGE-----"
	lineOctets  = 48
	lineColumns = 64
)

// ArmorWriter is an io.WriteCloser that armors a message, with its checksum:
// readers of the time before RFC 9580 ask for one.
type ArmorWriter struct {
	w   io.Writer
	eol string

	crc    uint32
	rest   []byte // octets of a line that is not full
	text   []byte // lines that wait to be written
	opened bool
}

// armorBuffer is how much text is gathered before it goes out.
const armorBuffer = 32 << 10

// NewArmorWriter armors to w with eol at the end of each line.
func NewArmorWriter(w io.Writer, eol string) *ArmorWriter {
	return &ArmorWriter{
		w: w, eol: eol, crc: crcInit,
		rest: make([]byte, 0, lineOctets),
		text: make([]byte, 0, armorBuffer+lineColumns+len(eol)),
	}
}

// ArmoredSize is the length of size octets armored with line ends of eol
// bytes.
func ArmoredSize(size int64, eol int) int64 {
	lines := (size + lineOctets - 1) / lineOctets
	encoded := (size + 2) / 3 * 4
	const checksum = len("=AAAA")
	const fixedLines = 4 // head, empty line, checksum, tail
	return encoded + int64(len(armorHead)+len(armorTail)+checksum) + (lines+fixedLines)*int64(eol)
}

// Write armors p.
func (a *ArmorWriter) Write(p []byte) (int, error) {
	written := len(p)
	a.open()
	a.crc = crc24(a.crc, p)
	if len(a.rest) > 0 {
		n := min(lineOctets-len(a.rest), len(p))
		a.rest, p = append(a.rest, p[:n]...), p[n:]
		if len(a.rest) < lineOctets {
			return written, nil
		}
		if err := a.line(a.rest); err != nil {
			return 0, err
		}
		a.rest = a.rest[:0]
	}
	for len(p) >= lineOctets {
		if err := a.line(p[:lineOctets]); err != nil {
			return 0, err
		}
		p = p[lineOctets:]
	}
	a.rest = append(a.rest, p...)
	return written, nil
}

// Close writes the last line, the checksum and the tail.
func (a *ArmorWriter) Close() error {
	a.open()
	if len(a.rest) > 0 {
		if err := a.line(a.rest); err != nil {
			return err
		}
		a.rest = a.rest[:0]
	}
	a.text = append(a.text, '=')
	a.text = base64.StdEncoding.AppendEncode(a.text, []byte{byte(a.crc >> 16), byte(a.crc >> 8), byte(a.crc)})
	a.text = append(append(a.text, a.eol...), armorTail...)
	a.text = append(a.text, a.eol...)
	return a.flush()
}

func (a *ArmorWriter) open() {
	if a.opened {
		return
	}
	a.opened = true
	a.text = append(append(a.text, armorHead...), a.eol...)
	a.text = append(a.text, a.eol...)
}

func (a *ArmorWriter) line(octets []byte) error {
	a.text = base64.StdEncoding.AppendEncode(a.text, octets)
	a.text = append(a.text, a.eol...)
	if len(a.text) < armorBuffer {
		return nil
	}
	return a.flush()
}

func (a *ArmorWriter) flush() error {
	_, err := a.w.Write(a.text)
	a.text = a.text[:0]
	return err
}

// CRC-24 (RFC 9580, section 6.1.1), an octet at a time from a table.
const (
	crcInit = 0xB704CE
	crcPoly = 0x1864CFB
)

var crcTable = makeCRCTable()

func makeCRCTable() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= crcPoly
			}
		}
		table[i] = crc
	}
	return table
}

func crc24(crc uint32, p []byte) uint32 {
	for _, b := range p {
		crc = crc<<8 ^ crcTable[byte(crc>>16)^b]
	}
	return crc & 0xFFFFFF
}

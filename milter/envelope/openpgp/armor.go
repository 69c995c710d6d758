package openpgp

import (
	"encoding/base64"
	"io"

	"sealmilter/milter/envelope/lines"
)

// Armor (RFC 9580, section 6): 48 octets make a line of 64 characters.
const (
	armorHead  = "-----BEGIN PGP MESSAGE-----"
	armorTail  = "-----END PGP MESSAGE-----"
	lineOctets = 48
)

// ArmorWriter is an io.WriteCloser that armors a message, with its checksum:
// readers of the time before RFC 9580 ask for one.
type ArmorWriter struct {
	w      io.Writer
	eol    string
	lines  *lines.Writer
	crc    uint32
	opened bool
}

// NewArmorWriter armors to w with eol at the end of each line.
func NewArmorWriter(w io.Writer, eol string) *ArmorWriter {
	return &ArmorWriter{w: w, eol: eol, lines: lines.New(w, lineOctets, eol), crc: crcInit}
}

// ArmoredSize is the length of size octets armored with line ends of eol
// bytes.
func ArmoredSize(size int64, eol int) int64 {
	const checksum = len("=AAAA")
	const others = 4 // lines: head, an empty one, checksum, tail
	return int64(len(armorHead)+len(armorTail)+checksum+others*eol) + lines.Size(size, lineOctets, eol)
}

// Write armors p.
func (a *ArmorWriter) Write(p []byte) (int, error) {
	if err := a.open(); err != nil {
		return 0, err
	}
	a.crc = crc24(a.crc, p)
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
	checksum := base64.StdEncoding.EncodeToString([]byte{byte(a.crc >> 16), byte(a.crc >> 8), byte(a.crc)})
	_, err := io.WriteString(a.w, "="+checksum+a.eol+armorTail+a.eol)
	return err
}

func (a *ArmorWriter) open() error {
	if a.opened {
		return nil
	}
	a.opened = true
	_, err := io.WriteString(a.w, armorHead+a.eol+a.eol)
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

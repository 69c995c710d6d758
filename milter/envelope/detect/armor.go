package detect

import (
	"bytes"
	"encoding/base64"
	"errors"

	"sealmilter/keys"
	"sealmilter/milter/envelope/openpgp"
)

const (
	armorHead = "-----BEGIN PGP MESSAGE-----"
	armorTail = "-----END PGP MESSAGE-----"
	// armorLine is the longest line of armored data (RFC 9580, section 6).
	armorLine = 76
	// maxArmorHeader bounds what a sender can write in front of the data.
	maxArmorHeader = 512
)

// stage is what comes next in an armor.
type stage int

const (
	beforeArmor stage = iota
	armorHeader
	armorData
	afterSum
	afterArmor
)

// armored reads one armored OpenPGP message (RFC 9580, section 6) line by line,
// with blank lines around it and nothing else.
type armored struct {
	at      stage
	size    int // of the header
	base64  radix64
	crc     openpgp.CRC24
	packets packets
}

func (a *armored) line(line []byte) error {
	switch a.at {
	case beforeArmor:
		if isBlank(line) {
			return nil
		}
		if string(line) != armorHead {
			return errors.New("it does not begin with an armored OpenPGP message")
		}
		a.at, a.crc = armorHeader, openpgp.NewCRC24()
		a.base64.to = a.decoded
	case armorHeader:
		return a.headerLine(line)
	case armorData:
		return a.dataLine(line)
	case afterSum:
		if string(line) != armorTail {
			return errors.New("something stands between the checksum of the armor and its end")
		}
		a.at = afterArmor
	case afterArmor:
		if !isBlank(line) {
			return errors.New("there is text behind the armored message")
		}
	}
	return nil
}

// headerLine takes one of the armor headers that programs write (section
// 6.2.2), or the blank line behind them.
func (a *armored) headerLine(line []byte) error {
	if isBlank(line) {
		a.at = armorData
		return nil
	}
	if a.size += len(line); a.size > maxArmorHeader {
		return errors.New("the header of the armor is too long")
	}
	name, _, _ := bytes.Cut(line, []byte(": "))
	switch string(bytes.TrimSuffix(name, []byte(":"))) {
	case "Version", "Comment", "MessageID", "Hash", "Charset":
		return nil
	}
	return errors.New("the armor has a header line that is none")
}

// dataLine takes a line of data, the checksum or the tail. The checksum may be
// missing (section 6.1).
func (a *armored) dataLine(line []byte) error {
	switch {
	case string(line) == armorTail:
		a.at = afterArmor
		return nil
	case len(line) > 0 && line[0] == '=':
		var sum [6]byte
		n, err := a.base64.strict().Decode(sum[:], line[1:min(len(line), len(sum))])
		if len(line) != len("=AAAA") || err != nil || n != 3 ||
			[3]byte(sum[:3]) != a.crc.Octets() {
			return errors.New("the checksum of the armor is wrong")
		}
		a.at = afterSum
		return nil
	case len(line) > armorLine:
		return errors.New("the armor has a line that is too long")
	}
	return a.base64.line(line)
}

func (a *armored) decoded(octets []byte) error {
	a.crc = a.crc.Update(octets)
	return a.packets.write(octets)
}

func (a *armored) finish() ([]keys.ReaderID, error) {
	if a.at != afterArmor {
		return nil, errors.New("there is no armored OpenPGP message in it, or its end is missing")
	}
	if err := a.base64.finish(); err != nil {
		return nil, err
	}
	return a.packets.finish()
}

// radix64 decodes base64 line by line. Characters that mean nothing, which
// many decoders leap over, could be a text of their own and are an error.
type radix64 struct {
	to       func(octets []byte) error
	encoding *base64.Encoding
	rest     int // characters of an incomplete four, at the beginning of text
	text     [maxLine + 4]byte
	octets   [maxLine + 4]byte
	ended    bool // by padding
}

// strict is the alphabet of MIME and of armor, without stray bits at the end.
func (r *radix64) strict() *base64.Encoding {
	if r.encoding == nil {
		r.encoding = base64.StdEncoding.Strict()
	}
	return r.encoding
}

// line takes a line that is not empty and has at most maxLine characters, none
// of them a line end.
func (r *radix64) line(line []byte) error {
	if r.ended || len(line) == 0 || len(line) > maxLine {
		return errors.New("its base64 does not end where it should")
	}
	size := r.rest + copy(r.text[r.rest:], line)
	whole := size / 4 * 4
	n, err := r.strict().Decode(r.octets[:], r.text[:whole])
	if err != nil {
		return errors.New("its base64 has characters that are none")
	}
	r.rest = copy(r.text[:], r.text[whole:size])
	if r.ended = n < whole/4*3; r.ended && r.rest > 0 {
		return errors.New("its base64 does not end where it should")
	}
	return r.to(r.octets[:n])
}

func (r *radix64) finish() error {
	if r.rest > 0 {
		return errors.New("its base64 is cut off")
	}
	return nil
}

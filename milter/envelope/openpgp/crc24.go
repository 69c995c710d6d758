package openpgp

import "encoding/binary"

// CRC24 is the checksum of armor (RFC 9580, section 6.1.1), as it is after some
// octets. It is kept at the upper end of 32 bits, where eight octets at a time
// need no shifting to fit: that many tables hold what each of them does to it.
type CRC24 uint32

// NewCRC24 is the checksum of nothing.
func NewCRC24() CRC24 { return 0xB704CE << 8 }

// crcStride is how many octets are taken at a time.
const crcStride = 8

var crcTables = makeCRCTables()

func makeCRCTables() (tables [crcStride][256]uint32) {
	const polynomial = 0x864CFB << 8
	for i := range tables[0] {
		crc := uint32(i) << 24
		for range 8 {
			carry := crc >> 31
			crc = crc<<1 ^ carry*polynomial
		}
		tables[0][i] = crc
	}
	for t := 1; t < crcStride; t++ {
		for i, crc := range tables[t-1] {
			tables[t][i] = crc<<8 ^ tables[0][crc>>24]
		}
	}
	return tables
}

// Update is the checksum with the octets of p behind those that it knows.
func (c CRC24) Update(p []byte) CRC24 {
	crc := uint32(c)
	for ; len(p) >= crcStride; p = p[crcStride:] {
		first, second := crc^binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
		crc = crcTables[7][first>>24] ^ crcTables[6][first>>16&0xFF] ^ crcTables[5][first>>8&0xFF] ^ crcTables[4][first&0xFF] ^
			crcTables[3][second>>24] ^ crcTables[2][second>>16&0xFF] ^ crcTables[1][second>>8&0xFF] ^ crcTables[0][second&0xFF]
	}
	for _, octet := range p {
		crc = crc<<8 ^ crcTables[0][byte(crc>>24)^octet]
	}
	return CRC24(crc)
}

// Octets are the checksum as armor writes it.
func (c CRC24) Octets() [3]byte { return [3]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8)} }

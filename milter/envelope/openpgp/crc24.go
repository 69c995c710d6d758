package openpgp

import "encoding/binary"

// CRC24 is the checksum of armor (RFC 9580, section 6.1.1), as it is after some
// octets. It is kept at the upper end of 32 bits, where a block at a time needs
// no shifting to fit: a table for each octet of it holds what that does to the
// checksum.
type CRC24 uint32

// crcPolynomial is the generator, without its highest bit.
const crcPolynomial = 0x864CFB << 8

// NewCRC24 is the checksum of nothing.
func NewCRC24() CRC24 { return 0xB704CE << 8 }

// crcBlock is how many octets are taken at a time.
const crcBlock = 16

var crcTables = makeCRCTables()

func makeCRCTables() (tables [crcBlock][256]uint32) {
	for i := range tables[0] {
		crc := uint32(i) << 24
		for range 8 {
			carry := crc >> 31
			crc = crc<<1 ^ carry*crcPolynomial
		}
		tables[0][i] = crc
	}
	for t := 1; t < crcBlock; t++ {
		for i, crc := range tables[t-1] {
			tables[t][i] = crc<<8 ^ tables[0][crc>>24]
		}
	}
	return tables
}

// Update is the checksum with the octets of p behind those that it knows.
func (c CRC24) Update(p []byte) CRC24 {
	for ; len(p) >= crcBlock; p = p[crcBlock:] {
		c = c.block((*[crcBlock]byte)(p))
	}
	for _, octet := range p {
		c = c<<8 ^ CRC24(crcTables[0][byte(c>>24)^octet])
	}
	return c
}

func (c CRC24) block(p *[crcBlock]byte) CRC24 {
	t := &crcTables
	a, b := binary.BigEndian.Uint64(p[:8])^uint64(c)<<32, binary.BigEndian.Uint64(p[8:])
	return CRC24(t[15][a>>56] ^ t[14][byte(a>>48)] ^ t[13][byte(a>>40)] ^ t[12][byte(a>>32)] ^
		t[11][byte(a>>24)] ^ t[10][byte(a>>16)] ^ t[9][byte(a>>8)] ^ t[8][byte(a)] ^
		t[7][b>>56] ^ t[6][byte(b>>48)] ^ t[5][byte(b>>40)] ^ t[4][byte(b>>32)] ^
		t[3][byte(b>>24)] ^ t[2][byte(b>>16)] ^ t[1][byte(b>>8)] ^ t[0][byte(b)])
}

// Octets are the checksum as armor writes it.
func (c CRC24) Octets() [3]byte { return [3]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8)} }

// join puts octets behind those that the checksum knows, given their number and
// the checksum that they alone have. The CRC of two pieces is that of the first,
// shifted by the length of the second, and that of the second as begun at 0;
// what it began with otherwise has been shifted too.
func (c CRC24) join(alone CRC24, octets int64) CRC24 { return (c ^ NewCRC24()).shift(octets) ^ alone }

// shift is the checksum behind so many octets of 0: it is multiplied by x to the
// power of the bits, modulo the polynomial; the power is made by squaring.
func (c CRC24) shift(octets int64) CRC24 {
	for power := CRC24(1<<8) << 8; octets > 0; octets >>= 1 {
		if octets&1 != 0 {
			c = c.times(power)
		}
		power = power.times(power)
	}
	return c
}

// times multiplies two polynomials modulo that of the CRC.
func (c CRC24) times(other CRC24) (product CRC24) {
	for range 24 {
		carry := product >> 31
		product = product<<1 ^ carry*crcPolynomial
		if other>>31 != 0 {
			product ^= c
		}
		other <<= 1
	}
	return product
}

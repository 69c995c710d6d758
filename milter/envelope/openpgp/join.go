package openpgp

// Sum is what a checksum has to know of octets, whatever stands before them.
// The zero Sum is of none.
type Sum struct {
	crc    CRC24 // as it is where it was 0 in front of them
	octets int64
}

// Add adds octets.
func (s *Sum) Add(p []byte) {
	s.crc = s.crc.Update(p)
	s.octets += int64(len(p))
}

// Join puts octets into the checksum whose lines somebody else has written,
// behind what was flushed.
func (a *ArmorWriter) Join(s Sum) { a.crc = a.crc.shift(s.octets) ^ s.crc }

// shift is the checksum behind so many octets of 0: the CRC of two pieces is
// that of the first, shifted by the length of the second, and that of the second
// as begun at 0. It is multiplied by x to the power of the bits, modulo the
// polynomial; the power is made by squaring.
func (c CRC24) shift(octets int64) CRC24 {
	for power := CRC24(1<<8) << 8; octets > 0; octets >>= 1 {
		if octets&1 != 0 {
			c = c.times(power)
		}
		power = power.times(power)
	}
	return c
}

// times multiplies two polynomials modulo that of the CRC. Both are kept at the
// upper end, as the checksum is.
func (c CRC24) times(other CRC24) (product CRC24) {
	const polynomial = 0x864CFB << 8
	for range 24 {
		carry := product >> 31
		product = product<<1 ^ carry*polynomial
		if other>>31 != 0 {
			product ^= c
		}
		other <<= 1
	}
	return product
}

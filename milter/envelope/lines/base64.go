package lines

import "encoding/binary"

// alphabet is that of RFC 4648, section 4.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// pairs holds two characters for twelve bits, the first of them lower: with
// that, eight characters take four look-ups and one store, and encoding is more
// than twice as fast as encoding/base64, which goes character by character. What
// is looked up is ciphertext, so that timing tells nobody anything.
var pairs = makePairs()

func makePairs() (table [1 << 12]uint16) {
	for i := range table {
		table[i] = uint16(alphabet[i>>6]) | uint16(alphabet[i&63])<<8
	}
	return table
}

// encodeLine encodes octets, of which there are a multiple of three, to out and
// returns what is left of that.
func encodeLine(out, in []byte) []byte {
	for len(in) >= stride {
		encodeStride((*[strideColumns]byte)(out), (*[stride]byte)(in))
		in, out = in[stride:], out[strideColumns:]
	}
	for ; len(in) >= 8; in = in[6:] {
		binary.LittleEndian.PutUint64(out, eight(binary.BigEndian.Uint64(in)))
		out = out[8:]
	}
	for ; len(in) >= 3; in = in[3:] {
		bits := uint32(in[0])<<16 | uint32(in[1])<<8 | uint32(in[2])
		binary.LittleEndian.PutUint16(out, pairs[bits>>12])
		binary.LittleEndian.PutUint16(out[2:], pairs[bits&0xFFF])
		out = out[4:]
	}
	return out
}

// stride is how many octets are encoded at once, which make so many
// characters: a line of armor, and most of one of MIME.
const (
	stride        = 48
	strideColumns = stride / 3 * 4
)

// encodeStride has no loop, for it would take a fifth more time. Each step needs
// the upper six of eight octets; the last one reads two octets that are behind
// it, so as to read none behind the end.
func encodeStride(out *[strideColumns]byte, in *[stride]byte) {
	binary.LittleEndian.PutUint64(out[0:], eight(binary.BigEndian.Uint64(in[0:])))
	binary.LittleEndian.PutUint64(out[8:], eight(binary.BigEndian.Uint64(in[6:])))
	binary.LittleEndian.PutUint64(out[16:], eight(binary.BigEndian.Uint64(in[12:])))
	binary.LittleEndian.PutUint64(out[24:], eight(binary.BigEndian.Uint64(in[18:])))
	binary.LittleEndian.PutUint64(out[32:], eight(binary.BigEndian.Uint64(in[24:])))
	binary.LittleEndian.PutUint64(out[40:], eight(binary.BigEndian.Uint64(in[30:])))
	binary.LittleEndian.PutUint64(out[48:], eight(binary.BigEndian.Uint64(in[36:])))
	binary.LittleEndian.PutUint64(out[56:], eight(binary.BigEndian.Uint64(in[40:])<<16))
}

// eight makes characters of the upper 48 bits.
func eight(bits uint64) uint64 {
	return uint64(pairs[bits>>52]) | uint64(pairs[bits>>40&0xFFF])<<16 |
		uint64(pairs[bits>>28&0xFFF])<<32 | uint64(pairs[bits>>16&0xFFF])<<48
}

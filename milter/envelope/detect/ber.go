package detect

import "errors"

const (
	// maxDepth bounds how deep values lie in each other. A CMS message needs
	// about ten.
	maxDepth = 24
	// maxLengthOctets bounds the octets of a length: 4 GiB.
	maxLengthOctets = 4
)

// The identifier octets that CMS has (X.690, section 8.1.2).
const (
	berInteger     = 0x02
	berOctets      = 0x04
	berOID         = 0x06
	berSequence    = 0x30
	berSet         = 0x31
	berConstructed = 0x20
	berPlain       = 0x80 // [0], primitive
	berTagged      = 0xA0 // [0], constructed; [1] and so on follow
)

var errBER = errors.New("the S/MIME object is damaged")

// ber reads one value of BER (X.690) as it streams in. What mail programs
// write is not always DER: those that stream leave lengths out, and cut
// strings into pieces.
type ber struct {
	visitor visitor
	header  []byte // octets of a header that is not complete
	offset  int64  // of the next octet
	left    int64  // octets of the primitive value that are to come
	open    []berOpen
	ended   bool // the value is complete
}

// visitor is told of values in the order in which they stand.
type visitor interface {
	enter(identifier byte) error
	content(octets []byte) error // of the primitive value entered last
	leave() error
}

// berOpen is a constructed value that has not ended.
type berOpen struct {
	definite bool
	end      int64 // of the value; of an indefinite one that of what is around it, -1 for none
}

func (b *ber) write(octets []byte) error {
	for len(octets) > 0 {
		switch {
		case b.ended:
			return errors.New("something stands behind the S/MIME object")
		case b.left > 0:
			n := int(min(int64(len(octets)), b.left))
			if err := b.visitor.content(octets[:n]); err != nil {
				return err
			}
			b.left -= int64(n)
			b.offset += int64(n)
			octets = octets[n:]
			if b.left == 0 {
				if err := b.leave(); err != nil {
					return err
				}
			}
		default:
			b.header = append(b.header, octets[0])
			b.offset++
			octets = octets[1:]
			if err := b.readHeader(); err != nil {
				return err
			}
		}
	}
	return nil
}

// readHeader goes on once identifier and length octets are complete (X.690,
// sections 8.1.2 and 8.1.3).
func (b *ber) readHeader() error {
	const longTag, indefinite = 0x1F, 0x80
	identifier := b.header[0]
	if identifier&longTag == longTag {
		return errBER
	}
	if len(b.header) < 2 {
		return nil
	}
	first, octets := b.header[1], b.header[2:]
	length := int64(first)
	if first > indefinite {
		if first&^indefinite > maxLengthOctets {
			return errBER
		}
		if len(octets) < int(first&^indefinite) {
			return nil
		}
		length = 0
		for _, octet := range octets {
			length = length<<8 | int64(octet)
		}
	}
	b.header = b.header[:0]
	if identifier == 0 {
		return b.endOfContents(length)
	}
	if first == indefinite {
		length = -1
	}
	return b.enter(identifier, length)
}

// around is where the innermost value ends that has a definite length, -1
// where none has.
func (b *ber) around() int64 {
	if len(b.open) == 0 {
		return -1
	}
	return b.open[len(b.open)-1].end
}

func (b *ber) enter(identifier byte, length int64) error {
	end := b.around()
	if length >= 0 {
		if end >= 0 && b.offset+length > end {
			return errBER
		}
		end = b.offset + length
	} else if end >= 0 && b.offset > end {
		return errBER
	}
	constructed := identifier&berConstructed != 0
	if len(b.open) == maxDepth || length < 0 && !constructed {
		return errBER
	}
	if err := b.visitor.enter(identifier); err != nil {
		return err
	}
	if !constructed {
		if b.left = length; length == 0 {
			return b.leave()
		}
		return nil
	}
	b.open = append(b.open, berOpen{length >= 0, end})
	return b.settle()
}

// endOfContents ends a value of indefinite length (X.690, section 8.1.5).
func (b *ber) endOfContents(length int64) error {
	last := len(b.open) - 1
	if length != 0 || last < 0 || b.open[last].definite || b.open[last].end >= 0 && b.offset > b.open[last].end {
		return errBER
	}
	b.open = b.open[:last]
	return b.leave()
}

// leave tells of the end of a value, and of those that end with it.
func (b *ber) leave() error {
	if err := b.visitor.leave(); err != nil {
		return err
	}
	return b.settle()
}

// settle ends the innermost value where its length is used up.
func (b *ber) settle() error {
	last := len(b.open) - 1
	if last < 0 {
		b.ended = true
		return nil
	}
	if !b.open[last].definite || b.offset < b.open[last].end {
		return nil
	}
	b.open = b.open[:last]
	return b.leave()
}

// der gathers a value that is entered, and writes it with definite lengths,
// for encoding/asn1 to read. It is meant for small values.
type der struct {
	open [][]byte // contents so far of the values that have not ended, each behind its identifier
	size int
	done []byte // the value, once it has ended
}

// maxSmallValue bounds a value that is gathered, in bytes: one RecipientInfo
// by key agreement may name hundreds of readers.
const maxSmallValue = 128 << 10

func (d *der) enter(identifier byte) error {
	d.open = append(d.open, []byte{identifier})
	return d.grow(2)
}

func (d *der) content(octets []byte) error {
	last := len(d.open) - 1
	d.open[last] = append(d.open[last], octets...)
	return d.grow(len(octets))
}

func (d *der) grow(octets int) error {
	if d.size += octets; d.size > maxSmallValue {
		return errors.New("the S/MIME object has too large a part in front of its content")
	}
	return nil
}

func (d *der) leave() error {
	last := len(d.open) - 1
	identifier, content := d.open[last][0], d.open[last][1:]
	d.open = d.open[:last]
	value := []byte{identifier}
	switch size := len(content); {
	case size < 0x80:
		value = append(value, byte(size))
	case size < 1<<8:
		value = append(value, 0x81, byte(size))
	case size < 1<<16:
		value = append(value, 0x82, byte(size>>8), byte(size))
	default: // maxSmallValue is far below 1<<24
		value = append(value, 0x83, byte(size>>16), byte(size>>8), byte(size))
	}
	value = append(value, content...)
	if last == 0 {
		d.done = value
		return nil
	}
	d.open[last-1] = append(d.open[last-1], value...)
	return nil
}

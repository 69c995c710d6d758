package cms

import (
	"encoding/asn1"
	"fmt"
)

// What is written is put together from its parts by hand: encoding/asn1 counts
// only what it has in memory, and the ciphertext is not.

// Identifier octets of DER (X.690, section 8.1.2), beside those of plain values,
// which are their tags.
const (
	constructed = 0x20
	tagSequence = asn1.TagSequence | constructed
	tagSet      = asn1.TagSet | constructed
	tagContext  = asn1.ClassContextSpecific << 6 // [0], primitive; [1] is one more
)

// enclose puts a header in front of a value's parts. Its length counts octets
// that follow the last of them.
func enclose(tag byte, following int64, parts ...[]byte) []byte {
	inside := 0
	for _, part := range parts {
		inside += len(part)
	}
	const longestHeader = 10
	value := make([]byte, 0, longestHeader+inside)
	value = append(value, header(tag, int64(inside)+following)...)
	for _, part := range parts {
		value = append(value, part...)
	}
	return value
}

// header writes the identifier octet and the length of a DER value, in as few
// octets as the length needs.
func header(tag byte, length int64) []byte {
	if length < 0x80 {
		return []byte{tag, byte(length)}
	}
	octets := 1
	for length>>(8*octets) != 0 {
		octets++
	}
	h := []byte{tag, 0x80 | byte(octets)}
	for octets--; octets >= 0; octets-- {
		h = append(h, byte(length>>(8*octets)))
	}
	return h
}

// null is the value NULL, to be read only.
var null = asn1.NullBytes

// integer writes an INTEGER from 0 to 127.
func integer(small int) []byte { return []byte{asn1.TagInteger, 1, byte(small)} }

// object writes an OBJECT IDENTIFIER.
func object(identifier asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(identifier)
	if err != nil {
		panic(fmt.Sprintf("internal error: object identifier %s: %v", identifier, err))
	}
	return der
}

// algorithm writes an AlgorithmIdentifier, with parameters where there are some.
func algorithm(identifier asn1.ObjectIdentifier, parameters ...[]byte) []byte {
	return enclose(tagSequence, 0, append([][]byte{object(identifier)}, parameters...)...)
}

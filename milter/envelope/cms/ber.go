package cms

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// value is one value of BER (X.690). What mail programs write is not always
// DER: those that stream do not know lengths when they begin, so they leave
// them out, and cut strings into pieces.
type value struct {
	class       int
	tag         int
	constructed bool
	content     []byte // between header and end
}

// maxDepth bounds how deep values may lie in each other. A CMS message needs
// about ten.
const maxDepth = 32

var errCutOff = errors.New("the message is cut off")

// readValue reads the first value in data.
func readValue(data []byte, depth int) (v value, rest []byte, err error) {
	if depth > maxDepth {
		return v, nil, errors.New("the message is nested too deep")
	}
	v, length, rest, err := readHeader(data)
	if err != nil {
		return v, nil, err
	}
	if length >= 0 {
		if length > len(rest) {
			return v, nil, errCutOff
		}
		v.content = rest[:length]
		return v, rest[length:], nil
	}
	// Of indefinite length: it ends where a value of two zeros stands.
	for inside := rest; ; {
		if len(inside) < 2 {
			return v, nil, errCutOff
		}
		if inside[0] == 0 && inside[1] == 0 {
			v.content = rest[:len(rest)-len(inside)]
			return v, inside[2:], nil
		}
		if _, inside, err = readValue(inside, depth+1); err != nil {
			return v, nil, err
		}
	}
}

// readHeader reads identifier and length octets; a length of -1 is indefinite.
func readHeader(data []byte) (v value, length int, rest []byte, err error) {
	if len(data) < 2 {
		return v, 0, nil, errCutOff
	}
	const longTag, indefinite, longest = 0x1F, 0x80, 4
	v = value{class: int(data[0] >> 6), constructed: data[0]&0x20 != 0, tag: int(data[0] & longTag)}
	if v.tag == longTag {
		return v, 0, nil, errors.New("the message has a tag that CMS does not know")
	}
	first := data[1]
	rest = data[2:]
	switch {
	case first < indefinite:
		return v, int(first), rest, nil
	case first == indefinite && v.constructed:
		return v, -1, rest, nil
	}
	octets := int(first &^ indefinite)
	if octets == 0 || octets > longest || octets > len(rest) {
		return v, 0, nil, errors.New("the message has a length that cannot be")
	}
	for _, octet := range rest[:octets] {
		length = length<<8 | int(octet)
	}
	return v, length, rest[octets:], nil
}

// is says whether the value has a tag.
func (v value) is(class, tag int) bool { return v.class == class && v.tag == tag }

// children reads all values inside a constructed one.
func (v value) children() (all []value, err error) {
	if !v.constructed {
		return nil, errors.New("the message has a plain value where a composed one belongs")
	}
	for rest := v.content; len(rest) > 0; {
		var child value
		if child, rest, err = readValue(rest, 0); err != nil {
			return nil, err
		}
		all = append(all, child)
	}
	return all, nil
}

// octets joins the pieces of a string that may have been cut.
func (v value) octets(depth int) ([]byte, error) {
	if !v.constructed {
		return v.content, nil
	}
	if depth > maxDepth {
		return nil, errors.New("the message is nested too deep")
	}
	var joined []byte
	for rest := v.content; len(rest) > 0; {
		var piece value
		var err error
		if piece, rest, err = readValue(rest, 0); err != nil {
			return nil, err
		}
		if piece.class != asn1.ClassUniversal || piece.tag != asn1.TagOctetString {
			return nil, errors.New("the message has a piece of a string that is none")
		}
		some, err := piece.octets(depth + 1)
		if err != nil {
			return nil, err
		}
		joined = append(joined, some...)
	}
	return joined, nil
}

// der writes a value with definite lengths, for encoding/asn1 to read. It is
// meant for small values.
func (v value) der(depth int) ([]byte, error) {
	content := v.content
	if v.constructed {
		if depth > maxDepth {
			return nil, errors.New("the message is nested too deep")
		}
		inside, err := v.children()
		if err != nil {
			return nil, err
		}
		content = nil
		for _, child := range inside {
			der, err := child.der(depth + 1)
			if err != nil {
				return nil, err
			}
			content = append(content, der...)
		}
	}
	identifier := byte(v.class<<6 | v.tag)
	if v.constructed {
		identifier |= constructed
	}
	return enclose(identifier, 0, content), nil
}

// set writes a small value as a SET OF, whatever its tag is: sorted, as DER wants
// it (X.690, section 11.6).
func (v value) set() ([]byte, error) {
	inside, err := v.children()
	if err != nil {
		return nil, err
	}
	members := make([][]byte, len(inside))
	for i, child := range inside {
		if members[i], err = child.der(1); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(members, bytes.Compare)
	return enclose(tagSet, 0, members...), nil
}

// unmarshal reads a small value into what encoding/asn1 takes.
func (v value) unmarshal(into any, params string) error {
	der, err := v.der(0)
	if err != nil {
		return err
	}
	rest, err := asn1.UnmarshalWithParams(der, into, params)
	if err == nil && len(rest) > 0 {
		err = errors.New("something stands behind it")
	}
	if err != nil {
		return fmt.Errorf("reading a part of the message: %w", err)
	}
	return nil
}

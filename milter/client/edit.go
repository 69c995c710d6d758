package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-milter"
)

// actAddRcptPar adds a recipient with ESMTP arguments; go-milter has no name
// for it, nor for the progress packet.
const (
	actAddRcptPar = milter.ModifyActCode('2')
	progress      = byte('p')
)

// Edit is one edit that a filter asked for. Which fields are used depends on
// the code.
type Edit struct {
	Code  milter.ModifyActCode
	Index uint32   // of a header field
	Name  string   // of a header field
	Value string   // of a header field; an address; the reason of a quarantine
	Args  []string // ESMTP arguments of an address
	Body  []byte   // a chunk of the new body, as it was sent
}

// edits names the flag that each edit must have been negotiated by.
var edits = map[milter.ModifyActCode]milter.OptAction{
	milter.ActAddRcpt:      milter.OptAddRcpt,
	actAddRcptPar:          milter.OptAddRcptWithArgs,
	milter.ActDelRcpt:      milter.OptRemoveRcpt,
	milter.ActReplBody:     milter.OptChangeBody,
	milter.ActAddHeader:    milter.OptAddHeader,
	milter.ActInsertHeader: milter.OptAddHeader,
	milter.ActChangeHeader: milter.OptChangeHeader,
	milter.ActQuarantine:   milter.OptQuarantine,
	milter.ActChangeFrom:   milter.OptChangeFrom,
}

func isEdit(code byte) bool {
	_, known := edits[milter.ModifyActCode(code)]
	return known
}

// maxHeaderLine is the most that RFC 5322, section 2.1.1, allows in a line.
const maxHeaderLine = 998

// parseEdit reads an edit and refuses what could not go into a message, or was
// not negotiated.
func parseEdit(f Frame, negotiated milter.OptAction) (Edit, error) {
	e := Edit{Code: milter.ModifyActCode(f.Code)}
	if need := edits[e.Code]; negotiated&need == 0 {
		return e, fmt.Errorf("not negotiated (needs %#x of %#x)", uint32(need), uint32(negotiated))
	}
	data := f.Data
	switch e.Code {
	case milter.ActReplBody:
		if len(data) == 0 || len(data) > milter.MaxBodyChunk {
			return e, fmt.Errorf("a body chunk of %d bytes", len(data))
		}
		e.Body = data
		return e, nil
	case milter.ActChangeHeader, milter.ActInsertHeader:
		if len(data) < 4 {
			return e, errors.New("too short for an index")
		}
		e.Index = binary.BigEndian.Uint32(data)
		data = data[4:]
	}
	texts, err := cStrings(data)
	if err != nil {
		return e, err
	}
	switch e.Code {
	case milter.ActAddHeader, milter.ActInsertHeader, milter.ActChangeHeader:
		if len(texts) != 2 {
			return e, fmt.Errorf("%d strings instead of name and value", len(texts))
		}
		e.Name, e.Value = texts[0], texts[1]
		return e, e.checkField()
	case actAddRcptPar, milter.ActChangeFrom:
		e.Value, e.Args = texts[0], texts[1:]
	default:
		if len(texts) != 1 {
			return e, fmt.Errorf("%d strings instead of one", len(texts))
		}
		e.Value = texts[0]
	}
	return e, nil
}

// checkField refuses what would not be one header field, or not one that every
// MTA can pass on.
func (e Edit) checkField() error {
	if n := len(e.Name); n == 0 || nameLength([]byte(e.Name+":")) != n {
		return fmt.Errorf("%q is no header field name", e.Name)
	}
	if e.Code == milter.ActChangeHeader && (e.Index == 0 || e.Index > 1<<30) {
		return fmt.Errorf("header field index %d", e.Index)
	}
	if strings.Contains(e.Value, "\r") {
		return fmt.Errorf("%s: CR in the value", e.Name)
	}
	for i, line := range strings.Split(e.Name+":"+e.Value, "\n") {
		if i > 0 && !continues([]byte(line)) {
			return fmt.Errorf("%s: line %d is no continuation line", e.Name, i+1)
		}
		if len(line) > maxHeaderLine {
			return fmt.Errorf("%s: line %d has %d octets", e.Name, i+1, len(line))
		}
	}
	return nil
}

// cStrings splits NUL-terminated strings; there must be one at least.
func cStrings(data []byte) ([]string, error) {
	inner, ended := bytes.CutSuffix(data, []byte{0})
	if !ended {
		return nil, errors.New("a string without its NUL")
	}
	return strings.Split(string(inner), "\x00"), nil
}

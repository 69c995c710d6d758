package envelope

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"sealmilter/keys"
)

// Header protection (RFC 9788) as a receiving server can do it. The payload has
// the sender's header already; what makes it count for the reader is said on its
// root Content-Type, and behind the header stand HP-Outer fields for what shows
// outside (section 2.2). Both are put into the header between the octets of the
// message, of which none is changed, and the payload's first line says where:
//
//	X-Sealmilter-Payload: sealed by the receiving server, not by the sender; added=43+37,89+65
//	Subject: Tomatoes
//	Content-Type: text/plain; protected-headers="v1"; hp="cipher"; charset=utf-8
//	From: Ann <ann@example.org>
//	HP-Outer: Subject: [...]
//	HP-Outer: From: Ann <ann@example.org>
//
// So Original takes it all off without looking at what it says, and nothing that
// a sender has written is ever taken for it.

// payloadMark begins the first line of such a payload. RFC 9788 takes whoever
// encrypts for the sender: a reader who cares finds here that it was not so.
const payloadMark = "X-Sealmilter-Payload: sealed by the receiving server, not by the sender; added="

// addition is text that stands in a payload in front of one octet of the message.
type addition struct {
	at   int // octets of the message before it
	text string
}

// writeHeader writes a payload's header and the empty line behind it.
func writeHeader(w io.Writer, fields []Field, protection keys.HeaderProtection, addsType bool) error {
	header := headerText(fields)
	var added []addition
	front := ""
	switch {
	case protection != keys.NoProtection:
		added = protect(fields, protection)
		front = mark(added)
	case addsType && (!hasType(fields) || bytes.HasPrefix(header, []byte(addedType))):
		front = addedType
	case bytes.HasPrefix(header, []byte(payloadMark)), bytes.HasPrefix(header, []byte(addedType)):
		front = mark(nil)
	}
	if _, err := io.WriteString(w, front); err != nil {
		return err
	}
	written := 0
	for _, a := range append(added, addition{at: len(header)}) {
		if _, err := w.Write(header[written:a.at]); err != nil {
			return err
		}
		if _, err := io.WriteString(w, a.text); err != nil {
			return err
		}
		written = a.at
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// headerText is the header as the message has it, with CRLF line ends.
func headerText(fields []Field) []byte {
	var header bytes.Buffer
	for _, f := range fields {
		header.WriteString(f.Name)
		header.WriteByte(':')
		header.WriteString(crlf(f.Value))
		header.WriteString("\r\n")
	}
	return header.Bytes()
}

func hasType(fields []Field) bool {
	for _, f := range fields {
		if fieldName(f) == "content-type" {
			return true
		}
	}
	return false
}

// mark is the first line of a payload with these additions.
func mark(added []addition) string {
	line := []byte(payloadMark)
	for i, a := range added {
		if i > 0 {
			line = append(line, ',')
		}
		line = strconv.AppendInt(line, int64(a.at), 10)
		line = append(line, '+')
		line = strconv.AppendInt(line, int64(len(a.text)), 10)
	}
	return string(append(line, "\r\n"...))
}

// unmark takes the mark and the additions off a payload. Another one it gives
// back as it is.
func unmark(payload []byte) []byte {
	behind, marked := bytes.CutPrefix(payload, []byte(payloadMark))
	list, rest, ended := bytes.Cut(behind, []byte("\r\n"))
	switch {
	case !marked, !ended:
		return payload
	case len(list) == 0:
		return rest
	}
	message := make([]byte, 0, len(rest))
	for entry := range strings.SplitSeq(string(list), ",") {
		at, length, _ := strings.Cut(entry, "+")
		before, errAt := strconv.ParseUint(at, 10, 62)
		added, errLength := strconv.ParseUint(length, 10, 62)
		if errAt != nil || errLength != nil || before < uint64(len(message)) || before-uint64(len(message))+added > uint64(len(rest)) {
			return payload
		}
		keep := int(before) - len(message)
		if !isAdded(string(rest[keep : keep+int(added)])) {
			return payload // its sender has sealed it, and would hide something from us
		}
		message = append(message, rest[:keep]...)
		rest = rest[keep+int(added):]
	}
	return append(message, rest...)
}

// isAdded says whether a text can be one that protect adds. A sender who encrypts
// by himself can write a mark too.
func isAdded(text string) bool {
	if text == "x-" || text == "X-" {
		return true
	}
	typed := strings.TrimPrefix(strings.TrimPrefix(text, "Content-Type:"), " text/plain")
	if rest, ok := strings.CutPrefix(typed, protectedType); ok {
		return rest == "" || rest == ";" || rest == "\r\n"
	}
	return strings.HasPrefix(text, "HP-Outer: ") && strings.HasSuffix(text, "\r\n")
}

// protectedType is what a root Content-Type says of a header that is protected
// and encrypted: hp in RFC 9788, section 2.1; the other for Thunderbird and what
// is older than the RFC (draft-autocrypt-lamps-protected-headers).
const protectedType = `; protected-headers="v1"; hp="cipher"`

// protect lists what is added to a header, in its order.
func protect(fields []Field, protection keys.HeaderProtection) (added []addition) {
	at := 0
	typed := false
	for _, f := range fields {
		value := crlf(f.Value)
		switch fieldName(f) {
		case "content-type":
			// Of several, nobody knows which counts.
			typed = true
			for _, a := range protectType(value) {
				added = append(added, addition{at + len(f.Name) + len(":") + a.at, a.text})
			}
		case "hp-outer":
			// A sender's own would be taken for ours: what it says of the
			// subject decides whether a reply may show it.
			added = append(added, addition{at, "X-"})
		}
		at += len(f.Name) + len(":") + len(value) + len("\r\n")
	}
	if !typed {
		added = append([]addition{{0, "Content-Type: text/plain" + protectedType + "\r\n"}}, added...)
	}
	if outside := outerFields(fields, protection); outside != "" {
		added = append(added, addition{at, outside})
	}
	return added
}

// outerFields are HP-Outer fields (RFC 9788, section 2.2.1) for the fields that
// stand outside, in their order: all of the sender's and of the servers on the
// way, but for those about the MIME entity. What comes to a sealed message later,
// as our marker and the trace of the servers behind us, is in none of them.
func outerFields(shown []Field, protection keys.HeaderProtection) string {
	var lines strings.Builder
	for _, f := range outer(shown, protection) {
		if f.Name == "" || structural(fieldName(f)) {
			continue
		}
		lines.WriteString("HP-Outer: ")
		lines.WriteString(strings.TrimRight(f.Name, " \t"))
		lines.WriteByte(':')
		if !strings.HasPrefix(f.Value, " ") {
			lines.WriteByte(' ') // which the syntax asks for
		}
		lines.WriteString(crlf(f.Value))
		lines.WriteString("\r\n")
	}
	return lines.String()
}

// protectType lists what is added to the value of a Content-Type field. Its
// parameters go behind the media type, before those of the sender: what stands at
// the end, a semicolon, a quote or a comment that does not close, takes nothing
// from them there. Those of the same meaning that the sender wrote become others
// (x-hp): whether the header is protected only who encrypts can say, and of two
// answers programs take one or the other. A value without a media type means
// text/plain (RFC 2045, section 5.2).
func protectType(value string) []addition {
	kind := mediaType(value)
	params := protectedType
	if kind == 0 {
		params = " text/plain" + params
	}
	added := []addition{{kind, params}}
	if rest := strings.TrimLeft(value[kind:], " \t\r\n"); rest != "" && rest[0] != ';' && rest[0] != '(' {
		added[0].text += ";" // which the sender forgot: text/html charset=utf-8
		added = append(added, renamed(value, kind)...)
	}
	for i := kind; i < len(value); i++ {
		switch value[i] {
		case '"', '(':
			length := quoted(value[i:])
			if length < 0 {
				return added
			}
			i += length - 1
		case ';':
			added = append(added, renamed(value, i+1)...)
			i += len(value[i+1:]) - len(skipSpace(value[i+1:]))
		}
	}
	return added
}

// renamed is what makes another of the parameter that begins at a place in the
// value of a Content-Type field, where it is one of ours.
func renamed(value string, at int) []addition {
	name := skipSpace(value[at:])
	at = len(value) - len(name)
	if end := strings.IndexAny(name, "=*;\"( \t\r\n"); end >= 0 {
		name = name[:end]
	}
	switch strings.ToLower(name) {
	case "hp", "protected-headers", "hp-legacy-display":
		return []addition{{at, "x-"}}
	}
	return nil
}

// mediaType is where the media type ends in the value of a Content-Type field. It
// is 0 where there is none.
func mediaType(value string) (end int) {
	slash := 0 // behind it
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case ';', '"':
			return end
		case '(':
			length := quoted(value[i:])
			if length < 0 {
				return end
			}
			i += length - 1
		case ' ', '\t', '\r', '\n':
			if slash > 0 && end > slash {
				return end
			}
		case '/':
			end, slash = i+1, i+1
		default:
			end = i + 1
		}
	}
	return end
}

// skipSpace is text without the white space and the comments that it begins with.
func skipSpace(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		length := -1
		if strings.HasPrefix(text, "(") {
			length = quoted(text)
		}
		if length < 0 {
			return text
		}
		text = text[length:]
	}
}

package client

import (
	"bytes"
	"slices"
	"strings"
)

// Field is one header field as a filter is shown it with SMFIP_HDR_LEADSPC
// negotiated: the value is everything behind the colon, the leading space too,
// with the lines of a folded field joined by LF and no line end at the end.
type Field struct {
	Name, Value string
}

// Message is a message taken apart as an MTA shows it to a filter. The body's
// line ends are CRLF.
type Message struct {
	Header []Field
	Body   []byte
}

// Shown is the byte string that the filter was shown: each field with CRLF line
// ends, an empty line, the body. The empty line is there even where the message
// had none, as it is in what the MTA delivers.
func (m Message) Shown() []byte {
	size := len(m.Body) + 2
	for _, f := range m.Header {
		size += len(f.Name) + len(f.Value) + strings.Count(f.Value, "\n") + 3
	}
	shown := make([]byte, 0, size)
	for _, f := range m.Header {
		shown = append(shown, f.Name...)
		shown = append(shown, ':')
		shown = append(shown, strings.ReplaceAll(f.Value, "\n", "\r\n")...)
		shown = append(shown, "\r\n"...)
	}
	shown = append(shown, "\r\n"...)
	return append(shown, m.Body...)
}

// WithoutLeadingSpace is the message as a filter sees it that did not negotiate
// SMFIP_HDR_LEADSPC: the MTA eats one space, and only a space, behind each colon.
func (m Message) WithoutLeadingSpace() Message {
	m.Header = slices.Clone(m.Header)
	for i, f := range m.Header {
		m.Header[i].Value = strings.TrimPrefix(f.Value, " ")
	}
	return m
}

// ParseMessage splits a message with the zero Parser: as little is altered as
// any MTA may leave unaltered. Use PostfixParser for what a Postfix with its
// default settings shows.
func ParseMessage(raw []byte) Message {
	return Parser{}.Parse(raw)
}

// Parser splits a message as smtpd(8) and cleanup(8) of Postfix 3.7 do before
// they show it to a filter. That the header ends where it ends there, that a
// header line ends at a NUL and that a header field has a largest length are no
// settings of Postfix and happen with every Parser.
type Parser struct {
	// MaskCR makes each CR that ends no line a space, in the header and in the
	// body: cleanup_replace_stray_cr_lf, which Postfix 3.7.11 has on by default.
	// Without it, and in older Postfix, a lone CR survives.
	MaskCR bool

	// EndLastLine adds the CRLF that the last line lacks. A message cannot end
	// within a line in SMTP, but a filter should not count on that.
	EndLastLine bool

	// Drop names the fields that the MTA removes before the filter sees the
	// message: message_drop_headers in Postfix.
	Drop []string
}

// PostfixParser is the Parser of a Postfix 3.7.11 with its default settings
// that took the message over SMTP from another host. (From a host that matches
// local_header_rewrite_clients, as 127.0.0.1 does by default, Postfix besides
// completes addresses and adds a missing Date, From and Message-Id, all of it
// before the filter is asked.)
func PostfixParser() Parser {
	return Parser{
		MaskCR:      true,
		EndLastLine: true,
		Drop:        []string{"Bcc", "Content-Length", "Resent-Bcc", "Return-Path"},
	}
}

const (
	lineLimit   = 2048   // line_length_limit: a longer line is read in pieces
	headerLimit = 102400 // header_size_limit: what is beyond it is not gathered
	shownLimit  = 60000  // what Postfix keeps of a header field where there are filters
)

// Parse splits a message.
func (p Parser) Parse(raw []byte) Message {
	// Postfix has written its own Received field already: a first line that
	// begins with white space would continue that one.
	in := intake{Parser: p, field: []byte("Received:"), own: true}
	in.message.Body = make([]byte, 0, len(raw))
	first := true
	for len(raw) > 0 {
		var r record
		r, raw = nextRecord(raw)
		if len(raw) == 0 && !r.ends && p.EndLastLine {
			r = record{bytes.TrimRight(r.text, "\r"), true}
		}
		if first {
			// smtpd makes a header field of mbox "From " lines, and begins the
			// body at white space. (It overlooks a CR that becomes a space.)
			if bytes.HasPrefix(bytes.TrimLeft(r.text, ">"), []byte("From ")) {
				in.add(record{append([]byte("X-Mailbox-Line: "), untilNUL(r.text)...), r.ends})
				continue
			}
			first = false
			if continues(r.text) {
				in.add(record{ends: true})
			}
		}
		in.add(r)
	}
	in.field = bytes.TrimRight(in.field, "\r") // of a header line that the message breaks off in
	in.flush()
	return in.message
}

// record is a line without its end, or a piece of a long line.
type record struct {
	text []byte
	ends bool // the line ends with this record
}

// nextRecord cuts the next record off raw, as smtp_get() of Postfix does: a line
// ends at a LF, and every CR in front of it goes with it.
func nextRecord(raw []byte) (record, []byte) {
	n := min(len(raw), lineLimit)
	if i := bytes.IndexByte(raw[:n], '\n'); i >= 0 {
		return record{bytes.TrimRight(raw[:i], "\r"), true}, raw[i+1:]
	}
	if raw[n-1] == '\r' && n < len(raw) && raw[n] == '\n' {
		return record{bytes.TrimRight(raw[:n], "\r"), true}, raw[n+1:] // the limit fell between CR and LF
	}
	return record{raw[:n], false}, raw[n:]
}

// intake gathers records into a message, as the header parser of cleanup does.
type intake struct {
	Parser
	message Message
	field   []byte // the field being gathered, "name:value"
	own     bool   // it is the MTA's own, which no filter sees
	partial bool   // the record before was a piece whose line goes on
	inBody  bool
}

func (in *intake) add(r record) {
	if in.MaskCR {
		r.text = bytes.ReplaceAll(r.text, []byte{'\r'}, []byte{' '})
	}
	if in.inBody {
		in.addBody(r)
		return
	}
	text := untilNUL(r.text)
	if len(in.field) > 0 {
		if in.partial || continues(text) {
			if len(in.field) < headerLimit {
				if !in.partial {
					in.field = append(in.field, '\n')
				}
				in.field = append(in.field, text...)
			}
			in.partial = !r.ends
			return
		}
		in.flush()
	}
	if n := nameLength(text); n > 0 {
		// The obsolete form "name : value" loses the white space.
		in.field = append(slices.Clone(text[:n]), bytes.TrimLeft(text[n:], " \t")...)
		in.partial = !r.ends
		return
	}
	in.inBody = true
	if len(r.text) > 0 {
		in.addBody(r) // no empty line: the header just stops, and this is the body's first line
	}
}

func (in *intake) addBody(r record) {
	in.message.Body = append(in.message.Body, r.text...)
	if r.ends {
		in.message.Body = append(in.message.Body, "\r\n"...)
	}
}

// flush ends the field being gathered.
func (in *intake) flush() {
	name, value, found := strings.Cut(string(truncated(in.field)), ":")
	drop := in.own || slices.ContainsFunc(in.Drop, func(n string) bool { return strings.EqualFold(n, name) })
	in.field, in.own = nil, false
	if found && !drop {
		in.message.Header = append(in.message.Header, Field{name, value})
	}
}

// truncated is a field within the limit: cut between two lines where that loses
// less than a tenth of it, else within one.
func truncated(field []byte) []byte {
	for start := 0; start < len(field); {
		end := len(field)
		if i := bytes.IndexByte(field[start:], '\n'); i >= 0 {
			end = start + i
		}
		if end > shownLimit {
			if start > shownLimit/10*9 {
				return field[:start-1]
			}
			return field[:shownLimit]
		}
		start = end + 1
	}
	return field
}

// nameLength is the length of the field name that a line begins with, or 0
// where the line is no header field: printable ASCII, then perhaps white space,
// then a colon.
func nameLength(line []byte) int {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return 0
	}
	name := bytes.TrimRight(line[:colon], " \t")
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return 0
		}
	}
	return len(name)
}

func continues(line []byte) bool {
	return len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
}

// untilNUL is a text as C code sees it.
func untilNUL(text []byte) []byte {
	before, _, _ := bytes.Cut(text, []byte{0})
	return before
}

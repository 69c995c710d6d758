package envelope

import (
	"fmt"
	"net/mail"
	"strings"
)

// shy is a field as hcp_shy shows it (RFC 9788, section 3.2.2), name being its
// name in lower case: of addresses without the names of people, of dates without
// their time zone. The RFC speaks of From, To, Cc and Date; the same names and
// zones stand in the other fields for an originator, a recipient or an answer, of
// which Author (RFC 9057) is the From that a list has replaced, and in what a
// server has kept of a field that it took out of UTF-8 (RFC 6857, section 3.1.1).
func shy(f Field, name string) Field {
	switch strings.TrimPrefix(strings.TrimPrefix(name, "downgraded-"), "resent-") {
	case "from", "author", "to", "cc", "bcc", "sender", "reply-to", "mail-reply-to", "mail-followup-to", "disposition-notification-to", "return-receipt-to", "x-original-from", "x-google-original-from":
		return bareAddresses(f, name)
	case "date":
		if utc := inUTC(f.Value); utc != "" {
			return Field{f.Name, " " + utc}
		}
	}
	return f
}

// bareAddresses leaves the addresses of a field. One that has nothing else stays
// as it came. What looks like neither an address nor a list of them is a name for
// all we know, and is not shown: RFC 9788 would show it as it came. So a field
// without an address goes, but for those that a message must have, or that tell
// readers why they got it: there stands a group without members, which RFC 5322
// and RFC 6854 have for this.
func bareAddresses(f Field, name string) Field {
	specs, more := addresses(f.Value)
	switch {
	case !more:
		return f
	case len(specs) > 0:
		return Field{f.Name, foldList(specs)}
	case name == "from":
		return Field{f.Name, " undisclosed-sender:;"}
	case name == "to", name == "cc":
		return Field{f.Name, " undisclosed-recipients:;"}
	}
	return Field{}
}

// foldList writes a list in lines that are as long as mail programs make them.
func foldList(specs []string) string {
	var list strings.Builder
	line := 0
	for i, spec := range specs {
		switch {
		case i == 0:
			list.WriteString(" ")
		case line+len(spec) > 70:
			list.WriteString(",\n\t")
			line = 0
		default:
			list.WriteString(", ")
		}
		list.WriteString(spec)
		line += len(spec) + len(", ")
	}
	return list.String()
}

// maxAddress is the longest address that is shown: 64 octets, an at sign, 255
// octets (RFC 5321, section 4.5.3.1).
const maxAddress = 320

// addresses finds the addr-specs of an address list (RFC 5322, section 3.4), and
// says whether there is more than them: names, comments, groups, or what is not
// understood. It reads every field to its end, whatever is wrong in it, and each
// octet once. net/mail would give up at the first fault, and people's names are
// where faults are.
func addresses(value string) (specs []string, more bool) {
	var word strings.Builder // what stands outside brackets since the last separator
	bracketed := false       // and there were brackets
	end := func() {
		spec := strings.TrimSpace(word.String())
		if !bracketed && isAddress(spec) {
			specs = append(specs, spec)
		} else if spec != "" {
			more = true
		}
		word.Reset()
		bracketed = false
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '"', '(', '<', '[':
			length := quoted(value[i:])
			if length < 0 {
				return specs, true
			}
			inner := value[i : i+length]
			i += length - 1
			switch {
			case c == '(':
				more = true
			case c != '<':
				word.WriteString(inner)
			default:
				bracketed = true
				if spec := strings.TrimSpace(inner[1 : len(inner)-1]); isLocal(spec) || isAddress(spec) {
					specs = append(specs, spec)
				} else {
					more = true
				}
			}
		case ',', ';':
			end()
		case ':': // before it was the name of a group
			more = true
			word.Reset()
			bracketed = false
		default:
			word.WriteByte(c)
		}
	}
	end()
	return specs, more
}

// quoted is the length of what opens with the first octet of text, a quote, a
// comment, an address or a domain in brackets, or -1 where it does not close.
func quoted(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && text[0] != '<':
			i++
		case text[0] == '"' && c == '"':
			if depth++; depth == 2 {
				return i + 1
			}
		case text[0] == '(' && c == '(':
			depth++
		case text[0] == '(' && c == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		case text[0] == '<' && c == '"': // a local part may have a bracket in quotes
			length := quoted(text[i:])
			if length < 0 {
				return -1
			}
			i += length - 1
		case text[0] == '<' && c == '>', text[0] == '[' && c == ']':
			return i + 1
		}
	}
	return -1
}

// isAddress says whether text is an addr-spec (RFC 5322, section 3.4.1). It may
// be in UTF-8 (RFC 6532), but has no white space outside of quotes.
func isAddress(text string) bool {
	if strings.HasPrefix(text, "=?") {
		return false // a name in an encoded word (RFC 2047), which programs write with commas and at signs
	}
	local, domain := "", ""
	if strings.HasPrefix(text, `"`) {
		length := quoted(text)
		if length < 0 || !strings.HasPrefix(text[length:], "@") || strings.ContainsAny(text[:length], "\r\n\x00") {
			return false
		}
		local, domain = "quoted", text[length+1:]
	} else {
		local, domain, _ = strings.Cut(text, "@")
	}
	if strings.HasPrefix(domain, "[") && strings.HasSuffix(domain, "]") {
		domain = strings.ReplaceAll(domain[1:len(domain)-1], ":", "") // of an IPv6 address
	}
	return len(text) <= maxAddress && isLocal(local) && isLocal(domain)
}

// isLocal says whether text can stand on one side of the at sign.
func isLocal(text string) bool {
	return text != "" && len(text) <= maxAddress && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r == 0x7F || strings.ContainsRune(`()<>[]:;@\,"`, r)
	})
}

// zones are the names of zones that RFC 5322, section 4.3, gives a meaning to.
var zones = map[string]int{"UT": 0, "UTC": 0, "GMT": 0, "Z": 0,
	"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}

// maxDate is more than a date with a comment takes. net/mail tries a text in a
// hundred ways.
const maxDate = 200

// inUTC is the date in UTC. It is empty where there is none, or one whose zone
// nobody knows: that field stays as it came, as RFC 9788 has it, because a date
// that is wrong by hours would be worse than a zone that shows.
func inUTC(value string) string {
	if len(value) > maxDate {
		return ""
	}
	var bare strings.Builder
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '(':
			length := quoted(value[i:])
			if length < 0 {
				return ""
			}
			i += length - 1
		default:
			bare.WriteByte(c)
		}
	}
	words := strings.Fields(bare.String())
	if len(words) == 0 {
		return ""
	}
	// A zone's name becomes its offset first, and what time.Parse says of the
	// zone is not asked: it takes the server's own for one of the same offset.
	if zone := &words[len(words)-1]; !strings.ContainsAny(*zone, "+-") {
		hours, known := zones[*zone]
		if !known {
			return ""
		}
		*zone = fmt.Sprintf("%+03d00", hours)
	}
	date, err := mail.ParseDate(strings.Join(words, " "))
	if err != nil {
		return ""
	}
	return date.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000")
}

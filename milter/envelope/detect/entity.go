package detect

import (
	"errors"
	"slices"
	"strings"

	"sealmilter/milter/envelope"
)

// entity is what a header says of the body behind it. Only what every mail
// program reads in one and the same way is taken.
type entity struct {
	kind     string            // of the only Content-Type field, in lower case; "" where there is none
	params   map[string]string // by names in lower case
	encoding string            // of the only Content-Transfer-Encoding field, in lower case; "" where there is none
}

// readEntity reads a header, of the message or of a part of it.
func readEntity(header []envelope.Field) (*entity, error) {
	e := &entity{}
	types, encodings := 0, 0
	for _, f := range header {
		value, err := unfold(f)
		if err != nil {
			return nil, err
		}
		switch {
		case strings.EqualFold(f.Name, "Content-Type"):
			types++
			if e.kind, e.params, err = readType(value); err != nil {
				return nil, err
			}
		case strings.EqualFold(f.Name, "Content-Transfer-Encoding"):
			encodings++
			if e.encoding = strings.ToLower(strings.Trim(value, " \t")); e.encoding == "" {
				return nil, errors.New("its Content-Transfer-Encoding is empty")
			}
		}
	}
	if types > 1 || encodings > 1 {
		return nil, errors.New("it has two fields of one name, Content-Type or Content-Transfer-Encoding")
	}
	return e, nil
}

// unfold checks a field and puts its value into one line. A name with a blank
// in it or before its colon is a Content-Type to some and nothing to others. A
// CR ends the line for some. A folded line of blanks ends the header for some.
func unfold(f envelope.Field) (string, error) {
	if f.Name == "" || strings.IndexFunc(f.Name, func(r rune) bool { return r <= ' ' || r >= 0x7F || r == ':' }) >= 0 {
		return "", errors.New("a header field has a name that is none by RFC 5322")
	}
	if strings.ContainsAny(f.Value, "\x00\r") {
		return "", errors.New("a header field has a CR or a NUL in it")
	}
	first, folded, is := strings.Cut(f.Value, "\n")
	if !is {
		return first, nil
	}
	// A field may have as many lines as its sender likes: each is copied once.
	var whole strings.Builder
	whole.Grow(len(f.Value))
	whole.WriteString(first)
	for line := range strings.SplitSeq(folded, "\n") {
		if strings.Trim(line, " \t") == "" || line[0] != ' ' && line[0] != '\t' {
			return "", errors.New("a header field is folded in a way that may end the header")
		}
		whole.WriteString(line)
	}
	return whole.String(), nil
}

var errType = errors.New("its Content-Type can be read in more than one way")

// readType reads a media type with its parameters (RFC 2045, section 5.1), of
// which each may come once. Comments, quoted pairs and the continuations of
// RFC 2231 are read by some programs and not by others.
func readType(value string) (kind string, params map[string]string, err error) {
	kind, rest, more := strings.Cut(value, ";")
	kind = strings.ToLower(strings.Trim(kind, " \t"))
	main, sub, _ := strings.Cut(kind, "/")
	if !isToken(main) || !isToken(sub) {
		return "", nil, errType
	}
	params = make(map[string]string)
	for more {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return kind, params, nil // many programs end the last parameter with a semicolon
		}
		var name, text string
		if name, text, rest, more, err = readParameter(rest); err != nil {
			return "", nil, err
		}
		if _, twice := params[name]; twice {
			return "", nil, errType
		}
		params[name] = text
	}
	return kind, params, nil
}

// readParameter reads one parameter and the semicolon behind it; more says
// whether that was there.
func readParameter(text string) (name, value, rest string, more bool, err error) {
	name, text, _ = strings.Cut(text, "=")
	if name = strings.ToLower(name); !isToken(name) || strings.ContainsAny(name, "*'%") {
		return "", "", "", false, errType
	}
	if strings.HasPrefix(text, `"`) {
		var closed bool
		value, rest, closed = strings.Cut(text[1:], `"`)
		if !closed || strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7F || r == '\\' }) >= 0 {
			return "", "", "", false, errType
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' {
			return "", "", "", false, errType
		}
		rest, more = strings.CutPrefix(rest, ";")
		return name, value, rest, more, nil
	}
	value, rest, more = strings.Cut(text, ";")
	if value = strings.TrimRight(value, " \t"); !isToken(value) {
		return "", "", "", false, errType
	}
	return name, value, rest, more, nil
}

// isToken says whether text is a token (RFC 2045, section 5.1).
func isToken(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return r <= ' ' || r >= 0x7F || strings.ContainsRune(`()<>@,;:\"/[]?=`, r)
	}) < 0
}

// isPlain says whether the body stands there as it is, not encoded.
func (e *entity) isPlain(binary bool) bool {
	return slices.Contains([]string{"", "7bit", "8bit"}, e.encoding) || binary && e.encoding == "binary"
}

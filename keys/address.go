package keys

import (
	"strings"
	"unicode/utf8"
)

// Canonical gives the one spelling under which an address is looked up,
// whatever spelling the sender chose: `"Ann"@Example.ORG.` is Ann@example.org.
// The argument is what stands between the angle brackets of RCPT.
//
// A spelling that is not recognised here would be mail in plaintext, and MTAs
// are more lenient than RFC 5321, section 4.1.2: Postfix reads the address by
// the rules of RFC 822, with comments, with white space between the words,
// with quotes wherever the sender likes them. So it is read in that way here:
// source routes and comments are dropped, quotes and backslashes are taken
// off, the domain is put into lower case and Unicode (U-labels) without a final
// dot. The case of the local part is kept: it is the store that matches without
// regard to it.
//
// What is not one address by those rules is returned as it is, and Lookup
// refuses it. What only the MTA's configuration can tell is not known here
// (ann%example.org, example.org!ann) or is a matter of Naming (ann without a
// domain, ann+tag).
func Canonical(address string) string {
	canonical, _ := readAddress(address)
	return canonical
}

// Readable says whether Canonical can read an address; Lookup refuses one that
// it cannot.
func Readable(address string) bool {
	_, ok := readAddress(address)
	return ok
}

// readAddress does what Canonical says, and says whether it could.
func readAddress(address string) (canonical string, ok bool) {
	plain, ok := plainAddress(withoutRoute(address))
	if !ok || plain == "" || !utf8.ValidString(plain) {
		return address, false
	}
	// MTAs take the last @ for the separator even where it stood in quotes:
	// Postfix delivers "ann@example.org" to ann@example.org.
	at := strings.LastIndexByte(plain, '@')
	if at < 0 {
		return plain, true
	}
	domain := strings.TrimSuffix(plain[at+1:], ".")
	if domain == "" || strings.HasSuffix(domain, ".") {
		return address, false
	}
	return plain[:at] + "@" + CanonicalDomain(domain), true
}

// withoutRoute takes off source routes (RFC 5321, appendix C): @a,@b:ann@c.
// Postfix takes off several, one after the other.
func withoutRoute(address string) string {
	for {
		address = strings.TrimLeft(address, blanks)
		if !strings.HasPrefix(address, "@") {
			return address
		}
		_, mailbox, routed := strings.Cut(address, ":")
		if !routed {
			return address
		}
		address = mailbox
	}
}

const blanks = " \t\r\n\v\f"

// plainAddress joins the words of an address (RFC 822, sections 3.3 and 6.1)
// and leaves out what does not count: comments, white space, the quotes.
func plainAddress(address string) (plain string, ok bool) {
	var r addressReader
	for len(address) > 0 {
		read := r.next(address)
		if read == 0 {
			return "", false
		}
		address = address[read:]
	}
	return r.plain.String(), true
}

// addressReader knows what of an address has been read so far.
type addressReader struct {
	plain strings.Builder
	place place
}

// place is what an address has come to, and says what may follow.
type place int

const (
	between place = iota // after an @, a dot or nothing: a word
	inWord               // within a word: more of it, an @, a dot
	behind               // behind a word: an @, a dot
)

// next reads the next thing in text and returns its length, 0 where it cannot
// stand there.
func (r *addressReader) next(text string) int {
	switch c := text[0]; {
	case c == '(':
		r.endWord()
		return enclosed(text, ')')
	case strings.IndexByte(blanks, c) >= 0:
		r.endWord()
		return 1
	case c == '@', c == '.':
		r.plain.WriteByte(c)
		r.place = between
		return 1
	case strings.IndexByte("<>,;:)]", c) >= 0, r.place == behind:
		return 0 // several addresses, or none
	case c == '"', c == '[':
		return r.quoted(text)
	case c == '\\':
		if len(text) < 2 {
			return 0
		}
		r.plain.WriteByte(text[1])
		r.place = inWord
		return 2
	}
	r.plain.WriteByte(text[0])
	r.place = inWord
	return 1
}

func (r *addressReader) endWord() {
	if r.place == inWord {
		r.place = behind
	}
}

// quoted reads a quoted string, or a domain literal, of which the brackets
// are a part.
func (r *addressReader) quoted(text string) int {
	closing := text[0]
	if closing == '[' {
		closing = ']'
	}
	length := enclosed(text, closing)
	if length == 0 || r.place == inWord {
		return 0
	}
	content := text[:length]
	if closing == '"' {
		content = text[1 : length-1]
	}
	for i := 0; i < len(content); i++ {
		if content[i] == '\\' {
			i++ // enclosed has seen that something follows
		}
		r.plain.WriteByte(content[i])
	}
	r.place = behind
	return length
}

// enclosed is the length of what text begins with, from its first byte to the
// closing one. A backslash makes the next byte ordinary; comments nest. It is
// 0 where the end is missing.
func enclosed(text string, closing byte) int {
	depth := 1
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case closing:
			if depth--; depth == 0 {
				return i + 1
			}
		case '(':
			if closing == ')' {
				depth++
			}
		}
	}
	return 0
}

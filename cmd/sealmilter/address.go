package main

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"sealmilter/keys"
)

// The longest address and local part that a mail server takes (RFC 5321,
// section 4.5.3.1).
const (
	maxAddress   = 254
	maxLocalPart = 64
)

// parseAddress checks an address from the command line and gives it the
// spelling under which the daemon looks it up. What is not an address here
// would be a key that no message ever finds.
func parseAddress(text string) (string, error) {
	if err := checkAddress(text); err != nil {
		return "", usageError("%q is no address: %w, expected LOCAL@DOMAIN", text, err)
	}
	entry := foldedBeyondASCII(keys.Canonical(text))
	if !isStorable(entry) {
		return "", usageError("%q is no address that a store has an entry for: it would be %q there", text, entry)
	}
	return entry, nil
}

// isStorable says whether the tables take an address, of which quotes may have been
// taken off, and a domain mapped to something else: U+3000 becomes a blank. A
// stranger's user id must not be what a whole import fails for.
func isStorable(entry string) bool {
	at := strings.LastIndexByte(entry, '@')
	local, domain := entry[:at], entry[at+1:]
	quoted := len(local) > 1 && strings.HasPrefix(local, `"`) && strings.HasSuffix(local, `"`)
	return !quoted && strings.Trim(entry, " ") == entry && !strings.HasSuffix(domain, ".") &&
		!strings.Contains(domain, " ") && !strings.ContainsAny(entry, "<>")
}

// foldedBeyondASCII folds a local part that is not all ASCII: the stores match
// ASCII letters in any case, and know no other.
func foldedBeyondASCII(address string) string {
	at := strings.LastIndexByte(address, '@')
	if !strings.ContainsFunc(address[:at], func(r rune) bool { return r > unicode.MaxASCII }) {
		return address
	}
	return keys.Folded(address[:at]) + address[at:]
}

// parseEntry checks what the store may have an entry for: an address, or
// "@example.org" for all of a domain.
func parseEntry(text string) (string, error) {
	domain, whole := strings.CutPrefix(text, "@")
	if !whole {
		return parseAddress(text)
	}
	if err := checkDomain(strings.TrimSuffix(domain, ".")); err != nil || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "", usageError("%q is no address and no domain, expected LOCAL@DOMAIN or @DOMAIN", text)
	}
	return keys.Canonical(text), nil
}

func checkAddress(text string) error {
	at := strings.LastIndexByte(text, '@')
	switch {
	case !utf8.ValidString(text):
		return errors.New("it is not UTF-8")
	case strings.ContainsAny(text, "<>"):
		return errors.New("it has angle brackets")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("it has a control character in it")
	case at < 0:
		return errors.New("it has no @")
	case at == 0:
		return errors.New("nothing stands before the @")
	case len(text) > maxAddress:
		return fmt.Errorf("it is longer than %d bytes", maxAddress)
	case at > maxLocalPart:
		return fmt.Errorf("what stands before the @ is longer than %d bytes", maxLocalPart)
	}
	local, domain := text[:at], strings.TrimSuffix(text[at+1:], ".")
	quoted := len(local) > 2 && strings.HasPrefix(local, `"`) && strings.HasSuffix(local, `"`)
	if !quoted && strings.ContainsAny(local, " \t\"(),:;\\@[]") {
		return errors.New("what stands before the @ has a character that needs quotes")
	}
	return checkDomain(domain)
}

// checkDomain takes a domain name, international ones in either form, or an
// address literal as [192.0.2.1].
func checkDomain(domain string) error {
	if strings.HasPrefix(domain, "[") && strings.HasSuffix(domain, "]") && len(domain) > 2 {
		return nil
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" {
			return errors.New("the domain is empty, or a part of it is")
		}
		if strings.ContainsFunc(label, notInDomain) {
			return fmt.Errorf("the domain has a part %q", label)
		}
	}
	return nil
}

func notInDomain(r rune) bool {
	return r < utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
}

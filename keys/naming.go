package keys

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Naming is how the site's MTA reads addresses, as far as only its
// configuration can tell. The zero Naming takes every address by its word.
type Naming struct {
	// Delimiter holds the characters that end a mailbox's name and begin an
	// extension: with "+", ann+list@example.org is ann@example.org where it has
	// no entry of its own. It is Postfix's recipient_delimiter.
	Delimiter string
	// CaseSensitive keeps Ann@example.org and ann@example.org apart. Aliases
	// match in any case all the same.
	CaseSensitive bool
	// Domain is put behind an address that has none, such as postmaster (RFC
	// 5321, section 4.5.1), as Postfix does with its myorigin.
	Domain string
}

// complete puts the domain behind an address that has none.
func (n Naming) complete(canonical string) string {
	if n.Domain == "" || strings.Contains(canonical, "@") {
		return canonical
	}
	return canonical + "@" + CanonicalDomain(n.Domain)
}

// candidates lists what a mailbox may be entered as, the closest first: by the
// whole address, without its extension, as "@" and the domain. Each has one
// spelling or several, which are one name.
func (n Naming) candidates(canonical string) (all [][]string) {
	local, domain := splitAddress(canonical)
	all = append(all, n.spellings(local, domain))
	if domain == "" {
		return all
	}
	if base := n.withoutExtension(local); base != local {
		all = append(all, n.spellings(base, domain))
	}
	return append(all, n.spellings("", domain))
}

// names are the candidates that are the mailbox' own names, up to the one that
// the store knows it by.
func (n Naming) names(canonical, known string) (names []string) {
	for _, spellings := range n.candidates(canonical) {
		if strings.HasPrefix(spellings[0], "@") {
			break
		}
		names = append(names, spellings[0])
		if slices.Contains(spellings, known) {
			break
		}
	}
	return names
}

// withoutExtension cuts an extension off as Postfix does: at the first
// delimiter, unless nothing would be left, and not from the names that it has
// for itself or for the owners of lists.
func (n Naming) withoutExtension(local string) string {
	for _, whole := range []string{"postmaster", "mailer-daemon", "double-bounce"} {
		if strings.EqualFold(local, whole) {
			return local
		}
	}
	lower := strings.ToLower(local)
	if strings.Contains(n.Delimiter, "-") && (strings.HasPrefix(lower, "owner-") || strings.HasSuffix(lower, "-request")) {
		return local
	}
	if at := strings.IndexAny(local, n.Delimiter); at > 0 {
		return local[:at]
	}
	return local
}

// spellings are the ways in which one name may be entered in a store, whose
// own folding stops at ASCII: the domain as U-label and as A-label (RFC 5890,
// section 2.3.2.1), a local part of SMTPUTF8 as it came, normalised (RFC 6532,
// section 3.1), in lower case and folded.
func (n Naming) spellings(local, domain string) (all []string) {
	locals := []string{local}
	if !isASCII(local) {
		locals = append(locals, norm.NFC.String(local))
		if !n.CaseSensitive {
			normal := norm.NFC.String(local)
			locals = append(locals, norm.NFC.String(strings.ToLower(normal)), Folded(normal))
		}
	}
	domains := []string{domain}
	// What would be mapped to another name, with an @ in it or a dot at its end,
	// is not asked for by that.
	if ascii, err := idnaForm.ToASCII(domain); err == nil && !isASCII(domain) && CanonicalDomain(ascii) == domain {
		domains = append(domains, ascii)
	}
	for _, local := range locals {
		for _, domain := range domains {
			name := local
			if domain != "" {
				name += "@" + domain
			}
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// Folded is a local part without regard to case, in the way that Postfix folds
// it where it takes SMTPUTF8: full case folding, so that boss may be written with
// a long s and strasse with a sharp one.
func Folded(local string) string { return norm.NFC.String(cases.Fold().String(norm.NFC.String(local))) }

// Entered is Canonical for an address as a store has it, in which quotes,
// comments and backslashes would be part of the name.
func Entered(address string) string {
	local, domain := splitAddress(address)
	if domain == "" {
		return local
	}
	return local + "@" + CanonicalDomain(domain)
}

// isOneName says whether an account entered under its address is the one that
// was asked for by name. The store compares without regard to case.
func (n Naming) isOneName(account, name string) bool {
	if !n.CaseSensitive {
		return true
	}
	mine, _ := splitAddress(account)
	asked, _ := splitAddress(name)
	return mine == asked || !strings.EqualFold(account, name)
}

// splitAddress cuts an address at its last @.
func splitAddress(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, ""
	}
	return address[:at], address[at+1:]
}

// idnaForm maps domains as resolvers do (RFC 5895, UTS 46), and bears with
// what is no hostname but may stand in an address.
var idnaForm = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.Transitional(false))

// CanonicalDomain is a domain in lower case, with its labels in Unicode.
func CanonicalDomain(domain string) string {
	lower := strings.ToLower(domain)
	if isASCII(lower) && !strings.Contains(lower, "xn--") {
		return lower
	}
	unicode, err := idnaForm.ToUnicode(lower)
	// What is no name for any resolver stays as it is, and so does one that
	// would be mapped to another address: U+FF20 becomes an @, "xn--" nothing.
	if err != nil || unicode == "" || strings.Count(unicode, "@") != strings.Count(lower, "@") || strings.HasSuffix(unicode, ".") {
		return norm.NFC.String(lower)
	}
	return unicode
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}

package keys

import "strings"

// Canonical gives the one spelling under which an address is looked up,
// whatever spelling the sender chose: `"Ann"@Example.ORG` is Ann@example.org.
// The argument is an address as RFC 5321, section 4.1.2, writes it, without
// angle brackets. A source route is dropped (appendix C), the domain is put
// into lower case without a final dot, and quotes that the local part does
// not need or the sender chose to write are taken off; MTAs deliver to the
// same mailbox with them and without. The case of the local part is kept: it
// is the store that matches without regard to it.
func Canonical(address string) string {
	if strings.HasPrefix(address, "@") {
		if _, mailbox, routed := strings.Cut(address, ":"); routed {
			address = mailbox
		}
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return unquote(address)
	}
	domain := strings.ToLower(strings.TrimSuffix(address[at+1:], "."))
	return unquote(address[:at]) + "@" + domain
}

// unquote takes the quotes and the backslashes off a quoted local part.
func unquote(local string) string {
	if !strings.ContainsAny(local, `"\`) {
		return local
	}
	var plain strings.Builder
	for i := 0; i < len(local); i++ {
		switch {
		case local[i] == '"':
		case local[i] == '\\' && i+1 < len(local):
			i++
			plain.WriteByte(local[i])
		default:
			plain.WriteByte(local[i])
		}
	}
	return plain.String()
}

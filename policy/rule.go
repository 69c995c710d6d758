package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rule is one of the site's rules. It matches where every condition that it
// has is met; a condition that is missing (nil, 0) is met by everything.
type Rule struct {
	Name string // for people; must not be empty

	Recipient     []string // address patterns, see pattern
	Sender        []string // address patterns, of which none matches the null sender
	NullSender    *bool
	Authenticated *bool          // whether the client has authenticated itself to the MTA
	Client        []netip.Prefix // the client's address
	Local         bool           // with Client: or a message from sendmail(1)
	Listener      []string       // one of the addresses that the daemon listens on
	Key           []KeyState
	Enabled       *bool    // the account's own switch
	Header        []string // "Name: value" or "Name" of fields that must all be there
	LargerThan    int64    // bytes
	SmallerThan   int64    // bytes
	Sealed        *bool    // whether it came sealed to the recipient

	Outcome Outcome
	Text    string // with Reject: what the sender is told
	// TrustHeader is the site's word that no sender can have written the
	// fields in Header; without it a rule cannot pass mail by them.
	TrustHeader bool
}

// matches says whether the rule may match, with what is known at f.Stage, and
// whether that is known for sure.
func (r Rule) matches(f Facts) (matches, known bool) {
	null := f.Sender == ""
	client := f.Client.Unmap()
	switch {
	case r.Recipient != nil && !r.isFor(f),
		r.Sender != nil && (null || !matchesAny(r.Sender, f.Sender)),
		r.NullSender != nil && *r.NullSender != null,
		r.Authenticated != nil && *r.Authenticated != f.Authenticated,
		r.hasClient() && !r.matchesClient(f.Local, client),
		r.Listener != nil && !slices.Contains(r.Listener, f.Listener),
		r.Key != nil && !slices.Contains(r.Key, f.Key),
		r.Enabled != nil && *r.Enabled != f.Enabled:
		return false, true
	}
	known = true
	if r.Header != nil {
		if f.Stage < AtHeader {
			known = false
		} else if slices.ContainsFunc(r.Header, func(want string) bool { return !hasField(f.Header, want) }) {
			return false, true
		}
	}
	if r.LargerThan > 0 || r.SmallerThan > 0 || r.Sealed != nil {
		if f.Stage < AtEnd {
			return true, false
		}
		if r.LargerThan > 0 && f.Size <= r.LargerThan || r.SmallerThan > 0 && f.Size >= r.SmallerThan ||
			r.Sealed != nil && *r.Sealed != f.Sealed {
			return false, true
		}
	}
	return true, known
}

// isFor says whether the rule names the recipient. Of a group one member is
// enough, except to pass its mail: that would be decided for the others too.
func (r Rule) isFor(f Facts) bool {
	named := func(name string) bool { return matchesAny(r.Recipient, name) }
	members := slices.ContainsFunc(f.Members, named)
	if r.Outcome == Pass {
		members = members && !slices.ContainsFunc(f.Members, func(name string) bool { return !named(name) })
	}
	return members || slices.ContainsFunc(f.Names, named)
}

func (r Rule) hasClient() bool { return r.Client != nil || r.Local }

func (r Rule) matchesClient(local bool, client netip.Addr) bool {
	if local {
		return r.Local
	}
	return slices.ContainsFunc(r.Client, func(p netip.Prefix) bool { return p.Contains(client) })
}

// decision is what the rule says. What it wants sealed and cannot be stays
// with the sender.
func (r Rule) decision(f Facts) Decision {
	d := Decision{Outcome: r.Outcome, Reason: fmt.Sprintf("the rule %q says %s", r.Name, r.Outcome), Rule: r.Name, Text: r.Text}
	if r.Outcome == Seal && slices.Contains([]KeyState{NoKey, Revoked, Unusable}, f.Key) {
		d.Outcome = Defer
		d.Reason += ", but " + f.Key.reason(Defer)
	}
	return d
}

// The patterns of addresses, all without regard to case:
//
//	ann@example.org   that address
//	@example.org      every address of the domain
//	@*.example.org    every address of the domains below it

// matchesAny says whether one of the patterns matches an address.
func matchesAny(patterns []string, address string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matchesPattern(pattern, address) })
}

func matchesPattern(pattern, address string) bool {
	at := strings.LastIndexByte(address, '@')
	if !strings.HasPrefix(pattern, "@") || at < 0 {
		return strings.EqualFold(pattern, address)
	}
	domain := strings.ToLower(address[at+1:])
	if above, wild := strings.CutPrefix(pattern, "@*."); wild {
		return strings.HasSuffix(domain, "."+strings.ToLower(above))
	}
	return strings.EqualFold(pattern[1:], domain)
}

// hasField says whether a header has a field as a rule names it: "Name: value"
// or only "Name". Values are compared without regard to case and to how white
// space is folded.
func hasField(header []Field, want string) bool {
	name, value, withValue := strings.Cut(want, ":")
	return slices.ContainsFunc(header, func(f Field) bool {
		return strings.EqualFold(f.Name, strings.TrimSpace(name)) &&
			(!withValue || strings.EqualFold(plain(f.Value), plain(value)))
	})
}

// plain is a value with single blanks between its words.
func plain(value string) string { return strings.Join(strings.Fields(value), " ") }

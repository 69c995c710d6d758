package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check says what is wrong with the policy: a rule that makes no sense or that
// no mail can ever meet, two that contradict each other, one that would let a
// sender decide that mail is stored as it is. Each error names the rules.
func (p Policy) Check() error {
	for i, rule := range p.Rules {
		for _, other := range p.Rules[:i] {
			if other.Name == rule.Name {
				return fmt.Errorf("two rules have the name %q", rule.Name)
			}
		}
		if err := rule.check(); err != nil {
			return fmt.Errorf("the rule %q: %w", rule.Name, err)
		}
		if rule.Outcome == Global && len(p.GlobalKeys) == 0 {
			return fmt.Errorf("the rule %q: it says global, and there are no global keys", rule.Name)
		}
	}
	for state, outcome := range p.Settings.Outcomes {
		if outcome == Global && len(p.GlobalKeys) == 0 {
			return fmt.Errorf("%s says global, and there are no global keys", settingNames[state])
		}
	}
	if p.Escrow && len(p.GlobalKeys) == 0 {
		return errors.New("escrow seals every message to the global keys too, and there are none")
	}
	return p.checkOrder()
}

// check looks at one rule for itself.
func (r Rule) check() error {
	switch {
	case r.Text != "" && r.Outcome != Reject:
		return fmt.Errorf("only a rule that rejects has a text")
	case strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' || c == '%' }):
		return errors.New("its text has characters that an SMTP reply cannot have, expected printable ASCII without %")
	case r.NullSender != nil && *r.NullSender && r.Sender != nil:
		return errors.New("it can never match: the null sender is none of the senders it names")
	case r.LargerThan > 0 && r.SmallerThan > 0 && r.SmallerThan <= r.LargerThan+1:
		return errors.New("it can never match: no size is both larger and smaller")
	case r.Outcome == Seal && r.Key != nil && !r.allows(Usable, Expired, Partial):
		return errors.New("it can never seal: there is no key that could be sealed to in any of the states it names")
	case r.Outcome == Pass:
		return r.checkPass()
	}
	return r.checkLists()
}

// checkLists refuses lists without a member, which nothing can match, and
// patterns that are none.
func (r Rule) checkLists() error {
	empty := r.Recipient != nil && len(r.Recipient) == 0 || r.Sender != nil && len(r.Sender) == 0 ||
		r.Client != nil && len(r.Client) == 0 && !r.Local || r.Listener != nil && len(r.Listener) == 0 ||
		r.Key != nil && len(r.Key) == 0 || r.Header != nil && len(r.Header) == 0
	if empty {
		return errors.New("it can never match: it has an empty list")
	}
	for _, pattern := range slices.Concat(r.Recipient, r.Sender) {
		local, domain, hasAt := strings.Cut(pattern, "@")
		domain = strings.TrimPrefix(domain, "*.")
		if !hasAt || domain == "" || strings.ContainsAny(domain, "*@ ") || strings.ContainsAny(local, " *") {
			return fmt.Errorf("%q is no pattern of addresses, expected ann@example.org, @example.org or @*.example.org", pattern)
		}
	}
	return nil
}

// checkPass holds a rule that lets mail pass as it is to what is never traded:
// nothing about the sender exempts a recipient who has a key, and no header
// that a sender could have written.
func (r Rule) checkPass() error {
	keyed := r.allows(Usable, Expired, Partial)
	about := ""
	switch {
	case r.Sender != nil:
		about = "sender"
	case r.NullSender != nil:
		about = "null_sender"
	case r.Authenticated != nil:
		about = "authenticated"
	case r.hasClient():
		about = "client"
	case r.Listener != nil:
		about = "listener"
	}
	switch {
	case about != "" && keyed:
		return fmt.Errorf("it passes mail by %s to recipients who have a key: nothing about the sender exempts from sealing; add key = [\"none\"], or name the recipients instead", about)
	case r.Header != nil && !r.TrustHeader && keyed:
		return errors.New("it passes mail by a header field to recipients who have a key, and whoever can write that field decides that mail is stored in the clear: say trust_header = true only if a filter before sealmilter takes out the sender's own")
	case r.Key != nil && (slices.Contains(r.Key, Revoked) || slices.Contains(r.Key, Unusable)):
		return errors.New("it passes mail because a key cannot be used: say defer, reject or global")
	}
	return r.checkLists()
}

// allows says whether one of the states is among those the rule matches.
func (r Rule) allows(states ...KeyState) bool {
	return r.Key == nil || slices.ContainsFunc(states, func(s KeyState) bool { return slices.Contains(r.Key, s) })
}

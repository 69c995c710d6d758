// Package policy decides what happens to a message for one recipient. It is
// pure: facts go in, a decision with its reason comes out, and nothing else is
// read or written, so that every decision can be explained and tested without
// a server.
//
// The order is always the same. Sealing may be switched off for all; a failed
// lookup defers; then come the site's rules, of which the first that matches
// decides; then the account's own switch, and last the state of its keys, by
// the account's choices, its domain's, the site's.
package policy

import (
	"fmt"
	"time"

	"sealmilter/keys"
)

// Policy is the site's choice. It is immutable once Check has passed.
type Policy struct {
	Enable       bool // false switches sealing off for everybody
	Rules        []Rule
	Settings     Settings      // what an account and its domain say nothing of
	RevokedGrace time.Duration // for how long a revoked key defers before it rejects; 0: for ever
	// GlobalKeys are the site's own. With Escrow every sealed message is sealed
	// to them too; without, only where the outcome is Global.
	GlobalKeys []*keys.Key
	Escrow     bool
}

// Default is the policy of a site that says nothing.
func Default() Policy {
	return Policy{
		Enable: true,
		Settings: Settings{Outcomes: map[KeyState]Outcome{
			NoKey: Pass, Usable: Seal, Expired: Seal, Revoked: Defer, Unusable: Defer, Partial: Defer,
		}},
		RevokedGrace: 7 * 24 * time.Hour,
	}
}

// Decision is an outcome and the reason that an operator reads in the log.
type Decision struct {
	Outcome Outcome
	Reason  string
	Rule    string // the name of the rule that decided, "" where none did
	Text    string // what the sender is told, where a rule rejects and says
}

// AlreadySealed is the reason to pass a message that came sealed to its
// recipient.
const AlreadySealed = "it is sealed to the recipient already"

// Decide decides with all that there is to know of the message.
func (p Policy) Decide(f Facts) Decision {
	f.Stage = AtEnd
	return p.Possible(f)[0]
}

// Possible lists the decisions that can still come about, with what is known
// at f.Stage; at AtEnd it is one. Only an answer of the store passes a message:
// a lookup that failed defers, whatever the rules say.
func (p Policy) Possible(f Facts) (all []Decision) {
	switch {
	case !p.Enable:
		return []Decision{{Outcome: Pass, Reason: "sealing is switched off for all"}}
	case f.Key == LookupFailed:
		return []Decision{{Outcome: Defer, Reason: "the key store did not answer"}}
	}
	add := func(d Decision) {
		all = append(all, p.atEnd(f, d)...)
	}
	for _, rule := range p.Rules {
		matches, known := rule.matches(f)
		if matches {
			add(rule.decision(f))
		}
		if matches && known {
			return all
		}
	}
	add(p.withoutRule(f))
	return all
}

// atEnd is what becomes of a decision at the end of the message, when it is
// known whether the message is sealed already: what should be sealed to the
// recipient, and is, stays as it came.
func (p Policy) atEnd(f Facts, d Decision) []Decision {
	if d.Outcome != Seal && d.Outcome != Global || p.always(f) {
		return []Decision{d}
	}
	passed := Decision{Outcome: Pass, Reason: AlreadySealed, Rule: d.Rule}
	switch {
	case f.Stage < AtEnd:
		return []Decision{d, passed}
	case f.Sealed && d.Outcome == Seal, f.SealedGlobal && d.Outcome == Global:
		return []Decision{passed}
	}
	return []Decision{d}
}

// withoutRule decides by the account.
func (p Policy) withoutRule(f Facts) Decision {
	if !f.Enabled && f.Key != NoKey {
		return Decision{Outcome: Pass, Reason: "the account, or its domain, has switched sealing off"}
	}
	outcome, whose := p.outcome(f)
	d := Decision{Outcome: outcome, Reason: f.Key.reason(outcome) + whose}
	if f.Key == Revoked && outcome == Defer && p.RevokedGrace > 0 && f.RevokedFor > p.RevokedGrace {
		d.Outcome = Reject
		d.Reason = fmt.Sprintf("the key is revoked, for longer than %s", days(p.RevokedGrace))
	}
	return d
}

// outcome is what the account says, or the site, for the state of its key.
func (p Policy) outcome(f Facts) (outcome Outcome, whose string) {
	if outcome, said := f.Account.Outcomes[f.Key]; said {
		return outcome, " (a choice of the account or its domain)"
	}
	return p.Settings.Outcomes[f.Key], ""
}

// always says whether a message is sealed that is sealed already.
func (p Policy) always(f Facts) bool {
	if f.Account.Always != nil {
		return *f.Account.Always
	}
	return p.Settings.Always != nil && *p.Settings.Always
}

// Protection is what of the header is hidden in the recipient's copy: a choice
// of the account, its domain or the site; of a group the strictest, where the
// site's is that of whoever has not chosen.
func (p Policy) Protection(f Facts) keys.HeaderProtection {
	site := keys.NoProtection
	if p.Settings.Protection != nil {
		site = *p.Settings.Protection
	}
	switch {
	case f.Account.Protection == nil:
		return site
	case f.LeftToSite:
		return keys.Stricter(site, *f.Account.Protection)
	}
	return *f.Account.Protection
}

// days writes a length of time as an operator would.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "a day"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

package policy

import (
	"time"

	"sealmilter/keys"
)

// DecideRecipient decides for an address as the store answered for it. Where
// the address leads to several accounts, one copy goes to all of them, so all
// must be due for the same: a member without a key could not read what is
// sealed to the others.
func (p Policy) DecideRecipient(found *keys.Recipient, now time.Time) Decision {
	if len(found.Accounts) == 0 {
		return p.Decide(Facts{Key: NoKey, Enabled: true})
	}
	decision := p.Decide(facts(found.Accounts[0], now))
	for _, account := range found.Accounts[1:] {
		one := p.Decide(facts(account, now))
		switch {
		case decision.Outcome == Defer:
		case one.Outcome == Defer:
			decision = one
		case one.Outcome != decision.Outcome:
			decision = Decision{Defer, "the address leads to several accounts, of which some are to be sealed to and some are not"}
		}
	}
	return decision
}

func facts(account *keys.Account, now time.Time) Facts {
	f := Facts{Key: Unusable, Enabled: account.Enabled}
	if !account.Enrolled() {
		f.Key = NoKey
		return f
	}
	switch account.State(now) {
	case keys.Usable:
		f.Key = Usable
	case keys.Expired:
		f.Key = Expired
	case keys.Revoked:
		f.Key = Revoked
	}
	return f
}

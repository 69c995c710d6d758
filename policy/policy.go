// Package policy decides what happens to a message for one recipient. It is
// pure: facts go in, a decision with its reason comes out, and nothing else is
// read or written, so that every decision can be explained and tested without
// a server.
package policy

// KeyState is what the store and the parser say of a recipient's keys.
type KeyState int

// The states of a recipient's keys, the best of them where there are several.
const (
	// LookupFailed: the store did not answer. It is the zero value, so that a
	// fact nobody filled in defers the message.
	LookupFailed KeyState = iota
	// NoKey: the store answered that no key is enrolled.
	NoKey
	// Usable: at least one key can be sealed to.
	Usable
	// Expired: every key that could be sealed to has expired.
	Expired
	// Revoked: every key has been revoked by its holder.
	Revoked
	// Unusable: keys are enrolled and none of them can be read or sealed to.
	Unusable
)

// String names the state in an operator's words.
func (s KeyState) String() string {
	switch s {
	case NoKey:
		return "no key"
	case Usable:
		return "key usable"
	case Expired:
		return "key expired"
	case Revoked:
		return "key revoked"
	case Unusable:
		return "key unusable"
	}
	return "lookup failed"
}

// Outcome is what is to be done for one recipient.
type Outcome int

// The outcomes. The zero value is Defer: what nobody decided is never passed.
const (
	Defer Outcome = iota // answer 451: the sender keeps the message and tries again
	Seal                 // seal to the recipient's keys
	Pass                 // leave the message as it is
)

// String names the outcome as the log does.
func (o Outcome) String() string {
	switch o {
	case Seal:
		return "seal"
	case Pass:
		return "pass"
	}
	return "defer"
}

// Facts are what is known of one recipient when the decision is due.
type Facts struct {
	Key     KeyState
	Enabled bool // the account's own switch
}

// Policy is the site's choice.
type Policy struct {
	Enable bool // false switches sealing off for everybody
}

// Decision is an outcome and the reason that an operator reads in the log.
type Decision struct {
	Outcome Outcome
	Reason  string
}

// Decide decides for one recipient. Only an answer of the store passes a
// message: that nobody is enrolled, or that the account is switched off.
func (p Policy) Decide(f Facts) Decision {
	switch {
	case !p.Enable:
		return Decision{Pass, "sealing is switched off for all"}
	case f.Key == LookupFailed:
		return Decision{Defer, "the key store did not answer"}
	case f.Key == NoKey:
		return Decision{Pass, "no key is enrolled"}
	case !f.Enabled:
		return Decision{Pass, "the account has switched sealing off"}
	case f.Key == Usable:
		return Decision{Seal, "a key is enrolled"}
	case f.Key == Expired:
		return Decision{Seal, "the key has expired, its holder can still open what is sealed to it"}
	case f.Key == Revoked:
		return Decision{Defer, "the key is revoked"}
	}
	return Decision{Defer, "no enrolled key can be sealed to"}
}

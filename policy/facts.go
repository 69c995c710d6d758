package policy

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"sealmilter/keys"
)

// KeyState is what the store and the parser say of a recipient's keys.
type KeyState int

// The states of a recipient's keys.
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
	// Partial: some members of a group can be sealed to, and others have no
	// key, or have switched sealing off.
	Partial
)

// keyStates are the names of the states in rules, in their order.
var keyStates = []string{NoKey: "none", Usable: "usable", Expired: "expired", Revoked: "revoked", Unusable: "unusable", Partial: "partial"}

// String is the state's name in rules.
func (s KeyState) String() string {
	if s == LookupFailed {
		return "lookup failed"
	}
	return keyStates[s]
}

// reason says what a state leads to, in words for the log.
func (s KeyState) reason(outcome Outcome) string {
	switch s {
	case NoKey:
		return "no key is enrolled"
	case Usable:
		return "a key is enrolled"
	case Expired:
		if outcome == Seal {
			return "the key has expired, its holder can still open what is sealed to it"
		}
		return "the key has expired"
	case Revoked:
		return "the key is revoked"
	case Partial:
		return "the address leads to several accounts, of which some cannot be sealed to"
	}
	return "no enrolled key can be sealed to"
}

// Outcome is what is to be done for one recipient.
type Outcome int

// The outcomes. The zero value is Defer: what nobody decided is never passed.
const (
	Defer  Outcome = iota // answer 451: the sender keeps the message and tries again
	Seal                  // seal to the recipient's keys
	Pass                  // leave the message as it is
	Reject                // answer 550: the sender is told that it cannot be delivered
	Global                // seal to the site's keys, and to those of a group's members that have any
)

// outcomes are the names of the outcomes, in their order.
var outcomes = []string{Defer: "defer", Seal: "seal", Pass: "pass", Reject: "reject", Global: "global"}

// String names the outcome as the log and the rules do.
func (o Outcome) String() string { return outcomes[o] }

// Stage is how much of a message has been seen. The zero Stage knows least.
type Stage int

// The stages.
const (
	AtRecipient Stage = iota // the envelope up to this recipient
	AtHeader                 // the header too
	AtEnd                    // the whole message
)

// Facts are what is known of one recipient and the message for it.
type Facts struct {
	Stage Stage

	// At every stage.
	Names         []string // the recipient's addresses: as the sender wrote it, as the MTA understood it, without extension; canonical
	Members       []string // the addresses that it leads to; canonical
	Sender        string   // canonical, "" for the null sender
	Authenticated bool
	Local         bool       // a message from sendmail(1)
	Client        netip.Addr // the client's address, the zero Addr where it has none
	Listener      string     // as the configuration names it
	Key           KeyState
	RevokedFor    time.Duration // where Key is Revoked
	Enabled       bool          // the account's own switch
	Account       Settings      // what the account and its domain say
	LeftToSite    bool          // whether one of the members has not chosen how the header is protected

	// From AtHeader on.
	Header []Field

	// AtEnd.
	Size         int64 // of header and body as the filter is shown them, with CRLF; bytes
	Sealed       bool  // it came sealed to the recipient's own keys
	SealedGlobal bool  // it came sealed to what Global would seal to
}

// Field is a header field, its value unfolded.
type Field struct {
	Name, Value string
}

// Look fills in what the store says of the recipient. Where an address leads to
// several accounts, one copy goes to all of them: what keeps it from one keeps
// it from all. The error says why nobody can tell what the store says.
func (f *Facts) Look(found *keys.Recipient, now time.Time) error {
	f.Key, f.Enabled, f.Account = LookupFailed, true, Settings{}
	if found.Unresolved != nil {
		return found.Unresolved
	}
	f.addNames(found)
	f.LeftToSite = false
	var protection *keys.HeaderProtection
	for i, account := range found.Accounts {
		said, err := ParseSettings(account.Options)
		f.LeftToSite = f.LeftToSite || said.Protection == nil
		if said.Protection != nil && protection != nil {
			*protection = keys.Stricter(*protection, *said.Protection)
		} else if said.Protection != nil {
			protection = said.Protection
		}
		said.Protection = nil
		switch {
		case err != nil:
			return err
		case i == 0:
			f.Account = said
		case !reflect.DeepEqual(said, f.Account): // a group that does not agree leaves it to the site
			f.Account = Settings{}
		}
	}
	f.Account.Protection = protection
	f.lookAtKeys(found.Accounts, now)
	return nil
}

// addNames adds the names that rules may know the recipient by.
func (f *Facts) addNames(found *keys.Recipient) {
	for _, account := range found.Accounts {
		f.Members = append(f.Members, keys.Entered(account.Address))
	}
	for _, name := range found.Names {
		if !slices.Contains(f.Names, name) {
			f.Names = append(f.Names, name)
		}
	}
}

func (f *Facts) lookAtKeys(accounts []*keys.Account, now time.Time) {
	count := make(map[KeyState]int)
	off := 0
	for _, account := range accounts {
		state := stateOf(account, now)
		if !account.Enabled && len(accounts) > 1 {
			off++
			count[NoKey]++
			continue
		}
		if since := now.Sub(account.RevokedAt()); state == Revoked && (count[Revoked] == 0 || since < f.RevokedFor) {
			f.RevokedFor = since // the last to be revoked has its time too
		}
		count[state]++
	}
	sealable := count[Usable] + count[Expired]
	switch {
	case len(accounts) == 0:
		f.Key = NoKey
	case len(accounts) == 1:
		f.Key, f.Enabled = stateOf(accounts[0], now), accounts[0].Enabled
	case off == len(accounts):
		f.Key, f.Enabled = NoKey, false
		if slices.ContainsFunc(accounts, (*keys.Account).Enrolled) {
			f.Key = Usable
		}
	case count[Unusable] > 0:
		f.Key = Unusable
	case count[Revoked] > 0:
		f.Key = Revoked
	case sealable == 0:
		f.Key = NoKey
	case sealable < len(accounts):
		f.Key = Partial
	case count[Usable] == 0:
		f.Key = Expired
	default:
		f.Key = Usable
	}
}

// stateOf is the state of one account's keys.
func stateOf(account *keys.Account, now time.Time) KeyState {
	if !account.Enrolled() {
		return NoKey
	}
	switch account.State(now) {
	case keys.Usable:
		return Usable
	case keys.Expired:
		return Expired
	case keys.Revoked:
		return Revoked
	}
	return Unusable
}

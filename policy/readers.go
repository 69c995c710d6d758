package policy

import (
	"time"

	"sealmilter/keys"
)

// Readers are the accounts that a message is sealed to by a decision: those of
// the recipient that can be sealed to, and the site itself, an account without
// an address, where the decision or the escrow asks for it. There are none
// where the message is not to be sealed.
func (p Policy) Readers(d Decision, accounts []*keys.Account, now time.Time) (readers []*keys.Account) {
	if d.Outcome != Seal && d.Outcome != Global {
		return nil
	}
	for _, account := range accounts {
		state := stateOf(account, now)
		if state == Usable || state == Expired { // switched off or not: whoever gets a sealed copy must be able to read it
			readers = append(readers, account)
		}
	}
	if d.Outcome == Global && len(accounts) <= 1 { // in place of a key of their own
		readers = nil
	}
	if d.Outcome == Global || p.Escrow {
		readers = append(readers, p.site())
	}
	return readers
}

// IsSite says whether one of Readers is the site itself.
func IsSite(reader *keys.Account) bool { return reader.Address == "" }

// site is the account of the global keys.
func (p Policy) site() *keys.Account {
	return &keys.Account{Known: true, Enabled: true, Cipher: keys.AES256, Keys: p.GlobalKeys}
}

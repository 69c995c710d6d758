package main

import (
	"context"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// recipient looks one address up as the daemon does and says what would happen
// to a message for it, and why.
func (r *report) recipient(ctx context.Context, st keys.Store, p policy.Policy, address string) {
	found, err := keys.Lookup(ctx, st, []string{address})
	if err != nil {
		r.problem(exitCode(err), "%s: mail is deferred (451): %v", address, err)
		return
	}
	now := time.Now()
	accounts := found[address].Accounts
	decision := p.DecideRecipient(found[address], now)
	switch decision.Outcome {
	case policy.Seal:
		r.ok("%s: mail is sealed: %s", address, decision.Reason)
	case policy.Pass:
		r.ok("%s: mail passes as it is, not sealed: %s", address, decision.Reason)
	default:
		r.problem(exitFailure, "%s: mail is deferred (451): %s", address, decision.Reason)
	}
	for _, account := range accounts {
		r.account(address, account, decision, now)
	}
}

// account says of every key of an account what it is used for.
func (r *report) account(address string, account *keys.Account, decision policy.Decision, now time.Time) {
	if !strings.EqualFold(account.Address, keys.Canonical(address)) {
		r.ok("%s: leads to the account %s", address, account.Address)
	}
	if !account.Enrolled() {
		r.ok("%s: the account %s has no key", address, account.Address)
	}
	used := make(map[*keys.Key]bool)
	if decision.Outcome == policy.Seal {
		_, sealTo, _ := keys.SealTo([]*keys.Account{account}, now) // the decision says that there are some
		for _, key := range sealTo {
			used[key] = true
		}
	}
	for _, key := range account.Keys {
		use := "not used"
		if used[key] {
			use = "sealed to"
		}
		record := newRecord(account.Address, 0, key, now)
		r.ok("%s: key %s (%s), %s: %s", address, key.Fingerprint, key.Algorithm, record.stateText(), use)
	}
	for _, err := range account.Unread {
		r.warning("%s: %v", address, err)
	}
}

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// recipient looks one address up as the daemon does and says what would happen
// to a message for it, and why.
func (r *report) recipient(ctx context.Context, st keys.Store, cfg Config, address string) {
	now := time.Now()
	v := decide(ctx, st, cfg, ordinaryMail(cfg), address, now)
	switch v.decision.Outcome {
	case policy.Seal:
		r.ok("%s: mail is sealed: %s", address, v.decision.Reason)
	case policy.Global:
		r.ok("%s: mail is sealed to the site's own keys: %s", address, v.decision.Reason)
	case policy.Pass:
		r.ok("%s: mail passes as it is, not sealed: %s", address, v.decision.Reason)
	case policy.Reject:
		r.warning("%s: mail is refused (550): %s", address, v.decision.Reason)
	default:
		code := exitFailure
		if v.failed != nil {
			code = exitCode(v.failed)
		}
		r.problem(code, "%s: mail is deferred (451): %s", address, v.decision.Reason)
	}
	if ways := v.meant(); len(ways) > 0 && ways[0] != byAccount {
		r.ok("%s: means %s", address, v.meantText())
	}
	for _, account := range v.found.Accounts {
		r.account(v, account, now)
	}
	r.site(v, cfg.policy)
}

// account says of every key of an account what it is used for.
func (r *report) account(v *verdict, account *keys.Account, now time.Time) {
	if !strings.EqualFold(account.Address, keys.Canonical(v.to)) {
		r.ok("%s: leads to the account %s", v.to, account.Address)
	}
	if !account.Enrolled() {
		r.ok("%s: the account %s has no key", v.to, account.Address)
	}
	for _, key := range account.Keys {
		use := "not used"
		if slices.Contains(v.keys, key) {
			use = "sealed to"
		}
		record := newRecord(account.Address, 0, key, now)
		r.ok("%s: key %s (%s), %s: %s", v.to, key.Fingerprint, key.Algorithm, record.stateText(), use)
	}
	for _, err := range account.Unread {
		r.warning("%s: %v", v.to, err)
	}
}

// site says where others than the recipient can read the mail.
func (r *report) site(v *verdict, p policy.Policy) {
	if !v.seals() {
		return
	}
	if v.decision.Outcome == policy.Global {
		r.ok("%s: %s can read it", v.to, holders(p))
	}
	if line := escrowLine(p); line != "" {
		r.warning("%s: %s", v.to, line)
	}
}

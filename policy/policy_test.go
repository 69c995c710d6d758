package policy

import (
	"errors"
	"testing"
	"time"

	"sealmilter/keys"
)

func TestDecide(t *testing.T) {
	on, off := Policy{Enable: true}, Policy{}
	tests := []struct {
		policy  Policy
		key     KeyState
		enabled bool
		want    Outcome
	}{
		{on, Usable, true, Seal},
		{on, Usable, false, Pass},
		{on, NoKey, true, Pass},
		{on, NoKey, false, Pass},
		{on, Expired, true, Seal},
		{on, Expired, false, Pass},
		{on, Revoked, true, Defer},
		{on, Revoked, false, Pass},
		{on, Unusable, true, Defer},
		{on, Unusable, false, Pass},
		{on, LookupFailed, true, Defer},
		{on, LookupFailed, false, Defer},
		{off, Usable, true, Pass},
		{off, LookupFailed, true, Pass},
	}
	for _, test := range tests {
		got := test.policy.Decide(Facts{Key: test.key, Enabled: test.enabled})
		if got.Outcome != test.want || got.Reason == "" {
			t.Errorf("%+v, %v, enabled %v: got %v (%s), want %v", test.policy, test.key, test.enabled, got.Outcome, got.Reason, test.want)
		}
	}
}

// TestNothingKnown holds that facts nobody filled in defer.
func TestNothingKnown(t *testing.T) {
	if got := (Policy{Enable: true}).Decide(Facts{}); got.Outcome != Defer {
		t.Errorf("no facts lead to %v", got.Outcome)
	}
	if got := (Decision{}).Outcome; got != Defer {
		t.Errorf("no decision is %v", got)
	}
}

func TestDecideRecipient(t *testing.T) {
	none := &keys.Account{Enabled: true}
	off := &keys.Account{}
	unread := &keys.Account{Enabled: true, Unread: []error{errors.New("no key")}}
	unusable := &keys.Account{Enabled: true, Keys: []*keys.Key{{}}}
	tests := []struct {
		name     string
		accounts []*keys.Account
		want     Outcome
	}{
		{"nobody enrolled", nil, Pass},
		{"an account without a key", []*keys.Account{none}, Pass},
		{"switched off", []*keys.Account{off}, Pass},
		{"a key that cannot be read", []*keys.Account{unread}, Defer},
		{"a key that cannot be sealed to", []*keys.Account{unusable}, Defer},
		{"two that pass", []*keys.Account{none, off}, Pass},
		{"one of two defers", []*keys.Account{none, unread}, Defer},
		{"the first of two defers", []*keys.Account{unread, none}, Defer},
	}
	for _, test := range tests {
		got := (Policy{Enable: true}).DecideRecipient(&keys.Recipient{Accounts: test.accounts}, time.Now())
		if got.Outcome != test.want || got.Reason == "" {
			t.Errorf("%s: got %v (%s), want %v", test.name, got.Outcome, got.Reason, test.want)
		}
	}
}

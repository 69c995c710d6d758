package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// TestNothingKnown holds that facts nobody filled in defer.
func TestNothingKnown(t *testing.T) {
	if got := Default().Decide(Facts{}); got.Outcome != Defer || got.Reason == "" {
		t.Errorf("no facts lead to %+v", got)
	}
	if got := (Decision{}).Outcome; got != Defer {
		t.Errorf("no decision is %v", got)
	}
	if got := (Policy{Enable: true}).Decide(Facts{Key: NoKey, Enabled: true}); got.Outcome != Defer {
		t.Errorf("a policy without settings leads to %v", got.Outcome)
	}
}

// TestDefaults: what happens where the site says nothing.
func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		facts Facts
		want  Outcome
	}{
		{"no key", Facts{Key: NoKey, Enabled: true}, Pass},
		{"no key, switched off", Facts{Key: NoKey}, Pass},
		{"usable", Facts{Key: Usable, Enabled: true}, Seal},
		{"usable, from somebody who has logged in", Facts{Key: Usable, Enabled: true, Authenticated: true, Sender: "ann@example.org"}, Seal},
		{"usable, a bounce", Facts{Key: Usable, Enabled: true}, Seal},
		{"usable, switched off", Facts{Key: Usable}, Pass},
		{"expired", Facts{Key: Expired, Enabled: true}, Seal},
		{"revoked yesterday", Facts{Key: Revoked, Enabled: true, RevokedFor: day}, Defer},
		{"revoked a week ago", Facts{Key: Revoked, Enabled: true, RevokedFor: 7 * day}, Defer},
		{"revoked before that", Facts{Key: Revoked, Enabled: true, RevokedFor: 7*day + 1}, Reject},
		{"revoked, switched off", Facts{Key: Revoked, RevokedFor: 70 * day}, Pass},
		{"unusable", Facts{Key: Unusable, Enabled: true}, Defer},
		{"unusable, switched off", Facts{Key: Unusable}, Pass},
		{"a group of which some have a key", Facts{Key: Partial, Enabled: true}, Defer},
		{"lookup failed", Facts{Key: LookupFailed, Enabled: true}, Defer},
		{"sealed already", Facts{Key: Usable, Enabled: true, Sealed: true}, Pass},
		{"sealed already, to an expired key", Facts{Key: Expired, Enabled: true, Sealed: true}, Pass},
		{"sealed to somebody, and revoked", Facts{Key: Revoked, Enabled: true, Sealed: true}, Defer},
	} {
		if got := Default().Decide(test.facts); got.Outcome != test.want || got.Reason == "" || got.Rule != "" {
			t.Errorf("%s: %+v, want %v", test.name, got, test.want)
		}
		off := Default()
		off.Enable = false
		if got := off.Decide(test.facts); got.Outcome != Pass {
			t.Errorf("%s, switched off for all: %+v", test.name, got)
		}
	}
}

// TestChoices: the account's word goes before the site's, a rule before both.
func TestChoices(t *testing.T) {
	p := Default()
	said := func(options string) Settings {
		s, err := ParseSettings([]byte(options))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, test := range []struct {
		options string
		facts   Facts
		want    Outcome
	}{
		{`{"no_key": "reject"}`, Facts{Key: NoKey, Enabled: true}, Reject},
		{`{"no_key": "reject"}`, Facts{Key: Usable, Enabled: true}, Seal},
		{`{"expired": "defer"}`, Facts{Key: Expired, Enabled: true}, Defer},
		{`{"expired": "pass"}`, Facts{Key: Expired, Enabled: true}, Pass},
		{`{"revoked": "reject"}`, Facts{Key: Revoked, Enabled: true}, Reject},
		{`{"revoked": "defer"}`, Facts{Key: Revoked, Enabled: true, RevokedFor: 30 * day}, Reject},
		{`{"partial": "seal"}`, Facts{Key: Partial, Enabled: true}, Seal},
		{`{"always": true}`, Facts{Key: Usable, Enabled: true, Sealed: true}, Seal},
		{`{"always": false, "colour": "blue"}`, Facts{Key: Usable, Enabled: true, Sealed: true}, Pass},
		{`{}`, Facts{Key: Usable, Enabled: true}, Seal},
		{``, Facts{Key: Usable, Enabled: true}, Seal},
	} {
		test.facts.Account = said(test.options)
		if got := p.Decide(test.facts); got.Outcome != test.want {
			t.Errorf("%s, %v: %+v, want %v", test.options, test.facts.Key, got, test.want)
		}
	}
	p.Rules = []Rule{{Name: "all", Outcome: Reject, Text: "no"}}
	got := p.Decide(Facts{Key: NoKey, Enabled: true, Account: said(`{"no_key": "defer"}`)})
	if got.Outcome != Reject || got.Rule != "all" || got.Text != "no" {
		t.Errorf("a rule for all: %+v", got)
	}
	for _, wrong := range []string{`{"no_key": "seal"}`, `{"revoked": "pass"}`, `{"unusable": "pass"}`, `{"expired": "maybe"}`, `{"always": "yes"}`, `{"no_key": 1}`, `[]`, `{`} {
		if s, err := ParseSettings([]byte(wrong)); err == nil {
			t.Errorf("%s was taken for %+v", wrong, s)
		}
	}
}

// TestRuleMatches holds each condition by itself.
func TestRuleMatches(t *testing.T) {
	facts := Facts{
		Stage: AtEnd, Names: []string{"ann+list@example.org", "ann@example.org"}, Sender: "Bob@Sub.Example.net", Authenticated: true,
		Client: netip.MustParseAddr("192.0.2.7"), Listener: "inet:127.0.0.1:8890", Key: Usable, Enabled: true,
		Header: []Field{{"x-spam-flag", " yes"}, {"Subject", " two\n words"}}, Size: 1000,
	}
	bounce, local := facts, facts
	bounce.Sender, local.Client, local.Local = "", netip.Addr{}, true
	for _, test := range []struct {
		name  string
		facts Facts
		rule  Rule
		want  bool
	}{
		{"nothing asked", facts, Rule{}, true},
		{"recipient", facts, Rule{Recipient: []string{"x@y.z", "Ann@Example.org"}}, true},
		{"another recipient", facts, Rule{Recipient: []string{"bob@example.org"}}, false},
		{"recipient's domain", facts, Rule{Recipient: []string{"@EXAMPLE.org"}}, true},
		{"domains below", facts, Rule{Recipient: []string{"@*.example.org"}}, false},
		{"domains below another", facts, Rule{Recipient: []string{"@*.org"}}, true},
		{"no domain by its end", facts, Rule{Recipient: []string{"@ample.org", "@*.ample.org"}}, false},
		{"sender", facts, Rule{Sender: []string{"bob@sub.example.net"}}, true},
		{"sender's domain", facts, Rule{Sender: []string{"@*.example.net"}}, true},
		{"another sender", facts, Rule{Sender: []string{"@example.net"}}, false},
		{"no null sender", facts, Rule{NullSender: yes()}, false},
		{"a sender", facts, Rule{NullSender: no()}, true},
		{"null sender", bounce, Rule{NullSender: yes()}, true},
		{"null sender by pattern", bounce, Rule{Sender: []string{"@*.example.net"}}, false},
		{"authenticated", facts, Rule{Authenticated: yes()}, true},
		{"not authenticated", facts, Rule{Authenticated: no()}, false},
		{"client", facts, Rule{Client: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, true},
		{"another client", facts, Rule{Client: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, false},
		{"not local", facts, Rule{Local: true}, false},
		{"local", local, Rule{Local: true}, true},
		{"local is no network", local, Rule{Client: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, false},
		{"listener", facts, Rule{Listener: []string{"inet:127.0.0.1:8890"}}, true},
		{"another listener", facts, Rule{Listener: []string{"unix:/x"}}, false},
		{"key", facts, Rule{Key: []KeyState{Expired, Usable}}, true},
		{"another key", facts, Rule{Key: []KeyState{NoKey}}, false},
		{"enabled", facts, Rule{Enabled: yes()}, true},
		{"not enabled", facts, Rule{Enabled: no()}, false},
		{"field and value", facts, Rule{Header: []string{"X-Spam-Flag: YES"}}, true},
		{"another value", facts, Rule{Header: []string{"X-Spam-Flag: NO"}}, false},
		{"field", facts, Rule{Header: []string{"X-Spam-Flag"}}, true},
		{"no such field", facts, Rule{Header: []string{"X-Spam"}}, false},
		{"folded", facts, Rule{Header: []string{"subject: Two words", "x-spam-flag"}}, true},
		{"one of two missing", facts, Rule{Header: []string{"Subject", "X-Other"}}, false},
		{"larger", facts, Rule{LargerThan: 999}, true},
		{"not larger", facts, Rule{LargerThan: 1000}, false},
		{"smaller", facts, Rule{SmallerThan: 1001}, true},
		{"not smaller", facts, Rule{SmallerThan: 1000}, false},
		{"not sealed", facts, Rule{Sealed: no()}, true},
		{"sealed", facts, Rule{Sealed: yes()}, false},
	} {
		if got, known := test.rule.matches(test.facts); got != test.want || !known {
			t.Errorf("%s: matches %v (known %v), want %v", test.name, got, known, test.want)
		}
	}
}

// TestPossible: what is not known yet leaves several ways open, and nothing
// that is known closes a way that can still be taken.
func TestPossible(t *testing.T) {
	p := Default()
	p.Rules = []Rule{
		{Name: "spam", Header: []string{"X-Spam-Flag: YES"}, Outcome: Reject},
		{Name: "large", Recipient: []string{"@large.example"}, LargerThan: 1 << 20, Outcome: Defer},
		{Name: "sealed", Recipient: []string{"@plain.example"}, Sealed: yes(), Outcome: Reject},
	}
	header := []Field{{"X-Spam-Flag", " YES"}}
	for _, test := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"at RCPT, no key", Facts{Key: NoKey, Names: []string{"a@other.example"}}, "reject pass"},
		{"at RCPT, a key", Facts{Key: Usable, Enabled: true, Names: []string{"a@other.example"}}, "reject seal pass"},
		{"spam", Facts{Key: Usable, Enabled: true, Stage: AtHeader, Header: header}, "reject"},
		{"no spam, no key", Facts{Key: NoKey, Stage: AtHeader, Names: []string{"a@other.example"}}, "pass"},
		{"no spam, a key", Facts{Key: Usable, Enabled: true, Stage: AtHeader, Names: []string{"a@other.example"}}, "seal pass"},
		{"may be large", Facts{Key: Usable, Enabled: true, Stage: AtHeader, Names: []string{"a@large.example"}}, "defer seal pass"},
		{"is large", Facts{Key: Usable, Enabled: true, Stage: AtEnd, Size: 2 << 20, Names: []string{"a@large.example"}}, "defer"},
		{"may be sealed", Facts{Key: NoKey, Stage: AtHeader, Names: []string{"a@plain.example"}}, "reject pass"},
		{"the end", Facts{Key: Usable, Enabled: true, Stage: AtEnd, Names: []string{"a@other.example"}}, "seal"},
		{"the lookup failed", Facts{}, "defer"},
	} {
		var got []string
		for _, d := range p.Possible(test.facts) {
			got = append(got, d.Outcome.String())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestSealRule: what a rule wants sealed is never passed for want of a key.
func TestSealRule(t *testing.T) {
	p := Default()
	p.Rules = []Rule{{Name: "board", Outcome: Seal}}
	for state, want := range map[KeyState]Outcome{NoKey: Defer, Usable: Seal, Expired: Seal, Revoked: Defer, Unusable: Defer, Partial: Seal} {
		for _, enabled := range []bool{true, false} {
			got := p.Decide(Facts{Key: state, Enabled: enabled})
			if got.Outcome != want || got.Rule != "board" || !strings.Contains(got.Reason, `the rule "board"`) {
				t.Errorf("%v, enabled %v: %+v, want %v", state, enabled, got, want)
			}
		}
	}
	if got := p.Decide(Facts{Key: Usable, Enabled: true, Sealed: true}); got.Outcome != Pass {
		t.Errorf("sealed already: %+v", got)
	}
}

func TestNames(t *testing.T) {
	for _, name := range outcomes {
		if o, err := ParseOutcome(name); err != nil || o.String() != name {
			t.Errorf("%s: %v, %v", name, o, err)
		}
	}
	for _, name := range keyStates[1:] {
		if s, err := ParseKeyState(name); err != nil || s.String() != name {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	for _, wrong := range []string{"", "lookup failed", "Seal", "none"} {
		if _, err := ParseOutcome(wrong); err == nil {
			t.Errorf("%q is an outcome", wrong)
		}
	}
	for _, wrong := range []string{"", "lookup failed", "Usable"} {
		if _, err := ParseKeyState(wrong); err == nil {
			t.Errorf("%q is a state", wrong)
		}
	}
	for state := range settingNames {
		if len(Choices(state)) < 2 || slices.Contains(Choices(state), Pass) && (state == Revoked || state == Unusable) {
			t.Errorf("%v: the choices are %v", state, Choices(state))
		}
	}
	if !HasCode("550 5.7.1 no") || HasCode("no") || HasCode("450 4.7.1 later") || HasCode("550 5.7.1 ") {
		t.Error("reply codes are not told")
	}
}

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sealmilter/policy"
)

// policy says what the policy does, above all where it lets mail pass as it is
// and who else can read.
func (r *report) policy(cfg Config) {
	p := cfg.policy
	var settings []string
	for _, setting := range cfg.Policy.stateSettings() {
		text := setting.name + " " + setting.chosen
		if setting.state == policy.Revoked && p.RevokedGrace > 0 && setting.chosen == policy.Defer.String() {
			text += fmt.Sprintf(" (%s, then reject)", cfg.Policy.RevokedGrace)
		}
		settings = append(settings, text)
	}
	r.ok("policy: %s", strings.Join(settings, ", "))
	if len(p.Rules) > 0 {
		r.ok("policy: %s", countedRules(len(p.Rules)))
	}
	for _, rule := range p.Rules {
		r.passingRule(rule)
	}
	for _, line := range otherReaders(p) {
		r.ok("policy: %s", line)
	}
	for _, line := range policyWarnings(p, time.Now()) {
		r.warning("policy: %s", line)
	}
}

// passingRule says of a rule that it can let mail pass as it is.
func (r *report) passingRule(rule policy.Rule) {
	switch {
	case rule.Outcome != policy.Pass:
	case rule.Key != nil && !slices.ContainsFunc(rule.Key, func(s policy.KeyState) bool { return s != policy.NoKey }):
		r.ok("policy: the rule %q lets mail pass as it is, to recipients without a key", rule.Name)
	case rule.TrustHeader:
		r.warning("policy: the rule %q lets mail pass as it is by a header field, to recipients who have a key too: a filter before sealmilter must take out what a sender wrote (%s)", rule.Name, strings.Join(rule.Header, ", "))
	default:
		r.ok("policy: the rule %q lets mail pass as it is, to recipients who have a key too", rule.Name)
	}
}

// countedRules says how many rules there are.
func countedRules(n int) string {
	if n == 1 {
		return "1 rule was read"
	}
	return fmt.Sprintf("%d rules were read, the first that matches decides", n)
}

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// Who else can read what is sealed is said wherever somebody might look: in the
// log, by check, and where an account is shown.

// globalFingerprints names the site's own keys.
func globalFingerprints(p policy.Policy) (fingerprints []string) {
	for _, key := range p.GlobalKeys {
		fingerprints = append(fingerprints, key.Fingerprint)
	}
	return fingerprints
}

// describeGlobalKeys is global_keys for the log: each file and what was read
// from it.
func (c Config) describeGlobalKeys() textList {
	described := slices.Clone(c.Policy.GlobalKeys)
	for i, file := range described {
		described[i] += " (" + strings.Join(c.globalFiles[file], ", ") + ")"
	}
	return described
}

// holders begins a sentence about those who can read by the site's keys.
func holders(p policy.Policy) string {
	return "whoever holds the secret key of " + strings.Join(globalFingerprints(p), " or of ")
}

// otherReaders says whose mail the holders of the site's keys can read, without
// escrow: a line for each reason.
func otherReaders(p policy.Policy) (lines []string) {
	if !p.Enable || len(p.GlobalKeys) == 0 {
		return nil
	}
	whose := []struct {
		state policy.KeyState
		mail  string
	}{
		{policy.NoKey, "the mail of every recipient without a key"},
		{policy.Expired, "the mail of every recipient whose key has expired"},
		{policy.Revoked, "the mail of every recipient whose key is revoked"},
		{policy.Unusable, "the mail of every recipient whose key cannot be used"},
		{policy.Partial, "the mail of every group of which some cannot be sealed to"},
	}
	for _, of := range whose {
		if p.Settings.Outcomes[of.state] == policy.Global {
			lines = append(lines, holders(p)+" can read "+of.mail)
		}
	}
	for _, rule := range p.Rules {
		if rule.Outcome == policy.Global {
			lines = append(lines, fmt.Sprintf("%s can read the mail that the rule %q is for", holders(p), rule.Name))
		}
	}
	return lines
}

// escrowLine says what escrow means, "" where it is off.
func escrowLine(p policy.Policy) string {
	if !p.Enable || !p.Escrow {
		return ""
	}
	return "ESCROW: " + holders(p) + " can read every message that is sealed"
}

// globalExpiry is how long before the end of a global key the warnings begin.
const globalExpiry = 30 * 24 * time.Hour

// policyWarnings lists what an administrator may not have meant.
func policyWarnings(p policy.Policy, now time.Time) (lines []string) {
	methods := make(map[keys.Method]bool)
	for _, key := range p.GlobalKeys {
		methods[key.Method] = true
		switch date := key.Expires.UTC().Format(time.DateOnly); {
		case key.Expires.IsZero() || key.Expires.After(now.Add(globalExpiry)):
		case key.Expires.After(now):
			lines = append(lines, fmt.Sprintf("the global key %s expires on %s", key.Fingerprint, date))
		default:
			lines = append(lines, fmt.Sprintf("the global key %s has expired on %s; mail is sealed to it all the same", key.Fingerprint, date))
		}
	}
	if line := escrowLine(p); line != "" {
		lines = append(lines, line)
		if len(methods) == 1 {
			lines = append(lines, fmt.Sprintf("the global keys are of one method, %s: with escrow, mail to accounts that use the other method will be deferred", p.GlobalKeys[0].Method))
		}
	}
	return lines
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// explanation is a verdict as explain --json writes it. The names are an
// interface: they are added to, never changed.
type explanation struct {
	To         string             `json:"to"`
	Meant      []string           `json:"meant"`          // the ways that lead to whom it means
	Name       string             `json:"name,omitempty"` // by which the store knows it
	Accounts   []explainedAccount `json:"accounts"`
	KeyState   string             `json:"key_state"`
	Enabled    bool               `json:"enabled"`
	DecidedBy  string             `json:"decided_by"`
	Rule       string             `json:"rule,omitempty"`
	Outcome    string             `json:"outcome"`
	Reason     string             `json:"reason"`
	Text       string             `json:"text,omitempty"`
	Method     string             `json:"method,omitempty"`
	Cipher     string             `json:"cipher,omitempty"`
	AEAD       string             `json:"aead,omitempty"`
	Protection string             `json:"header_protection,omitempty"`
	Keys       []explainedKey     `json:"keys"`
	Escrow     []string           `json:"escrow,omitempty"` // fingerprints of the site's keys that read it too
}

type explainedAccount struct {
	Address  string   `json:"address"`
	Enabled  bool     `json:"enabled"`
	KeysOf   string   `json:"keys_of,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

type explainedKey struct {
	Account     string `json:"account,omitempty"` // left out of the site's own
	Fingerprint string `json:"fingerprint"`
	Algorithm   string `json:"algorithm"`
	State       string `json:"state"`
	Global      bool   `json:"global,omitempty"`
}

// What decides where no setting of the configuration does.
const (
	decidedByRule    = "rule"
	decidedByLookup  = "lookup"  // it failed
	decidedByAccount = "account" // or its domain
	decidedByKeys    = "keys"    // what there is to seal to
)

// decidedBy names what decides: one of the words above, or a setting.
func (v *verdict) decidedBy(p policy.Policy) string {
	_, chosen := v.facts.Account.Outcomes[v.facts.Key]
	switch {
	case !p.Enable:
		return "storage.encryption.enable"
	case v.facts.Key == policy.LookupFailed:
		return decidedByLookup
	case v.decision.Rule != "":
		return decidedByRule
	case v.decision.Reason == policy.AlreadySealed:
		return "policy.always"
	case chosen, !v.facts.Enabled && v.facts.Key != policy.NoKey:
		return decidedByAccount
	}
	settings := PolicyConfig{}.stateSettings()
	at := slices.IndexFunc(settings, func(s stateSetting) bool { return s.state == v.facts.Key })
	if at < 0 || v.decision.Outcome == policy.Defer && p.Settings.Outcomes[v.facts.Key] != policy.Defer {
		return decidedByKeys
	}
	return "policy." + settings[at].name
}

// explain describes a verdict.
func (v *verdict) explain(p policy.Policy, now time.Time) explanation {
	e := explanation{
		To: v.to, Meant: v.meant(), Name: v.found.Name, Accounts: []explainedAccount{},
		KeyState: v.facts.Key.String(), Enabled: v.facts.Enabled,
		DecidedBy: v.decidedBy(p), Rule: v.decision.Rule, Outcome: v.decision.Outcome.String(),
		Reason: v.decision.Reason, Text: v.decision.Text,
		Method: string(v.form.Method), Cipher: string(v.form.Cipher), AEAD: string(v.form.AEAD),
		Protection: string(v.form.Protection), Keys: []explainedKey{},
	}
	if e.Meant == nil {
		e.Meant = []string{}
	}
	for _, account := range v.found.Accounts {
		explained := explainedAccount{Address: account.Address, Enabled: account.Enabled, KeysOf: account.KeysOf}
		for _, problem := range account.Unread {
			explained.Problems = append(explained.Problems, problem.Error())
		}
		e.Accounts = append(e.Accounts, explained)
	}
	for _, key := range v.keys {
		reader := v.reader(key)
		explained := explainedKey{Account: reader.Address, Fingerprint: key.Fingerprint,
			Algorithm: key.Algorithm, State: key.State(now).String(), Global: policy.IsSite(reader)}
		if !slices.Contains(e.Keys, explained) { // a group may share its domain's
			e.Keys = append(e.Keys, explained)
		}
	}
	if v.seals() && p.Escrow {
		e.Escrow = globalFingerprints(p)
	}
	return e
}

// write writes the explanation as JSON, on one line.
func (e explanation) write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(e)
}

// meantText says in words whom the address means.
func (v *verdict) meantText() string {
	ways := v.meant()
	text := v.found.Name
	if text == "" {
		return "nobody: no account and no alias has this name"
	}
	if ways[0] == byExtension {
		text += ", the address without its extension"
	}
	if strings.HasPrefix(text, "@") {
		text += ", the entry of its domain"
	}
	if slices.Contains(ways, byAlias) {
		var ends []string
		for _, account := range v.found.Accounts {
			ends = append(ends, account.Address)
		}
		text += ", an alias of " + strings.Join(ends, ", ")
	}
	for _, account := range v.found.Accounts {
		if account.KeysOf != "" {
			text += fmt.Sprintf(", where %s has the keys of %s", account.Address, account.KeysOf)
		}
	}
	return text
}

// explainRule says what decided, in words.
func (e explanation) explainRule(cfg Config) string {
	switch e.DecidedBy {
	case decidedByRule:
		at := slices.IndexFunc(cfg.policy.Rules, func(r policy.Rule) bool { return r.Name == e.Rule })
		return fmt.Sprintf("the rule %q, %s", e.Rule, cfg.Policy.Rules[at])
	case decidedByLookup:
		return "the lookup, which failed"
	case decidedByAccount:
		return "no rule, but a choice of the account or its domain"
	case decidedByKeys:
		return "no rule, but a key that is " + e.KeyState
	}
	return "no rule, but " + e.DecidedBy
}

// outcomeTexts say what the outcomes mean for the message.
var outcomeTexts = map[string]string{
	policy.Seal.String():   "sealed",
	policy.Global.String(): "sealed to the site's own keys",
	policy.Pass.String():   "passes as it is, not sealed",
	policy.Defer.String():  "deferred (451)",
	policy.Reject.String(): "refused (550)",
}

// writeText writes the explanation for a person.
func (e explanation) writeText(w io.Writer, v *verdict, cfg Config) error {
	var text strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&text, "  %-12s%s\n", label, printable(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(&text, "%s\n", printable(e.To))
	if v.failed == nil {
		line("means:", "%s", v.meantText())
	}
	state := e.KeyState
	if !e.Enabled {
		state += ", and the account has switched sealing off"
	}
	line("keys:", "%s", state)
	for _, problem := range v.unread() {
		line("", "%v", problem)
	}
	line("decided by:", "%s", e.explainRule(cfg))
	line("outcome:", "%s: %s", outcomeTexts[e.Outcome], e.Reason)
	if e.Text != "" {
		line("reply:", "%s", e.Text)
	}
	label := "sealed to:"
	for _, key := range e.Keys {
		owner := "of " + key.Account
		if key.Global {
			owner = "the site's own"
		}
		line(label, "%s (%s, %s), %s", key.Fingerprint, key.Algorithm, key.State, owner)
		label = ""
	}
	if v.seals() {
		line("sealed by:", "%s", formText(v.form))
	}
	if e.Outcome == policy.Global.String() {
		line("readers:", "%s can read it", holders(cfg.policy))
	}
	if e.Escrow != nil {
		line("ESCROW:", "%s", strings.TrimPrefix(escrowLine(cfg.policy), "ESCROW: "))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// formText says in words how a message is sealed.
func formText(form keys.Form) string {
	text := methodNames[form.Method] + ", " + string(form.Cipher)
	if form.AEAD != keys.NoAEAD {
		text += " in mode " + string(form.AEAD)
	}
	if form.Protection != keys.NoProtection {
		text += ", header protected (" + string(form.Protection) + ")"
	}
	return text
}

// methodNames are the methods as a person calls them.
var methodNames = map[keys.Method]string{keys.OpenPGP: "OpenPGP", keys.SMIME: "S/MIME"}

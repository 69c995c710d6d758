package policy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sealmilter/keys"
)

// Settings are choices that the site, a domain or an account may make. What is
// missing is left to the next of them.
type Settings struct {
	Outcomes map[KeyState]Outcome // for the states that setting names
	Always   *bool                // seal what is sealed to the recipient already
	// Protection is what of the header is hidden. It decides nothing.
	Protection *keys.HeaderProtection
}

// settingNames are the names of what can be set for a state, in the store's
// options and in the configuration.
var settingNames = map[KeyState]string{NoKey: "no_key", Expired: "expired", Revoked: "revoked", Unusable: "unusable", Partial: "partial"}

// Choices lists the outcomes that can be set for a state. A key that is there
// and cannot be used is never a reason to deliver plaintext.
func Choices(s KeyState) []Outcome {
	switch s {
	case NoKey:
		return []Outcome{Pass, Defer, Reject, Global}
	case Expired, Partial:
		return []Outcome{Seal, Pass, Defer, Reject, Global}
	case Revoked, Unusable:
		return []Outcome{Defer, Reject, Global}
	}
	return []Outcome{Seal}
}

// Set sets the outcome for a state by their names in the configuration. The
// error says which there are.
func (s *Settings) Set(state KeyState, name string) error {
	outcome, err := ParseOutcome(name)
	if err != nil || !slices.Contains(Choices(state), outcome) {
		return fmt.Errorf("%q cannot be chosen, expected %s", name, list(Choices(state)))
	}
	if s.Outcomes == nil {
		s.Outcomes = make(map[KeyState]Outcome)
	}
	s.Outcomes[state] = outcome
	return nil
}

// ParseSettings reads what an account and its domain have chosen, the options
// of the store: a JSON object with no_key, expired, revoked, unusable, partial,
// always and header_protection. Names that it does not know are for others.
func ParseSettings(options []byte) (s Settings, err error) {
	if len(options) == 0 {
		return s, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(options, &all); err != nil {
		return s, fmt.Errorf("the options of an account are no JSON object")
	}
	for state, name := range settingNames {
		var chosen string
		if value, there := all[name]; !there {
			continue
		} else if err := json.Unmarshal(value, &chosen); err != nil {
			return s, fmt.Errorf("the option %s of an account is no text", name)
		}
		if err := s.Set(state, chosen); err != nil {
			return s, fmt.Errorf("the option %s of an account: %w", name, err)
		}
	}
	if value, there := all["always"]; there {
		if err := json.Unmarshal(value, &s.Always); err != nil {
			return s, fmt.Errorf("the option always of an account is neither true nor false")
		}
	}
	if value, there := all["header_protection"]; there {
		var chosen string
		if err := json.Unmarshal(value, &chosen); err != nil {
			return s, fmt.Errorf("the option header_protection of an account is no text")
		}
		protection, err := ParseProtection(chosen)
		if err != nil {
			return s, fmt.Errorf("the option header_protection of an account: %w", err)
		}
		s.Protection = &protection
	}
	return s, nil
}

// ParseProtection reads the name of a way to protect a header.
func ParseProtection(name string) (keys.HeaderProtection, error) {
	switch protection := keys.HeaderProtection(name); protection {
	case "off":
		return keys.NoProtection, nil
	case keys.Baseline, keys.Shy:
		return protection, nil
	}
	return keys.NoProtection, fmt.Errorf("%q is no way to protect a header, expected off, %s or %s", name, keys.Baseline, keys.Shy)
}

// HasCode says whether a rule's text begins with a reply code and an enhanced
// one for a lasting failure (RFC 3463), as "550 5.7.1 no".
func HasCode(text string) bool {
	return hasCode.MatchString(text)
}

var hasCode = regexp.MustCompile(`^5[0-9][0-9] 5\.[0-9]{1,3}\.[0-9]{1,3} .`)

// ParseOutcome reads the name of an outcome.
func ParseOutcome(name string) (Outcome, error) {
	if at := slices.Index(outcomes, name); at >= 0 {
		return Outcome(at), nil
	}
	return Defer, fmt.Errorf("%q is no outcome, expected %s", name, list([]Outcome{Seal, Pass, Defer, Reject, Global}))
}

// ParseKeyState reads the name of a state as rules have it.
func ParseKeyState(name string) (KeyState, error) {
	if at := slices.Index(keyStates, name); at > 0 {
		return KeyState(at), nil
	}
	return LookupFailed, fmt.Errorf("%q is no state of a key, expected %s", name, strings.Join(keyStates[1:], ", "))
}

func list(choices []Outcome) string {
	var names []string
	for _, outcome := range choices {
		names = append(names, outcome.String())
	}
	return strings.Join(names, ", ")
}

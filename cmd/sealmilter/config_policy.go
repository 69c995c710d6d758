package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"sealmilter/keys"
	"sealmilter/policy"
)

// RecipientsConfig is how the MTA reads addresses.
type RecipientsConfig struct {
	Delimiter     string `toml:"delimiter"`
	CaseSensitive bool   `toml:"case_sensitive"`
	Domain        string `toml:"domain"`
	Split         string `toml:"split"`
	Separate      string `toml:"separate"`
}

// PolicyConfig is what is done with whose mail.
type PolicyConfig struct {
	NoKey        string       `toml:"no_key"`
	Expired      string       `toml:"expired"`
	Revoked      string       `toml:"revoked"`
	RevokedGrace duration     `toml:"revoked_grace"`
	Unusable     string       `toml:"unusable"`
	Partial      string       `toml:"partial"`
	Always       bool         `toml:"always"`
	Hidden       bool         `toml:"hidden"`
	GlobalKeys   textList     `toml:"global_keys"`
	Escrow       bool         `toml:"escrow"`
	Rules        []RuleConfig `toml:"rules"`
}

func defaultPolicyConfig() PolicyConfig {
	site := policy.Default()
	name := func(state policy.KeyState) string { return site.Settings.Outcomes[state].String() }
	return PolicyConfig{
		NoKey:        name(policy.NoKey),
		Expired:      name(policy.Expired),
		Revoked:      name(policy.Revoked),
		RevokedGrace: duration(site.RevokedGrace),
		Unusable:     name(policy.Unusable),
		Partial:      name(policy.Partial),
		GlobalKeys:   textList{},
	}
}

// stateSetting is a setting that says what a state of the keys leads to.
type stateSetting struct {
	name   string
	state  policy.KeyState
	chosen string
}

// stateSettings lists them in the order of the file.
func (c PolicyConfig) stateSettings() []stateSetting {
	return []stateSetting{
		{"no_key", policy.NoKey, c.NoKey},
		{"expired", policy.Expired, c.Expired},
		{"revoked", policy.Revoked, c.Revoked},
		{"unusable", policy.Unusable, c.Unusable},
		{"partial", policy.Partial, c.Partial},
	}
}

// naming is how the key store is asked for addresses.
func (c *Config) naming() keys.Naming {
	return keys.Naming{Delimiter: c.Recipients.Delimiter, CaseSensitive: c.Recipients.CaseSensitive, Domain: c.Recipients.Domain}
}

func (c *Config) validateRecipients() error {
	for _, r := range c.Recipients.Delimiter {
		if r > unicode.MaxASCII || unicode.IsLetter(r) || unicode.IsDigit(r) || !unicode.IsGraphic(r) || strings.ContainsRune("@.\"\\ ", r) {
			return c.invalid("recipients.delimiter", "%q cannot be the beginning of an extension, expected characters such as \"+\" or \"+-\"", r)
		}
	}
	if domain := c.Recipients.Domain; domain != "" {
		if err := checkDomain(domain); err != nil {
			return c.invalid("recipients.domain", "%q is no domain: %w", domain, err)
		}
	}
	return nil
}

const keyGlobalKeys = "policy.global_keys"

// makePolicy makes the policy and reads the files that belong to it.
func (c *Config) makePolicy(now time.Time) error {
	always := c.Policy.Always
	c.policy = policy.Policy{
		Enable:       c.Storage.Encryption.Enable,
		Settings:     policy.Settings{Outcomes: policy.Default().Settings.Outcomes, Always: &always},
		RevokedGrace: time.Duration(c.Policy.RevokedGrace),
		Escrow:       c.Policy.Escrow,
	}
	if c.Policy.RevokedGrace < 0 {
		return c.invalid("policy.revoked_grace", "%s is less than nothing, expected 0s (for ever) or more", c.Policy.RevokedGrace)
	}
	if err := c.makeProtection(); err != nil {
		return err
	}
	if err := c.readGlobalKeys(now); err != nil {
		return err
	}
	noKeys := len(c.policy.GlobalKeys) == 0
	for _, setting := range c.Policy.stateSettings() {
		key := "policy." + setting.name
		if err := c.policy.Settings.Set(setting.state, setting.chosen); err != nil {
			return c.invalid(key, "%w", err)
		}
		if noKeys && c.policy.Settings.Outcomes[setting.state] == policy.Global {
			return c.invalid(key, "\"global\" means the site's own keys, and global_keys names none")
		}
	}
	if c.Policy.Escrow && noKeys {
		return c.invalid("policy.escrow", "true seals every message to the site's own keys too, and global_keys names none")
	}
	for i := range c.Policy.Rules {
		rule, err := c.rule(i)
		if err != nil {
			return err
		}
		c.policy.Rules = append(c.policy.Rules, rule)
	}
	if err := c.checkListeners(); err != nil {
		return err
	}
	return c.checkPolicy()
}

// readGlobalKeys reads the site's own keys. One that mail cannot well be sealed
// to is an error: who finds that out later has mail that nobody can read.
func (c *Config) readGlobalKeys(now time.Time) error {
	c.globalFiles = make(map[string][]string)
	for _, file := range c.Policy.GlobalKeys {
		if !filepath.IsAbs(file) { // which folder it is below would depend on who reads it
			return c.invalid(keyGlobalKeys, "%q is no absolute path", file)
		}
		data, err := readKeyFile(file)
		if err != nil {
			return c.invalid(keyGlobalKeys, "%s: %w", file, err)
		}
		parsed, err := keys.Parse(data)
		if err != nil {
			return c.invalid(keyGlobalKeys, "%s: %w", file, err)
		}
		for _, global := range parsed {
			if state := global.State(now); state > keys.Expired { // of an expired one its holder reads on
				return c.invalid(keyGlobalKeys, "%s: the key %s is %s, mail must not be sealed to it", file, global.Fingerprint, state)
			}
			c.globalFiles[file] = append(c.globalFiles[file], global.Fingerprint)
			same := func(other *keys.Key) bool { return other.Fingerprint == global.Fingerprint }
			if !slices.ContainsFunc(c.policy.GlobalKeys, same) {
				c.policy.GlobalKeys = append(c.policy.GlobalKeys, global)
			}
		}
	}
	return nil
}

// quoted matches what an error quotes.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// checkPolicy asks the policy whether it makes sense. What is wrong is said
// with the place of the rule that it is about, and of every other that it names.
func (c *Config) checkPolicy() error {
	err := c.policy.Check()
	if err == nil {
		return nil
	}
	named := quoted.FindAllString(err.Error(), -1)
	var places []string
	for i, rule := range c.policy.Rules {
		place := c.origins[tableKey(keyRules, i+1)]
		if slices.Contains(named, quote(rule.Name)) && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	if len(places) == 0 {
		return configError("policy: %w", err)
	}
	// The last is the one that the others stand in the way of.
	last := len(places) - 1
	also := ""
	if last > 0 {
		also = " (see " + strings.Join(places[:last], ", ") + ")"
	}
	return configError("%s: %s: %w%s", places[last], keyRules, err, also)
}

package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sealmilter/keys"
	"sealmilter/policy"
)

// RuleConfig is one of the site's rules as the file has it. What is not there
// is no condition.
type RuleConfig struct {
	Name          string   `toml:"name"`
	Recipient     textList `toml:"recipient"`
	Sender        textList `toml:"sender"`
	NullSender    *bool    `toml:"null_sender"`
	Authenticated *bool    `toml:"authenticated"`
	Client        textList `toml:"client"`
	Listener      textList `toml:"listener"`
	Key           textList `toml:"key"`
	Enabled       *bool    `toml:"enabled"`
	Header        textList `toml:"header"`
	LargerThan    size     `toml:"larger_than"`
	SmallerThan   size     `toml:"smaller_than"`
	Sealed        *bool    `toml:"sealed"`
	Outcome       string   `toml:"outcome"`
	Text          string   `toml:"text"`
	TrustHeader   bool     `toml:"trust_header"`
}

const keyRules = "policy.rules"

// clientLocal is the client of a message from sendmail(1), which has no address.
const clientLocal = "local"

// maxText bounds what a rule tells a sender: a reply line of SMTP has 512
// octets (RFC 5321, section 4.5.3.1.5), with its codes.
const maxText = 400

// String writes the rule as TOML would on one line, with what is there.
func (r RuleConfig) String() string {
	var parts []string
	for field, value := range reflect.ValueOf(r).Fields() {
		if value.IsZero() {
			continue
		}
		var text string
		switch v := value.Interface().(type) {
		case textList:
			quoted := make([]string, len(v))
			for i, element := range v {
				quoted[i] = quote(element)
			}
			text = "[" + strings.Join(quoted, ", ") + "]"
		case *bool:
			text = strconv.FormatBool(*v)
		case bool:
			text = strconv.FormatBool(v)
		default:
			text = quote(fmt.Sprint(v))
		}
		parts = append(parts, field.Tag.Get("toml")+" = "+text)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// quote quotes as policy does in its errors.
func quote(text string) string { return fmt.Sprintf("%q", text) }

// invalidRule is a configuration error about a setting of a rule, or about all
// of it where the setting is "".
func (c *Config) invalidRule(number int, setting, format string, args ...any) error {
	rule := tableKey(keyRules, number)
	place, given := c.origins[rule+"."+setting]
	if !given {
		place = c.origins[rule]
	}
	return configError("%s: %s: "+format, append([]any{place, strings.TrimSuffix(keyRules+"."+setting, ".")}, args...)...)
}

// rule reads one rule. Whether it makes sense is for policy.Check to say.
func (c *Config) rule(i int) (policy.Rule, error) {
	r, number := c.Policy.Rules[i], i+1
	rule := policy.Rule{
		Name:          r.Name,
		Recipient:     patterns(r.Recipient),
		Sender:        patterns(r.Sender),
		NullSender:    r.NullSender,
		Authenticated: r.Authenticated,
		Listener:      r.Listener,
		Enabled:       r.Enabled,
		Header:        r.Header,
		LargerThan:    int64(r.LargerThan),
		SmallerThan:   int64(r.SmallerThan),
		Sealed:        r.Sealed,
		Text:          r.Text,
		TrustHeader:   r.TrustHeader,
	}
	if rule.Name == "" {
		rule.Name = fmt.Sprintf("rule %d", number)
	}
	if err := c.ruleSizes(r, number); err != nil {
		return rule, err
	}
	if err := c.ruleHeader(r, number); err != nil {
		return rule, err
	}
	if err := c.ruleOutcome(r, number, &rule); err != nil {
		return rule, err
	}
	var err error
	if rule.Client, rule.Local, err = clients(r.Client); err != nil {
		return rule, c.invalidRule(number, "client", "%w", err)
	}
	if r.Key != nil {
		rule.Key = []policy.KeyState{}
	}
	for _, name := range r.Key {
		state, err := policy.ParseKeyState(name)
		if err != nil {
			return rule, c.invalidRule(number, "key", "%w", err)
		}
		rule.Key = append(rule.Key, state)
	}
	return rule, nil
}

// ruleSizes refuses a bound that would be taken for none.
func (c *Config) ruleSizes(r RuleConfig, number int) error {
	for setting, bound := range map[string]size{"larger_than": r.LargerThan, "smaller_than": r.SmallerThan} {
		_, given := c.origins[tableKey(keyRules, number)+"."+setting]
		switch {
		case given && bound == 0:
			return c.invalidRule(number, setting, "0 bytes are no bound, expected 1 or more")
		case bound > maxSize:
			return c.invalidRule(number, setting, "%d bytes are more than any message has, expected %s", int64(bound), bound.expects())
		}
	}
	return nil
}

// ruleHeader refuses what is no header field: it would never be there.
func (c *Config) ruleHeader(r RuleConfig, number int) error {
	for _, field := range r.Header {
		if _, err := parseField(field); err != nil {
			return c.invalidRule(number, "header", "%w", err)
		}
	}
	if r.TrustHeader && r.Header == nil {
		return c.invalidRule(number, "trust_header", "the rule has no header that could be trusted")
	}
	return nil
}

// parseField reads "Name: value", or "Name" alone.
func parseField(text string) (policy.Field, error) {
	name, value, _ := strings.Cut(text, ":")
	name = strings.TrimSpace(name)
	notInName := func(r rune) bool { return r <= ' ' || r > '~' } // RFC 5322, section 2.2
	if name == "" || strings.ContainsFunc(name, notInName) {
		return policy.Field{}, fmt.Errorf("%q is no header field, expected \"Name: value\" or \"Name\"", text)
	}
	return policy.Field{Name: name, Value: strings.TrimSpace(value)}, nil
}

func (c *Config) ruleOutcome(r RuleConfig, number int, rule *policy.Rule) (err error) {
	if r.Outcome == "" {
		_, hint := policy.ParseOutcome("")
		_, expected, _ := strings.Cut(hint.Error(), ", ")
		return c.invalidRule(number, "", "the rule %q has no outcome, %s", rule.Name, expected)
	}
	if rule.Outcome, err = policy.ParseOutcome(r.Outcome); err != nil {
		return c.invalidRule(number, "outcome", "%w", err)
	}
	// It becomes a line of the SMTP dialogue, and Sendmail takes what a filter
	// replies for a format of printf(3).
	notInReply := func(r rune) bool { return r < ' ' || r > '~' || r == '%' }
	if len(r.Text) > maxText || strings.ContainsFunc(r.Text, notInReply) {
		return c.invalidRule(number, "text", "it cannot stand in a reply, expected one line of ASCII without %%, and at most %d characters", maxText)
	}
	return nil
}

// patterns gives address patterns the spelling that policy compares them in.
func patterns(written textList) (all []string) {
	if written != nil {
		all = []string{}
	}
	for _, pattern := range written {
		all = append(all, canonicalPattern(pattern))
	}
	return all
}

func canonicalPattern(pattern string) string {
	domain, whole := strings.CutPrefix(pattern, "@")
	if !whole {
		return keys.Canonical(pattern)
	}
	above, wild := strings.CutPrefix(domain, "*.")
	domain = keys.CanonicalDomain(strings.TrimSuffix(above, "."))
	if wild {
		return "@*." + domain
	}
	return "@" + domain
}

// clients reads the clients of a rule: networks, addresses, "local".
func clients(written textList) (networks []netip.Prefix, local bool, err error) {
	for _, text := range written {
		if text == clientLocal {
			local = true
			continue
		}
		network, err := parseNetwork(text)
		if err != nil {
			return nil, false, err
		}
		networks = append(networks, network)
	}
	if written != nil && networks == nil && !local {
		networks = []netip.Prefix{} // an empty list, which policy refuses
	}
	return networks, local, nil
}

// parseNetwork reads a network, or an address as the network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	wrong := func() (netip.Prefix, error) {
		return netip.Prefix{}, fmt.Errorf("%q is no client, expected an address, a network such as \"192.0.2.0/24\", or \"local\"", text)
	}
	if !strings.Contains(text, "/") {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return wrong()
		}
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil || network.Addr().Is4In6(): // clients are compared as IPv4
		return wrong()
	case network != network.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is no network, expected %s or one address", text, network.Masked())
	}
	return network, nil
}

// checkListeners refuses a listener that the daemon does not have.
func (c *Config) checkListeners() error {
	for i, rule := range c.Policy.Rules {
		for _, listener := range rule.Listener {
			if !slices.Contains(c.Milter.Listen, listener) {
				return c.invalidRule(i+1, "listener", "the daemon does not listen on %q, expected %s as under [milter]", listener, quotedList(c.Milter.Listen))
			}
		}
	}
	return nil
}

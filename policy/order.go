package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Whether a rule can ever match behind others is settled by counting out: each
// condition of all rules together cuts what it is about into a few kinds that
// no rule tells apart, so that a rule is a set of kinds for each condition, and
// what is left of it behind the rules before it can be computed.

// maxRest bounds that computation. Beyond it, which takes dozens of rules that
// overlap each other in every way, a rule counts as one that can match.
const maxRest = 20_000

// kinds are the kinds of one condition that a rule matches, by number.
type kinds []bool

// region is a set of kinds for each condition.
type region []kinds

// checkOrder finds the rules that no mail can reach.
func (p Policy) checkOrder() error {
	regions := p.regions()
	for i, rule := range p.Rules {
		rest := []region{regions[i]}
		var before []string
		for j, earlier := range p.Rules[:i] {
			if same(regions[i], regions[j]) {
				if rule.Outcome != earlier.Outcome {
					return fmt.Errorf("the rules %q and %q contradict each other: they match the same mail, and say %s and %s", earlier.Name, rule.Name, earlier.Outcome, rule.Outcome)
				}
				return fmt.Errorf("the rule %q can never match: %q matches the same mail before it", rule.Name, earlier.Name)
			}
			var left []region
			touched := false
			for _, part := range rest {
				pieces, cut := without(part, regions[j])
				left, touched = append(left, pieces...), touched || cut
			}
			if touched {
				before = append(before, fmt.Sprintf("%q", earlier.Name))
			}
			if rest = left; len(rest) == 0 {
				return fmt.Errorf("the rule %q can never match: all of its mail is taken by %s before it", rule.Name, strings.Join(before, " and "))
			}
			if len(rest) > maxRest {
				break
			}
		}
	}
	return nil
}

// same says whether two rules match the same mail.
func same(a, b region) bool {
	return slices.EqualFunc(a, b, func(x, y kinds) bool { return slices.Equal(x, y) })
}

// without is what is left of a when b is taken out, in pieces that do not
// overlap; and whether there was anything to take out.
func without(a, b region) (pieces []region, cut bool) {
	for i := range a {
		if !slices.ContainsFunc(numbers(len(a[i])), func(k int) bool { return a[i][k] && b[i][k] }) {
			return []region{a}, false
		}
	}
	inside := slices.Clone(a)
	for i := range a {
		outside, both := make(kinds, len(a[i])), make(kinds, len(a[i]))
		left := false
		for k := range a[i] {
			outside[k], both[k] = a[i][k] && !b[i][k], a[i][k] && b[i][k]
			left = left || outside[k]
		}
		if left {
			piece := slices.Clone(inside)
			piece[i] = outside
			pieces = append(pieces, piece)
		}
		inside[i] = both
	}
	return pieces, true
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// regions computes the region of every rule. An example of each kind stands
// for it, and the rule itself says whether it matches.
func (p Policy) regions() []region {
	var conditions [][]Facts
	base := Facts{Stage: AtEnd, Key: NoKey, Enabled: true}
	each := func(n int, change func(f *Facts, i int)) {
		examples := make([]Facts, n)
		for i := range examples {
			examples[i] = base
			change(&examples[i], i)
		}
		conditions = append(conditions, examples)
	}
	recipients, senders := p.addresses(func(r Rule) []string { return r.Recipient }), p.addresses(func(r Rule) []string { return r.Sender })
	senders = append(senders, "") // the null sender
	clients, listeners, sizes := p.clients(), p.listeners(), p.sizes()
	each(len(recipients), func(f *Facts, i int) { f.Names = []string{recipients[i]} })
	each(len(senders), func(f *Facts, i int) { f.Sender = senders[i] })
	each(2, func(f *Facts, i int) { f.Authenticated = i == 1 })
	each(len(clients), func(f *Facts, i int) { f.Client, f.Local = clients[i], i == 0 })
	each(len(listeners), func(f *Facts, i int) { f.Listener = listeners[i] })
	each(len(keyStates)-1, func(f *Facts, i int) { f.Key = KeyState(i + 1) })
	each(2, func(f *Facts, i int) { f.Enabled = i == 1 })
	each(len(sizes), func(f *Facts, i int) { f.Size = sizes[i] })
	each(2, func(f *Facts, i int) { f.Sealed = i == 1 })
	fields := p.fields()
	regions := make([]region, len(p.Rules))
	for i, rule := range p.Rules {
		for c, examples := range conditions {
			matched := make(kinds, len(examples))
			for k, example := range examples {
				matched[k], _ = rule.only(c).matches(example)
			}
			regions[i] = append(regions[i], matched)
		}
		for _, field := range fields { // there or not
			wanted := slices.ContainsFunc(rule.Header, func(h string) bool { return sameField(h, field) || sameField(nameOf(h), field) })
			regions[i] = append(regions[i], kinds{!wanted, true})
		}
	}
	return regions
}

// only is the rule with one of its conditions, in the order of regions.
func (r Rule) only(condition int) Rule {
	return []Rule{
		{Recipient: r.Recipient},
		{Sender: r.Sender, NullSender: r.NullSender},
		{Authenticated: r.Authenticated},
		{Client: r.Client, Local: r.Local},
		{Listener: r.Listener},
		{Key: r.Key},
		{Enabled: r.Enabled},
		{LargerThan: r.LargerThan, SmallerThan: r.SmallerThan},
		{Sealed: r.Sealed},
	}[condition]
}

// addresses are examples of every kind that the rules' patterns tell apart.
func (p Policy) addresses(of func(Rule) []string) []string {
	const other = "\x00" // no local part and no label
	examples := []string{other + "@" + other}
	for _, rule := range p.Rules {
		for _, pattern := range of(rule) {
			domain, whole := strings.CutPrefix(pattern, "@")
			above, wild := strings.CutPrefix(domain, "*.")
			switch {
			case wild:
				examples = append(examples, other+"@"+other+"."+above)
			case whole:
				examples = append(examples, other+"@"+domain)
			default:
				examples = append(examples, pattern)
			}
		}
	}
	return examples
}

// clients are examples of every kind that the rules' networks tell apart: the
// edges of each network, and what lies just outside; before them local
// submission, and a client without an address.
func (p Policy) clients() []netip.Addr {
	examples := []netip.Addr{{}, {}, netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	for _, rule := range p.Rules {
		for _, network := range rule.Client {
			first := network.Masked().Addr()
			last := lastOf(network)
			for _, edge := range []netip.Addr{first, first.Prev(), last, last.Next()} {
				if edge.IsValid() {
					examples = append(examples, edge)
				}
			}
		}
	}
	return examples
}

// lastOf is the last address of a network.
func lastOf(network netip.Prefix) netip.Addr {
	octets := network.Addr().AsSlice()
	for bit := network.Bits(); bit < len(octets)*8; bit++ {
		octets[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(octets)
	return last
}

func (p Policy) listeners() []string {
	examples := []string{""}
	for _, rule := range p.Rules {
		examples = append(examples, rule.Listener...)
	}
	return examples
}

// sizes are examples on both sides of every bound.
func (p Policy) sizes() []int64 {
	examples := []int64{0}
	for _, rule := range p.Rules {
		for _, bound := range []int64{rule.LargerThan, rule.SmallerThan} {
			examples = append(examples, max(bound-1, 0), bound, bound+1)
		}
	}
	return examples
}

// fields are the different header fields that rules ask for.
func (p Policy) fields() (all []string) {
	for _, rule := range p.Rules {
		for _, field := range rule.Header {
			if !slices.ContainsFunc(all, func(other string) bool { return sameField(other, field) }) {
				all = append(all, field)
			}
		}
	}
	return all
}

// nameOf is what is there where a field with a certain value is.
func nameOf(field string) string {
	name, _, _ := strings.Cut(field, ":")
	return name
}

// sameField says whether two rules ask for the same field and value.
func sameField(a, b string) bool {
	nameA, valueA, withA := strings.Cut(a, ":")
	nameB, valueB, withB := strings.Cut(b, ":")
	return strings.EqualFold(strings.TrimSpace(nameA), strings.TrimSpace(nameB)) && withA == withB && strings.EqualFold(plain(valueA), plain(valueB))
}

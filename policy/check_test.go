package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"sealmilter/keys"
)

func network(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }

// TestCheckRule: each rule for itself.
func TestCheckRule(t *testing.T) {
	for _, test := range []struct {
		rule Rule
		want string // "" where the rule is sound
	}{
		{Rule{Outcome: Seal}, ""},
		{Rule{Outcome: Reject, Text: "550 5.7.1 no"}, ""},
		{Rule{Outcome: Pass, Recipient: []string{"@*.example.org"}}, ""},
		{Rule{Outcome: Pass, LargerThan: 1 << 20}, ""},
		{Rule{Outcome: Pass, Sender: []string{"@example.org"}, Key: []KeyState{NoKey}}, ""},
		{Rule{Outcome: Pass, Header: []string{"X-Spam-Flag: YES"}, TrustHeader: true}, ""},
		{Rule{Outcome: Pass, Header: []string{"X-Spam-Flag: YES"}, Key: []KeyState{NoKey}}, ""},
		{Rule{Outcome: Reject, Header: []string{"X-Spam-Flag: YES"}}, ""},
		{Rule{Outcome: Seal, Text: "no"}, "only a rule that rejects has a text"},
		{Rule{Outcome: Reject, Text: "so 100% no"}, "characters that an SMTP reply cannot have"},
		{Rule{Outcome: Reject, Text: "no\r\n250 ok"}, "characters that an SMTP reply cannot have"},
		{Rule{Outcome: Pass, Sender: []string{"@example.org"}}, "nothing about the sender exempts"},
		{Rule{Outcome: Pass, NullSender: yes()}, "by null_sender"},
		{Rule{Outcome: Pass, Authenticated: yes()}, "by authenticated"},
		{Rule{Outcome: Pass, Client: network("192.0.2.0/24")}, "by client"},
		{Rule{Outcome: Pass, Local: true, Key: []KeyState{Expired}}, "by client"},
		{Rule{Outcome: Pass, Listener: []string{"unix:/x"}, TrustHeader: true}, "by listener"},
		{Rule{Outcome: Pass, Header: []string{"X-Spam-Flag: YES"}}, "trust_header = true"},
		{Rule{Outcome: Pass, Key: []KeyState{NoKey, Revoked}}, "because a key cannot be used"},
		{Rule{Outcome: Pass, Key: []KeyState{Unusable}}, "because a key cannot be used"},
		{Rule{Outcome: Seal, Key: []KeyState{NoKey, Unusable}}, "it can never seal"},
		{Rule{Outcome: Seal, NullSender: yes(), Sender: []string{"a@b.c"}}, "can never match"},
		{Rule{Outcome: Seal, LargerThan: 10, SmallerThan: 11}, "can never match"},
		{Rule{Outcome: Seal, LargerThan: 10, SmallerThan: 12}, ""},
		{Rule{Outcome: Seal, Recipient: []string{}}, "empty list"},
		{Rule{Outcome: Pass, Key: []KeyState{}}, "empty list"},
		{Rule{Outcome: Seal, Recipient: []string{"example.org"}}, "no pattern of addresses"},
		{Rule{Outcome: Seal, Recipient: []string{"*@example.org"}}, "no pattern of addresses"},
		{Rule{Outcome: Seal, Sender: []string{"@*"}}, "no pattern of addresses"},
		{Rule{Outcome: Pass, Recipient: []string{"@*.*.org"}}, "no pattern of addresses"},
		{Rule{Outcome: Global}, "there are no global keys"},
	} {
		test.rule.Name = "one"
		p := Default()
		p.Rules = []Rule{test.rule}
		err := p.Check()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `"one"`)) {
			t.Errorf("%+v: %v, want %q", test.rule, err, test.want)
		}
	}
}

// TestCheckOrder: rules against each other.
func TestCheckOrder(t *testing.T) {
	ann, domain, below := []string{"ann@example.org"}, []string{"@example.org"}, []string{"@*.example.org"}
	spam := []string{"X-Spam-Flag: YES"}
	for _, test := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"the same, and another outcome", []Rule{{Recipient: ann, Outcome: Seal}, {Recipient: ann, Outcome: Reject}}, `the rules "1" and "2" contradict each other`},
		{"the same in other words", []Rule{{Recipient: ann, Outcome: Seal}, {Recipient: []string{"Ann@example.ORG", "ann@example.org"}, Outcome: Defer}}, "contradict each other"},
		{"the same twice", []Rule{{Recipient: ann, Outcome: Seal}, {Recipient: ann, Outcome: Seal}}, `the rule "2" can never match: "1" matches the same mail`},
		{"a domain before one of its addresses", []Rule{{Recipient: domain, Outcome: Seal}, {Recipient: ann, Outcome: Defer}}, `the rule "2" can never match: all of its mail is taken by "1"`},
		{"an address before its domain", []Rule{{Recipient: ann, Outcome: Defer}, {Recipient: domain, Outcome: Seal}}, ""},
		{"a domain and those below it", []Rule{{Recipient: domain, Outcome: Defer}, {Recipient: below, Outcome: Seal}}, ""},
		{"those below before one of them", []Rule{{Recipient: below, Outcome: Defer}, {Recipient: []string{"x@a.example.org"}, Outcome: Seal}}, `taken by "1"`},
		{"behind a rule for all", []Rule{{Outcome: Seal}, {Recipient: ann, Outcome: Reject}}, `taken by "1"`},
		{"two that together leave nothing", []Rule{{Recipient: ann, Authenticated: yes(), Outcome: Seal}, {Authenticated: no(), Outcome: Defer}, {Recipient: ann, Outcome: Reject}}, `taken by "1" and "2"`},
		{"two that leave something", []Rule{{Recipient: ann, Authenticated: yes(), Outcome: Seal}, {Recipient: domain, Authenticated: no(), Outcome: Defer}, {Recipient: domain, Outcome: Reject}}, ""},
		{"all states", []Rule{{Key: []KeyState{NoKey, Usable}, Outcome: Defer}, {Key: []KeyState{Expired, Revoked, Unusable, Partial}, Outcome: Reject}, {Recipient: ann, Outcome: Seal}}, `taken by "1" and "2"`},
		{"all but one", []Rule{{Key: []KeyState{NoKey, Usable}, Outcome: Defer}, {Key: []KeyState{Expired, Revoked, Unusable}, Outcome: Reject}, {Outcome: Seal}}, ""},
		{"sizes that meet", []Rule{{LargerThan: 100, Outcome: Defer}, {SmallerThan: 101, Outcome: Reject}, {Recipient: ann, Outcome: Seal}}, `taken by "1" and "2"`},
		{"sizes with one between", []Rule{{LargerThan: 100, Outcome: Defer}, {SmallerThan: 100, Outcome: Reject}, {Recipient: ann, Outcome: Seal}}, ""},
		{"networks in each other", []Rule{{Client: network("192.0.2.0/24"), Outcome: Defer}, {Client: network("192.0.2.128/25"), Outcome: Seal}}, `taken by "1"`},
		{"two halves", []Rule{{Client: network("192.0.2.0/25"), Outcome: Defer}, {Client: network("192.0.2.128/25"), Outcome: Reject}, {Client: network("192.0.2.0/24"), Outcome: Seal}}, `taken by "1" and "2"`},
		{"two quarters", []Rule{{Client: network("192.0.2.0/26"), Outcome: Defer}, {Client: network("192.0.2.192/26"), Outcome: Reject}, {Client: network("192.0.2.0/24"), Outcome: Seal}}, ""},
		{"all of IPv4 is not local, nor IPv6", []Rule{{Client: network("0.0.0.0/0"), Outcome: Defer}, {Recipient: ann, Outcome: Seal}}, ""},
		{"all of both and local", []Rule{{Client: append(network("0.0.0.0/0"), network("::/0")...), Local: true, Outcome: Defer}, {Recipient: ann, Outcome: Seal}}, ""}, // a client may have no address
		{"null sender and all others", []Rule{{NullSender: yes(), Outcome: Defer}, {NullSender: no(), Outcome: Reject}, {Sender: ann, Outcome: Seal}}, `taken by "2"`},
		{"a header before a rule for all", []Rule{{Header: spam, Outcome: Reject}, {Outcome: Seal}}, ""},
		{"a header twice", []Rule{{Header: spam, Outcome: Reject}, {Header: []string{"x-spam-flag:yes"}, Outcome: Seal}}, "contradict each other"},
		{"two headers behind one of them", []Rule{{Header: spam, Outcome: Reject}, {Header: append([]string{"X-Other"}, spam...), Outcome: Seal}}, `taken by "1"`},
		{"a value behind its field", []Rule{{Header: []string{"X-Spam"}, Outcome: Reject}, {Header: []string{"X-Spam: YES"}, Outcome: Defer}}, `taken by "1"`},
		{"a field behind a value", []Rule{{Header: []string{"X-Spam: YES"}, Outcome: Reject}, {Header: []string{"X-Spam"}, Outcome: Defer}}, ""},
		{"sealed and not", []Rule{{Sealed: yes(), Outcome: Reject}, {Sealed: no(), Outcome: Seal}, {Recipient: ann, Outcome: Defer}}, `taken by "1" and "2"`},
		{"one name twice", []Rule{{Name: "x", Recipient: ann, Outcome: Seal}, {Name: "x", Outcome: Defer}}, `two rules have the name "x"`},
	} {
		p := Default()
		for i, rule := range test.rules {
			if rule.Name == "" {
				rule.Name = fmt.Sprint(i + 1)
			}
			p.Rules = append(p.Rules, rule)
		}
		err := p.Check()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// TestUnreachable plays random facts to random rules: one that Check calls
// unreachable never decides.
func TestUnreachable(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	pick := func(n int) int { return random.IntN(n) }
	patterns := []string{"ann@example.org", "bob@example.org", "@example.org", "@*.example.org", "@*.org"}
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("0.0.0.0/0")}
	flag := func() *bool { return []*bool{nil, nil, yes(), no()}[pick(4)] }
	found := 0
	for range 3000 {
		var rules []Rule
		for i := range 2 + pick(4) {
			r := Rule{Name: fmt.Sprint(i), Outcome: Seal, Authenticated: flag(), Sealed: flag(), NullSender: flag()}
			if pick(2) == 0 {
				r.Recipient = []string{patterns[pick(len(patterns))], patterns[pick(len(patterns))]}
			}
			if pick(3) == 0 {
				r.Client = []netip.Prefix{networks[pick(len(networks))]}
			}
			if pick(3) == 0 {
				r.Key = []KeyState{KeyState(1 + pick(6)), KeyState(1 + pick(6)), KeyState(1 + pick(6))}
			}
			rules = append(rules, r)
		}
		p := Policy{Enable: true, Rules: rules}
		err := p.checkOrder()
		if err == nil {
			continue
		}
		found++
		_, name, _ := strings.Cut(err.Error(), `can never match`)
		never := strings.Split(err.Error(), `"`)[1]
		if name == "" {
			t.Fatal(err)
		}
		for range 300 {
			f := Facts{
				Names:         []string{[]string{"ann@example.org", "bob@example.org", "cleo@example.org", "x@a.example.org", "y@b.org", "z@net"}[pick(6)]},
				Sender:        []string{"", "s@example.net"}[pick(2)],
				Authenticated: pick(2) == 0, Enabled: true, Sealed: pick(2) == 0, Key: KeyState(1 + pick(6)),
				Client: []netip.Addr{{}, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.2.3.4"), netip.MustParseAddr("11.1.1.1"), netip.MustParseAddr("::1")}[pick(5)],
				Local:  pick(5) == 0,
			}
			if d := p.Decide(f); d.Rule == never {
				t.Fatalf("%v\nbut it decides for %+v in\n%+v", err, f, rules)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d of 3000 lists of rules had one that cannot match", found)
	}
}

func TestCheckGlobal(t *testing.T) {
	p := Default()
	p.Escrow = true
	if err := p.Check(); err == nil || !strings.Contains(err.Error(), "there are none") {
		t.Errorf("escrow without keys: %v", err)
	}
	p = Default()
	p.Settings.Outcomes[NoKey] = Global
	if err := p.Check(); err == nil || !strings.Contains(err.Error(), "no_key says global") {
		t.Errorf("global without keys: %v", err)
	}
	p.GlobalKeys, p.Escrow = []*keys.Key{{}}, true
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

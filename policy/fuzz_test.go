package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"sealmilter/keys"
)

// FuzzSettings: what an account chooses is one of the choices that there are, so
// that a key which is there and cannot be used never leads to plaintext; written
// again it is read the same; and names for others change nothing.
func FuzzSettings(f *testing.F) {
	for _, options := range []string{"", "{}", "null", "[1]", `{"no_key":"defer","expired":"pass","revoked":"reject","unusable":"global","partial":"seal"}`,
		`{"revoked":"pass"}`, `{"unusable":"seal"}`, `{"always":true,"header_protection":"shy"}`, `{"always":null,"header_protection":"off"}`,
		`{"Revoked":"pass","key":{"aead":"gcm"},"circle":true}`, `{"no_key":null}`, `{"no_key":"Defer"}`} {
		f.Add([]byte(options))
	}
	f.Fuzz(func(t *testing.T, options []byte) {
		said, err := ParseSettings(options)
		if err != nil {
			return
		}
		written := map[string]any{"something of others": []int{1}}
		for state, outcome := range said.Outcomes {
			if !slices.Contains(Choices(state), outcome) || (state == Revoked || state == Unusable) && outcome == Pass {
				t.Errorf("%q lets %v for %v", options, outcome, state)
			}
			written[settingNames[state]] = outcome.String()
		}
		if said.Always != nil {
			written["always"] = *said.Always
		}
		if said.Protection != nil {
			written["header_protection"] = string(*said.Protection)
			if *said.Protection == keys.NoProtection {
				written["header_protection"] = "off"
			}
		}
		text, err := json.Marshal(written)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseSettings(text); err != nil || !reflect.DeepEqual(again, said) {
			t.Errorf("%q is %+v, and written as %q it is %+v, %v", options, said, text, again, err)
		}
	})
}

// dice makes choices of what a fuzzer throws.
type dice []byte

func (d *dice) roll(sides int) int {
	if len(*d) == 0 {
		return 0
	}
	first := (*d)[0]
	*d = (*d)[1:]
	return int(first) % sides
}

func (d *dice) bit() *bool {
	choice := [](*bool){nil, nil, nil, yes(), no()}
	return choice[d.roll(len(choice))]
}

// pick is a list of some of all, or none.
func pick[T any](d *dice, all ...T) (some []T) {
	if d.roll(3) > 0 {
		return nil
	}
	for _, one := range all {
		if d.roll(2) > 0 {
			some = append(some, one)
		}
	}
	return some
}

func (d *dice) rule(i int) Rule {
	return Rule{
		Name:          fmt.Sprintf("rule %d", i),
		Recipient:     pick(d, "ann@bed.test", "@bed.test", "@*.test"),
		Sender:        pick(d, "bob@bed.test", "@example.net"),
		NullSender:    d.bit(),
		Authenticated: d.bit(),
		Client:        pick(d, netip.MustParsePrefix("192.0.2.0/24")),
		Local:         d.roll(8) == 1,
		Listener:      pick(d, "inet:one"),
		Key:           pick(d, NoKey, Usable, Expired, Revoked, Unusable, Partial),
		Enabled:       d.bit(),
		Header:        pick(d, "X-Spam: yes", "List-Id"),
		LargerThan:    int64(d.roll(2) * 10),
		SmallerThan:   int64(d.roll(2) * 20),
		Sealed:        d.bit(),
		Outcome:       Outcome(d.roll(len(outcomes))),
		TrustHeader:   d.roll(3) == 1,
	}
}

func (d *dice) facts() Facts {
	f := Facts{
		Names:         []string{[]string{"ann@bed.test", "cleo@a.bed.test", "dora@other.example"}[d.roll(3)]},
		Members:       pick(d, "ann@bed.test", "emil@bed.test"),
		Sender:        []string{"", "bob@bed.test", "x@example.net"}[d.roll(3)],
		Authenticated: d.roll(2) == 1,
		Local:         d.roll(4) == 1,
		Listener:      []string{"inet:one", "inet:two"}[d.roll(2)],
		Key:           KeyState(d.roll(len(keyStates))),
		RevokedFor:    time.Duration(d.roll(20)) * day,
		Enabled:       d.roll(4) != 1,
		Size:          int64(d.roll(30)),
		Sealed:        d.roll(3) == 1,
		SealedGlobal:  d.roll(3) == 1,
	}
	if !f.Local {
		f.Client = netip.MustParseAddr([]string{"192.0.2.1", "::ffff:192.0.2.9", "2001:db8::1"}[d.roll(3)])
	}
	if d.roll(2) == 1 {
		f.Header = []Field{{"x-spam", " YES"}, {"List-ID", "a"}}[:1+d.roll(2)]
	}
	if d.roll(2) == 1 {
		f.Account.Always = d.bit()
	}
	return f
}

// FuzzRules: in a policy that Check lets pass, what is decided at the end is one of
// what was possible before; a lookup that failed defers; and mail of somebody
// with a key passes by a rule alone, which goes neither by the sender nor by a
// header that the site has not vouched for, or as a choice that there is.
func FuzzRules(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 0, 1, 1, 1, 2, 1, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 2, 1, 4, 3})
	f.Add([]byte("rules that somebody has written, one after the other, and facts of some message"))
	f.Fuzz(func(t *testing.T, thrown []byte) {
		d := dice(thrown)
		p := Default()
		p.GlobalKeys = []*keys.Key{{}}
		for i := range d.roll(4) {
			p.Rules = append(p.Rules, d.rule(i))
		}
		if p.Check() != nil {
			return
		}
		facts := d.facts()
		before := []Decision(nil)
		for stage := AtRecipient; stage <= AtEnd; stage++ {
			facts.Stage = stage
			now := p.Possible(facts)
			for _, decision := range now {
				if stage > AtRecipient && !slices.Contains(before, decision) {
					t.Fatalf("%+v was not possible at stage %d: %+v", decision, stage-1, before)
				}
			}
			before = now
		}
		decided := p.Decide(facts)
		if len(before) != 1 || decided != before[0] || decided.Reason == "" || facts.Key == LookupFailed && decided.Outcome != Defer {
			t.Fatalf("decided is %+v, of %+v", decided, before)
		}
		if decided.Outcome != Pass || decided.Reason == AlreadySealed || facts.Key == NoKey || !facts.Enabled && decided.Rule == "" {
			return
		}
		if decided.Rule == "" {
			t.Fatalf("%v is passed by %+v", facts.Key, decided)
		}
		rule := p.Rules[slices.IndexFunc(p.Rules, func(r Rule) bool { return r.Name == decided.Rule })]
		about := rule.Sender != nil || rule.NullSender != nil || rule.Authenticated != nil || rule.hasClient() || rule.Listener != nil
		if about || rule.Header != nil && !rule.TrustHeader {
			t.Errorf("%v is passed by %+v", facts.Key, rule)
		}
	})
}

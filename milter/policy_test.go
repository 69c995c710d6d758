package milter

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// withRules is a filter whose policy has some rules.
func withRules(t *testing.T, rules ...policy.Rule) *filter {
	t.Helper()
	return newFilter(t, func(c *Config) {
		c.Policy.Rules = rules
		if err := c.Policy.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRejected refuses for good as early as that is settled.
func TestRejected(t *testing.T) {
	large := policy.Rule{Name: "large", LargerThan: 100_000, Outcome: policy.Reject, Text: "552 5.3.4 Too large for us"}
	f := withRules(t,
		policy.Rule{Name: "closed", Recipient: []string{"closed@example.org"}, Outcome: policy.Reject, Text: "This mailbox is closed"},
		policy.Rule{Name: "spam", Header: []string{"X-Spam-Flag: YES"}, Outcome: policy.Reject},
		large)
	ann := f.enrol(t, "ann@example.org")
	spam := textMessage("hello")
	spam.Header = append(spam.Header, client.Field{Name: "X-Spam-Flag", Value: " Yes"})

	result := f.send(t, textMessage("hello"), "closed@example.org")
	if want := "550 5.7.1 This mailbox is closed"; result.Recipients[0].String() != want {
		t.Errorf("at RCPT the answer is %q, want %q", result.Recipients[0], want)
	}
	for _, address := range []string{"ann@example.org", "bob@example.org"} {
		result = f.send(t, spam, address)
		if result.Final.String() != replyReject || result.Stage != client.EndOfHeader || result.Queued != nil {
			t.Errorf("%s: the answer is %q at %v, want %q at the end of the header", address, result.Final, result.Stage, replyReject)
		}
		result = f.send(t, numbered("token", 100_000), address)
		if result.Final.String() != large.Text || result.Stage != client.EndOfMessage || result.Queued != nil {
			t.Errorf("%s: the answer is %q at %v, want %q at the end", address, result.Final, result.Stage, large.Text)
		}
	}
	opens(t, f.send(t, textMessage("hello"), "ann@example.org"), ann, textMessage("hello"))
	untouched(t, f.send(t, textMessage("hello"), "bob@example.org"))
	for _, want := range []string{`msg="recipient rejected"`, "msg=rejected", `the rule \"spam\" says reject`} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// TestUnsettledApart: who may be decided otherwise than another once the
// message is seen gets a transaction of their own.
func TestUnsettledApart(t *testing.T) {
	f := withRules(t, policy.Rule{Name: "spam", Recipient: []string{"@strict.example"}, Header: []string{"X-Spam-Flag: YES"}, Outcome: policy.Reject})
	for _, test := range []struct {
		to   []string
		want []string
	}{
		{[]string{"a@strict.example", "b@strict.example"}, []string{"250", replyApart}},
		{[]string{"a@example.org", "b@example.org", "c@strict.example"}, []string{"250", "250", replyApart}},
		{[]string{"c@strict.example", "a@example.org"}, []string{"250", replyApart}},
	} {
		result := f.send(t, textMessage("hello"), test.to...)
		var got []string
		for _, r := range result.Recipients {
			got = append(got, r.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("to %q the answers are %q", test.to, got)
		}
		untouched(t, result)
	}
}

// TestSealedAlready sends what came out through the filter again, as "postsuper
// -r" does with local submissions.
func TestSealedAlready(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	f.enrol(t, "bea@example.org")
	first := f.send(t, textMessage("hello"), "ann@example.org")
	again := client.ParseMessage(first.Queued.Bytes())
	untouched(t, f.send(t, again, "ann@example.org"))
	if !strings.Contains(f.log.String(), policy.AlreadySealed) {
		t.Errorf("the log does not say why:\n%s", f.log)
	}
	if result := f.send(t, again, "bea@example.org"); result.Queued == nil || !result.Queued.Replaced {
		t.Error("what is sealed to ann passes to bea")
	}
	f.change(func(c *Config) {
		always := true
		c.Policy.Settings.Always = &always
	})
	opens(t, f.send(t, again, "ann@example.org"), ann, again)
	plain := client.ParseMessage(append(first.Queued.Bytes(), "and in the clear\r\n"...))
	f.Reconfigure(f.config)
	opens(t, f.send(t, plain, "ann@example.org"), ann, plain)
}

// TestGlobalKeys seals to the site's key in place of one's own, and beside it.
func TestGlobalKeys(t *testing.T) {
	site, public := newEntity(t, "site@example.org")
	parsed, err := keys.Parse([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	f := newFilter(t, func(c *Config) {
		c.Policy.GlobalKeys = parsed
		if err := c.Policy.Settings.Set(policy.NoKey, "global"); err != nil {
			t.Fatal(err)
		}
	})
	ann := f.enrol(t, "ann@example.org")
	reads := func(result client.Result, who *openpgp.Entity) bool {
		_, err := envelope.Open(result.Queued.Bytes(), &envelope.Secret{OpenPGP: openpgp.EntityList{who}})
		return err == nil
	}
	result := f.send(t, textMessage("hello"), "bob@example.org")
	opens(t, result, site, textMessage("hello"))
	untouched(t, f.send(t, client.ParseMessage(result.Queued.Bytes()), "bob@example.org"))
	result = f.send(t, textMessage("hello"), "ann@example.org")
	opens(t, result, ann, textMessage("hello"))
	if reads(result, site) {
		t.Error("the site reads Ann's mail, without escrow")
	}
	f.change(func(c *Config) { c.Policy.Escrow = true })
	result = f.send(t, textMessage("hello"), "ann@example.org")
	opens(t, result, ann, textMessage("hello"))
	opens(t, result, site, textMessage("hello"))
	if want := "site_can_read=[" + parsed[0].Fingerprint + "]"; !strings.Contains(f.log.String(), want) {
		t.Errorf("the log does not say %q", want)
	}
}

// TestRevoked: a key that is revoked defers for a week, and then rejects.
func TestRevoked(t *testing.T) {
	for age, want := range map[time.Duration]string{6 * 24 * time.Hour: replyDefer, 8 * 24 * time.Hour: replyReject} {
		f := newFilter(t, nil)
		key := revokedKey(t, "ann@example.org", time.Now().Add(-age))
		if _, err := f.store.AddKey(t.Context(), keys.NewKey{Address: "ann@example.org", Key: key}); err != nil {
			t.Fatal(err)
		}
		if result := f.send(t, textMessage("hello"), "ann@example.org"); result.Recipients[0].String() != want {
			t.Errorf("revoked for %v: the answer is %q, want %q", age, result.Recipients[0], want)
		}
	}
}

// TestSameTwice: what was decided for a recipient holds when it is named again,
// and costs no further look at the store.
func TestSameTwice(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	counted := &counting{Store: f.store}
	f.useStore(counted)
	opens(t, f.send(t, textMessage("hello"), slices.Repeat([]string{"ann@example.org"}, 50)...), ann, textMessage("hello"))
	if counted.asked.Load() != 1 {
		t.Errorf("the store was asked %d times", counted.asked.Load())
	}
}

// counting counts the questions to a store.
type counting struct {
	keys.Store
	asked atomic.Int32
}

func (c *counting) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	c.asked.Add(1)
	return c.Store.RecipientKeys(ctx, addresses)
}

// TestRouted: a domain that the sender wrote into the address, and that the MTA
// took for routing, is none that a rule for recipients knows.
func TestRouted(t *testing.T) {
	f := withRules(t, policy.Rule{Name: "archive", Recipient: []string{"@archive.example"}, Outcome: policy.Pass})
	f.enrol(t, "ann@example.org")
	for _, address := range []string{"ann%example.org@archive.example", `"ann@example.org"@archive.example`, "example.org!ann@archive.example"} {
		w := f.raw(t, client.AllProtocol)
		w.begin()
		w.rcpt(address, "ann@example.org", 'c')
		w.send('N')
		w.want('c') // and not 'a': its body is wanted
		w.send('A')
	}
}

// TestClientAddresses: Sendmail writes IPv6 addresses with a tag, and an unknown
// client is not sendmail(1).
func TestClientAddresses(t *testing.T) {
	f := withRules(t,
		policy.Rule{Name: "local", Local: true, Outcome: policy.Reject},
		policy.Rule{Name: "net", Client: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, Outcome: policy.Reject, Text: "552 5.2.0 net"})
	for connect, want := range map[string]string{
		"mx\x006\x00\x19IPv6:2001:db8::1\x00": "552 5.2.0 net", "mx\x006\x00\x192001:db8::1\x00": "552 5.2.0 net",
		"mx\x004\x00\x19192.0.2.1\x00": "", "mx\x00U": "", "mx\x00U\x00": "",
	} {
		w := f.raw(t, client.AllProtocol)
		if err := w.wire.SendBytes(append([]byte{0, 0, 0, byte(1 + len(connect)), 'C'}, connect...)); err != nil {
			t.Fatal(err)
		}
		w.begin()
		if want == "" {
			w.rcpt("bob@example.org", "bob@example.org", 'c')
		} else {
			w.send('R', "<bob@example.org>")
			if frame := w.receive(); string(frame.Data) != want+"\x00" {
				t.Errorf("%q: the answer is %q", connect, frame.Data)
			}
		}
	}
}

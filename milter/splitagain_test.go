package milter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-smtp"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/policy"
)

// people enrols some, by their first names.
func (s *splitter) people(t *testing.T, names string) map[string]*openpgp.Entity {
	t.Helper()
	all := make(map[string]*openpgp.Entity)
	for _, name := range strings.Fields(names) {
		all[name] = s.enrol(t, name+"@example.org")
	}
	return all
}

// transaction sends a message to some people of example.org.
func (s *splitter) transaction(t *testing.T, session *client.Session, m client.Message, names string) client.Result {
	t.Helper()
	var to []string
	for _, name := range strings.Fields(names) {
		to = append(to, name+"@example.org")
	}
	return sendOn(t, session, m, to...)
}

// refuseOnly makes the other service defer one recipient, or nobody.
func (s *splitter) refuseOnly(name string) {
	s.service.refuse = func(to string) error {
		if to == name+"@example.org" {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "not now"}
		}
		return nil
	}
}

// tally counts the copies that each has got from the other service.
func (s *splitter) tally() string {
	n := make(map[string]int)
	for _, c := range s.service.got() {
		for _, to := range c.to {
			n[strings.TrimSuffix(to, "@example.org")]++
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprintf("%s:%d", name, n[name]))
	}
	return strings.Join(all, " ")
}

// TestRetryOtherwise: the second attempt differs from the first in whom the MTA
// lets through, in their order, in the client, or in what a filter of the same
// machine has written: nobody gets a second copy.
func TestRetryOtherwise(t *testing.T) {
	const trace = "Received: from a by b\nMessage-ID: <1@example.net>\n"
	message := func(above string) client.Message {
		return client.ParseMessage([]byte(above + trace + "To: ann@example.org, bea@example.org, eve@example.org\n\nhello\n"))
	}
	for _, test := range []struct {
		name, first, second string
		above               string
		addr                string
		queued, want        string
	}{
		{"one more", "zoe ann bea dan", "zoe ann bea dan eve", "", "", "zoe", "ann:1 bea:1 dan:1 eve:1"},
		{"another order", "zoe ann dan bea", "bea dan ann zoe", "", "", "zoe", "ann:1 bea:1 dan:1"},
		{"who had stayed is gone", "ann bea cid dan", "cid dan", "", "", "dan", "cid:1"},
		{"only who has had a copy", "zoe ann bea dan", "ann bea", "", "", "", "ann:1 bea:1"},
		{"by another client", "zoe ann bea dan", "zoe ann bea dan", "", "192.0.2.77", "zoe", "ann:1 bea:1 dan:1"},
		{"with a field of a filter", "zoe ann bea dan", "zoe ann bea dan", "X-Queue: 2\n", "", "zoe", "ann:1 bea:1 dan:1"},
	} {
		s := newSplitter(t, nil)
		s.people(t, "ann bea cid dan eve")
		s.refuseOnly("dan")
		first := s.transaction(t, s.dial(t, trusting), message(""), test.first)
		s.deferred(t, first.Final, "re-injecting copy")
		s.refuseOnly("")
		options := trusting
		options.ClientAddr = test.addr
		result := s.transaction(t, s.dial(t, options), message(test.above), test.second)
		queued := ""
		if result.Queued != nil {
			queued = strings.ReplaceAll(strings.Join(result.Queued.Recipients, " "), "@example.org", "")
		}
		if got := s.tally(); got != test.want || queued != test.queued {
			t.Errorf("%s: re-injected %q, queued %q; want %q and %q; the answer is %q", test.name, got, queued, test.want, test.queued, result.Final)
		}
	}
}

// TestForgotten: what was accepted is forgotten as soon as the MTA has gone on,
// however that is known; an equal message is one of its own then.
func TestForgotten(t *testing.T) {
	sendmail := client.Options{Sendmail: true, Macros: trusting.Macros}
	s := newSplitter(t, nil)
	s.people(t, "ann bea")
	remembered := func() int {
		s.memory.mu.Lock()
		defer s.memory.mu.Unlock()
		return len(s.memory.sent) + len(s.memory.owner)
	}
	session := s.dial(t, sendmail)
	s.transaction(t, session, textMessage("alarm"), "ann bea")
	if remembered() == 0 {
		t.Error("forgotten before the MTA has gone on")
	}
	s.transaction(t, session, textMessage("alarm"), "ann bea")
	if got := s.tally(); got != "bea:2" {
		t.Errorf("re-injected were %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil || remembered() != 0 {
		t.Errorf("behind a shutdown %d are remembered, error %v", remembered(), err)
	}

	// The memory is away when the claim ends, and comes back.
	c := &claim{by: Reinjection{Copies: s.memory}, owner: "x", copies: [][]byte{[]byte("one")}, release: func() {}, log: func(error) {}}
	s.memory.owner["one"], s.memory.sent["one"], s.memory.away = "x", true, 1
	c.finish(true, time.Second)
	if remembered() == 0 {
		t.Fatal("the memory was not away")
	}
	for deadline := time.Now().Add(3 * endPause); remembered() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is remembered still")
		}
	}
}

// TestHiddenMembers: who stands behind an alias in To is not in To.
func TestHiddenMembers(t *testing.T) {
	s := newSplitter(t, nil)
	people := s.people(t, "ann carl dora")
	if err := s.store.AddAlias(t.Context(), "staff@example.org", "carl@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := s.store.AddAlias(t.Context(), "staff@example.org", "dora@example.org"); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		"ann@example.org, staff@example.org":                                     "ann|carl dora",
		"ann@example.org, staff@example.org, carl@example.org, dora@example.org": "ann carl dora",
		"ann+x@example.org, carl@example.org":                                    "ann|carl dora",
	} {
		before := len(s.service.got())
		m := client.ParseMessage([]byte("To: " + to + "\n\nhello\n"))
		result := s.transaction(t, s.dial(t, trusting), m, "ann staff")
		got := readersOf(result.Queued.Bytes(), people)
		for _, c := range s.service.got()[before:] {
			got += "|" + readersOf(c.text, people)
		}
		if got != want {
			t.Errorf("to %s: the readers are %q, want %q", to, got, want)
		}
	}
}

// TestSiteReadsItsOwn: that mail for who has no key is sealed to the site does
// not make the site a reader of what others get.
func TestSiteReadsItsOwn(t *testing.T) {
	site, public := newEntity(t, "site@example.org")
	parsed, err := keys.Parse([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(t, func(c *Config) {
		c.Policy.GlobalKeys = parsed
		if err := c.Policy.Settings.Set(policy.NoKey, "global"); err != nil {
			t.Fatal(err)
		}
	})
	people := s.people(t, "ann")
	people["site"] = site
	m := client.ParseMessage([]byte("To: ann@example.org, bob@example.org, bill@example.org\n\nhello\n"))
	result := s.transaction(t, s.dial(t, trusting), m, "ann bob bill")
	if got := readersOf(result.Queued.Bytes(), people); got != "site" {
		t.Errorf("what stays can be read by %q", got)
	}
	for _, c := range s.service.got() {
		if got := readersOf(c.text, people); got != "ann" {
			t.Errorf("what was re-injected can be read by %q", got)
		}
	}
}

// TestCaseApart: where Ann and ann are two, each has a copy, and neither is
// disclosed by the other's name.
func TestCaseApart(t *testing.T) {
	s := newSplitter(t, func(c *Config) { c.Naming.CaseSensitive = true })
	s.people(t, "ann bea")
	result := s.transaction(t, s.dial(t, trusting), textMessage("hello"), "bob ann Ann")
	if got := strings.Join(result.Queued.Recipients, " "); got != "bob@example.org Ann@example.org" || s.tally() != "ann:1" {
		t.Errorf("queued for %s, re-injected %s", got, s.tally())
	}
	m := client.ParseMessage([]byte("To: Ann@example.org, bea@example.org\n\nhello\n"))
	s.transaction(t, s.dial(t, trusting), m, "ann bea")
	if got := len(s.service.got()); got != 2 {
		t.Errorf("%d copies, want 2: ann is not disclosed", got)
	}
}

// TestSentOn: a copy that its reader has sent on to another is no loop.
func TestSentOn(t *testing.T) {
	s := newSplitter(t, nil)
	s.people(t, "ann bea dan")
	s.transaction(t, s.dial(t, trusting), textMessage("hello"), "ann bea")
	copied := client.ParseMessage(s.service.got()[0].text)
	if result := s.transaction(t, s.dial(t, trusting), copied, "dan"); result.Queued == nil || !result.Queued.Replaced {
		t.Errorf("the answer is %q", result.Final)
	}
}

// TestTraceField: nothing that a client says makes a line too long, or a line of
// its own; and no error names an address where the log is to have none.
func TestTraceField(t *testing.T) {
	s := newSplitter(t, func(c *Config) { c.LogAddresses = false })
	s.people(t, "ann bea")
	options := trusting
	options.Helo = strings.Repeat("a", 1500) + "(x)\r\nX-Forged: yes"
	s.transaction(t, s.dial(t, options), textMessage("hello"), "ann bea")
	for line := range strings.SplitSeq(string(s.service.got()[0].text), "\r\n") {
		if len(line) > 998 || strings.HasPrefix(line, "X-Forged") {
			t.Errorf("a line of %d octets: %.80q", len(line), line)
		}
	}
	to := client.To("ann@example.org", "bea@example.org")
	to[1].Args = []string{"RRVS=2014-04-03T23:01:00Z"}
	result, err := s.dial(t, trusting).Send(client.Envelope{From: "a@b.c", To: to}, textMessage("hello"))
	if err != nil || result.Queued != nil || strings.Contains(s.log.String(), "bea@") {
		t.Errorf("%q, error %v, the log is\n%s", result.Final, err, s.log)
	}
}

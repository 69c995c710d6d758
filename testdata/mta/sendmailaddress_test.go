package mta_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// spellings of an address that are one to Sendmail.
var spellings = []string{ann, "ANN@Bed.Test", "ann%bed.test", "ann%bed.test@sm.bed.test", "@relay.test:ann@bed.test",
	"@a.test,@b.test:ann@bed.test", "bed.test!ann", "bed.test!ann@sm.bed.test", `"ann"@bed.test`, `\ann@bed.test`, "ann@bed.test.",
	"ann(comment)@bed.test", "ann @bed.test", `"ann@bed.test"`, `"ann@bed.test"@sm.bed.test`, "ann%bed.test@localhost"}

// TestSendmailSpellings
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                   ║
//	                   ╚════▶ Postfix, or Dovecot by our mailer ════▶ mailbox of ann
//
// Sendmail hands on whole addresses, and says in {rcpt_addr} what it made of
// what the sender wrote.
func TestSendmailSpellings(t *testing.T) {
	s := newSendmailSite(t)
	raw := message(t, "plain.eml")
	for n, spelling := range spellings {
		s.sent(t, raw, spelling)
		s.opens(t, spelling, s.delivered(t, ann, n+1))
	}
	for _, unknown := range []string{"ann", "ann@sm.bed.test"} { // a local user, whom this machine does not have
		if replies := s.send(t, raw, unknown); replies[len(replies)-1].Code != 550 {
			t.Errorf("%s: the answers are %v", unknown, replies)
		}
	}

	store := bed.StartDovecot(t, ann, bob)
	s.sendmail = bed.StartSendmail(t, bed.SendmailOptions{
		Relay:   s.postfix.Addr(),
		Filters: []string{s.recorder.line(), shippedFilter(t, s.daemon)},
		Mailers: []string{shipped(t, "dovecot.m4", "FILE /run/dovecot/lmtp", "FILE "+store.Dir+"/run/lmtp")},
		Table:   "bed.test dovecot:[127.0.0.1]\n",
		Virtual: "former@bed.test ann@bed.test\n",
	})
	taken := slices.DeleteFunc(slices.Clone(spellings), func(s string) bool { return s[0] == '\\' }) // Dovecot does not take a backslash
	for n, spelling := range append(taken, "former@bed.test") {
		s.sent(t, raw, spelling)
		files := store.WaitDelivered(t, ann, n+1, 20*time.Second)
		s.opens(t, spelling, []byte(readFile(t, newest(t, files))))
	}
	s.sent(t, message(t, "multipart.eml"), bob)
	s.untouched(t, "from Dovecot", []byte(readFile(t, store.WaitDelivered(t, bob, 1, 20*time.Second)[0])))
}

// TestSendmailLocal
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                   ║
//	                   ╚════▶ Dovecot as Sendmail's local mailer ════▶ mailbox of ann
//
// The recipient's bare name is all that {rcpt_addr} says: the daemon has to be
// told the domain under which the users are enrolled.
func TestSendmailLocal(t *testing.T) {
	s := newSendmailSite(t)
	s.daemon = bed.StartDaemon(t, s.config("unix:$DIR/sock")+"[recipients]\ndomain = \"bed.test\"\n")
	store := bed.StartDovecot(t, "ann", "bob")
	s.sendmail = bed.StartSendmail(t, bed.SendmailOptions{
		Local:   fmt.Sprintf("127.0.0.1:%d", store.LMTP),
		Filters: []string{s.recorder.line(), shippedFilter(t, s.daemon)},
		Virtual: "info@bed.test ann\n",
	})
	raw := message(t, "8bit.eml")
	more := []string{"ann", "ann@sm.bed.test", "ann@localhost", "ann@[127.0.0.1]", "ann%bed.test@bed.test", "info@bed.test"}
	for n, spelling := range append(more, spellings...) {
		s.sent(t, raw, spelling)
		files := store.WaitDelivered(t, "ann", n+1, 20*time.Second)
		s.opens(t, spelling, []byte(readFile(t, newest(t, files))))
		if said := s.recorder.rcptAddr(t); said != "ann" && said != `\ann` {
			t.Errorf("%s: {rcpt_addr} is %q", spelling, said)
		}
	}
	s.sent(t, raw, bob)
	s.untouched(t, "to bob", []byte(readFile(t, store.WaitDelivered(t, "bob", 1, 20*time.Second)[0])))
}

func newest(t *testing.T, files []string) string {
	t.Helper()
	return slices.MaxFunc(files, func(a, b string) int {
		one, err := os.Stat(a)
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.Stat(b)
		if err != nil {
			t.Fatal(err)
		}
		return one.ModTime().Compare(other.ModTime())
	})
}

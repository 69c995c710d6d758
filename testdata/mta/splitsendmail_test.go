package mta_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// dozen are the recipients of one message, as its sender names them.
var dozen = []struct{ name, address, user, argument string }{
	{"OpenPGP, in To", ann, ann, "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann+2B1@before.test"},
	{"OpenPGP, in To", bea, bea, ""},
	{"OpenPGP, in Bcc", "eve@bed.test", "eve@bed.test", "NOTIFY=SUCCESS ORCPT=rfc822;eve@before.test"},
	{"S/MIME, in Cc", cyd, cyd, "NOTIFY=SUCCESS ORCPT=rfc822;cyd@before.test"},
	{"S/MIME, in Cc", "fay@bed.test", "fay@bed.test", "NOTIFY=NEVER"},
	{"no key, in To", bob, bob, "NOTIFY=SUCCESS ORCPT=rfc822;bob@before.test"},
	{"no key, in Cc", "kim@bed.test", "kim@bed.test", ""},
	{"an alias of one", "desk@bed.test", "dee@bed.test", "NOTIFY=SUCCESS ORCPT=rfc822;desk@before.test"},
	{"a group", "group@bed.test", "gil@bed.test hal@bed.test", ""},
	{"an address with an extension", "pat+list@bed.test", "pat@bed.test", "NOTIFY=FAILURE ORCPT=rfc822;pat@before.test"},
	{"an expired key", "old@bed.test", "old@bed.test", ""},
	{"a domain in Unicode, as an A-label", "jo@xn--bcher-kva.test", "jo@xn--bcher-kva.test", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;jo@before.test"},
}

// ofDozen is what the sender of the dozen writes.
const ofDozen = "From: Ella <ella@bed.test>\nTo: Ann <ann@bed.test>, bea@bed.test, bob@bed.test\nCc: cyd@bed.test, fay@bed.test, kim@bed.test\n" +
	"Subject: to all of you\nDate: Mon, 8 Jun 2026 09:30:00 +0200\nMessage-ID: <dozen@garden.example>\nMIME-Version: 1.0\n" +
	"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nThe caf\xe9 is closed.\n.\n..two dots\n"

const ella = "ella@bed.test" // sends, and gets the notices

// TestSendmailSplit
//
//	SMTP client, to twelve ──▶ Sendmail ──milter──▶ recorder, sealmilter ──▶ PostgreSQL
//	                            ║      ▲               ║
//	                            ║      ╚═══ SMTP ══════╝ the copies, to its other listener
//	                            ╚════▶ Dovecot by LMTP ════▶ gpg, openssl
func TestSendmailSplit(t *testing.T) {
	users := []string{ella}
	want := make(map[string]int)
	for _, r := range dozen {
		users = append(users, strings.Fields(r.user)...)
	}
	s := newSplitSendmail(t, splitSendmailOptions{
		users: users, domains: []string{"bed.test", "xn--bcher-kva.test"},
		virtual: "desk@bed.test desk\ngroup@bed.test group\n",
		aliases: "desk: dee@bed.test\ngroup: gil@bed.test, hal@bed.test\n",
	})
	fay := s.enrolDozen(t)
	for _, user := range users {
		want[user] = 1
	}
	want[ella] = 0

	c := s.dial(t)
	c.says(250, "MAIL FROM:<"+ella+"> BODY=8BITMIME RET=HDRS ENVID=dozen+2B1")
	for _, r := range dozen {
		c.says(250, strings.TrimSpace("RCPT TO:<"+r.address+"> "+r.argument))
	}
	c.says(354, "DATA")
	c.data(crlf([]byte(ofDozen)))
	c.hears(250, "the message")
	c.says(221, "QUIT")
	want[ella] = 6 // a notice for each copy of which somebody asked for one
	s.settles(t, "the dozen", want)
	if n := s.gate.messages(); n != 8 {
		t.Errorf("%d copies were re-injected, want 8", n)
	}
	if n := len(s.recorder.messages); n != 1 {
		t.Errorf("%d messages were shown to filters, want the original alone", n)
	}
	for _, r := range dozen {
		for _, user := range strings.Fields(r.user) {
			s.isOfDozen(t, r.name, user, fay)
		}
	}
	s.tracesOfDozen(t)
	s.noticesOfDozen(t)
	s.plainOfDozen(t)
}

// enrolDozen gives keys to those of the dozen who have one and are not in every
// site. It returns Fay's.
func (s *splitSendmail) enrolDozen(t *testing.T) bed.Identity {
	t.Helper()
	for _, address := range []string{"eve@bed.test", "dee@bed.test", "gil@bed.test", "hal@bed.test", "pat@bed.test", "jo@xn--bcher-kva.test"} {
		s.enrol(t, address, string(s.gpg.Generate(t, "Somebody <"+address+">", "default")))
	}
	s.gpg.Run(t, []byte("Key-Type: RSA\nKey-Length: 3072\nKey-Usage: sign\nSubkey-Type: RSA\nSubkey-Length: 3072\nSubkey-Usage: encrypt\n"+
		"Name-Real: Old\nName-Email: old@bed.test\nCreation-Date: 20240101T000000\nExpire-Date: 20250101T000000\n%no-protection\n%commit\n"), "--full-generate-key")
	s.enrol(t, "old@bed.test", string(s.gpg.Run(t, nil, "--armor", "--export", "old@bed.test")))
	fay := bed.NewIdentity(t, "fay@bed.test", "RSA rsa_keygen_bits:2048")
	s.enrol(t, "fay@bed.test", readFile(t, fay.Certificate))
	s.db.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES ('desk@bed.test', 'dee@bed.test'),
		('group@bed.test', 'gil@bed.test'), ('group@bed.test', 'hal@bed.test');`)
	return fay
}

// isOfDozen checks a user's message: it opens with the user's own key, is sealed
// to nobody whom it does not name, and names nobody whom the sender had not.
func (s *splitSendmail) isOfDozen(t *testing.T, name, user string, fay bed.Identity) {
	t.Helper()
	messages := s.inbox(t, user)
	if len(messages) != 1 {
		return // which was said
	}
	message := messages[0]
	switch user {
	case bob, "kim@bed.test":
	case cyd, "fay@bed.test":
		der := bed.DER(t, message)
		owner := map[string]bed.Identity{cyd: s.cyd, "fay@bed.test": fay}[user]
		s.isShown(t, name, owner.OpenSSL(t, der))
		if n := cmsReaders(t, der); n != 2 {
			t.Errorf("%s: it is sealed to %d, want Cyd and Fay", name, n)
		}
	default:
		s.opens(t, name, message)
		wantReaders := map[string]int{ann: 2, bea: 2, "gil@bed.test": 2, "hal@bed.test": 2}[user]
		readers := len(regexp.MustCompile(`(?m)^:pubkey enc packet:`).FindAll(s.gpg.Run(t, message, "--list-packets"), -1))
		if readers != max(wantReaders, 1) {
			t.Errorf("%s: it is sealed to %d, want %d", name, readers, max(wantReaders, 1))
		}
	}
	for _, other := range dozen {
		for _, hidden := range append(strings.Fields(other.user), other.address) {
			if !strings.Contains(other.name, " in To") && !strings.Contains(other.name, " in Cc") &&
				!strings.Contains(other.user, user) && bytes.Contains(message, []byte(hidden)) {
				t.Errorf("%s: the message of %s names %s", name, user, hidden)
			}
		}
	}
}

// cmsReaders is how many a message is sealed to, as openssl prints them.
func cmsReaders(t *testing.T, der []byte) int {
	t.Helper()
	cmd := exec.Command(bed.Need(t, "openssl"), "cms", "-cmsout", "-print", "-inform", "DER")
	cmd.Stdin = bytes.NewReader(der)
	printed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(printed, []byte("d.ktri:"))
}

// tracesOfDozen checks that a copy tells its way: Sendmail knows no XFORWARD, so
// that its field for the copy shows loopback, and the client is in ours.
func (s *splitSendmail) tracesOfDozen(t *testing.T) {
	t.Helper()
	var traces []string
	for _, f := range client.ParseMessage(s.inbox(t, "eve@bed.test")[0]).Header {
		if f.Name == "Received" {
			traces = append(traces, strings.Join(strings.Fields(f.Value), " "))
		}
	}
	want := []string{
		`^from sm\.bed\.test by \S+ with LMTP id `,
		`^from localhost \(sm\.bed\.test \[127\.0\.0\.1\]\) by sm\.bed\.test \(.*\) with ESMTP id \w+ for <eve@bed\.test>; `,
		`^from client\.bed\.test \(sm\.bed\.test \[127\.0\.0\.1\]\) by sm\.bed\.test \(sealmilter\) with ESMTP id \w+; `,
	}
	for i, line := range traces {
		if len(traces) == len(want) && !regexp.MustCompile(want[i]).MatchString(line) {
			t.Errorf("trace %d is %q, want %s", i, line, want[i])
		}
	}
	if len(traces) != len(want) {
		t.Errorf("%d trace fields, want %d", len(traces), len(want))
	}
}

// noticesOfDozen checks that whoever's delivery the sender wanted to hear of is
// in one notice, under the address and the envelope that the sender knows.
func (s *splitSendmail) noticesOfDozen(t *testing.T) {
	t.Helper()
	var all []string
	for _, notice := range s.inbox(t, ella) {
		if !bytes.Contains(notice, []byte("\nOriginal-Envelope-Id: dozen+1\n")) {
			t.Errorf("a notice does not have the sender's envelope id:\n%s", notice)
		}
		all = append(all, string(notice))
	}
	for _, r := range dozen {
		_, original, _ := strings.Cut(strings.ReplaceAll(r.argument, "+2B", "+"), "ORCPT=")
		told := regexp.MustCompile(`(?s)\nOriginal-Recipient: `+regexp.QuoteMeta(original)+`\n([^\n]+\n)*?Action: (\w+)`).FindAllStringSubmatch(strings.Join(all, "\n"), -1)
		if wanted := strings.Contains(r.argument, "SUCCESS"); original != "" && (len(told) == 1) != wanted {
			t.Errorf("%s: %d notices of %s", r.name, len(told), original)
		} else if wanted && told[0][2] != "relayed" { // since Dovecot's LMTP has no DSN
			t.Errorf("%s: the notice says %q", r.name, told[0][2])
		}
	}
}

// plainOfDozen sends the message once more, to those without a key, by the
// listener without filters: they must have got what Sendmail gives without one.
func (s *splitSendmail) plainOfDozen(t *testing.T) {
	t.Helper()
	plain := []string{bob, "kim@bed.test"}
	replies := bed.SendMail(t, fmt.Sprintf("127.0.0.1:%d", s.port), ella, plain, crlf([]byte(ofDozen)))
	if !bed.Sent(replies) {
		t.Fatal(replies)
	}
	s.settles(t, "without filters", map[string]int{bob: 2, "kim@bed.test": 2})
	trace := regexp.MustCompile(`(?m)^(Return-Path|Delivered-To|Received):.*\n([ \t].*\n)*`)
	for _, user := range plain {
		got := s.inbox(t, user)
		one, other := trace.ReplaceAll(got[0], nil), trace.ReplaceAll(got[1], nil)
		if !bytes.Equal(one, other) || !bytes.Contains(one, []byte("The caf\xe9 is closed.\n.\n..two dots\n")) {
			t.Errorf("%s got\n%s\nand without a filter\n%s", user, one, other)
		}
	}
}

// TestSendmailSplitFailure
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                 ║      ▲               ║
//	                 ║      ╚═══════════════╝
//	                 ╚════▶ Dovecot, which does not know Cyd and Bob; the notices come to the sender
//
// The notice of what failed gives back what was to be delivered: ciphertext of
// what is sealed.
func TestSendmailSplitFailure(t *testing.T) {
	s := newSplitSendmail(t, splitSendmailOptions{users: []string{ella, ann}})
	token := newToken()
	c := s.dial(t)
	c.says(250, "MAIL FROM:<"+ella+"> RET=FULL ENVID=failed")
	c.says(250, "RCPT TO:<"+ann+"> NOTIFY=FAILURE ORCPT=rfc822;ann@before.test")
	c.says(250, "RCPT TO:<"+cyd+"> NOTIFY=FAILURE ORCPT=rfc822;cyd@before.test")
	c.says(250, "RCPT TO:<"+bob+"> NOTIFY=NEVER")
	c.says(354, "DATA")
	c.data(crlf([]byte("Subject: s\n\n" + token + "\n")))
	c.hears(250, "the message")
	s.settles(t, "a failure", map[string]int{ella: 1, ann: 1})
	notice := s.inbox(t, ella)[0]
	holdsNone(t, "the notice", notice, token)
	for _, want := range []string{"\nOriginal-Envelope-Id: failed\n", "\nOriginal-Recipient: rfc822;cyd@before.test\n", "\nAction: failed\n", "pkcs7-mime"} {
		if !bytes.Contains(notice, []byte(want)) {
			t.Errorf("the notice does not have %q:\n%s", want, notice)
		}
	}
}

// TestSendmailSplitAway
//
//	SMTP client, again and again ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                                  ║      ▲               ║
//	                                  ║      ╚══ a gate ═════╝
//	                                  ╚════▶ Dovecot
//
// The listener is away, or goes away behind one copy of two: the sender keeps
// the message, and everybody has it once when it was sent again.
func TestSendmailSplitAway(t *testing.T) {
	s := newSplitSendmail(t, splitSendmailOptions{users: []string{ann, cyd, bob}})
	raw := []byte("From: a@example.net\nTo: ann@bed.test, cyd@bed.test\nSubject: s\n\nbody\n")
	refused := func(what string) {
		t.Helper()
		if replies := s.send(t, raw, ann, cyd, bob); replies[len(replies)-1].Code != 451 || len(replies) != 6 {
			t.Fatalf("%s: the answers are %v", what, replies)
		}
	}
	for n := range 2 {
		s.gate.shut()
		refused("nobody listens")
		s.settles(t, "nobody listens", map[string]int{ann: n, cyd: n, bob: n})
		s.gate.open(t, 1)
		refused("cut behind one copy")
		if got := len(s.inbox(t, bob)); got != n {
			t.Errorf("bob has %d messages of a transaction that failed, want %d", got, n)
		}
		s.gate.open(t, 0)
		s.sent(t, raw, ann, cyd, bob)
		if got := s.gate.messages(); got != 1 {
			t.Errorf("%d copies went out when it was sent again, want the one that was missing", got)
		}
		s.settles(t, "sent again", map[string]int{ann: n + 1, cyd: n + 1, bob: n + 1})
		for _, user := range []string{ann, cyd} {
			s.isSealed(t, user, s.inbox(t, user)[n])
		}
	}
}

// TestSendmailSplitLoop
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                 ║      ▲               ║
//	                 ║      ╚═══════════════╝ to a listener that has the filter by mistake
//	                 ╚════▶ Dovecot
//
// What comes in again is sealed already, and left alone. Where it would be
// sealed once more, the loop is an error.
func TestSendmailSplitLoop(t *testing.T) {
	raw := []byte("From: a@example.net\nTo: ann@bed.test, cyd@bed.test\nSubject: s\n\nbody\n")
	opts := splitSendmailOptions{users: []string{ann, cyd, bob}, filtered: true}
	s := newSplitSendmail(t, opts)
	s.sent(t, raw, ann, cyd, bob)
	s.settles(t, "sealed already", map[string]int{ann: 1, cyd: 1, bob: 1})
	s.gpg.Decrypt(t, s.inbox(t, ann)[0])
	s.cyd.OpenSSL(t, bed.DER(t, s.inbox(t, cyd)[0]))

	opts.policy = "always = true"
	s = newSplitSendmail(t, opts)
	if replies := s.send(t, raw, ann, cyd, bob); replies[len(replies)-1].Code != 451 {
		t.Errorf("a loop: the answers are %v", replies)
	}
	s.settles(t, "a loop", map[string]int{ann: 0, cyd: 0, bob: 0})
	if !strings.Contains(s.daemon.Log(), "a loop: ") {
		t.Error("the log does not say that it is a loop")
	}
}

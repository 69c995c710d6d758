package mta_test

import (
	"bytes"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// TestSendmail
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter ──▶ PostgreSQL
//	                   ║
//	                   ╚════▶ Postfix without filters ════▶ maildir ════▶ gpg, openssl
func TestSendmail(t *testing.T) {
	s := newSendmailSite(t)
	// bare-cr.eml is missing: Sendmail breaks the connection off.
	names := []string{"multipart.eml", "8bit.eml", "nul.eml", "long-lines.eml", "no-final-crlf.eml", "no-body.eml", "no-header.eml",
		"empty.eml", "no-content-type.eml", "many-headers.eml", "forged-marker.eml", "format-flowed.eml", "plain.eml"}
	toBob := 0
	for i, name := range names {
		raw := message(t, name)
		s.sent(t, raw, ann)
		s.opens(t, name, s.delivered(t, ann, i+1))
		if name == "long-lines.eml" || name == "many-headers.eml" {
			continue // Sendmail cuts long lines and folds To anew on the way out
		}
		toBob++
		s.sent(t, raw, bob)
		s.untouched(t, name, s.delivered(t, bob, toBob))
	}
	for i, name := range []string{"multipart.eml", "8bit.eml", "long-lines.eml"} {
		s.sent(t, message(t, name), bea)
		s.opens(t, name, s.delivered(t, bea, i+1))
		s.sent(t, message(t, name), cyd)
		s.isShown(t, name, s.cyd.OpenSSL(t, bed.DER(t, s.delivered(t, cyd, i+1))))
	}
	settled(t, s.db, `UPDATE sealmilter.accounts SET cipher = 'aes128';`)
	s.sent(t, message(t, "multipart.eml"), bea)
	sealed := s.delivered(t, bea, 4)
	s.opens(t, "AES-128", sealed)
	if said := string(s.gpg.Run(t, sealed, "--decrypt", "--verbose", "--status-fd", "1")); !strings.Contains(said, "DECRYPTION_INFO 2 7 ") {
		t.Error("gpg does not say that it is AES-128")
	}
	s.sent(t, message(t, "multipart.eml"), cyd)
	s.isShown(t, "AES-128", s.cyd.OpenSSL(t, bed.DER(t, s.delivered(t, cyd, 4))))
	if !strings.Contains(s.daemon.Log(), "method=smime cipher=aes128") {
		t.Error("S/MIME was not sealed with AES-128")
	}
	if queue := s.sendmail.Queue(); len(queue) > 0 {
		t.Errorf("%q are left in the queue", queue)
	}
}

// TestSendmailLarge
//
//	SMTP client, with 20 MiB ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                                ║
//	                                ╚════▶ Postfix ════▶ maildir ════▶ gpg
func TestSendmailLarge(t *testing.T) {
	s := newSendmailSite(t)
	raw := []byte("Subject: large\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat(".a line that begins with a dot, \xe9\r\n", 20<<20/35))
	s.sent(t, raw, ann)
	got := envelope.Original(s.gpg.Decrypt(t, s.delivered(t, ann, 1)))
	if !bytes.Equal(got, raw) || !bytes.Equal(got, s.recorder.last(t).Shown()) {
		t.Errorf("%d bytes did not come back: %d did", len(raw), len(got))
	}
}

// TestSendmailTwoRecipients
//
//	SMTP client, to bob and ann ──▶ Sendmail ──milter──▶ sealmilter: "452 apart" for the second
//	SMTP client, again to her   ──▶ Sendmail ──milter──▶ sealmilter
func TestSendmailTwoRecipients(t *testing.T) {
	s := newSendmailSite(t)
	raw := message(t, "multipart.eml")
	for n, order := range [][]string{{bob, ann}, {ann, bob}} {
		replies := s.send(t, raw, order...)
		if len(replies) != 5 || !replies[1].OK() || !bed.Sent(replies) ||
			replies[2].Text != "452 4.5.3 Please send to this recipient in a transaction of its own" {
			t.Fatalf("to %q the answers are %v", order, replies)
		}
		s.sent(t, raw, order[1])
		s.opens(t, "apart", s.delivered(t, ann, n+1))
		s.untouched(t, "apart", s.delivered(t, bob, n+1))
	}
	s.sent(t, raw, bob, "bob@bed.test.", "BOB@bed.test")
}

// TestSendmailConversation
//
//	SMTP client, one connection ──▶ Sendmail, one milter connection ──▶ recorder, sealmilter
//
// Sendmail gives no sign where a message ended that was accepted. Nothing of
// it may count for the next.
func TestSendmailConversation(t *testing.T) {
	s := newSendmailSite(t)
	c := s.dial(t)
	begin := func(code int, to string) {
		t.Helper()
		c.says(250, "MAIL FROM:<sender@example.net> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=x")
		c.says(code, "RCPT TO:<"+to+"> NOTIFY=FAILURE ORCPT=rfc822;"+to)
	}
	for n := range 3 {
		begin(250, ann)
		c.says(452, "RCPT TO:<bob@bed.test>")
		c.says(354, "DATA")
		c.data(message(t, "multipart.eml"))
		c.hears(250, "the message to ann")
		s.opens(t, "to ann", s.delivered(t, ann, n+1))

		begin(250, bob)
		c.says(354, "DATA")
		c.data(message(t, "multipart.eml"))
		c.hears(250, "the message to bob")
		s.untouched(t, "to bob", s.delivered(t, bob, n+1))

		begin(250, ann)
		c.says(250, "RSET")
		begin(250, bob)
		c.says(452, "RCPT TO:<ann@bed.test>")
		c.says(250, "RSET")
		begin(250, bea)
		c.says(250, "NOOP")
		c.says(354, "DATA")
		c.data([]byte("Subject:\n\n"))
		c.hears(250, "the message to bea")
		s.opens(t, "to bea", s.delivered(t, bea, n+1))
	}
	c.says(221, "QUIT")
}

// TestSendmailHeader
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//
// Sendmail does not count header fields anew when one is removed. Each that
// goes is one of several of its name, in several spellings, and others stay.
// What is added it puts where the first field of that name was.
func TestSendmailHeader(t *testing.T) {
	s := newSendmailSite(t)
	raw := "Received: by a.example; Mon, 8 Jun 2026 09:30:03 +0200\nMIME-Version: 1.0\nX-Sealmilter: one\nDKIM-Signature: one\n" +
		"Content-Type: text/plain\nX-Empty:\nx-sealmilter:\nSubject: first\nmime-version: 1.0\nDkim-Signature: two;\n\tfolded\n" +
		"From: Ella <ella@garden.example>\nDate: Mon, 8 Jun 2026 09:30:00 +0200\nMessage-ID: <header@garden.example>\n" +
		"CONTENT-TYPE: text/html\nContent-Type:\nX-Empty:\nX-SEALMILTER: three\nTo: ann@bed.test\nX-Same: 1\nX-Same: 2\nARC-Seal: i=1\n" +
		"Content-Transfer-Encoding: 8bit\nx-same: 3\nDKIM-SIGNATURE: three\nMIME-Version: 1.0\n\nbody\n"
	s.sent(t, []byte(raw), ann)
	sealed := s.delivered(t, ann, 1)
	s.opens(t, "many fields", sealed)

	var got []string
	for _, f := range client.ParseMessage(sealed).Header {
		got = append(got, f.Name+":"+f.Value)
	}
	for i, f := range got {
		if strings.HasPrefix(f, "Received: by a.example") {
			got = got[i:] // what is in front was added by servers
			break
		}
	}
	i := slices.IndexFunc(got, func(f string) bool { return strings.HasPrefix(f, "Content-Type: multipart/encrypted;") })
	if i < 0 {
		t.Fatalf("no Content-Type of a sealed message is in %q", got)
	}
	want := []string{"Received: by a.example; Mon, 8 Jun 2026 09:30:03 +0200", "MIME-Version: 1.0", "X-Sealmilter: sealed", got[i],
		"X-Empty:", "Subject: first", "From: Ella <ella@garden.example>", "Date: Mon, 8 Jun 2026 09:30:00 +0200",
		"Message-ID: <header@garden.example>", "X-Empty:", "To: ann@bed.test", "X-Same: 1", "X-Same: 2", "x-same: 3"}
	if !slices.Equal(got, want) {
		t.Errorf("the header is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSendmailAway
//
//	SMTP client ──▶ Sendmail ──milter──▶ sealmilter (stopped, killed) ──▶ PostgreSQL (stopped)
func TestSendmailAway(t *testing.T) {
	s := newSendmailSite(t)
	raw := message(t, "plain.eml")
	refused := func(what, command string) {
		t.Helper()
		for _, to := range []string{ann, bob} {
			replies := s.send(t, raw, to)
			if last := replies[len(replies)-1]; last.Code != 451 || !strings.HasPrefix(last.Command, command) {
				t.Errorf("%s: the answers for %s are %v", what, to, replies)
			}
		}
	}
	delivered := 0
	works := func() {
		t.Helper()
		delivered++
		s.sent(t, raw, ann)
		s.opens(t, "all is well", s.delivered(t, ann, delivered))
	}
	works()

	s.db.Stop(t)
	refused("PostgreSQL is stopped", "RCPT")
	s.db.Start(t)
	works()

	s.daemon.Stop(t)
	refused("the daemon is stopped", "MAIL")
	s.daemon.Start(t)
	works()

	s.daemon.Kill(t) // leaves its socket behind
	refused("the daemon was killed", "MAIL")
	s.daemon.Start(t)
	works()
	if n := len(s.postfix.Maildir(bob)); n != 0 {
		t.Errorf("%d messages came to bob in the meantime", n)
	}
}

// TestSendmailKilled
//
//	SMTP client, in the middle of a message ──▶ Sendmail ──milter──▶ sealmilter, at SIGKILL
func TestSendmailKilled(t *testing.T) {
	s := newSendmailSite(t)
	large := []byte("Subject: large\nContent-Type: text/plain\n\n" + strings.Repeat("0123456789\n", 1<<20))
	for _, to := range []string{ann, bea} {
		c := s.dial(t)
		c.says(250, "MAIL FROM:<sender@example.net>")
		c.says(250, "RCPT TO:<"+to+">")
		if to == ann {
			s.daemon.Kill(t)
			c.says(354, "DATA")
			c.data(large)
		} else {
			// It takes the message only as far as its socket's buffer goes.
			if err := syscall.Kill(s.daemon.PID(), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			c.says(354, "DATA")
			c.data(large)
			time.Sleep(time.Second)
			s.daemon.Kill(t)
		}
		c.hears(451, "the message")
		c.says(221, "QUIT")
		s.daemon.Start(t)
	}
	s.sent(t, large, ann)
	s.opens(t, "sent again", s.delivered(t, ann, 1))
	if n := len(s.postfix.Maildir(bea)); n != 0 {
		t.Errorf("%d messages came to bea that were refused", n)
	}
}

// TestSendmailLeaks
//
//	SMTP client ──▶ Sendmail, with our log level ──milter──▶ sealmilter
//	                   ║
//	                   ╚════▶ queue, while Postfix is away
func TestSendmailLeaks(t *testing.T) {
	s := newSendmailSite(t)
	s.postfix.Stop(t)
	token, named := newToken(), newToken()
	raw := []byte("From: sender@example.net\nSubject: hello\nContent-Type: text/plain; name=" + named + "\n\n" +
		strings.Repeat(token+" fills the queue file\n", 5000))
	s.sent(t, raw, ann)
	waitFor(t, "the message to be deferred", func() bool { return strings.Contains(s.sendmail.Log(), "stat=Deferred") })
	s.sendmail.Stop(t) // which would go on writing into its queue
	if queue := s.sendmail.Queue(); len(queue) != 1 {
		t.Fatalf("in the queue are %q", queue)
	}
	for _, secret := range []string{token, named} {
		holdsNoneBelow(t, s.sendmail.Dir, secret)
	}
	s.postfix.Start(t)
	s.sendmail.Start(t)
	s.opens(t, "the message", s.delivered(t, ann, 1))
	for _, secret := range []string{token, named} {
		holdsNone(t, "Sendmail's log", []byte(s.sendmail.Log()), secret)
		holdsNoneBelow(t, s.postfix.Dir, secret)
	}
}

// TestSendmailCorpus
//
//	SMTP client ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                   ║
//	                   ╚════▶ Postfix ════▶ maildir ════▶ gpg
//
// What Sendmail takes at all opens as it was shown.
func TestSendmailCorpus(t *testing.T) {
	s := newSendmailSite(t)
	sealed, refused := 0, 0
	for _, file := range corpus(t) {
		raw := []byte(readFile(t, file))
		if bytes.Contains(bytes.ReplaceAll(crlf(raw), []byte("\r\n"), nil), []byte("\r")) {
			refused++ // by Sendmail, which breaks the connection off at a lone CR
			continue
		}
		s.sent(t, raw, bea)
		sealed++
		s.opens(t, file, s.delivered(t, bea, sealed))
	}
	t.Logf("%d messages opened as Sendmail had shown them, %d were none that it takes", sealed, refused)
}

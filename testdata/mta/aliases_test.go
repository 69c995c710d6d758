package mta_test

import (
	"bytes"
	"fmt"
	"net"
	"net/smtp"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

const (
	carl    = "carl@bed.test"    // has a certificate
	archive = "archive@bed.test" // has an OpenPGP key, and gets a copy of everything where always_bcc says so
)

// aliasSite is a Postfix with aliases, set up by what contrib/postfix ships.
type aliasSite struct {
	*site
	carl  bed.Identity
	got   map[string]int // messages that have come to a mailbox
	group []string       // the OpenPGP readers of each copy, nil for its own alone
}

// The aliases of these sites: two members, a whole domain, an alias of an
// alias, one beyond ASCII, and one that leads to nobody.
const virtualAliases = `virtual_alias_domains = catch.test
virtual_alias_maps = inline:{
  { team@bed.test = ann@bed.test, carl@bed.test }
  { all@bed.test = team@bed.test, bob@bed.test }
  { @catch.test = ann@bed.test }
  { jörg@bed.test = ann@bed.test }
  { gone@bed.test = nobody@bed.test } }
recipient_delimiter = +`

// newAliasSite starts the store and the daemon. Ann and the archive have keys
// of gpg's, and Carl has a certificate.
func newAliasSite(t *testing.T) (s *aliasSite, port int) {
	t.Helper()
	s = &aliasSite{site: &site{gpg: bed.NewGnuPG(t), db: bed.StartPostgres(t)}, carl: bed.NewIdentity(t, carl, "EC ec_paramgen_curve:P-256"), got: make(map[string]int)}
	s.db.CreateDatabase(t, database)
	s.migrate(t)
	s.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	for address, key := range map[string]string{
		ann:     string(s.gpg.Generate(t, "Ann <"+ann+">", "default")),
		archive: string(s.gpg.Generate(t, "Archive <"+archive+">", "default")),
		carl:    readFile(t, s.carl.Certificate),
	} {
		s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, key))
	}
	port = bed.FreePort(t)
	s.daemon = bed.StartDaemon(t, s.config(fmt.Sprintf("inet:127.0.0.1:%d", port)))
	return s, port
}

// start starts a Postfix with a pair of files of contrib/postfix, of which
// only the ports are changed, and with lines of the test's own.
func (s *aliasSite) start(t *testing.T, topology string, port int, main ...string) {
	t.Helper()
	fill := strings.NewReplacer("8890", fmt.Sprint(port), "10026", fmt.Sprint(bed.FreePort(t)))
	ships := func(name string) string {
		return fill.Replace(readFile(t, filepath.Join("../../contrib/postfix", topology+name)))
	}
	s.postfix = bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{ann, bob, carl, archive},
		Main:      append([]string{virtualAliases, ships(".main.cf")}, main...),
		Master:    []string{ships(".master.cf")},
	})
}

// arrives waits until these mailboxes have got one message more each and the
// queue is empty; no other may have got anything. It returns the messages.
func (s *aliasSite) arrives(t *testing.T, to ...string) map[string][]byte {
	t.Helper()
	for _, address := range to {
		s.got[address]++
		s.delivered(t, address, s.got[address])
	}
	for deadline := time.Now().Add(10 * time.Second); !s.postfix.QueueEmpty() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if !s.postfix.QueueEmpty() {
		t.Fatalf("something is left in the queue:\n%s", s.postfix.Log())
	}
	for _, address := range []string{ann, bob, carl, archive} {
		if n := len(s.postfix.Maildir(address)); n != s.got[address] {
			t.Fatalf("%s has got %d messages, not %d\n%s", address, n, s.got[address], s.postfix.Log())
		}
	}
	messages := make(map[string][]byte)
	for _, address := range to {
		messages[address] = s.delivered(t, address, s.got[address])
	}
	return messages
}

// delivers is arrives for a message with a token in it. Each copy is sealed to
// its own reader, or untouched where there is no key. It returns what was in
// the copies.
func (s *aliasSite) delivers(t *testing.T, token string, to ...string) map[string][]byte {
	t.Helper()
	opened := s.arrives(t, to...)
	for address, copied := range opened {
		if address != bob {
			holdsNone(t, "the maildir of "+address, copied, token)
			opened[address] = s.open(t, address, copied)
		}
		if !bytes.Contains(opened[address], []byte(token)) {
			t.Errorf("%s has got another message: %q", address, opened[address])
		}
	}
	return opened
}

// open opens a copy, and checks first that it is sealed to its own reader
// alone, or to the group that the message was for.
func (s *aliasSite) open(t *testing.T, address string, sealed []byte) []byte {
	t.Helper()
	if address == carl {
		return s.carl.OpenSSL(t, bed.DER(t, sealed))
	}
	want := s.group
	if want == nil {
		want = []string{address}
	}
	said := string(s.gpg.Run(t, sealed, "--list-packets", "--list-only", "--status-fd", "1"))
	var readers []string
	for _, reader := range []string{ann, archive} {
		listed := string(s.gpg.Run(t, nil, "--list-keys", "--with-colons", reader))
		if _, sub, _ := strings.Cut(listed, "\nsub:"); strings.Contains(said, "ENC_TO "+strings.Split(sub, ":")[3]) {
			readers = append(readers, reader)
		}
	}
	if strings.Count(said, "ENC_TO ") != len(want) || !slices.Equal(readers, want) {
		t.Errorf("the copy of %s is sealed to %q, want %q; gpg says\n%s", address, readers, want, said)
	}
	return envelope.Original(s.gpg.Decrypt(t, sealed))
}

// text is a small message with a token in it.
func text(token string) []byte {
	return []byte("From: sender@example.net\r\nTo: somebody\r\nSubject: hello\r\nContent-Type: text/plain\r\n\r\n" + token + "\r\n")
}

// transaction sends one message with an SMTP client that uses what the server
// offers, SMTPUTF8 and DSN with it, from an address of this machine.
func (s *aliasSite) transaction(t *testing.T, client, from, rcpt string, raw []byte) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	conn, err := dialer.Dial("tcp", s.postfix.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mail(from); err != nil {
		t.Fatal(err)
	}
	if id, err := c.Text.Cmd("RCPT TO:%s", rcpt); err != nil {
		t.Fatal(err)
	} else {
		c.Text.StartResponse(id)
		_, _, err := c.Text.ReadResponse(250)
		c.Text.EndResponse(id)
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err == nil {
		if _, err = w.Write(raw); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Quit()
}

// TestAliasesFirst
//
//	SMTP client ──▶ smtpd ─▶ cleanup(8): aliases, always_bcc ─▶ queue ──smtp(8), content_filter──▶ smtpd on loopback ──milter──▶ sealmilter
//	sendmail(1) ──▶ pickup(8) ─▶ ┘                    ▲                                                 ║
//	                       bounce(8) ─▶ cleanup(8), FILTER                                            ╚════▶ queue ════▶ maildir
//
// With contrib/postfix/aliases-first.* as it is shipped.
func TestAliasesFirst(t *testing.T) {
	s, port := newAliasSite(t)
	s.start(t, "aliases-first", port, "always_bcc = "+archive, "message_size_limit = 1000000")
	for _, test := range []struct {
		name string
		to   []string
		want []string
	}{
		{"itself", []string{ann}, []string{ann, archive}},
		{"two members", []string{"team@bed.test"}, []string{ann, carl, archive}},
		{"a whole domain", []string{"anybody@catch.test"}, []string{ann, archive}},
		{"nested", []string{"all@bed.test"}, []string{ann, carl, bob, archive}},
		{"no key", []string{bob}, []string{bob, archive}},
		{"several", []string{"carl@bed.test", "anybody@catch.test", bob}, []string{ann, carl, bob, archive}},
		{"plus", []string{"carl+list@bed.test"}, []string{carl, archive}},
		{"plus of an alias", []string{"team+list@bed.test"}, []string{ann, carl, archive}},
	} {
		token := newToken()
		s.sent(t, text(token), test.to...)
		s.delivers(t, token, test.want...)
		token = newToken()
		s.postfix.Sendmail(t, append([]string{"-f", "sender@example.net"}, test.to...), string(text(token)))
		s.delivers(t, token, test.want...)
	}
	for line := range strings.Lines(s.postfix.Log()) {
		if strings.Contains(line, "status=deferred") || strings.Contains(line, "warning: ") {
			t.Error(line)
		}
	}

	// Nobody who does not exist is taken in front.
	if replies := s.send(t, text(""), "nobody@bed.test"); replies[1].Code != 550 {
		t.Errorf("the answers are %v", replies)
	}
}

// TestAliasesFirstExtensions
//
//	SMTP client on 127.0.0.2, with SMTPUTF8 and DSN ──▶ the same
func TestAliasesFirstExtensions(t *testing.T) {
	s, port := newAliasSite(t)
	s.start(t, "aliases-first", port)
	token := newToken()
	s.transaction(t, "127.0.0.2", "sender@example.net", "<jörg@bed.test>", text(token))
	s.delivers(t, token, ann)
	if !strings.Contains(s.postfix.Log(), "orig_client=unknown[127.0.0.2]") {
		t.Error("the second smtpd does not know the client")
	}

	// The notice goes to Carl, sealed, and tells him what he had asked for.
	token = newToken()
	s.transaction(t, "127.0.0.2", carl, "<ann+list@bed.test> NOTIFY=SUCCESS ORCPT=rfc822;first@example.net", text(token))
	notice := string(s.open(t, carl, s.arrives(t, ann, carl)[carl]))
	for _, line := range []string{"Action: delivered", "Original-Recipient: rfc822;first@example.net", "Final-Recipient: rfc822; ann+list@bed.test"} {
		if !strings.Contains(notice, line) {
			t.Errorf("%q is not in the notice:\n%s", line, notice)
		}
	}
}

// TestAliasesFirstBytes
//
//	SMTP client ──▶ the same, with messages that are easily broken
func TestAliasesFirstBytes(t *testing.T) {
	s, port := newAliasSite(t)
	const limit = 1_000_000
	s.start(t, "aliases-first", port, fmt.Sprintf("message_size_limit = %d", limit))
	for n, name := range []string{"multipart.eml", "8bit.eml", "long-lines.eml", "bare-cr.eml", "no-content-type.eml"} {
		raw := message(t, name)
		s.sent(t, raw, "all@bed.test")
		copied := s.delivered(t, bob, n+1)
		untouched(t, copied, raw)
		if !bytes.Contains(copied, []byte("\nX-Original-To: bob@bed.test\n")) {
			t.Errorf("bob has got %.500q", copied)
		}
		want := client.PostfixParser().Parse(raw).Shown()
		for _, address := range []string{ann, carl} {
			opened := s.open(t, address, s.delivered(t, address, n+1))
			trace, found := bytes.CutSuffix(opened, want)
			if !found || !bytes.HasPrefix(trace, []byte("Received: from ")) || bytes.Count(trace, []byte("\r\n")) != bytes.Count(trace, []byte("\r\n\t"))+1 {
				t.Errorf("%s: opened it is\n%.2000q\nwant a Received field and\n%.2000q", name, opened, want)
			}
		}
		s.got[ann], s.got[bob], s.got[carl] = n+1, n+1, n+1
	}
	token := newToken()
	s.sent(t, append(text(token), strings.Repeat(strings.Repeat("x", 76)+"\r\n", limit*9/10/78)...), "team@bed.test")
	s.delivers(t, token, ann, carl)
}

// TestAliasesFirstAway
//
//	SMTP client ──▶ smtpd ─▶ queue ──smtp(8)──▶ smtpd on loopback ──milter──▶ sealmilter (stopped)
//
// What has been taken waits in the first queue, in the clear as the README of
// contrib/postfix says, and nothing of it is there any more when it is sealed.
func TestAliasesFirstAway(t *testing.T) {
	s, port := newAliasSite(t)
	s.start(t, "aliases-first", port, "smtp_fallback_relay = [127.0.0.1]:1")
	s.daemon.Stop(t)
	token := newToken()
	s.sent(t, text(token), "team@bed.test")
	s.postfix.WaitLog(t, "status=deferred", 10*time.Second)
	if strings.Contains(s.postfix.Log(), "status=sent") || len(s.postfix.Maildir(ann)) != 0 {
		t.Error("it was delivered")
	}
	s.daemon.Start(t)
	s.postfix.Flush(t)
	s.delivers(t, token, ann, carl)
	holdsNoneBelow(t, s.postfix.Dir, token)
}

// TestBounce
//
//	SMTP client, as ann or as team ──▶ Postfix ─▶ virtual(8): nobody ─▶ bounce(8) ─▶ cleanup(8) ──▶ sealmilter
//	                                                                                   ║
//	                                                                                   ╚════▶ maildir of ann, of carl
func TestBounce(t *testing.T) {
	for topology, senders := range map[string][]string{
		"filter-first":  {ann, carl},
		"aliases-first": {ann, carl, "team@bed.test"},
	} {
		t.Run(topology, func(t *testing.T) {
			s, port := newAliasSite(t)
			s.start(t, topology, port)
			for _, sender := range senders {
				token := newToken()
				s.transaction(t, "127.0.0.1", sender, "<gone@bed.test>", text(token))
				to := []string{sender}
				if sender == "team@bed.test" {
					to = []string{ann, carl}
				}
				for address, notice := range s.delivers(t, token, to...) {
					if !bytes.Contains(notice, []byte("Action: failed")) || !bytes.Contains(notice, []byte("MAILER-DAEMON@mx.bed.test")) {
						t.Errorf("%s has got %q", address, notice)
					}
				}
			}
		})
	}
}

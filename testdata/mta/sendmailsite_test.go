package mta_test

import (
	"bytes"
	"fmt"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

const cyd = "cyd@bed.test" // has an RSA-2048 certificate, behind Sendmail only

// sendmailSite is a site with Sendmail in front: its Postfix has no filter and
// is where Sendmail delivers to. A recording filter says what Sendmail shows.
type sendmailSite struct {
	site
	sendmail *bed.Sendmail
	recorder *recorder
	cyd      bed.Identity
}

func newSendmailSite(t *testing.T) *sendmailSite {
	t.Helper()
	s := &sendmailSite{recorder: startRecorder(t), cyd: bed.NewIdentity(t, cyd, "RSA rsa_keygen_bits:2048")}
	s.gpg, s.db = bed.NewGnuPG(t), bed.StartPostgres(t)
	s.db.CreateDatabase(t, database)
	s.migrate(t)
	s.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	for address, key := range map[string]string{
		ann: string(s.gpg.Generate(t, "Somebody <"+ann+">", "default")),
		bea: string(s.gpg.Generate(t, "Somebody <"+bea+">", "default")),
		cyd: readFile(t, s.cyd.Certificate),
	} {
		s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, key))
	}
	s.daemon = bed.StartDaemon(t, s.config("unix:$DIR/sock"))
	s.postfix = bed.StartPostfix(t, bed.PostfixOptions{Addresses: []string{ann, bea, bob, cyd}})
	s.sendmail = bed.StartSendmail(t, bed.SendmailOptions{
		Relay:   s.postfix.Addr(),
		Filters: []string{s.recorder.line(), shippedFilter(t, s.daemon)},
	})
	return s
}

// shippedFilter are the lines that we ship for sendmail.mc, with another socket
// in them.
func shippedFilter(t *testing.T, d *bed.Daemon) string {
	t.Helper()
	return shipped(t, "sealmilter.m4", "S=inet:8890@127.0.0.1,", "S=local:"+filepath.Join(d.Dir, "sock")+",")
}

// shipped is a file that we ship, in which one thing is another here.
func shipped(t *testing.T, name, there, here string) string {
	t.Helper()
	text := readFile(t, "../../contrib/sendmail/"+name)
	if strings.Count(text, there) != 1 {
		t.Fatalf("%s does not have %q once", name, there)
	}
	return strings.Replace(text, there, here, 1)
}

// send sends a message with CRLF line ends: Sendmail 8.17 takes no others, and
// breaks the connection off.
func (s *sendmailSite) send(t *testing.T, raw []byte, to ...string) []bed.Reply {
	t.Helper()
	return bed.SendMail(t, s.sendmail.Addr(), "sender@example.net", to, crlf(raw))
}

func (s *sendmailSite) sent(t *testing.T, raw []byte, to ...string) {
	t.Helper()
	for _, reply := range s.send(t, raw, to...) {
		if !reply.OK() {
			t.Fatal(reply)
		}
	}
}

func crlf(raw []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

// opens checks that gpg opens a message as the bytes that Sendmail showed last.
func (s *sendmailSite) opens(t *testing.T, what string, sealed []byte) {
	t.Helper()
	s.isShown(t, what, envelope.Original(s.gpg.Decrypt(t, sealed)))
}

func (s *sendmailSite) isShown(t *testing.T, what string, got []byte) {
	t.Helper()
	if want := s.recorder.last(t).Shown(); !bytes.Equal(got, want) {
		t.Errorf("%s: opened it is\n%.2000q\nwant\n%.2000q", what, got, want)
	}
}

// untouched checks that a delivered message is the one that Sendmail showed
// last, with nothing in front but trace fields and those that Sendmail and the
// Postfix behind it add by themselves where the sender left them out.
func (s *sendmailSite) untouched(t *testing.T, what string, delivered []byte) {
	t.Helper()
	shown := s.recorder.last(t).Shown()
	trace, found := bytes.CutSuffix(delivered, bytes.ReplaceAll(shown, []byte("\r\n"), []byte("\n")))
	if !found {
		t.Fatalf("%s: delivered was\n%.2000s\nwhich does not end in what was shown:\n%.2000s", what, delivered, shown)
	}
	for line := range strings.Lines(string(trace)) {
		name, _, _ := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
		case name == "Return-Path", name == "X-Original-To", name == "Delivered-To", name == "Received":
		case name == "Date", name == "From", name == "Message-Id":
			if bytes.Contains(bytes.ToLower(shown), []byte("\n"+strings.ToLower(name)+":")) {
				t.Errorf("%s: the line %q was added to another", what, line)
			}
		default:
			t.Errorf("%s: the line %q was added", what, line)
		}
	}
}

// talk is a client that says line by line what it likes.
type talk struct {
	*textproto.Conn
	t *testing.T
}

func (s *sendmailSite) dial(t *testing.T) talk {
	t.Helper()
	conn, err := textproto.Dial("tcp", s.sendmail.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := talk{conn, t}
	c.hears(220, "the greeting")
	c.says(250, "EHLO client.bed.test")
	return c
}

// says sends a line and must hear a code.
func (c talk) says(code int, line string) {
	c.t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		c.t.Fatal(err)
	}
	c.hears(code, line)
}

func (c talk) hears(code int, what string) {
	c.t.Helper()
	if got, text, err := c.ReadResponse(code); err != nil {
		c.t.Fatalf("%s: the answer is %d %q, want %d (%v)", what, got, text, code, err)
	}
}

// data sends a message behind the 354 and does not wait for the answer.
func (c talk) data(message []byte) {
	c.t.Helper()
	w := c.DotWriter()
	if _, err := w.Write(message); err != nil {
		c.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		c.t.Fatal(err)
	}
}

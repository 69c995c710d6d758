package mta_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

func runProgram(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(bed.Program(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("sealmilter %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// runProgramOn runs sealmilter with a file as its standard input and returns
// its standard output.
func runProgramOn(t *testing.T, file string, args ...string) []byte {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command(bed.Program(t), args...)
	cmd.Stdin = in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sealmilter %s: %v", args, err)
	}
	return out
}

// TestPostfix
//
//	SMTP client ──▶ Postfix ──milter, inet and unix──▶ sealmilter ──▶ PostgreSQL
//	                   ║
//	                   ╚════▶ virtual(8) ════▶ maildir ════▶ gpg
func TestPostfix(t *testing.T) {
	for _, listen := range []string{fmt.Sprintf("inet:127.0.0.1:%d", bed.FreePort(t)), "unix:$DIR/sock"} {
		t.Run(strings.SplitN(listen, ":", 2)[0], func(t *testing.T) {
			s := newSite(t, listen)
			raw := message(t, "multipart.eml")

			s.sent(t, raw, ann)
			s.opens(t, s.delivered(t, ann, 1), raw)
			s.sent(t, raw, bea)
			s.opens(t, s.delivered(t, bea, 1), raw)
			s.sent(t, raw, bob)
			untouched(t, s.delivered(t, bob, 1), raw)

			for i, name := range []string{"8bit.eml", "bare-cr.eml", "nul.eml", "long-lines.eml", "no-final-crlf.eml", "no-body.eml",
				"no-header.eml", "many-headers.eml", "forged-marker.eml", "plain.eml"} {
				raw := message(t, name)
				s.sent(t, raw, ann)
				s.opens(t, s.delivered(t, ann, 2+i), raw)
				s.sent(t, raw, bob)
				untouched(t, s.delivered(t, bob, 2+i), raw)
			}
			if !s.postfix.QueueEmpty() {
				t.Error("something is left in the queue")
			}
		})
	}
}

// TestTwoRecipients
//
//	SMTP client, to bob and ann ──▶ Postfix ──milter──▶ sealmilter: "452 apart" for the second
//	SMTP client, again to her   ──▶ Postfix ──milter──▶ sealmilter
//	                                   ║ ╲
//	                                   ║  ╲──▶ maildir of bob, untouched
//	                                   ╚════▶ maildir of ann
func TestTwoRecipients(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	raw := message(t, "multipart.eml")
	for n, order := range [][]string{{bob, ann}, {ann, bob}} {
		var later []string
		for _, reply := range s.send(t, raw, order...) {
			if to, isRcpt := strings.CutPrefix(reply.Command, "RCPT "); isRcpt && reply.Code == 452 {
				later = append(later, to)
				if !strings.HasPrefix(reply.Text, "452 4.5.3 ") {
					t.Errorf("the answer is %q", reply.Text)
				}
			} else if !reply.OK() {
				t.Fatal(reply)
			}
		}
		if !slices.Equal(later, order[1:]) {
			t.Fatalf("to %q: asked for apart was %q", order, later)
		}
		s.sent(t, raw, later...)
		s.opens(t, s.delivered(t, ann, n+1), raw)
		untouched(t, s.delivered(t, bob, n+1), raw)
	}
}

// TestAway
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter (stopped, killed) ──▶ PostgreSQL (stopped)
func TestAway(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	raw := message(t, "plain.eml")
	refused := func(what string, code int) {
		t.Helper()
		replies := s.send(t, raw, ann)
		last := replies[len(replies)-1]
		if last.Code != code {
			t.Errorf("%s: the answers are %v", what, replies)
		}
		replies = s.send(t, raw, bob)
		if last := replies[len(replies)-1]; last.Code != code {
			t.Errorf("%s: the answers for one without a key are %v", what, replies)
		}
	}
	delivered := 0
	works := func() {
		t.Helper()
		delivered++
		s.sent(t, raw, ann)
		s.opens(t, s.delivered(t, ann, delivered), raw)
	}
	works()

	s.db.Stop(t)
	refused("PostgreSQL is stopped", 451)
	if !strings.Contains(s.daemon.Log(), "key store did not answer") {
		t.Error("the daemon's log does not say why")
	}
	s.db.Start(t)
	works()

	s.daemon.Stop(t)
	refused("the daemon is stopped", 451)
	s.daemon.Start(t)
	works()

	s.daemon.Kill(t) // leaves its socket behind
	refused("the daemon was killed", 451)
	s.db.Stop(t)
	s.daemon.Start(t)
	refused("the daemon was started without PostgreSQL", 451)
	s.db.Start(t)
	works()

	settled(t, s.db, `CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
		RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
		LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS $$ SELECT '', '', true, '', '', '', '{}'::jsonb WHERE false $$`)
	refused("the function leaves rows out", 451)
	if !strings.Contains(s.daemon.Log(), "no row for one of the addresses") {
		t.Error("the daemon's log does not say why")
	}
	if n := len(s.postfix.Maildir(bob)); n != 0 {
		t.Errorf("%d messages came to bob in the meantime", n)
	}
}

// TestBrokenKey
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ PostgreSQL with a key that is none
func TestBrokenKey(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	raw := message(t, "plain.eml")
	settled(t, s.db, `INSERT INTO sealmilter.keys (address, key) VALUES ('bob@bed.test', 'my key is in the other folder');`)
	replies := s.send(t, raw, bob)
	if last := replies[len(replies)-1]; last.Code != 451 || strings.Contains(last.Text, "folder") {
		t.Errorf("the answers are %v", replies)
	}
	if !strings.Contains(s.daemon.Log(), "there is no key in it") {
		t.Error("the daemon's log does not say why")
	}
	settled(t, s.db, `UPDATE sealmilter.accounts SET enabled = false WHERE address = 'bob@bed.test';`)
	s.sent(t, raw, bob)
	untouched(t, s.delivered(t, bob, 1), raw)
}

// TestChoices
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ PostgreSQL, written by an administrator
func TestChoices(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	raw := message(t, "multipart.eml")
	for n, cipher := range []string{"aes128", "aes256"} {
		settled(t, s.db, `UPDATE sealmilter.accounts SET cipher = '`+cipher+`' WHERE address = 'ann@bed.test';`)
		s.sent(t, raw, ann)
		sealed := s.delivered(t, ann, n+1)
		s.opens(t, sealed, raw)
		said := string(s.gpg.Run(t, sealed, "--decrypt", "--verbose", "--status-fd", "1"))
		if want := map[string]string{"aes128": "DECRYPTION_INFO 2 7 ", "aes256": "DECRYPTION_INFO 2 9 "}[cipher]; !strings.Contains(said, want) {
			t.Errorf("%s: gpg's status has no %q", cipher, want)
		}
	}
	settled(t, s.db, `UPDATE sealmilter.accounts SET enabled = false WHERE address = 'ann@bed.test';`)
	s.sent(t, raw, ann)
	untouched(t, s.delivered(t, ann, 3), raw)
	settled(t, s.db, `UPDATE sealmilter.accounts SET enabled = true; DELETE FROM sealmilter.keys WHERE address = 'ann@bed.test';`)
	s.sent(t, raw, ann)
	untouched(t, s.delivered(t, ann, 4), raw)
}

// TestSendmailCommand
//
//	sendmail(1) ──▶ pickup(8) ──▶ cleanup(8) ──milter──▶ sealmilter
//
// A message that is due for a split waits in the maildrop folder: nothing can
// be refused there, and nothing goes out in the clear.
func TestSendmailCommand(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	raw := "From: root@bed.test\nTo: ann@bed.test\nSubject: report\n\nfrom the command line\n"
	s.postfix.Sendmail(t, []string{"-f", "root@bed.test", ann}, raw)
	if got := string(s.gpg.Decrypt(t, s.delivered(t, ann, 1))); !strings.HasSuffix(got, "\r\n\r\nfrom the command line\r\n") {
		t.Errorf("opened it is %q", got)
	}
	s.postfix.Sendmail(t, []string{"-f", "root@bed.test", bob}, raw)
	if got := string(s.delivered(t, bob, 1)); !strings.HasSuffix(got, "\n\nfrom the command line\n") {
		t.Errorf("delivered was %q", got)
	}
	s.postfix.Sendmail(t, []string{"-f", "root@bed.test", ann, bob}, raw)
	s.postfix.WaitLog(t, "milter-reject: END-OF-MESSAGE", 20*time.Second)
	if s.postfix.QueueEmpty() {
		t.Errorf("the message is gone")
	}
	s.delivered(t, ann, 1)
	s.delivered(t, bob, 1)
}

// TestNothingLeaks
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter, debug log, spool in a folder
//	                   ║
//	                   ╚════▶ maildir
func TestNothingLeaks(t *testing.T) {
	s := newSite(t, "unix:$DIR/sock")
	token := newToken()
	raw := []byte("From: sender@example.net\nSubject: hello\nContent-Type: text/plain\n\n" + token + "\n" +
		strings.Repeat(token+" fills the spool beyond what memory may hold\n", 5000))
	s.sent(t, raw, ann)
	sealed := s.delivered(t, ann, 1)
	s.opens(t, sealed, raw)
	holdsNone(t, "the maildir", sealed, token)
	holdsNone(t, "the daemon's log", []byte(s.daemon.Log()), token)
	holdsNone(t, "Postfix's log", []byte(s.postfix.Log()), token)
	holdsNoneBelow(t, filepath.Join(s.daemon.Dir, "spool"), token)
	holdsNoneBelow(t, s.postfix.Dir, token)
	if !strings.Contains(s.daemon.Log(), "msg=sealed") {
		t.Error("the log has no word of the message at all")
	}
}

func newToken() string {
	random := make([]byte, 24)
	rand.Read(random)
	return "token" + hex.EncodeToString(random)
}

// holdsNone looks for a token as it is and in base64, in which it looks
// different for each of three positions.
func holdsNone(t *testing.T, what string, text []byte, token string) {
	t.Helper()
	flat := bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n"), nil)
	for shift := range 4 {
		needle := token
		if shift > 0 {
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift-1) + token))
			needle = encoded[4 : len(encoded)-4]
		}
		if bytes.Contains(flat, []byte(needle)) {
			t.Errorf("%s holds the token (%q)", what, needle)
		}
	}
}

func holdsNoneBelow(t *testing.T, dir, token string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			holdsNone(t, path, text, token)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

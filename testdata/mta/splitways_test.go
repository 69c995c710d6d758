package mta_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// toAll is a message that names ann and bea.
func toAll(token string) []byte {
	return []byte("From: sender@example.net\r\nTo: ann@bed.test, bea@bed.test\r\nSubject: hello\r\nContent-Type: text/plain\r\n\r\n" + token + "\r\n")
}

var allBoxes = []string{ann, bea, carl, bob}

// splits sends a message to all four and checks what each has got.
func (s *splitSite) splits(t *testing.T) map[string][]byte {
	t.Helper()
	token := newToken()
	s.sent(t, toAll(token), allBoxes...)
	return s.arrivesSealed(t, token, toAll(token))
}

// arrivesSealed is arrives for a message to all four.
func (s *splitSite) arrivesSealed(t *testing.T, token string, raw []byte) map[string][]byte {
	t.Helper()
	got := s.arrives(t, allBoxes, allBoxes...)
	for _, address := range []string{ann, bea} {
		holdsNone(t, "the mailbox of "+address, got[address], token)
		if !strings.Contains(string(envelope.Original(s.gpg.Decrypt(t, got[address]))), token) {
			t.Errorf("%s has got another message", address)
		}
	}
	holdsNone(t, "the mailbox of "+carl, got[carl], token)
	if !strings.Contains(string(s.carl.OpenSSL(t, bed.DER(t, got[carl]))), token) {
		t.Error("carl has got another message")
	}
	untouched(t, got[bob], raw)
	return got
}

// TestSplitSeparate
//
//	SMTP client, to ann and bea, who are named, to carl and bob ──▶ Postfix ──milter──▶ sealmilter, separate = …
//	                                                                   ║                    ║
//	                                                                   ╚════▶ maildirs ◀════╝
func TestSplitSeparate(t *testing.T) {
	for separate, want := range map[string][]string{"undisclosed": {ann, bea}, "always": {ann}, "never": {ann, bea}} {
		s := newSplitSite(t, splitOptions{recipients: fmt.Sprintf("separate = %q", separate)})
		if readers := s.readers(t, s.splits(t)[ann]); !slices.Equal(readers, want) {
			t.Errorf("%s: ann's copy is sealed to %q", separate, readers)
		}
		if separate == "undisclosed" {
			continue
		}
		// Now they are named nowhere.
		s.sent(t, text("token"), ann, bea)
		if readers := s.readers(t, s.arrives(t, allBoxes, ann, bea)[ann]); !slices.Equal(readers, want) {
			t.Errorf("%s, named nowhere: ann's copy is sealed to %q", separate, readers)
		}
	}
}

// TestSplitRefuse
//
//	SMTP client, to bob and ann ──▶ Postfix ──milter──▶ sealmilter, split = "refuse", "defer"
func TestSplitRefuse(t *testing.T) {
	for split, code := range map[string]int{"refuse": 550, "defer": 452} {
		s := newSplitSite(t, splitOptions{recipients: fmt.Sprintf("split = %q", split)})
		replies := s.send(t, text("token"), bob, ann)
		if replies[2].Code != code || !bed.Sent(replies) {
			t.Errorf("%s: %v", split, replies)
		}
		s.arrives(t, allBoxes, bob)
	}
}

// TestSplitUnix
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ════▶ smtpd at a unix socket in Postfix's queue ════▶ maildirs
func TestSplitUnix(t *testing.T) {
	for _, folder := range []string{"public", "private"} {
		s := newSplitSite(t, splitOptions{})
		private := map[string]string{"public": "n", "private": "y"}[folder]
		service := regexp.MustCompile(`(?m)^127\.0\.0\.1:\d+ inet  n`).ReplaceAllString(s.shipped(t, "reinject.master.cf"), "copies-in unix "+private)
		s.postfix.Stop(t)
		s.postfix.AddMaster(t, service)
		s.postfix.Start(t)
		s.restart(t, fmt.Sprintf("address = \"unix:%s/queue/%s/copies-in\"", s.postfix.Dir, folder))
		s.splits(t)
		if !strings.Contains(s.postfix.Log(), "postfix/copies/smtpd") || !strings.Contains(s.postfix.Log(), "client=localhost[127.0.0.1], orig_queue_id=") {
			t.Error("the copies did not take the socket")
		}
	}
}

// restart restarts the daemon with another line under [reinject].
func (s *splitSite) restart(t *testing.T, line string) {
	t.Helper()
	file := filepath.Join(s.daemon.Dir, "sealmilter.toml")
	key, _, _ := strings.Cut(line, " ")
	head, tail, _ := strings.Cut(readFile(t, file), "[reinject]")
	tail = regexp.MustCompile(`(?m)^`+key+` = .*$`).ReplaceAllString(tail, "")
	if err := os.WriteFile(file, []byte(head+"[reinject]\n"+line+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon.Stop(t)
	s.daemon.Start(t)
}

// TestSplitLMTP
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ════LMTP════▶ Dovecot
//	                   └─▶ queue ──LMTP──▶ Dovecot
//
// Copies go around Postfix then: nothing expands their aliases, and no notice is
// sent. It works where Dovecot knows every address.
func TestSplitLMTP(t *testing.T) {
	s := newSplitSite(t, splitOptions{dovecot: true, reinject: `protocol = "lmtp"`})
	s.restart(t, fmt.Sprintf("address = \"127.0.0.1:%d\"", s.dovecot.LMTP))
	s.splits(t)
	if strings.Contains(s.postfix.Log(), "postfix/copies") {
		t.Error("copies went to Postfix")
	}

	// One who has no mailbox keeps the whole message with its sender.
	s.enrol(t, "gone@bed.test", string(s.gpg.Generate(t, "Gone <gone@bed.test>", "default")))
	s.postfix.Stop(t)
	s.postfix.SetMain(t, "smtpd_reject_unlisted_recipient = no")
	s.postfix.Start(t)
	if replies := s.send(t, text("token"), bob, "gone@bed.test"); replies[len(replies)-1].Code != 451 {
		t.Error(replies)
	}
	s.arrives(t, allBoxes)
}

// TestSplitAway
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ nothing, where smtpd for copies should be
//
// and once it is there each gets it once.
func TestSplitAway(t *testing.T) {
	s := newSplitSite(t, splitOptions{})
	s.restart(t, fmt.Sprintf("address = \"127.0.0.1:%d\"", bed.FreePort(t)))
	token := newToken()
	for range 2 {
		if replies := s.send(t, toAll(token), allBoxes...); replies[len(replies)-1].Code != 451 {
			t.Fatal(replies)
		}
		s.arrives(t, allBoxes)
	}
	s.restart(t, fmt.Sprintf("address = \"127.0.0.1:%d\"", s.port))
	s.sent(t, toAll(token), allBoxes...)
	s.arrivesSealed(t, token, toAll(token))
	s.splits(t)
}

// TestSplitLoop
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ════▶ smtpd for copies, with a milter by mistake ──milter──▶ sealmilter
//
// A copy that comes in sealed to its readers passes, and nothing goes round.
// Where it would be sealed once more, its guard is known again: the message
// stays with its sender, and nobody gets anything.
func TestSplitLoop(t *testing.T) {
	for _, always := range []bool{false, true} {
		s := newSplitSite(t, splitOptions{recipients: fmt.Sprintf("[policy]\nalways = %v", always)})
		s.postfix.Stop(t)
		milters := fmt.Sprintf("-o smtpd_milters=inet:127.0.0.1:%d\n", s.milter)
		s.postfix.AddMaster(t, strings.NewReplacer("-o smtpd_milters=\n", milters, "no_milters,", "").Replace(s.shipped(t, "reinject.master.cf")))
		s.postfix.Start(t)
		if !always {
			s.splits(t)
			continue
		}
		replies := s.send(t, toAll("token"), allBoxes...)
		if replies[len(replies)-1].Code != 451 || !strings.Contains(s.daemon.Log(), "a loop: ") {
			t.Errorf("%v\n%s", replies, s.daemon.Log())
		}
		s.arrives(t, allBoxes)
	}
}

// TestSplitSendmailCommand
//
//	sendmail(1) ──▶ pickup(8) ─▶ queue ──smtp(8)──▶ smtpd ──milter──▶ sealmilter ════▶ smtpd for copies ════▶ maildirs
//	                                                  └─▶ queue ──▶ maildir of bob
func TestSplitSendmailCommand(t *testing.T) {
	s := newSplitSite(t, splitOptions{})
	token := newToken()
	raw := strings.ReplaceAll(string(toAll(token)), "\r\n", "\n")
	s.postfix.Sendmail(t, append([]string{"-f", "sender@example.net"}, allBoxes...), raw)
	got := s.arrives(t, allBoxes, allBoxes...)
	for _, address := range []string{ann, bea, carl} {
		holdsNone(t, "the mailbox of "+address, got[address], token)
	}
	if !strings.HasSuffix(string(got[bob]), "\n\n"+token+"\n") || strings.Contains(string(got[bob]), "X-Sealmilter") {
		t.Errorf("bob has got\n%s", got[bob])
	}
}

// TestSplitMailing
//
//	SMTP client, to 60 in one transaction, all named nowhere ──▶ Postfix ──milter──▶ sealmilter
//	                                                                ║                   ║
//	                                                                ╚════▶ maildirs ◀═══╝
func TestSplitMailing(t *testing.T) {
	s := newSplitSite(t, splitOptions{main: []string{"virtual_mailbox_maps = inline:{ { @bed.test = all/ } }", "virtual_alias_maps ="}})
	var to []string
	for n := range 60 {
		to = append(to, fmt.Sprintf("reader%d@bed.test", n))
		if n%5 != 0 { // every fifth has no key
			s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.aliases (address, target) VALUES ('%s', '%s');", to[n], ann))
		}
	}
	token := newToken()
	began := time.Now()
	s.sent(t, text(token), to...)
	t.Logf("60 recipients took %v", time.Since(began).Round(time.Millisecond))
	waitFor(t, "the queue to be empty", s.postfix.QueueEmpty)
	files, _ := filepath.Glob(filepath.Join(s.postfix.Dir, "mail/all/new/*"))
	got := make(map[string]bool)
	for _, file := range files {
		message := readFile(t, file)
		address := regexp.MustCompile(`(?m)^Delivered-To: (.*)$`).FindStringSubmatch(message)[1]
		got[address] = strings.Contains(message, token)
	}
	if len(files) != 60 || len(got) != 60 {
		t.Errorf("%d messages for %d readers", len(files), len(got))
	}
	for n, address := range to {
		if got[address] != (n%5 == 0) {
			t.Errorf("%s: in the clear is %v", address, got[address])
		}
	}
}

package mta_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-milter"

	"sealmilter/testdata/bed"
)

// TestSendmailDeletes
//
//	SMTP client, to ann and bob ──▶ Sendmail ──milter──▶ a filter that takes her out, in the bytes of RCPT
//	                                 └────▶ Dovecot by our mailer, or as the local one
//
// Sendmail says in its log alone whether it found whom it was to delete. What is
// let stay in the clear rests on it for every way to write an address, and in
// every mode of delivery: with filters, aliases are expanded behind them.
func TestSendmailDeletes(t *testing.T) {
	d := startDeleter(t, "<"+bob+">")
	for _, mode := range []string{"background", "interactive", "queueonly", "deferred"} {
		for _, local := range []bool{false, true} {
			if !local && mode != "background" {
				continue // aliases are the local mailer's
			}
			opts := bed.SendmailOptions{
				Virtual: "info@bed.test ann@bed.test\nvirtual@bed.test team\n", Aliases: "team: ann, bob\nsolo: ann\n",
				Filters: []string{d.line(), "define(`confMILTER_LOG_LEVEL', `9')dnl", "define(`confDELIVERY_MODE', `" + mode + "')dnl"},
			}
			user, her := bob, append([]string{"ann+list@bed.test", "info@bed.test", "virtual@bed.test"}, spellings...)
			var store *bed.Dovecot
			if local {
				user, her = "bob", append(her, "ann", "ann@localhost", "team@bed.test", "solo@bed.test", "solo+list@bed.test")
				store = bed.StartDovecot(t, "bob", "ann")
				opts.Local = fmt.Sprintf("127.0.0.1:%d", store.LMTP)
			} else {
				store = bed.StartDovecot(t, bob, ann)
				opts.Table = "bed.test dovecot:[127.0.0.1]\n"
				opts.Mailers = []string{shipped(t, "dovecot.m4", "FILE /run/dovecot/lmtp", "FILE "+store.Dir+"/run/lmtp")}
			}
			s := &splitSendmail{store: store}
			s.sendmail = bed.StartSendmail(t, opts)
			for _, spelling := range her {
				s.sent(t, []byte("Subject: s\n\nbody\n"), spelling, bob)
				if !strings.Contains(s.sendmail.Log(), "delete: rcpt <"+strings.ReplaceAll(spelling, `\`, `\\`)+">, naddrs=1") {
					t.Errorf("%s: %s was not deleted", mode, spelling)
				}
			}
			s.settles(t, mode, map[string]int{user: len(her), strings.Replace(user, "bob", "ann", 1): 0})
		}
	}
}

// TestSendmailSplitSpellings
//
//	SMTP client, to ann and bob ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                                 ║      ▲               ║
//	                                 ║      ╚═══════════════╝
//	                                 ╚════▶ Dovecot by our mailer, or as the local one
//
// Both come through in one transaction, or the second is asked for apart. In the
// clear she never has it.
func TestSendmailSplitSpellings(t *testing.T) {
	raw := []byte("From: a@example.net\nTo: ann@bed.test\nSubject: s\n\nbody\n")
	for _, local := range []bool{false, true} {
		opts := splitSendmailOptions{users: []string{ann, bob}, virtual: "info@bed.test ann@bed.test\n", local: local}
		if local {
			opts.users, opts.virtual = []string{"ann", "bob"}, "info@bed.test ann\n"
		}
		s := newSplitSendmail(t, opts)
		together, hers, his := 0, 0, 0
		for _, spelling := range append([]string{"ann+list@bed.test", "info@bed.test"}, spellings...) {
			if strings.HasPrefix(spelling, `\`) && !local {
				continue // Dovecot does not take a backslash
			}
			replies := s.send(t, raw, bob, spelling)
			switch answer := replies[2]; {
			case !bed.Sent(replies):
				t.Errorf("%s: the answers are %v", spelling, replies)
			case answer.OK():
				together++
			case answer.Code == 452:
				s.sent(t, raw, spelling)
			default:
				t.Errorf("%s: the answers are %v", spelling, replies)
			}
			hers, his = hers+1, his+1
			s.settles(t, spelling, map[string]int{opts.users[0]: hers, opts.users[1]: his})
			if inbox := s.inbox(t, opts.users[0]); len(inbox) == hers {
				s.opens(t, spelling, inbox[hers-1])
			}
			if inbox := s.inbox(t, opts.users[1]); len(inbox) == his && !strings.HasSuffix(string(inbox[his-1]), "\n\nbody\n") {
				t.Errorf("%s: bob has\n%s", spelling, inbox[his-1])
			}
		}
		if t.Logf("%d of %d went in one transaction", together, hers); together < 7 {
			t.Errorf("%d of %d spellings could be in a transaction with bob", together, hers)
		}
	}
}

// TestSendmailSplitSame
//
//	SMTP client, to mailboxes under several names ──▶ Sendmail ──milter──▶ recorder, sealmilter
//	                                                   ║      ▲               ║
//	                                                   ║      ╚═══════════════╝
//	                                                   ╚════▶ Dovecot as the local mailer
func TestSendmailSplitSame(t *testing.T) {
	s := newSplitSendmail(t, splitSendmailOptions{
		users: []string{"ann", "bea", "cyd", "bob"}, local: true,
		// A list of the administrator's own, and the macro v in it, by which Postfix
		// is known elsewhere.
		lines:   []string{"define(`confMILTER_MACROS_CONNECT', ``j, _, v, {daemon_name}'')dnl"},
		virtual: "info@bed.test ann\nalso@bed.test bob\n", aliases: "desk: bea\nteam: ann, bob\n",
	})
	s.db.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES ('desk@bed.test', 'bea@bed.test');`)
	want := map[string]int{"ann": 0, "bea": 0, "cyd": 0, "bob": 0}
	for _, c := range []struct {
		what string
		to   []string
		got  map[string]int
	}{
		{"one mailbox in three spellings", []string{ann, bob, "ANN@bed.test", "ann%bed.test"}, map[string]int{"ann": 1, "bob": 1}},
		{"by the virtusertable too", []string{"info@bed.test", "also@bed.test", bob, ann}, map[string]int{"ann": 1, "bob": 1}},
		{"an address with an extension and without", []string{"ann+list@bed.test", bob, ann}, map[string]int{"ann": 2, "bob": 1}},
		{"all of them sealed", []string{ann, cyd, "CYD@bed.test", "info@bed.test"}, map[string]int{"ann": 1, "cyd": 1}},
		// Two messages where there is one without the filter: what desk leads to
		// is found out when its copy has become a message of its own.
		{"an alias and its target", []string{"desk@bed.test", bea, bob}, map[string]int{"bea": 2, "bob": 1}},
		// Nobody has told the store of team: its copy stays in the clear, as it does
		// without Ann beside it, who has hers sealed.
		{"an alias that the store does not know, and its target", []string{"team@bed.test", ann}, map[string]int{"ann": 2, "bob": 1}},
	} {
		s.sent(t, []byte("From: a@example.net\nTo: ann@bed.test\nSubject: s\n\nbody\n"), c.to...)
		for user, n := range c.got {
			want[user] += n
		}
		s.settles(t, c.what, want)
		for user := range c.got {
			messages := s.inbox(t, user)
			if last := messages[len(messages)-1]; user != "bob" && !strings.HasPrefix(c.to[0], "team") {
				s.isSealed(t, c.what, last)
			}
		}
	}
}

// TestSendmailSplitCase
//
//	SMTP client, to ann and ANN ──▶ Sendmail ──milter──▶ recorder, sealmilter, for which they are two
//	                                 ║      ▲               ║
//	                                 ║      ╚═══════════════╝
//	                                 ╚════▶ Dovecot, for which they are one
func TestSendmailSplitCase(t *testing.T) {
	s := newSplitSendmail(t, splitSendmailOptions{users: []string{ann}, names: "case_sensitive = true"})
	s.sent(t, []byte("From: a@example.net\nTo: ann@bed.test\nSubject: s\n\nbody\n"), "ANN@bed.test", ann)
	s.settles(t, "two mailboxes", map[string]int{ann: 2})
	sealed := 0
	for _, message := range s.inbox(t, ann) {
		if field(message, "X-Sealmilter") == "sealed" {
			sealed++
			s.isSealed(t, "ann's", message)
		}
	}
	if sealed != 1 {
		t.Errorf("%d of two messages are sealed, want the one to ann", sealed)
	}
}

// TestSendmailSplitBlind
//
//	SMTP client ──▶ Sendmail, without {sealmilter_deletes} ──milter──▶ recorder, sealmilter
//	                 ║      ▲                                           ║
//	                 ║      ╚═══════════════════════════════════════════╝
//	                 ╚════▶ Dovecot
//
// Nobody has said that deleting works: in the clear and sealed do not go
// together, while two that are sealed do.
func TestSendmailSplitBlind(t *testing.T) {
	s := newSplitSendmail(t, splitSendmailOptions{users: []string{ann, cyd, bob}, blind: true})
	raw := []byte("From: a@example.net\nTo: ann@bed.test, cyd@bed.test\nSubject: s\n\nbody\n")
	want := map[string]int{ann: 0, cyd: 0, bob: 0}
	for _, to := range [][]string{{ann, bob}, {bob, ann}, {bob, cyd}, {ann, cyd}, {cyd, ann}} {
		replies := s.send(t, raw, to...)
		if !bed.Sent(replies) || replies[2].Text != "452 4.5.3 Please send to this recipient in a transaction of its own" {
			t.Errorf("to %q: the answers are %v", to, replies)
		}
		want[to[0]]++
	}
	s.settles(t, "without the macro", want)
	for _, user := range []string{ann, cyd} {
		for _, message := range s.inbox(t, user) {
			if field(message, "X-Sealmilter") != "sealed" {
				t.Errorf("%s has\n%s", user, message)
			}
		}
	}
}

// TestSendmailSplitLarge
//
//	SMTP client ──▶ Sendmail, with MaxMessageSize ──milter──▶ recorder, sealmilter
//	                        ▲                                   ║
//	                        ╚═══════════════════════════════════╝
//
// A copy comes in like any message, and is larger than the original was.
func TestSendmailSplitLarge(t *testing.T) {
	raw := []byte("From: a@example.net\nTo: ann@bed.test\nSubject: s\n\n" + strings.Repeat("0123456789abcdef\n", 1000))
	opts := splitSendmailOptions{users: []string{ann, bob}, lines: []string{"define(`confMAX_MESSAGE_SIZE', `20000')dnl"}}
	for limit, code := range map[string]int{"": 451, "size_limit = 20000": 552} {
		opts.milter = limit
		s := newSplitSendmail(t, opts)
		if replies := s.send(t, raw, ann, bob); replies[len(replies)-1].Code != code {
			t.Errorf("%q: the answers are %v", limit, replies)
		}
		s.settles(t, "too large", map[string]int{ann: 0, bob: 0})
	}
}

// deleter is a filter that takes all recipients out of each message but one.
type deleter struct {
	addr *net.TCPAddr
	keep string // in brackets
}

func startDeleter(t *testing.T, keep string) *deleter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &deleter{addr: ln.Addr().(*net.TCPAddr), keep: keep}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if err := d.serve(conn); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the filter that deletes: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close() })
	return d
}

func (d *deleter) line() string {
	return fmt.Sprintf("INPUT_MAIL_FILTER(`deleter', `S=inet:%d@127.0.0.1, F=T')dnl", d.addr.Port)
}

// serve follows one connection.
func (d *deleter) serve(conn net.Conn) error {
	var recipients []string
	for {
		frame, err := readFrame(conn)
		if err != nil {
			return err
		}
		replies := [][]byte{{byte(milter.ActContinue)}}
		switch milter.Code(frame[0]) {
		case milter.CodeOptNeg:
			reply := binary.BigEndian.AppendUint32([]byte{frame[0], 0, 0, 0, 6}, uint32(milter.OptRemoveRcpt))
			replies = [][]byte{append(reply, 0, 0, 0, 0)}
		case milter.CodeMacro, milter.CodeAbort, milter.CodeQuit:
			continue
		case milter.CodeMail:
			recipients = nil
		case milter.CodeRcpt:
			recipient, _, _ := strings.Cut(string(frame[1:]), "\x00")
			recipients = append(recipients, recipient)
		case milter.CodeEOB:
			for _, r := range recipients {
				if r != d.keep {
					replies = append([][]byte{append([]byte{byte(milter.ActDelRcpt)}, r+"\x00"...)}, replies...)
				}
			}
		}
		for _, reply := range replies {
			if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(reply))), reply...)); err != nil {
				return err
			}
		}
	}
}

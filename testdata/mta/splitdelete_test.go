package mta_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// splitMaps are maps that lead to Ann, and that the store knows too.
const splitMaps = `virtual_alias_maps = inline:{ { info@bed.test = ann@bed.test } { jörg@bed.test = ann@bed.test } }
recipient_canonical_maps = inline:{ { old@bed.test = ann@bed.test } }
masquerade_domains = bed.test
masquerade_classes = envelope_sender, envelope_recipient
myorigin = bed.test
swap_bangpath = yes
recipient_delimiter = +
smtputf8_enable = yes
`

func newDeleting(t *testing.T, opts splitOptions) *splitSite {
	t.Helper()
	opts.main = append([]string{splitMaps}, opts.main...)
	s := newSplitSite(t, opts)
	s.db.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES ('info@bed.test', 'ann@bed.test'), ('jörg@bed.test', 'ann@bed.test'), ('old@bed.test', 'ann@bed.test');`)
	return s
}

// beside sends a message to bob and to others, who have a key, in one
// transaction, and then to those who were asked for apart. It checks that bob
// gets it once and in the clear, and the others each once and sealed. It
// returns the codes of the answers, up to "apart:" those of the first
// transaction.
func (s *splitSite) beside(t *testing.T, to []string, mailboxes ...string) string {
	t.Helper()
	token := newToken()
	replies := s.transact(t, "127.0.0.1", "<sender@example.net> SMTPUTF8", append([]string{"<" + bob + ">"}, to...), text(token))
	var said []string
	var apart []string
	for _, reply := range replies[2:] {
		said = append(said, fmt.Sprint(reply.Code))
		if rcpt, is := strings.CutPrefix(reply.Command, "RCPT "); is && reply.Code == 452 {
			apart = append(apart, rcpt)
		}
	}
	if !bed.Sent(replies) {
		s.arrives(t, []string{ann, bea, carl, bob})
		return strings.Join(said, " ")
	}
	for _, rcpt := range apart {
		if replies := s.transact(t, "127.0.0.1", "<sender@example.net>", []string{rcpt}, text(token)); !bed.Sent(replies) {
			t.Fatalf("%s apart: %v", rcpt, replies)
		}
	}
	for address, message := range s.arrives(t, []string{ann, bea, carl, bob}, append(mailboxes, bob)...) {
		if address == bob {
			untouched(t, message, text(token))
		} else {
			holdsNone(t, "the mailbox of "+address, message, token)
		}
	}
	return strings.Join(said, " ")
}

// TestSplitSpellings
//
//	SMTP client, to bob and to ann in every spelling ──▶ smtpd ──milter──▶ sealmilter
//	                                                       │                  ║
//	                                                       │                  ╚════▶ smtpd for copies ════▶ maildir of ann
//	                                                       └─▶ cleanup(8): she is deleted ──▶ maildir of bob
func TestSplitSpellings(t *testing.T) {
	s := newDeleting(t, splitOptions{})
	const split, apart = "250 354 250", "452 354 250"
	for _, test := range []struct{ rcpt, want string }{
		{"<ann@bed.test>", split}, {"<Ann@Bed.Test>", split}, {"ann@bed.test", split}, {"<ann>", split}, {"<ann%bed.test>", split},
		{"<bed.test!ann>", split}, {"<ann+list@bed.test>", split}, {"<info@bed.test>", split}, {"<INFO@bed.test>", split},
		{"<info+list@bed.test>", split}, {"<old@bed.test>", split}, {"<Old@bed.test>", split}, {"<jörg@bed.test>", split},
		{"<ann@bed.test> NOTIFY=NEVER ORCPT=rfc822;bob@bed.test", split},
		{`<"ann"@bed.test>`, apart}, {"<@x.test,@y.test:ann@bed.test>", apart}, {"<ann(bob)@bed.test>", apart}, {"< ann@bed.test >", apart},
		{"<ann@bed.test.>", apart}, {`<a\nn@bed.test>`, apart}, {`<"ann@bed.test">`, apart},
		// virtual(8) finds ann in it, since bed.test is $myorigin.
		{"<ann@bed.test@bed.test>", apart}, {`<"ann@bed.test"@bed.test>`, apart},
	} {
		if got := s.beside(t, []string{test.rcpt}, ann); got != test.want {
			t.Errorf("%s: %s, want %s", test.rcpt, got, test.want)
		}
	}
	for _, test := range []struct{ to, boxes string }{
		{"<ann@bed.test> <ann@bed.test> <ANN@bed.test>", ann},
		{"<ann@bed.test> <carl@bed.test> <bea@bed.test>", ann + " " + carl + " " + bea},
		{"<carl@bed.test> <@x.test:carl@bed.test>", carl + " " + carl}, // asked for apart, it is another transaction
	} {
		s.beside(t, strings.Fields(test.to), strings.Fields(test.boxes)...)
	}

	// An alias beside its own target is two messages, as without a filter.
	s.beside(t, []string{"<info@bed.test>", "<ann@bed.test>"}, ann, ann)
}

// TestSplitUndeletable
//
//	SMTP client, to bob and ann ──▶ smtpd ──milter──▶ sealmilter: 452, or 451 at the end
//	                                                     └─▶ cleanup(8), which deletes rewritten addresses only
//
// Where smtpd says so she is asked for apart; where only cleanup knows it, the
// message stays with its sender.
func TestSplitUndeletable(t *testing.T) {
	roomy := " -o message_size_limit=200000000"
	for _, test := range []struct {
		name         string
		main, master []string
		want         string
	}{
		{"in main.cf", []string{"enable_original_recipient = no"}, nil, "452 354 250"},
		{"without the macro", []string{"milter_macro_defaults ="}, nil, "452 354 250"},
		{"in cleanup", nil, []string{"cleanup unix n - n - 0 cleanup -o enable_original_recipient=no" + roomy}, "250 354 451"},
		{"without the macro of cleanup", []string{"milter_end_of_data_macros = i"}, nil, "250 354 451"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newDeleting(t, splitOptions{main: test.main, master: test.master})
			for _, rcpt := range []string{"<ann@bed.test>", "<info@bed.test>", "<old@bed.test>"} {
				if got := s.beside(t, []string{rcpt}, ann); got != test.want {
					t.Errorf("%s: %s, want %s", rcpt, got, test.want)
				}
			}
		})
	}
}

// TestSplitCopies
//
//	SMTP client, to bob, ann and bea ──▶ smtpd ──milter──▶ sealmilter ════▶ smtpd for copies, which makes no Bcc copies
//	                                       └─▶ cleanup(8): always_bcc, recipient_bcc_maps ──▶ maildirs of carl and of bob
//
// Postfix's own Bcc copies are made once, of what stays in the first
// transaction, and as contrib/postfix says not sealed to their own reader.
func TestSplitCopies(t *testing.T) {
	for _, line := range []string{"always_bcc = " + carl, "recipient_bcc_maps = inline:{ { ann@bed.test = carl@bed.test } }", "sender_bcc_maps = inline:{ { sender@example.net = carl@bed.test } }"} {
		s := newSplitSite(t, splitOptions{main: []string{line}})
		replies := s.transact(t, "127.0.0.1", "<sender@example.net>", []string{"<" + bob + ">", "<" + ann + ">", "<" + bea + ">"}, text("token"))
		if !bed.Sent(replies) {
			t.Fatal(replies)
		}
		s.arrives(t, []string{ann, bea, bob, carl}, ann, bea, bob, carl)
	}
}

// TestSplitRewritten
//
//	SMTP client, to bob and ann ──▶ smtpd ──milter──▶ a filter that makes ann+new of ann, and sealmilter
//	                                  └─▶ cleanup(8) ──▶ maildir of ann, in the clear
//
// What a filter in front does to recipients is not shown to those behind it:
// this is why the macro is for sites without such a filter, as reinject.main.cf
// and the man page say. If this test fails, there is a better way.
func TestSplitRewritten(t *testing.T) {
	port := startRewriter(t, ann, "ann+new@bed.test")
	s := newDeleting(t, splitOptions{})
	s.postfix.Stop(t)
	// The rewriter stands in front.
	s.postfix.SetMain(t, fmt.Sprintf("smtpd_milters = inet:127.0.0.1:%d, inet:127.0.0.1:%d", port, s.milter))
	s.postfix.Start(t)
	token := newToken()
	if replies := s.transact(t, "127.0.0.1", "<sender@example.net>", []string{"<" + bob + ">", "<" + ann + ">"}, text(token)); !bed.Sent(replies) {
		t.Fatal(replies)
	}
	leaked := 0
	for range s.arrives(t, []string{bob}, bob) {
		for _, file := range s.files(ann) {
			leaked += strings.Count(readFile(t, file), token)
		}
	}
	if leaked != 1 {
		t.Errorf("ann has got it %d times in the clear", leaked)
	}

	// Without the macro it does not come to that.
	s.postfix.Stop(t)
	s.postfix.SetMain(t, "milter_macro_defaults =")
	s.postfix.Start(t)
	if replies := s.transact(t, "127.0.0.1", "<sender@example.net>", []string{"<" + bob + ">", "<" + ann + ">"}, text(token)); replies[2].Code != 452 {
		t.Error(replies)
	}
}

// startRewriter is a filter that takes one recipient out of every message and
// puts another in.
func startRewriter(t *testing.T, out, in string) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go rewriteRecipients(conn, out, in)
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func rewriteRecipients(conn net.Conn, out, in string) {
	defer conn.Close()
	say := func(reply string) {
		conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(reply))), reply...))
	}
	for {
		frame, err := readFrame(conn)
		if err != nil {
			return
		}
		switch frame[0] {
		case 'O':
			say("O\x00\x00\x00\x06\x00\x00\x00\x0c\x00\x00\x00\x00") // adds and deletes recipients
		case 'D', 'A', 'Q':
		case 'E':
			say("-<" + out + ">\x00")
			say("+<" + in + ">\x00")
			say("c")
		default:
			say("c")
		}
	}
}

// TestSplitLocalSpellings
//
//	sendmail(1), to bob and to ann in every spelling ──▶ pickup(8) ─▶ queue ──smtp(8)──▶ smtpd ──milter──▶ sealmilter
//	                                                                                       │                  ║
//	                                                                                       │                  ╚════▶ smtpd for copies ════▶ maildir of ann
//	                                                                                       └─▶ maildir of bob
func TestSplitLocalSpellings(t *testing.T) {
	s := newDeleting(t, splitOptions{})
	for _, rcpt := range localSpellings {
		token := newToken()
		s.postfix.Sendmail(t, []string{"-f", "sender@example.net", bob, rcpt}, strings.ReplaceAll(string(text(token)), "\r\n", "\n"))
		got := s.arrives(t, []string{ann, bea, carl, bob}, ann, bob)
		holdsNone(t, rcpt+": the mailbox of ann", got[ann], token)
		if !strings.HasSuffix(string(got[bob]), "\n\n"+token+"\n") {
			t.Errorf("%s: bob has got %q", rcpt, got[bob])
		}
	}
	if log := s.postfix.Log(); strings.Contains(log, "status=deferred") {
		t.Errorf("something was deferred:\n%s", log)
	}
}

var localSpellings = []string{"ann@bed.test", "Ann@Bed.Test", "ann", "old@bed.test", "Old@bed.test", "info@bed.test", "ann%bed.test", "bed.test!ann",
	"ann+list@bed.test", `"ann"@bed.test`, "@x.test:ann@bed.test", "ann(bob)@bed.test", "ann@bed.test.", "Ann <ann@bed.test>"}

// TestSplitLocalFilter
//
//	sendmail(1), to bob and to ann in every spelling ──▶ pickup(8) ─▶ cleanup(8) ──milter──▶ sealmilter
//
// Here cleanup shows an address as it has rewritten it, and deletes it by what
// stood there before: the message waits, and nobody gets anything.
func TestSplitLocalFilter(t *testing.T) {
	s := newDeleting(t, splitOptions{master: []string{"pickup unix n - n 60 1 pickup"}})
	for n, rcpt := range localSpellings {
		s.postfix.Sendmail(t, []string{"-f", "sender@example.net", bob, rcpt}, "Subject: hello\n\nhello\n")
		waitFor(t, rcpt+" to be deferred", func() bool { return strings.Count(s.daemon.Log(), "in one local submission") > n })
	}
	for _, address := range []string{ann, bob} {
		if n := len(s.files(address)); n != 0 {
			t.Errorf("%s has got %d messages", address, n)
		}
	}
}

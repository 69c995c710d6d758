package client

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-milter"
)

func TestVerdicts(t *testing.T) {
	full := milter.NewResponseStr('y', "451-4.7.1 100%% busy\r\n451 4.7.1 later")
	for _, st := range []Stage{Mail, Header, EndOfHeader, Body, EndOfMessage} {
		for _, test := range []struct {
			answer milter.Response
			code   int
			text   string
		}{
			{milter.RespTempFail, 451, "4.7.1 Service unavailable - try again later"},
			{milter.RespReject, 550, "5.7.1 Command rejected"},
			{full, 451, "4.7.1 100% busy\n4.7.1 later"},
			{milter.RespDiscard, 250, ""},
		} {
			f := &filter{answer: at(st, func(*milter.Modifier, net.Conn) milter.Response { return test.answer })}
			s := dial(t, f, Options{})
			for range 2 { // the next message on the connection fares the same
				r := send(t, s, envelope, letter)
				if r.Stage != st || r.Final.Code != test.code || r.Final.Text != test.text || r.Queued != nil {
					t.Errorf("%v at %s: %+v", test.answer, st, r)
				}
			}
		}
	}
}

func TestEarlyAccept(t *testing.T) {
	for _, st := range []Stage{Mail, Rcpt, Header, EndOfHeader, Body} {
		f := &filter{answer: at(st, func(*milter.Modifier, net.Conn) milter.Response { return milter.RespAccept })}
		r := send(t, dial(t, f, Options{ChunkSize: 5}), envelope, letter)
		if r.Stage != st || r.Queued == nil || len(r.Queued.Recipients) != 2 || string(r.Queued.Body) != "one\ntwo\n" {
			t.Errorf("accepted at %s: %+v", st, r)
		}
		events := strings.Split(strings.TrimSuffix(f.saw(), "\nabort"), "\n")
		if last := events[len(events)-1]; !strings.HasPrefix(last, st.String()) {
			t.Errorf("accepted at %s, and %q came", st, last)
		}
		if n := strings.Count(f.saw(), st.String()+" "); st != EndOfHeader && n != 1 {
			t.Errorf("accepted at %s, and %d more of them came", st, n-1)
		}
	}
}

func TestRecipientsRefused(t *testing.T) {
	refuse := func(which ...int) func(Stage, int, *milter.Modifier, net.Conn) milter.Response {
		return func(st Stage, n int, _ *milter.Modifier, _ net.Conn) milter.Response {
			for _, i := range which {
				if st == Rcpt && i == n {
					return milter.NewResponseStr('y', "452 4.5.3 one at a time")
				}
			}
			return nil
		}
	}
	f := &filter{answer: refuse(0)}
	r := send(t, dial(t, f, Options{}), envelope, letter)
	if !r.Recipients[0].Refused() || r.Recipients[1].Refused() || r.Queued == nil || fmt.Sprint(r.Queued.Recipients) != "[q@b.test]" {
		t.Errorf("first refused: %+v", r)
	}
	if id, there := f.macros[Rcpt]["i"]; there {
		t.Errorf("queue id %q before a recipient was accepted", id)
	}
	f = &filter{answer: refuse(0, 1)}
	r = send(t, dial(t, f, Options{}), envelope, letter)
	if r.Stage != Rcpt || r.Final.Code != 452 || r.Queued != nil || strings.Contains(f.saw(), "header") {
		t.Errorf("both refused: %+v, filter saw %q", r, f.saw())
	}
}

func TestAbort(t *testing.T) {
	for _, test := range []struct {
		at   Point
		last string
		n    int // events of the message that the filter sees
	}{
		{Point{Mail, 0}, "mail s@a.test", 1},
		{Point{Rcpt, 1}, "rcpt r@b.test", 2},
		{Point{Rcpt, 0}, "rcpt q@b.test", 3},
		{Point{Data, 0}, "rcpt q@b.test", 3}, // go-milter keeps DATA to itself
		{Point{Header, 2}, "header Subject", 5},
		{Point{Header, 0}, "header Empty", 9},
		{Point{EndOfHeader, 0}, "end of header", 10},
		{Point{Body, 1}, "body 6", 11},
		{Point{Body, 0}, "body 4", 12},
	} {
		for _, opts := range []Options{{ChunkSize: 6}, {ChunkSize: 6, Sendmail: true}} {
			f := &filter{}
			s := dial(t, f, opts)
			r, err := s.Abort(envelope, letter, test.at)
			if err != nil || !r.Aborted || r.Queued != nil {
				t.Errorf("aborted at %+v: %+v, %v", test.at, r, err)
			}
			if r := send(t, s, envelope, letter); r.Queued == nil {
				t.Errorf("the message after: %+v", r)
			}
			events := strings.Split(f.saw(), "\n")[2:]
			if events[test.n-1] != test.last || events[test.n] != "abort" || events[test.n+1] != "mail s@a.test" {
				t.Errorf("aborted at %+v, filter saw %q", test.at, events)
			}
		}
	}
}

func TestSendmailDoesNotAbort(t *testing.T) {
	f := &filter{}
	s := dial(t, f, Options{Sendmail: true})
	send(t, s, envelope, letter)
	send(t, s, envelope, letter)
	if strings.Contains(f.saw(), "abort") {
		t.Errorf("events %q", f.saw())
	}
}

// TestProtocolBroken holds that everything a filter may not do is an error.
func TestProtocolBroken(t *testing.T) {
	end := func(do func(m *milter.Modifier, conn net.Conn)) func(Stage, int, *milter.Modifier, net.Conn) milter.Response {
		return at(EndOfMessage, func(m *milter.Modifier, conn net.Conn) milter.Response { do(m, conn); return nil })
	}
	raw := func(st Stage, b []byte) func(Stage, int, *milter.Modifier, net.Conn) milter.Response {
		return at(st, func(_ *milter.Modifier, conn net.Conn) milter.Response { conn.Write(b); return nil })
	}
	header := func(index, name, value string) []byte { return frame('m', index+name+"\x00"+value+"\x00") }
	for _, test := range []struct {
		want     string
		actions  milter.OptAction
		protocol milter.OptProtocol
		answer   func(Stage, int, *milter.Modifier, net.Conn) milter.Response
	}{
		{"'b': not negotiated", milter.OptAddHeader, 0, end(func(m *milter.Modifier, _ net.Conn) { m.ReplaceBody([]byte("x")) })},
		{"'h': not negotiated", milter.OptChangeHeader, 0, end(func(m *milter.Modifier, _ net.Conn) { m.AddHeader("A", "b") })},
		{"'m': not negotiated", milter.OptAddHeader, 0, end(func(m *milter.Modifier, _ net.Conn) { m.ChangeHeader(1, "A", "b") })},
		{"'-': not negotiated", milter.OptAddRcpt, 0, end(func(m *milter.Modifier, _ net.Conn) { m.DeleteRecipient("r@b.test") })},
		{"'q': not negotiated", milter.OptAddRcpt, 0, end(func(m *milter.Modifier, _ net.Conn) { m.Quarantine("x") })},
		{"'e': not negotiated", milter.OptAddRcpt, 0, end(func(m *milter.Modifier, _ net.Conn) { m.ChangeFrom("<x>") })},
		{"between two body chunks", everyEdit, 0, end(func(m *milter.Modifier, _ net.Conn) {
			m.ReplaceBody([]byte("x"))
			m.AddHeader("A", "b")
			m.ReplaceBody([]byte("x"))
		})},
		{"between two body chunks", everyEdit, 0, end(func(m *milter.Modifier, conn net.Conn) {
			m.ReplaceBody([]byte("x"))
			conn.Write(frame('p', ""))
			m.ReplaceBody([]byte("x"))
		})},
		{"body chunk of 65536 bytes", everyEdit, 0, end(func(m *milter.Modifier, _ net.Conn) { m.ReplaceBody(make([]byte, 65536)) })},
		{"body chunk of 0 bytes", everyEdit, 0, end(func(m *milter.Modifier, _ net.Conn) { m.ReplaceBody(nil) })},
		{"at mail: edit 'h' before the end", everyEdit, 0, at(Mail, func(m *milter.Modifier, _ net.Conn) milter.Response { m.AddHeader("A", "b"); return nil })},
		{"at body: edit 'b' before the end", everyEdit, 0, at(Body, func(m *milter.Modifier, _ net.Conn) milter.Response { m.ReplaceBody([]byte("x")); return nil })},
		{"CR in the value", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A", "b\r\n c"))},
		{"line 2 is no continuation", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A", "b\nBcc: c"))},
		{"line 2 is no continuation", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A", "b\n"))},
		{"line 1 has 999 octets", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A", strings.Repeat("b", 997)))},
		{"index 0", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x00", "A", "b"))},
		{"no header field name", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A b", "b"))},
		{"3 strings", everyEdit, 0, raw(EndOfMessage, header("\x00\x00\x00\x01", "A", "b\x00c"))},
		{"without its NUL", everyEdit, 0, raw(EndOfMessage, frame('-', "<r@b.test>"))},
		{"too short", everyEdit, 0, raw(EndOfMessage, frame('m', "\x00\x00"))},
		{"progress with data", everyEdit, 0, raw(EndOfMessage, frame('p', "x"))},
		{"unexpected answer 'x'", everyEdit, 0, raw(EndOfMessage, frame('x', ""))},
		{"with 1 bytes behind it", everyEdit, 0, raw(Mail, frame('c', "x"))},
		{"malformed line", 0, 0, raw(Mail, frame('y', "451 no enhanced code\x00"))},
		{"malformed line", 0, 0, raw(Mail, frame('y', "451-4.7.1 a\n451 4.7.1 b\x00"))},
		{"malformed code", 0, 0, raw(Mail, frame('y', "251 2.0.0 fine\x00"))},
		{"percent sign alone", 0, 0, raw(Mail, frame('y', "451 4.7.1 100% busy\x00"))},
		{"NUL-terminated", 0, 0, raw(Mail, frame('y', "451 4.7.1 busy"))},
		{"skip where", 0, milter.OptSkip, raw(EndOfHeader, frame('s', ""))},
		{"skip where", 0, 0, raw(Body, frame('s', ""))},
		{"skip where", 0, milter.OptSkip, raw(EndOfMessage, frame('s', ""))},
		{"frame of 0 bytes", 0, 0, raw(Mail, []byte{0, 0, 0, 0})},
		{"frame of 16777217 bytes", 0, 0, raw(Mail, []byte{1, 0, 0, 1})},
		{"closed the connection", 0, 0, at(Body, func(_ *milter.Modifier, conn net.Conn) milter.Response { conn.Close(); return nil })},
		{"nobody asked for", 0, 0, raw(Mail, append(frame('c', ""), frame('c', "")...))},
		{"nobody asked for", 0, 0, raw(EndOfMessage, frame('c', ""))},
		{"nobody asked for", 0, noReplies, nil}, // the server of go-milter answers all the same
	} {
		f := &filter{actions: test.actions, protocol: test.protocol, answer: test.answer}
		err := playTwice(f.start(t))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

// playTwice sends two messages and says good-bye.
func playTwice(addr string) error {
	s, err := Dial("tcp", addr, Options{})
	if err != nil {
		return err
	}
	for range 2 {
		if _, err = s.Send(envelope, letter); err != nil {
			break
		}
	}
	if closing := s.Close(); err == nil {
		err = closing
	}
	if _, again := s.Send(envelope, letter); again == nil {
		return fmt.Errorf("a closed session still sends (%v)", err)
	}
	return err
}

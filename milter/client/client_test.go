package client

import (
	"bytes"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-milter"
)

func TestSendShowsTheMessage(t *testing.T) {
	f := &filter{protocol: milter.OptHeaderLeadingSpace}
	s := dial(t, f, Options{})
	r := send(t, s, envelope, letter)
	if r.Stage != EndOfMessage || r.Final.Action != milter.ActContinue || len(r.Recipients) != 2 {
		t.Errorf("result %+v", r)
	}
	if !reflect.DeepEqual(f.shown, letter) {
		t.Errorf("shown %+v", f.shown)
	}
	want := &Queued{From: "s@a.test", Recipients: []string{"r@b.test", "q@b.test"}, Header: letter.Header, Body: []byte("one\ntwo\n")}
	if !reflect.DeepEqual(r.Queued, want) {
		t.Errorf("queued %+v", r.Queued)
	}
	if got, want := string(r.Queued.Bytes()), "Received: from x\n\tby y\nSubject: hi\nX-A:1\nx-a:\t2\nX-A:  3\nEmpty:\n\none\ntwo\n"; got != want {
		t.Errorf("stored %q", got)
	}
	if got := r.Queued.Values("X-a"); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("values %q", got)
	}
	send(t, s, envelope, Message{})
	want2 := `connect [192.0.2.1] tcp4 49152 192.0.2.1
helo client.example.net
mail s@a.test
rcpt r@b.test
rcpt q@b.test
header Received
header Subject
header X-A
header x-a
header X-A
header Empty
end of header
body 10
end of message
abort
mail s@a.test
rcpt r@b.test
rcpt q@b.test
end of header
end of message`
	if got := strings.TrimSuffix(f.saw(), "\nabort"); got != want2 {
		t.Errorf("events\n%s", got)
	}
}

func TestMacros(t *testing.T) {
	for _, test := range []struct {
		name string
		opts Options
		sym  map[milter.Stage][]string
		st   Stage
		want map[string]string
	}{
		{"postfix connect", Options{}, nil, Connect, map[string]string{"j": "mx.example.org", "{daemon_name}": "mx.example.org",
			"{daemon_addr}": "127.0.0.1", "v": "Postfix 3.7.11", "_": "unknown [192.0.2.1]"}},
		{"postfix helo", Options{}, nil, Helo, map[string]string{}},
		{"postfix mail", Options{}, nil, Mail, map[string]string{"{auth_type}": "PLAIN", "{auth_authen}": "joe",
			"{mail_addr}": "s@a.test", "{mail_host}": "a.test", "{mail_mailer}": "smtp"}},
		{"postfix second rcpt", Options{}, nil, Rcpt, map[string]string{"i": "4F2C91A0B7", "{rcpt_addr}": "q@b.test",
			"{rcpt_host}": "b.test", "{rcpt_mailer}": "virtual"}},
		{"postfix header", Options{}, nil, Header, map[string]string{"i": "4F2C91A0B7"}},
		{"postfix end", Options{}, nil, EndOfMessage, map[string]string{"i": "4F2C91A0B7"}},
		{"sendmail end", Options{Sendmail: true}, nil, EndOfMessage, map[string]string{"{msg_id}": "<4F2C91A0B7@mx.example.org>"}},
		{"asked for", Options{}, map[milter.Stage][]string{milter.StageMailFrom: {"{mail_addr}", "none"}}, Mail,
			map[string]string{"{mail_addr}": "s@a.test"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &filter{symbols: test.sym}
			if test.sym != nil {
				f.actions = milter.OptSetSymList
			}
			e := envelope
			e.Login = "joe"
			send(t, dial(t, f, test.opts), e, letter)
			if got := f.macros[test.st]; !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestFirstRecipientHasNoQueueID(t *testing.T) {
	f := &filter{}
	e := envelope
	e.To = e.To[:1]
	send(t, dial(t, f, Options{}), e, letter)
	if id, there := f.macros[Rcpt]["i"]; there {
		t.Errorf("the first RCPT came with queue id %q", id)
	}
}

func TestWithoutLeadingSpace(t *testing.T) {
	f := &filter{actions: milter.OptAddHeader, answer: at(EndOfMessage, func(m *milter.Modifier, _ net.Conn) milter.Response {
		m.AddHeader("X-B", "new")
		return nil
	})}
	r := send(t, dial(t, f, Options{}), envelope, letter)
	if !reflect.DeepEqual(f.shown.Header, letter.WithoutLeadingSpace().Header) || f.shown.Header[1].Value != "hi" || f.shown.Header[4].Value != " 3" {
		t.Errorf("shown %q", f.shown.Header)
	}
	if got := r.Queued.Header[len(r.Queued.Header)-1]; got != (Field{"X-B", " new"}) {
		t.Errorf("added %q", got)
	}
	if r.Queued.Header[1].Value != " hi" {
		t.Errorf("the queue lost its own space: %q", r.Queued.Header[1])
	}
}

func TestChunks(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcde\r\n"), 10000)
	for _, size := range []int{0, 1000, 16} {
		f := &filter{}
		m := Message{Body: body[:min(len(body), max(size, 300)*200)]}
		send(t, dial(t, f, Options{ChunkSize: size}), envelope, m)
		if !bytes.Equal(f.shown.Body, m.Body) {
			t.Errorf("chunks of %d: the body differs", size)
		}
		first := orElse(size, 65535)
		if want := min(first, len(m.Body)); !strings.Contains(f.saw(), "body "+itoa(want)+"\n") {
			t.Errorf("no chunk of %d bytes", want)
		}
	}
}

func TestSkip(t *testing.T) {
	f := &filter{protocol: milter.OptSkip, answer: at(Body, func(*milter.Modifier, net.Conn) milter.Response {
		return milter.NewResponse('s', nil)
	})}
	s := dial(t, f, Options{ChunkSize: 1})
	if r := send(t, s, envelope, letter); r.Stage != EndOfMessage || r.Queued == nil {
		t.Errorf("result %+v", r)
	}
	if n := strings.Count(f.saw(), "body"); n != 1 {
		t.Errorf("%d chunks behind a skip", n)
	}
}

func TestEventsNotWanted(t *testing.T) {
	f := &filter{protocol: milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailFrom | milter.OptNoRcptTo |
		milter.OptNoData | milter.OptNoHeaders | milter.OptNoEOH | milter.OptNoBody}
	r := send(t, dial(t, f, Options{}), envelope, letter)
	if got := f.saw(); !strings.HasPrefix(got, "end of message") || len(r.Queued.Recipients) != 2 {
		t.Errorf("events %q, result %+v", got, r)
	}
}

// noReplies are all flags by which a filter promises not to answer.
const noReplies = milter.OptNoConnReply | milter.OptNoHeloReply | milter.OptNoMailReply | milter.OptNoRcptReply |
	milter.OptNoDataReply | milter.OptNoHeaderReply | milter.OptNoEOHReply | milter.OptNoBodyReply

func TestNoReplies(t *testing.T) {
	f := &filter{protocol: noReplies &^ milter.OptNoDataReply, answer: func(st Stage, _ int, _ *milter.Modifier, _ net.Conn) milter.Response {
		if st == EndOfMessage {
			return nil
		}
		return silence
	}}
	s := dial(t, f, Options{})
	for range 3 {
		if r := send(t, s, envelope, letter); r.Queued == nil {
			t.Errorf("result %+v", r)
		}
	}
}

func TestOldMTA(t *testing.T) {
	old := Options{Version: 2, Actions: milter.OptAddHeader, Protocol: 0x7f}
	if _, err := Dial("tcp", (&filter{actions: everyEdit}).start(t), old); err == nil || !strings.Contains(err.Error(), "actions 0x7e") {
		t.Errorf("actions that were not offered: %v", err)
	}
	if _, err := Dial("tcp", (&filter{protocol: milter.OptSkip}).start(t), old); err == nil || !strings.Contains(err.Error(), "flags 0x400") {
		t.Errorf("flags that were not offered: %v", err)
	}
	f := &filter{actions: milter.OptAddHeader}
	s := dial(t, f, old)
	send(t, s, envelope, letter)
	if s.Actions != milter.OptAddHeader || s.Version != 2 {
		t.Errorf("negotiated %+v", s)
	}
}

func TestVerdictOnTheConnection(t *testing.T) {
	for _, st := range []Stage{Connect, Helo} {
		f := &filter{answer: at(st, func(*milter.Modifier, net.Conn) milter.Response { return milter.RespTempFail })}
		if r := send(t, dial(t, f, Options{}), envelope, letter); r.Final.Code != 451 || r.Queued != nil {
			t.Errorf("refused at %s: %+v", st, r)
		}
		f = &filter{answer: at(st, func(*milter.Modifier, net.Conn) milter.Response { return milter.RespAccept })}
		if r := send(t, dial(t, f, Options{}), envelope, letter); r.Queued == nil || strings.Contains(f.saw(), "mail") {
			t.Errorf("accepted at %s: %+v, filter saw %q", st, r, f.saw())
		}
	}
}

func TestTimeouts(t *testing.T) {
	slow := at(EndOfMessage, func(_ *milter.Modifier, conn net.Conn) milter.Response {
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			conn.Write(frame('p', ""))
		}
		return nil
	})
	s := dial(t, &filter{answer: slow}, Options{Timeout: time.Second})
	if r := send(t, s, envelope, letter); r.Progress != 10 {
		t.Errorf("%d progress packets", r.Progress)
	}
	s = dial(t, &filter{answer: slow}, Options{Timeout: time.Second, EndTimeout: 50 * time.Millisecond})
	if _, err := s.Send(envelope, letter); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("beyond the MTA's patience: %v", err)
	}
	hang := at(Rcpt, func(*milter.Modifier, net.Conn) milter.Response { time.Sleep(300 * time.Millisecond); return nil })
	s = dial(t, &filter{answer: hang}, Options{Timeout: 50 * time.Millisecond})
	if _, err := s.Send(envelope, letter); err == nil || !strings.Contains(err.Error(), "at rcpt: no answer in time") {
		t.Errorf("a filter that hangs: %v", err)
	}
}

func TestWire(t *testing.T) {
	f := &filter{}
	w, err := DialWire("tcp", f.start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.SendBytes(frame('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")); err != nil {
		t.Fatal(err)
	}
	if answer, err := w.Receive(time.Second); err != nil || answer.Code != 'O' {
		t.Errorf("answer %q, %v", answer.Code, err)
	}
	if err := w.Send(Frame{'Q', nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Receive(time.Second); err == nil || !strings.Contains(err.Error(), ErrClosed.Error()) {
		t.Errorf("behind QUIT: %v", err)
	}
}

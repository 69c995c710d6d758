package reinject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

const text = "Subject: x\r\n\r\n.dot\r\nbody\r\n"

// oneMessage goes to two recipients.
func oneMessage() Message {
	return Message{
		From: "a@bed.test", To: []Recipient{{Address: "b@bed.test"}, {Address: "c@bed.test"}},
		Size: int64(len(text)), Write: func(w io.Writer) error { _, err := io.WriteString(w, text); return err },
	}
}

// ending is a word for how a message ended.
func ending(err error) string {
	var refused *Refused
	switch {
	case err == nil:
		return "sent"
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.As(err, &refused):
		return fmt.Sprintf("%d at %s of %q", refused.Code, refused.Command, refused.Recipient)
	default:
		return "failed"
	}
}

// TestFaults: a server that fails at each command in each way. What counts is
// what the server holds at the end: a message, none, or who knows.
func TestFaults(t *testing.T) {
	const longLine = "250 " // then more than a reply may have
	for _, at := range []string{"", "EHLO", "XFORWARD", "MAIL", "RCPT", "DATA", "."} {
		name := map[string]string{"": "the connection", "EHLO": "the connection"}[at]
		if name == "" {
			name = at
		}
		who := map[string]string{"RCPT": "b@bed.test"}[at]
		lost := "failed"
		if at == "." {
			lost = "unknown"
		}
		for _, fault := range []struct{ answer, want string }{
			{"450 4.2.0 later\r\n", fmt.Sprintf("450 at %s of %q", name, who)},
			{"550-5.7.1 no\r\n550 5.7.1 never\r\n", fmt.Sprintf("550 at %s of %q", name, who)},
			{"421 4.3.2 down\r\n" + hangUp, fmt.Sprintf("421 at %s of %q", name, who)},
			{hangUp, lost},
			{"2" + hangUp, lost},
			{"250-taken\r\n" + hangUp, lost},
			{silence, lost},
			{"\x00\xff\x16\x03\r\n", lost},
			{"\r\n", lost},
			{"99 what\r\n", lost},
			{"199 what\r\n", lost},
			{longLine + strings.Repeat("x", 2*maxReply) + "\r\n", lost},
			{strings.Repeat("250-more\r\n", maxReply/10+1) + "250 end\r\n", lost},
		} {
			t.Run(fmt.Sprintf("%s/%.12q", name, fault.answer), func(t *testing.T) {
				t.Parallel()
				want := fault.want
				if at == "XFORWARD" && fault.answer[0] != '2' && strings.HasSuffix(want, `""`) && !strings.HasPrefix(want, "421") {
					want = "sent" // without it
				}
				if at == "XFORWARD" && strings.HasPrefix(fault.answer, "199") {
					want = "sent"
				}
				testFault(t, map[string][]string{at: {fault.answer}}, want)
			})
		}
	}
}

func testFault(t *testing.T, changes map[string][]string, want string) {
	t.Helper()
	s := startScripted(t, usual(changes))
	target := Target{Address: s.addr, Timeout: time.Second}
	ctx := context.Background()
	if want == "unknown" {
		var cancel context.CancelFunc // else it waits for as long as RFC 5321 says
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	m := oneMessage()
	m.Client.Name = "client.example"
	out, err := target.Send(ctx, m)
	if got := ending(err); got != want {
		t.Errorf("%s, not %s: %v", got, want, err)
	}
	if accepted := out.Accepted(0) && out.Accepted(1); accepted != (err == nil) {
		t.Errorf("accepted %v with error %v", accepted, err)
	}
	lines, data := s.told()
	if ended := strings.HasSuffix(data, "\r\n.\r\n"); ended != (want == "sent" || want == "unknown" || strings.Contains(want, " at . ")) {
		t.Errorf("the server was told the end of the data: %v, error %v", ended, err)
	}
	last := lines[max(len(lines)-2, 0):]
	if strings.Contains(want, "50 at RCPT") && strings.Join(last, ",") != "RSET,QUIT" {
		t.Errorf("at the end the server was told %q", lines)
	}
}

// TestRefusedSecond: the first recipient is good, the second is not, and nobody
// gets anything; the session goes on.
func TestRefusedSecond(t *testing.T) {
	s := startScripted(t, usual(map[string][]string{"RCPT": {"250 ok\r\n", "452 4.5.3 too many\r\n", "250 ok\r\n"}}))
	session, err := Target{Address: s.addr}.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	_, err = session.Send(context.Background(), oneMessage())
	var refused *Refused
	if !errors.As(err, &refused) || refused.Recipient != "c@bed.test" || refused.Enhanced != "4.5.3" || refused.Text != "too many" || refused.Permanent() {
		t.Fatalf("%#v", err)
	}
	if _, data := s.told(); data != "" {
		t.Fatalf("data %q", data)
	}
	if out, err := session.Send(context.Background(), oneMessage()); err != nil || !out.Accepted(1) || out.Replies[1].Text != "taken" {
		t.Fatalf("%v, %v", out, err)
	}
	if _, data := s.told(); data != strings.ReplaceAll(text, ".dot", "..dot")+".\r\n" {
		t.Fatalf("data %q", data)
	}
}

// TestOutOfTurn: replies that nobody asked for are taken for the answer to
// nothing, and least of all for the answer to the data.
func TestOutOfTurn(t *testing.T) {
	for at, answer := range map[string]string{
		"":     "220 hello\r\n250 ok\r\n",
		"EHLO": "250 hello\r\n250 ok\r\n",
		"MAIL": "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n",
		"DATA": "354 go\r\n250 ok\r\n",
	} {
		s := startScripted(t, usual(map[string][]string{at: {answer}}))
		m := oneMessage()
		write := m.Write
		m.Write = func(w io.Writer) error {
			time.Sleep(50 * time.Millisecond) // the early answer is there by then
			return write(w)
		}
		_, err := Target{Address: s.addr, Timeout: time.Second}.Send(context.Background(), m)
		if _, data := s.told(); ending(err) != "failed" || data != "" && strings.HasSuffix(data, ".\r\n") {
			t.Errorf("at %q: %v, data %q", at, err, data)
		}
	}
}

// TestWriteFails: whatever goes wrong in a message, its end is never told.
func TestWriteFails(t *testing.T) {
	for name, write := range map[string]func(w io.Writer) error{
		"error": func(w io.Writer) error { io.WriteString(w, text); return errors.New("spool") },
		"short": func(w io.Writer) error { _, err := io.WriteString(w, text[:len(text)-2]); return err },
		"long":  func(w io.Writer) error { _, err := io.WriteString(w, text+"\r\n"); return err },
		"panic": func(w io.Writer) error { io.WriteString(w, text); panic("spool") },
	} {
		s := startScripted(t, usual(nil))
		session, err := Target{Address: s.addr}.Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		m := oneMessage()
		m.Write = write
		func() {
			defer func() { recover() }()
			_, err = session.Send(context.Background(), m)
		}()
		if name != "panic" && ending(err) != "failed" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := session.Send(context.Background(), oneMessage()); !errors.Is(err, errBroken) {
			t.Errorf("%s: the session goes on: %v", name, err)
		}
		session.Close()
		if lines, data := s.told(); strings.HasSuffix(data, ".\r\n") || lines[len(lines)-1] != "DATA" {
			t.Errorf("%s: data %q after %q", name, data, lines)
		}
	}
}

// TestContext: its end closes the connection at once, wherever the server is
// silent.
func TestContext(t *testing.T) {
	for _, at := range []string{"", "EHLO", "MAIL", "RCPT", "DATA", "."} {
		s := startScripted(t, usual(map[string][]string{at: {silence}}))
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		began := time.Now()
		_, err := Target{Address: s.addr}.Send(ctx, oneMessage())
		cancel()
		if took := time.Since(began); took > 2*time.Second || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknown) != (at == ".") {
			t.Errorf("at %q: after %v: %v", at, took, err)
		}
	}
}

// TestStuck: a server that reads no more in the middle of the data.
func TestStuck(t *testing.T) {
	s := startScripted(t, usual(map[string][]string{"DATA": {"354 go\r\n" + stuck}}))
	m := oneMessage()
	m.Size = 0
	m.Write = func(w io.Writer) error {
		for {
			if _, err := w.Write(armored(1 << 20)); err != nil {
				return err
			}
		}
	}
	_, err := Target{Address: s.addr, Timeout: 200 * time.Millisecond}.Send(context.Background(), m)
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
}

// TestOldServer: one that knows HELO only.
func TestOldServer(t *testing.T) {
	s := startScripted(t, usual(map[string][]string{"EHLO": {"502 what?\r\n"}}))
	m := oneMessage()
	m.FromArgs = []string{"SIZE=1", "BODY=8BITMIME", "RET=HDRS", "ENVID=x", "AUTH=<>"}
	m.To[0].Args = []string{"NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;b@bed.test"}
	m.To[1].Args = []string{"NOTIFY=NEVER"}
	out, err := Target{Address: s.addr, Hello: "mx.bed.test"}.Send(context.Background(), m)
	if err != nil || out.Forwarded {
		t.Fatalf("%v, %v", out, err)
	}
	lines, _ := s.told()
	want := "EHLO mx.bed.test,HELO mx.bed.test,MAIL FROM:<a@bed.test>,RCPT TO:<b@bed.test>,RCPT TO:<c@bed.test>,DATA,QUIT"
	if got := strings.Join(lines, ","); got != want {
		t.Errorf("the server was told %q", got)
	}
	if got := strings.Join(out.Dropped, ","); got != "RET,ENVID,AUTH,BODY,NOTIFY,ORCPT" {
		t.Errorf("dropped %s", got)
	}
}

// TestBareCodes: a reply may be a code alone (RFC 5321, section 4.2), and that of
// the data above all must be understood: the message is sent again otherwise.
func TestBareCodes(t *testing.T) {
	for _, end := range []string{"\r\n", "\n"} {
		s := startScripted(t, map[string][]string{
			"": {"220" + end}, "EHLO": {"250-hello" + end + "250" + end}, "MAIL": {"250" + end}, "RCPT": {"250" + end, "251" + end},
			"DATA": {"354" + end}, ".": {"250" + end}, "QUIT": {"221" + end},
		})
		session, err := Target{Address: s.addr}.Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			out, err := session.Send(context.Background(), oneMessage())
			if err != nil || !out.Accepted(0) || !out.Accepted(1) {
				t.Errorf("%+v, %v", out, err)
			}
		}
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	}
	s := startScripted(t, usual(map[string][]string{".": {"550\r\n"}}))
	_, err := Target{Address: s.addr}.Send(context.Background(), oneMessage())
	if ending(err) != `550 at . of ""` {
		t.Errorf("refused without a word: %v", err)
	}
}

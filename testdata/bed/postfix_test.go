package bed

import (
	"bytes"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-milter"
)

// nullFilter lets everything pass and counts the messages, as a filter does
// that is not there.
func nullFilter(t *testing.T, answer milter.Response) (addr string, messages *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	messages = new(atomic.Int32)
	server := &milter.Server{
		Protocol:  milter.OptNoConnect | milter.OptNoHelo,
		NewMilter: func() milter.Milter { return &null{answer: answer, messages: messages} },
	}
	done := make(chan struct{})
	go func() { server.Serve(ln); close(done) }()
	t.Cleanup(func() { ln.Close(); <-done })
	return "inet:" + ln.Addr().String(), messages
}

type null struct {
	milter.NoOpMilter
	answer   milter.Response
	messages *atomic.Int32
}

func (n *null) Body(*milter.Modifier) (milter.Response, error) {
	n.messages.Add(1)
	return n.answer, nil
}

// TestPostfix: SMTP client → Postfix (with a filter that does nothing) →
// virtual(8) → maildir; sendmail(1) → pickup(8) → the same.
func TestPostfix(t *testing.T) {
	filter, messages := nullFilter(t, milter.RespContinue)
	p := StartPostfix(t, PostfixOptions{
		Addresses:       []string{"b@bed.test", "C@other.test"},
		Milters:         []string{filter},
		NonSMTPDMilters: []string{filter},
	})
	body := "\r\n.dot\r\n.\r\n..two\r\nbytes \xff\xfe\x00\r\nthe end"
	raw := "From: a@bed.test\r\nSubject: one\r\n" + body
	replies := SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test", "nobody@bed.test", "c@other.test"}, []byte(raw))
	if len(replies) != 6 || !Sent(replies) || replies[2].Code != 550 || replies[2].Command != "RCPT nobody@bed.test" ||
		!strings.HasPrefix(replies[5].Text, "250 2.0.0 Ok: queued as ") {
		t.Fatalf("replies %v", replies)
	}
	stored := strings.ReplaceAll(raw, "\r\n", "\n") + "\n"
	for _, addr := range []string{"b@bed.test", "c@other.test"} {
		file := p.WaitDelivered(t, addr, 1, 10*time.Second)[0]
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// In front of it stands the trace that Postfix adds, and nothing is behind.
		if !bytes.HasSuffix(got, []byte("\n"+stored)) {
			t.Errorf("delivered to %s: %q", addr, got)
		}
	}

	p.Sendmail(t, []string{"-f", "a@bed.test", "b@bed.test"}, "Subject: two\n\nby hand\n")
	files := p.WaitDelivered(t, "b@bed.test", 2, 10*time.Second)
	if got, _ := os.ReadFile(files[1]); !bytes.Contains(got, []byte("Subject: two\n")) {
		t.Errorf("submitted by sendmail: %q", got)
	}
	if n := messages.Load(); n != 2 {
		t.Errorf("the filter saw %d messages", n)
	}
	p.WaitLog(t, "status=sent", time.Second)
	waitEmpty(t, p)
}

func waitEmpty(t *testing.T, p *Postfix) {
	t.Helper()
	p.waitFor(t, "an empty queue", 10*time.Second, p.QueueEmpty)
}

// TestPostfixFilterAway: the filter's address answers nobody, and Postfix is
// stopped and started in between.
func TestPostfixFilterAway(t *testing.T) {
	for _, test := range []struct {
		action string
		code   int
	}{{"", 451}, {"accept", 250}, {"reject", 554}} {
		p := StartPostfix(t, PostfixOptions{
			Milters:       []string{"unix:" + "/nowhere"},
			DefaultAction: test.action,
			Main:          []string{"smtpd_banner = $myhostname ESMTP bed"},
		})
		p.Stop(t)
		p.Stop(t)
		p.Start(t)
		replies := SendMail(t, p.Addr(), "", []string{"b@bed.test"}, []byte("Subject: x\r\n\r\nx\r\n"))
		if replies[0].Code != test.code {
			t.Errorf("default action %q: %v", test.action, replies)
		}
	}
}

// TestPostfixQueues: a message for a server that is not there stays in the queue.
func TestPostfixQueues(t *testing.T) {
	filter, messages := nullFilter(t, milter.RespTempFail)
	p := StartPostfix(t, PostfixOptions{
		Addresses: []string{"b@bed.test"},
		Main:      []string{"virtual_transport = lmtp:inet:127.0.0.1:1", "minimal_backoff_time = 1s"},
	})
	if r := SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test"}, []byte("Subject: x\n\nx\n")); !Sent(r) {
		t.Fatalf("replies %v", r)
	}
	p.WaitLog(t, "status=deferred", 10*time.Second)
	if p.QueueEmpty() || len(p.Maildir("b@bed.test")) != 0 {
		t.Error("the deferred message is gone")
	}
	p.Flush(t)

	p = StartPostfix(t, PostfixOptions{Milters: []string{"{ " + filter + ", command_timeout=3s }"}})
	if r := SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test"}, nil); Sent(r) || r[len(r)-1].Code != 451 || messages.Load() != 1 {
		t.Errorf("a filter that defers: %v", r)
	}
	waitEmpty(t, p)
}

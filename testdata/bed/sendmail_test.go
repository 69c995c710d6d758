package bed

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-milter"
)

// filterLine is a filter's address as sendmail.mc has it.
func filterLine(t *testing.T, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "inet:"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("INPUT_MAIL_FILTER(`null', `S=inet:%s@%s, F=T')dnl", port, host)
}

// TestSendmailRelays: SMTP client → Sendmail (with a filter that does nothing)
// → Postfix → maildir. Postfix is away for a while, then Sendmail is.
func TestSendmailRelays(t *testing.T) {
	filter, messages := nullFilter(t, milter.RespContinue)
	sink := StartPostfix(t, PostfixOptions{Addresses: []string{"b@bed.test"}})
	s := StartSendmail(t, SendmailOptions{Relay: sink.Addr(), Filters: []string{filterLine(t, filter)}})
	raw := "From: a@bed.test\r\nDate: Mon, 8 Jun 2026 09:30:00 +0200\r\nMessage-ID: <1@bed.test>\r\nSubject: one\r\n" +
		"\r\n.dot\r\n.\r\n..two\r\nbytes \xff\xfe\x00\r\nthe end"
	stored := []byte("\n" + strings.ReplaceAll(raw, "\r\n", "\n") + "\n")

	sink.Stop(t)
	replies := SendMail(t, s.Addr(), "a@bed.test", []string{"b@bed.test"}, []byte(raw))
	if len(replies) != 4 || !Sent(replies) {
		t.Fatalf("replies %v", replies)
	}
	s.Stop(t)
	s.Stop(t)
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Error("Sendmail still listens")
	}
	if queue := s.Queue(); len(queue) != 1 {
		t.Errorf("in the queue are %q", queue)
	}
	sink.Start(t)
	s.Start(t)
	if got, _ := os.ReadFile(sink.WaitDelivered(t, "b@bed.test", 1, 20*time.Second)[0]); !bytes.HasSuffix(got, stored) {
		t.Errorf("delivered was %q", got)
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.Queue()) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if queue := s.Queue(); len(queue) > 0 || messages.Load() != 1 {
		t.Errorf("in the queue are %q, and the filter saw %d messages", queue, messages.Load())
	}
}

// TestSendmailDelivers: SMTP client → Sendmail (with a filter that is away, or
// with none) → Dovecot's LMTP, by users' bare names.
func TestSendmailDelivers(t *testing.T) {
	store := StartDovecot(t, "ann", "bob")
	opts := SendmailOptions{
		Local:   fmt.Sprintf("127.0.0.1:%d", store.LMTP),
		Domains: []string{"bed.test", "other.test"},
		Aliases: "team: ann, bob\n",
		Virtual: "info@other.test bob\n",
	}
	s := StartSendmail(t, opts)
	raw := []byte("Subject: x\r\n\r\nx\r\n")
	for _, to := range []string{"team@bed.test", "info@other.test"} {
		if replies := SendMail(t, s.Addr(), "a@bed.test", []string{to}, raw); !Sent(replies) {
			t.Errorf("replies %v", replies)
		}
	}
	store.WaitDelivered(t, "ann", 1, 10*time.Second)
	store.WaitDelivered(t, "bob", 2, 10*time.Second)

	opts.Filters = []string{filterLine(t, "inet:127.0.0.1:1")}
	s = StartSendmail(t, opts)
	if replies := SendMail(t, s.Addr(), "a@bed.test", []string{"ann@bed.test"}, raw); replies[len(replies)-1].Code != 451 {
		t.Errorf("a filter that is away: %v", replies)
	}
}

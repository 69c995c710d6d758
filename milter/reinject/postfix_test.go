package reinject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestPostfix: this package → Postfix's second smtpd, which asks no filter →
// virtual(8) → maildir; and the notices that Postfix sends come to a maildir
// too. The first smtpd has a filter that is not there, so that a message that
// came to it would be deferred.
func TestPostfix(t *testing.T) {
	port := bed.FreePort(t)
	odd := `"o>d <\"d"@bed.test`
	p := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{"a@bed.test", "b@bed.test", "c@bed.test"},
		Milters:   []string{"unix:/nowhere"},
		Main:      []string{"smtpd_authorized_xforward_hosts = 127.0.0.1", "smtputf8_enable = yes", "inet_protocols = all"},
		Master: []string{fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd", port) +
			"\n  -o smtpd_milters= -o receive_override_options=no_address_mappings -o syslog_name=postfix/again"},
	})
	target := Target{Address: fmt.Sprintf("127.0.0.1:%d", port), Hello: "again.bed.test", Timeout: 10 * time.Second}
	session, err := target.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()

	m := oneMessage()
	m.FromArgs = []string{"RET=HDRS", "ENVID=id+2B7", "BODY=8BITMIME", "SIZE=99999999", "SMTPUTF8"}
	m.To = []Recipient{
		{"b@bed.test", []string{"NOTIFY=SUCCESS,FAILURE", `ORCPT=utf-8;J\x{F6}rg@xn--bcher-kva.example`}},
		{"nobody@elsewhere.invalid", []string{"NOTIFY=NEVER"}},
	}
	m.Client = Client{
		Name: "client.example", Addr: netip.MustParseAddr("2001:db8::7"), Port: 4711, Helo: "odd helo=+\r\nRSET",
		Protocol: "ESMTPS", QueueID: "4fKz12ab",
	}
	out, err := session.Send(context.Background(), m)
	if err != nil || !out.Forwarded || !out.Accepted(0) || len(out.Dropped) != 0 || out.Replies[0].Enhanced != "2.0.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	got := read(t, p.WaitDelivered(t, "b@bed.test", 1, 10*time.Second)[0])
	if stored := "\n" + strings.ReplaceAll(text, "\r\n", "\n"); !strings.HasSuffix(got, stored) {
		t.Errorf("delivered %q", got)
	}
	p.WaitLog(t, "client=unknown[127.0.0.1], orig_queue_id=4fKz12ab, orig_client=client.example[2001:db8::7]", time.Second)

	notice := read(t, p.WaitDelivered(t, "a@bed.test", 1, 10*time.Second)[0])
	for _, want := range []string{"Original-Envelope-Id: id+7", "Original-Recipient: utf-8;", "Final-Recipient: rfc822; b@bed.test", "Action: delivered"} {
		if !strings.Contains(notice, want) {
			t.Errorf("the notice does not have %q:\n%s", want, notice)
		}
	}
	p.WaitLog(t, "to=<nobody@elsewhere.invalid>", 10*time.Second)
	for deadline := time.Now().Add(10 * time.Second); !p.QueueEmpty() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if files := p.Maildir("a@bed.test"); len(files) != 1 {
		t.Errorf("%d notices, where NOTIFY=NEVER asked for none", len(files))
	}

	m.From, m.FromArgs, m.Client = "", nil, Client{}
	m.To = []Recipient{{"c@bed.test", nil}}
	if out, err := session.Send(context.Background(), m); err != nil {
		t.Fatalf("%+v, %v", out, err)
	}
	got = read(t, p.WaitDelivered(t, "c@bed.test", 1, 10*time.Second)[0])
	if !strings.Contains(got, "Return-Path: <>") || strings.Contains(got, "client.example") {
		t.Errorf("delivered %q", got)
	}

	m.To = []Recipient{{odd, nil}}
	_, err = session.Send(context.Background(), m)
	var refused *Refused
	if !errors.As(err, &refused) || !refused.Permanent() || refused.Command != "RCPT" || !strings.Contains(p.Log(), `to=<"o>d <\"d"@bed.test>`) {
		t.Errorf("%v\n%s", err, p.Log())
	}
}

// TestPostfixLarge: a message as large as the size limit lets pass, over and
// over in one session, comes as it was.
func TestPostfixLarge(t *testing.T) {
	port := bed.FreePort(t)
	p := bed.StartPostfix(t, bed.PostfixOptions{Master: []string{fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd", port)}})
	session, err := Target{Address: fmt.Sprintf("127.0.0.1:%d", port)}.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	body := append([]byte("Subject: large\r\n\r\n"), armored(5<<20)...)
	for range 5 {
		_, err := session.Send(context.Background(), Message{
			From: "a@bed.test", To: []Recipient{{Address: "b@bed.test"}}, Size: int64(len(body)),
			Write: func(w io.Writer) error { return writeBody(w, body) },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range p.WaitDelivered(t, "b@bed.test", 5, 30*time.Second) {
		if got := read(t, file); !strings.HasSuffix(got, string(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")))) {
			t.Errorf("%s: %d bytes, not as sent", file, len(got))
		}
	}
	_, err = session.Send(context.Background(), Message{
		From: "a@bed.test", To: []Recipient{{Address: "b@bed.test"}}, Size: 200 << 20,
		Write: func(io.Writer) error { t.Error("the message was asked for"); return nil },
	})
	if got := ending(err); got != `552 at MAIL of ""` {
		t.Errorf("too large: %v", err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

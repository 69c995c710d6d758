package client

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/testdata/bed"
)

// oddMessages are what the messages of the test bed leave out.
var oddMessages = map[string]string{
	"mbox":             "From me\r\n>>From you\x00cut\r\nA: 1\r\n\r\nFrom x\r\n",
	"mbox, long":       "From " + strings.Repeat("x", 5000) + "\r\nA: 1\r\n\r\nx\r\n",
	"mbox, fold":       "From me\r\n fold\r\nA: 1\r\n\r\nx\r\n",
	"leading space":    "\tx\r\nA: 1\r\n\r\nx\r\n",
	"space and colon":  "A \t: x\r\nB : \r\n\r\nx\r\n",
	"no empty line":    "A: 1\r\nnot a field\r\nB: 2\r\n",
	"8-bit name":       "X-\xc3\xa4: 1\r\n\r\nx\r\n",
	"NUL line":         "A: 1\r\n\x00\r\nB: 1\r\n\r\nx\r\n",
	"NUL in a piece":   "A: " + strings.Repeat("x", 2000) + "\x00" + strings.Repeat("y", 3000) + "\r\n\r\nx\r\n",
	"huge field":       "A: " + strings.Repeat("x", 110000) + "\r\n fold\r\nB: 1\r\n\r\nx\r\n",
	"huge folds":       "A: 1" + strings.Repeat("\r\n "+strings.Repeat("x", 999), 120) + "\r\nB: 1\r\n\r\nx\r\n",
	"CR and pieces":    "A: " + strings.Repeat("x", 2044) + "\r\r\nB: 1\r\n\r\n" + strings.Repeat("x", 2047) + "\r\r\n" + strings.Repeat("x", 2047) + "\r\n",
	"CR, then a space": "A: 1\r\n\r fold\r\n\r\rx\r\n",
	"CR begins":        "\rx\r\nA: 1\r\n",
	"dropped":          "Bcc: x\r\n y\r\nResent-BCC: x\r\nReturn-Path : <x>\r\ncontent-length: 5\r\nA: 1\r\n\r\nx\r\n",
	"bare LF":          "A: 1\nB: 2\n 3\n\nx\n.\n..\ny",
}

// recording starts a filter that notes what it is shown, and a Postfix that
// asks it.
func recording(t *testing.T, main ...string) (*filter, *bed.Postfix) {
	t.Helper()
	f := &filter{actions: everyEdit, protocol: milter.OptHeaderLeadingSpace}
	p := bed.StartPostfix(t, bed.PostfixOptions{Milters: []string{"inet:" + f.start(t)}, Main: main})
	return f, p
}

// TestPostfixShowsTheSame: SMTP client → Postfix → a filter that notes what it
// is shown, which is to be what the Parser says.
func TestPostfixShowsTheSame(t *testing.T) {
	f, p := recording(t)
	sameShown(t, f, p, PostfixParser())
	f, p = recording(t, "cleanup_replace_stray_cr_lf = no", "message_drop_headers =")
	sameShown(t, f, p, Parser{EndLastLine: true})
}

func sameShown(t *testing.T, f *filter, p *bed.Postfix, parser Parser) {
	t.Helper()
	all := make(map[string][]byte)
	for name, raw := range oddMessages {
		all[name] = []byte(raw)
	}
	for _, file := range messages(t) {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = raw
	}
	for name, raw := range all {
		if replies := bed.SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test"}, raw); !bed.Sent(replies) {
			t.Fatalf("%s: %v", name, replies)
		}
		f.mu.Lock()
		shown := f.shown
		f.mu.Unlock()
		want := parser.Parse(raw)
		if !slices.Equal(shown.Header, want.Header) {
			t.Errorf("%s: header %.300q\nthe parser says %.300q", name, shown.Header, want.Header)
		}
		if !bytes.Equal(shown.Body, want.Body) {
			t.Errorf("%s: body %.300q\nthe parser says %.300q", name, shown.Body, want.Body)
		}
	}
}

// TestPostfixQueuesTheSame: SMTP client → Postfix → a filter that edits →
// maildir, where the message is to be what the client says for the same edits.
func TestPostfixQueuesTheSame(t *testing.T) {
	f, p := recording(t, "message_drop_headers =")
	edits := make(map[string]func(*milter.Modifier))
	for _, test := range headerEdits {
		edits[test.name] = test.edit
	}
	edits["new body"] = func(m *milter.Modifier) {
		m.ChangeHeader(1, "subject", " other\n\tfolded")
		for _, chunk := range []string{"lone \r CR, then\r", "\n\r\n.dot\r\nsplit\r", "\nand no end"} {
			m.ReplaceBody([]byte(chunk))
		}
	}
	edits["recipient gone"] = func(m *milter.Modifier) {
		m.AddRecipient("b@bed.test")
		m.DeleteRecipient("B@bed.test")
		m.DeleteRecipient("b@bed.test")
		m.AddRecipient("b@bed.test")
	}
	delivered := 0
	for name, edit := range edits {
		f.mu.Lock()
		f.answer = at(EndOfMessage, func(m *milter.Modifier, _ net.Conn) milter.Response { edit(m); return nil })
		f.mu.Unlock()
		if replies := bed.SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test"}, letter.Shown()); !bed.Sent(replies) {
			t.Fatalf("%s: %v", name, replies)
		}
		delivered++
		want := edited(t, Options{Hostname: "mx.bed.test"}, edit)
		got := stored(t, p.WaitDelivered(t, "b@bed.test", delivered, 10*time.Second)[delivered-1])
		if string(got) != string(want.Bytes()) {
			t.Errorf("%s: delivered\n%s\nthe client says\n%s", name, got, want.Bytes())
		}
	}
}

// stored is a delivered message without the fields that Postfix itself added.
func stored(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := ParseMessage(raw)
	m.Header = slices.DeleteFunc(m.Header, func(f Field) bool {
		return f.Name == "Return-Path" || f.Name == "X-Original-To" || f.Name == "Delivered-To" ||
			f.Name == "Received" && strings.Contains(f.Value, "by mx.bed.test (Postfix)")
	})
	return (&Queued{Header: m.Header, Body: bytes.ReplaceAll(m.Body, []byte("\r\n"), []byte("\n"))}).Bytes()
}

// TestPostfixSpeaksTheSame: the events and macros of a real Postfix are those
// that the client plays.
func TestPostfixSpeaksTheSame(t *testing.T) {
	f, p := recording(t)
	bed.SendMail(t, p.Addr(), "a@bed.test", []string{"b@bed.test", "b@bed.test"}, letter.Shown())
	played := &filter{protocol: milter.OptHeaderLeadingSpace}
	s := dial(t, played, Options{Hostname: "mx.bed.test", ClientAddr: "127.0.0.1", Helo: "client.bed.test"})
	send(t, s, Envelope{From: "a@bed.test", To: To("b@bed.test", "b@bed.test")}, letter)
	f.mu.Lock()
	defer f.mu.Unlock()
	played.mu.Lock()
	defer played.mu.Unlock()
	for st := range Stage(len(stages)) {
		if got, want := names(played.macros[st]), names(f.macros[st]); !reflect.DeepEqual(got, want) {
			t.Errorf("macros at %s: played %v, Postfix sends %v", st, got, want)
		}
	}
	real, ours := events(f.events), events(played.events)
	if real != ours {
		t.Errorf("Postfix sends\n%s\nplayed\n%s", real, ours)
	}
}

func names(macros map[string]string) []string {
	found := []string{}
	for name := range macros {
		found = append(found, name)
	}
	slices.Sort(found)
	return found
}

// events is a log up to the end of the message, without the client's port.
func events(log []string) string {
	end := slices.Index(log, EndOfMessage.String())
	if end < 0 || len(log) == 0 {
		return fmt.Sprint(log)
	}
	first := strings.Fields(log[0])
	first[3] = "PORT"
	return strings.Join(first, " ") + "\n" + strings.Join(log[1:end+1], "\n")
}

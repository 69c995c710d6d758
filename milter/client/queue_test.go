package client

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-milter"
)

// edited is what a message looks like after edits: the header without spaces,
// the lines of the body.
func edited(t *testing.T, opts Options, edit func(m *milter.Modifier)) *Queued {
	t.Helper()
	f := &filter{actions: everyEdit, protocol: milter.OptHeaderLeadingSpace,
		answer: at(EndOfMessage, func(m *milter.Modifier, _ net.Conn) milter.Response { edit(m); return nil })}
	return send(t, dial(t, f, opts), envelope, letter).Queued
}

func header(q *Queued) string {
	var b strings.Builder
	for _, f := range q.Header {
		fmt.Fprintf(&b, "%s:%s;", f.Name, strings.TrimSpace(strings.ReplaceAll(f.Value, "\n", "|")))
	}
	return b.String()
}

const start = "Received:from x|\tby y;Subject:hi;"

var headerEdits = []struct {
	name     string
	edit     func(m *milter.Modifier)
	postfix  string
	sendmail string // where it differs
}{
	{"change the second, whatever its case", func(m *milter.Modifier) { m.ChangeHeader(2, "X-a", "new") },
		start + "X-A:1;X-a:new;X-A:3;Empty:;", ""},
	{"change one that is not there", func(m *milter.Modifier) { m.ChangeHeader(4, "X-A", "new") },
		start + "X-A:1;x-a:2;X-A:3;Empty:;X-A:new;", ""},
	{"delete one that is not there", func(m *milter.Modifier) { m.ChangeHeader(4, "X-A", "") },
		start + "X-A:1;x-a:2;X-A:3;Empty:;", ""},
	{"delete from the highest index down", func(m *milter.Modifier) {
		for i := 3; i > 0; i-- {
			m.ChangeHeader(i, "x-a", "")
		}
	}, start + "Empty:;", ""},
	{"delete from the lowest index up", func(m *milter.Modifier) {
		for i := 1; i <= 3; i++ {
			m.ChangeHeader(i, "x-a", "")
		}
	}, start + "x-a:2;Empty:;", start + "Empty:;"},
	{"delete the first again and again", func(m *milter.Modifier) {
		for range 3 {
			m.ChangeHeader(1, "x-a", "")
		}
	}, start + "Empty:;", start + "x-a:2;X-A:3;Empty:;"},
	{"the MTA's own Received is out of reach", func(m *milter.Modifier) { m.ChangeHeader(1, "Received", "") },
		"Subject:hi;X-A:1;x-a:2;X-A:3;Empty:;", ""},
	{"add", func(m *milter.Modifier) { m.AddHeader("X-A", " 4\n\tmore") },
		start + "X-A:1;x-a:2;X-A:3;Empty:;X-A:4|\tmore;", ""},
	{"insert above and below the MTA's own", func(m *milter.Modifier) {
		m.InsertHeader(1, "B", " 1")
		m.InsertHeader(0, "A", " 0")
	}, "A:0;B:1;" + start + "X-A:1;x-a:2;X-A:3;Empty:;", ""},
	{"insert behind the first that was shown", func(m *milter.Modifier) { m.InsertHeader(2, "B", " 1") },
		"Received:from x|\tby y;B:1;Subject:hi;X-A:1;x-a:2;X-A:3;Empty:;", ""},
	{"insert far beyond the end", func(m *milter.Modifier) { m.InsertHeader(99, "B", " 1") },
		start + "X-A:1;x-a:2;X-A:3;Empty:;B:1;", ""},
	{"what was inserted on top is the first of its name", func(m *milter.Modifier) {
		m.InsertHeader(0, "X-A", " 0")
		m.InsertHeader(0, "Received", " 0")
		m.ChangeHeader(1, "X-A", "")
		m.ChangeHeader(2, "received", "changed")
	}, "Received:0;received:changed;Subject:hi;X-A:1;x-a:2;X-A:3;Empty:;", ""},
}

func TestHeaderEdits(t *testing.T) {
	for _, test := range headerEdits {
		if got := header(edited(t, Options{}, test.edit)); got != test.postfix {
			t.Errorf("%s, Postfix: %s", test.name, got)
		}
		want := orElse(test.sendmail, test.postfix)
		if got := header(edited(t, Options{Sendmail: true}, test.edit)); got != want {
			t.Errorf("%s, Sendmail: %s", test.name, got)
		}
	}
}

func TestBodyEdits(t *testing.T) {
	for _, test := range []struct {
		chunks []string
		want   string
	}{
		{[]string{"a\r\nb\r\n"}, "a\nb\n"},
		{[]string{"a\r", "\nb\n", "c"}, "a\nb\nc\n"},
		{[]string{"a\rb\r\r\n"}, "a\rb\r\n"},
	} {
		f := &filter{actions: everyEdit, answer: at(EndOfMessage, func(_ *milter.Modifier, conn net.Conn) milter.Response {
			for _, c := range test.chunks {
				conn.Write(frame('b', c))
			}
			return nil
		})}
		r := send(t, dial(t, f, Options{}), envelope, letter)
		if !r.Queued.Replaced || string(r.Queued.Body) != test.want || len(r.Edits) != len(test.chunks) {
			t.Errorf("%q became %q", test.chunks, r.Queued.Body)
		}
	}
}

func TestEnvelopeEdits(t *testing.T) {
	q := edited(t, Options{}, func(m *milter.Modifier) {
		m.AddRecipient("new@b.test")
		m.DeleteRecipient("r@b.test")
		m.DeleteRecipient("Q@b.test") // not the same bytes
		m.ChangeFrom("<other@a.test>")
		m.Quarantine("why not")
	})
	if got := fmt.Sprintf("%v %v %s %s", q.Recipients, q.Missed, q.From, q.Quarantine); got != "[q@b.test new@b.test] [Q@b.test] other@a.test why not" {
		t.Error(got)
	}
}

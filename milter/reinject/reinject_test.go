package reinject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"sealmilter/testdata/bed"
)

// recorder is a server's backend that notes what it was given. An LMTP
// recipient whose address begins with "full" is refused after the data.
type recorder struct {
	mu       sync.Mutex
	from     string
	mail     smtp.MailOptions
	rcpt     []string
	options  []smtp.RcptOptions
	messages []string
}

func (r *recorder) NewSession(*smtp.Conn) (smtp.Session, error) { return r, nil }
func (r *recorder) Reset()                                      {}
func (r *recorder) Logout() error                               { return nil }

func (r *recorder) Mail(from string, opts *smtp.MailOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from, r.mail, r.rcpt, r.options = from, *opts, nil, nil
	return nil
}

func (r *recorder) Rcpt(to string, opts *smtp.RcptOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rcpt, r.options = append(r.rcpt, to), append(r.options, *opts)
	return nil
}

func (r *recorder) Data(in io.Reader) error {
	message, err := io.ReadAll(in)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, string(message))
	return err
}

func (r *recorder) LMTPData(in io.Reader, status smtp.StatusCollector) error {
	if err := r.Data(in); err != nil {
		return err
	}
	for _, to := range r.rcpt {
		if strings.HasPrefix(to, "full") {
			status.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"})
		} else {
			status.SetStatus(to, nil)
		}
	}
	return nil
}

// startRecorder serves a recorder; change sets up the server.
func startRecorder(t *testing.T, network, addr string, change func(*smtp.Server)) (*recorder, net.Listener) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := new(recorder)
	server := smtp.NewServer(r)
	server.Domain = "recorder.test"
	server.EnableSMTPUTF8, server.EnableDSN, server.EnableRRVS = true, true, true
	if change != nil {
		change(server)
	}
	done := make(chan struct{})
	go func() { server.Serve(ln); close(done) }()
	t.Cleanup(func() { server.Close(); <-done })
	return r, ln
}

// TestArguments: this package → go-smtp's server, which says what it understood.
func TestArguments(t *testing.T) {
	r, ln := startRecorder(t, "tcp", "127.0.0.1:0", nil)
	m := oneMessage()
	m.From = `"a b"@bed.test`
	m.FromArgs = []string{"ret=HDRS", "ENVID=a+2Bb+20c", "BODY=BINARYMIME", "SMTPUTF8", "SIZE=7", "AUTH=<>"}
	m.To = []Recipient{
		{"jörg@bücher.example", []string{"NOTIFY=success,DELAY", "ORCPT=RFC822;a+2Bb@example.org"}},
		{"b@bed.test", []string{"NOTIFY=NEVER", `ORCPT=utf-8;"a\x{5C}b"ö@example.org`, "RRVS=2026-01-02T03:04:05Z"}},
	}
	out, err := Target{Address: ln.Addr().String()}.Send(context.Background(), m)
	if err != nil || !out.Accepted(0) || !out.Accepted(1) || out.Accepted(2) || !slices.Equal(out.Dropped, []string{"AUTH"}) {
		t.Fatalf("%+v, %v", out, err)
	}
	if want := (smtp.MailOptions{Body: "8BITMIME", Size: m.Size, UTF8: true, Return: "HDRS", EnvelopeID: "a+b c"}); !reflect.DeepEqual(r.mail, want) {
		t.Errorf("MAIL %+v", r.mail)
	}
	if r.from != `a b@bed.test` || !slices.Equal(r.rcpt, []string{"jörg@bücher.example", "b@bed.test"}) {
		t.Errorf("from %q to %q", r.from, r.rcpt)
	}
	first, second := r.options[0], r.options[1]
	if !slices.Equal(first.Notify, []smtp.DSNNotify{"SUCCESS", "DELAY"}) || first.OriginalRecipientType != "RFC822" || first.OriginalRecipient != "a+b@example.org" {
		t.Errorf("the first recipient: %+v", first)
	}
	if !slices.Equal(second.Notify, []smtp.DSNNotify{"NEVER"}) || second.OriginalRecipientType != "UTF-8" ||
		second.OriginalRecipient != `"a\b"ö@example.org` || second.RequireRecipientValidSince.IsZero() {
		t.Errorf("the second recipient: %+v", second)
	}
	if !slices.Equal(r.messages, []string{text}) {
		t.Errorf("messages %q", r.messages)
	}
}

// TestUnsupported: what cannot be kept is an error, before anything was said,
// and the session goes on.
func TestUnsupported(t *testing.T) {
	s := startScripted(t, usual(map[string][]string{"EHLO": {"250-old\r\n250 SIZE\r\n"}}))
	session, err := Target{Address: s.addr}.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, test := range []struct{ mail, rcpt, want string }{
		{"SMTPUTF8", "", "does not offer SMTPUTF8"},
		{"RequireTLS", "", "does not offer REQUIRETLS"},
		{"HOLDFOR=60", "", "does not offer FUTURERELEASE"},
		{"BY=120;R", "", "does not offer DELIVERBY"},
		{"X-NEW=1", "", "X-NEW is not known"},
		{"", "NOTIFY=FAILURE,Success", "does not offer DSN"},
		{"", "RRVS=2026-01-02T03:04:05Z", "does not offer RRVS"},
		{"", "NOTIFY=NEVER\r\nRSET", "malformed"},
		{"ENVID=a b", "", "malformed"},
	} {
		m := oneMessage()
		m.FromArgs = slices.DeleteFunc([]string{test.mail}, func(a string) bool { return a == "" })
		m.To[1].Args = slices.DeleteFunc([]string{test.rcpt}, func(a string) bool { return a == "" })
		if _, err := session.Send(context.Background(), m); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	for _, address := range []string{"a>b@bed.test", "a\r\n@bed.test", "a\x00@bed.test", `"a@bed.test`, `a\`} {
		m := oneMessage()
		m.To[1].Address = address
		if _, err := session.Send(context.Background(), m); err == nil {
			t.Errorf("%q was sent", address)
		}
		m = oneMessage()
		m.From = address
		if _, err := session.Send(context.Background(), m); err == nil {
			t.Errorf("%q was sent", address)
		}
	}
	if _, err := session.Send(context.Background(), oneMessage()); err != nil {
		t.Error(err)
	}
	if lines, _ := s.told(); len(lines) != 5 {
		t.Errorf("the server was told %q", lines)
	}
}

// TestLMTP: over a unix socket, one address twice among the recipients, and
// not all of them good after the data.
func TestLMTP(t *testing.T) {
	path := filepath.Join(bed.Dir(t), "lmtp")
	r, _ := startRecorder(t, "unix", path, func(s *smtp.Server) { s.LMTP = true })
	m := oneMessage()
	m.To = []Recipient{{Address: "b@bed.test"}, {Address: "full@bed.test"}, {Address: "b@bed.test"}}
	session, err := Target{Address: "unix:" + path, LMTP: true}.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.Send(context.Background(), m)
	if ending(err) != `452 at . of "full@bed.test"` || !out.Accepted(0) || out.Accepted(1) || !out.Accepted(2) {
		t.Fatalf("%+v, %v", out, err)
	}
	m.To = m.To[:1]
	if out, err := session.Send(context.Background(), m); err != nil || !out.Accepted(0) || len(r.messages) != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
}

// TestLMTPLost: the connection breaks between two answers.
func TestLMTPLost(t *testing.T) {
	for answer, want := range map[string]string{
		"250 ok\r\n550 5.1.1 no\r\n" + hangUp:             "unknown",
		"250 ok\r\n550 5.1.1 no\r\n421 down\r\n" + hangUp: `550 at . of "c@bed.test"`,
	} {
		s := startScripted(t, usual(map[string][]string{".": {answer}}))
		m := oneMessage()
		m.To = append(m.To, Recipient{Address: "d@bed.test"})
		out, err := Target{Address: s.addr, LMTP: true}.Send(context.Background(), m)
		var refused *Refused
		if ending(err) != want || !out.Accepted(0) || out.Accepted(1) || out.Accepted(2) || !errors.As(err, &refused) {
			t.Errorf("%+v, %v", out, err)
		}
	}
}

// TestXforward: what is said, for a client that nothing is known of and for one
// that calls itself what it likes.
func TestXforward(t *testing.T) {
	all := strings.Fields("NAME ADDR PROTO HELO SOURCE PORT IDENT NEW NAME")
	for _, test := range []struct {
		client  Client
		offered []string
		want    []string
	}{
		{Client{}, nil, nil},
		{Client{}, []string{"helo"}, []string{"XFORWARD HELO=[UNAVAILABLE]"}},
		{Client{Local: true}, all, []string{
			"XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]",
			"XFORWARD PROTO=[UNAVAILABLE] HELO=[UNAVAILABLE] SOURCE=LOCAL IDENT=[UNAVAILABLE]"}},
		{Client{Name: "c.test", Addr: netip.MustParseAddr("::ffff:192.0.2.1"), Port: 25, Helo: "a b=+\xff\r\nRSET", Protocol: "SMTP", QueueID: "Q"}, all, []string{
			"XFORWARD NAME=c.test ADDR=192.0.2.1 PORT=25",
			"XFORWARD PROTO=SMTP HELO=a+20b+3D+2B+FF+0D+0ARSET SOURCE=REMOTE IDENT=Q"}},
		{Client{Name: "[192.0.2.1]", Addr: netip.MustParseAddr("2001:db8::7")}, []string{"NAME", "ADDR"}, []string{"XFORWARD NAME=[UNAVAILABLE] ADDR=IPv6:2001:db8::7"}},
		{Client{Helo: strings.Repeat("x", 1000)}, []string{"HELO"}, []string{"XFORWARD HELO=" + strings.Repeat("x", maxAttribute)}},
	} {
		if got := test.client.xforward(test.offered); !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q", test.client, got)
		}
	}
}

// FuzzCompose: whatever a sender wrote into the envelope, each command is one
// line that holds the address in its brackets, and then arguments as they came.
func FuzzCompose(f *testing.F) {
	f.Add(`"a>b"@bed.test`, "NOTIFY=NEVER", "ORCPT=rfc822;b@bed.test")
	f.Add("a>\r\nRSET\r\n", "NOTIFY=NEVER RET=FULL", "ORCPT=\r\nDATA")
	f.Add("", "=", "SIZE")
	s := startScripted(f, usual(nil))
	session, err := Target{Address: s.addr}.Dial(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { session.Close() })
	f.Fuzz(func(t *testing.T, address, one, two string) {
		e, err := session.compose(Message{To: []Recipient{{address, []string{one, two}}}})
		if err != nil {
			return
		}
		rest, found := strings.CutPrefix(e.rcpt[0], "RCPT TO:<"+address+">")
		if !found || strings.ContainsAny(e.rcpt[0], "\r\n") || rest != fmt.Sprintf(" %s %s", one, two) {
			t.Errorf("%q %q %q became %q", address, one, two, e.rcpt[0])
		}
	})
}

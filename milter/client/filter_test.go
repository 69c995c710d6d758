package client

import (
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-milter"
)

// filter is a little filter on go-milter's server. It notes all that it is
// shown, and answers as the test says.
type filter struct {
	actions  milter.OptAction
	protocol milter.OptProtocol
	symbols  map[milter.Stage][]string

	// answer is asked at every event: the stage, how many events of that stage
	// this message had before, and the connection for what go-milter cannot say.
	answer func(st Stage, n int, m *milter.Modifier, conn net.Conn) milter.Response

	mu     sync.Mutex
	events []string
	macros map[Stage]map[string]string // of the last event of a stage
	shown  Message
	conn   net.Conn // the last one accepted
}

const everyEdit = milter.OptAddHeader | milter.OptChangeBody | milter.OptAddRcpt | milter.OptRemoveRcpt |
	milter.OptChangeHeader | milter.OptQuarantine | milter.OptChangeFrom

// start serves the filter and returns its address.
func (f *filter) start(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &milter.Server{
		Actions: f.actions, Protocol: f.protocol, SymList: f.symbols,
		NewMilter: func() milter.Milter {
			f.mu.Lock()
			defer f.mu.Unlock()
			return &backend{filter: f, conn: f.conn, count: map[Stage]int{}}
		},
	}
	done := make(chan struct{})
	go func() { server.Serve(noting{ln, f}); close(done) }()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// noting hands connections out and remembers the last one.
type noting struct {
	net.Listener
	filter *filter
}

func (n noting) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	n.filter.mu.Lock()
	defer n.filter.mu.Unlock()
	n.filter.conn = conn
	return conn, err
}

type backend struct {
	*filter
	conn  net.Conn
	count map[Stage]int
}

// at notes an event and answers it.
func (b *backend) at(st Stage, m *milter.Modifier, format string, args ...any) milter.Response {
	b.mu.Lock()
	b.events = append(b.events, st.String()+fmt.Sprintf(format, args...))
	if b.macros == nil {
		b.macros = make(map[Stage]map[string]string)
	}
	b.macros[st] = m.Macros
	answer := b.answer
	b.mu.Unlock()
	n := b.count[st]
	b.count[st]++
	if answer != nil {
		if r := answer(st, n, m, b.conn); r != nil {
			if r == silence {
				return nil
			}
			return r
		}
	}
	return milter.RespContinue
}

// silence is the answer of a filter that does not answer.
const silence = milter.SimpleResponse(0)

func (b *backend) Connect(host, family string, port uint16, addr net.IP, m *milter.Modifier) (milter.Response, error) {
	return b.at(Connect, m, " %s %s %d %s", host, family, port, addr), nil
}

func (b *backend) Helo(name string, m *milter.Modifier) (milter.Response, error) {
	return b.at(Helo, m, " %s", name), nil
}

func (b *backend) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	b.count = map[Stage]int{}
	b.mu.Lock()
	b.shown = Message{Body: []byte{}}
	b.mu.Unlock()
	return b.at(Mail, m, " %s", from), nil
}

func (b *backend) RcptTo(to string, m *milter.Modifier) (milter.Response, error) {
	return b.at(Rcpt, m, " %s", to), nil
}

func (b *backend) Header(name, value string, m *milter.Modifier) (milter.Response, error) {
	b.mu.Lock()
	b.shown.Header = append(b.shown.Header, Field{name, value})
	b.mu.Unlock()
	return b.at(Header, m, " %s", name), nil
}

func (b *backend) Headers(_ textproto.MIMEHeader, m *milter.Modifier) (milter.Response, error) {
	return b.at(EndOfHeader, m, ""), nil
}

func (b *backend) BodyChunk(chunk []byte, m *milter.Modifier) (milter.Response, error) {
	b.mu.Lock()
	b.shown.Body = append(b.shown.Body, chunk...)
	b.mu.Unlock()
	return b.at(Body, m, " %d", len(chunk)), nil
}

func (b *backend) Body(m *milter.Modifier) (milter.Response, error) {
	return b.at(EndOfMessage, m, ""), nil
}

func (b *backend) Abort(m *milter.Modifier) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, "abort")
	return nil
}

// saw is the events so far, one a line.
func (f *filter) saw() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.events, "\n")
}

// dial opens a session that must end cleanly.
func dial(t *testing.T, f *filter, opts Options) *Session {
	t.Helper()
	s, err := Dial("tcp", f.start(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send plays a transaction that must not break the protocol.
func send(t *testing.T, s *Session, e Envelope, m Message) Result {
	t.Helper()
	r, err := s.Send(e, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// at answers one stage, and lets all others go on.
func at(stage Stage, do func(m *milter.Modifier, conn net.Conn) milter.Response) func(Stage, int, *milter.Modifier, net.Conn) milter.Response {
	return func(st Stage, n int, m *milter.Modifier, conn net.Conn) milter.Response {
		if st != stage {
			return nil
		}
		return do(m, conn)
	}
}

// frame is a frame's bytes, for what go-milter would not send.
func frame(code byte, data string) []byte {
	n := len(data) + 1
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), code}, data...)
}

var (
	envelope = Envelope{From: "s@a.test", FromArgs: []string{"BODY=8BITMIME"}, To: To("r@b.test", "q@b.test")}
	letter   = Message{
		Header: []Field{{"Received", " from x\n\tby y"}, {"Subject", " hi"}, {"X-A", "1"}, {"x-a", "\t2"}, {"X-A", "  3"}, {"Empty", ""}},
		Body:   []byte("one\r\ntwo\r\n"),
	}
)

func itoa(n int) string { return fmt.Sprint(n) }

package reinject

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	defaultTimeout = time.Minute

	// finalTimeout is how long the answer to the data is waited for. To be
	// impatient there is to send messages twice (RFC 5321, section 4.5.3.2.6).
	finalTimeout = 10 * time.Minute

	// quitTimeout is how long the server's good-bye is waited for.
	quitTimeout = 2 * time.Second
)

// Session is a connection for one message after another. It is not safe for
// use by several goroutines.
type Session struct {
	target  Target
	conn    *conn
	client  *smtp.Client
	replies *textproto.Reader // reads the replies to what we say beside the client
	buf     []byte            // for the data
	broken  bool              // nothing can be said any more, not even QUIT
}

// Dial connects to the target and greets it.
func (t Target) Dial(ctx context.Context) (*Session, error) {
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.Hello == "" {
		t.Hello = "localhost"
	}
	network, address := "tcp", t.Address
	if path, is := strings.CutPrefix(t.Address, "unix:"); is {
		network, address = "unix", path
	}
	dialer := net.Dialer{Timeout: t.Timeout}
	socket, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	s := &Session{target: t, conn: newConn(socket, t.Timeout), buf: make([]byte, 0, writeSize+len("\r\n.\r\n"))}
	s.replies = textproto.NewReader(bufio.NewReader(s.conn))
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	if err := s.greet(); err != nil {
		socket.Close()
		return nil, interrupted(ctx, err)
	}
	return s, nil
}

// greet reads the greeting and says EHLO, or HELO to a server that does not know
// that; LHLO in LMTP.
func (s *Session) greet() error {
	s.client = smtp.NewClient(s.conn)
	if s.target.LMTP {
		s.client = smtp.NewClientLMTP(s.conn)
	}
	s.client.CommandTimeout = s.target.Timeout
	err := s.client.Hello(s.target.Hello)
	var refused *smtp.SMTPError
	if errors.As(err, &refused) {
		reply := Reply{Code: refused.Code, Text: refused.Message}
		if code := refused.EnhancedCode; code != (smtp.EnhancedCode{}) {
			reply.Enhanced = fmt.Sprintf("%d.%d.%d", code[0], code[1], code[2])
		}
		return check(reply, "the connection", "", reply.positive())
	}
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	return nil
}

// Send sends a message. Where the context ends meanwhile, the connection is
// closed at once. After a refusal the session can go on; after any other error
// but an Unsupported it cannot.
func (s *Session) Send(ctx context.Context, m Message) (Outcome, error) {
	if s.broken {
		return Outcome{}, errBroken
	}
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	e, err := s.compose(m)
	if err != nil {
		return Outcome{}, err
	}
	// Broken until the transaction has come to an end: whatever leaves here
	// earlier, a panic in Write too, leaves a connection to be closed.
	s.broken = true
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	out, err := s.transaction(m, e)
	out.Dropped = e.dropped
	s.broken = !stop() || s.broken
	if s.broken {
		s.conn.Close()
		err = interrupted(ctx, err)
	}
	return out, err
}

// Close ends the session with QUIT, where there is somebody to say it to. What
// the server answers is of no interest.
func (s *Session) Close() error {
	if s.broken {
		return s.conn.Close()
	}
	s.broken = true
	s.client.CommandTimeout = min(s.target.Timeout, quitTimeout)
	if s.client.Quit() != nil {
		return s.conn.Close()
	}
	return nil
}

// transaction sends one message over a connection that waits for one.
func (s *Session) transaction(m Message, e envelope) (out Outcome, err error) {
	if out.Forwarded, err = s.forward(m.Client); err != nil {
		return out, err
	}
	if err := s.command(e.mail, "MAIL", ""); err != nil {
		return out, s.reset(err)
	}
	for i, line := range e.rcpt {
		if err := s.command(line, "RCPT", m.To[i].Address); err != nil {
			return out, s.reset(err)
		}
	}
	if err := s.command("DATA", "DATA", ""); err != nil {
		return out, s.reset(err)
	}
	if err := s.write(m); err != nil {
		return out, fmt.Errorf("writing the message: %w", err)
	}
	out.Replies, err = s.verdict(m.To)
	s.broken = errors.Is(err, ErrUnknown) || slices.ContainsFunc(out.Replies, Reply.closing)
	return out, err
}

// write writes the data and its end. After an error the server has not been
// told the end.
func (s *Session) write(m Message) error {
	w := newDataWriter(s.conn, s.buf)
	if err := m.Write(w); err != nil {
		return err
	}
	if m.Size != 0 && w.count != m.Size {
		return fmt.Errorf("it has %d bytes, where %d were announced", w.count, m.Size)
	}
	return w.end()
}

// verdict reads the answer to the data: one, or in LMTP one for each recipient
// in the order of RCPT (RFC 2033, section 4.2). The error is about the first
// recipient whose answer is not good.
func (s *Session) verdict(to []Recipient) (replies []Reply, err error) {
	for i := range to {
		if i > 0 && !s.target.LMTP {
			replies = append(replies, replies[0])
			continue
		}
		s.conn.said = 0
		reply, problem := s.reply(finalTimeout)
		if problem == nil && !reply.positive() && !reply.negative() {
			problem = fmt.Errorf("unexpected reply %d", reply.Code)
		}
		if problem != nil {
			return replies, errors.Join(err, fmt.Errorf("%w: %w", ErrUnknown, problem))
		}
		replies = append(replies, reply)
		if err == nil {
			recipient := to[i].Address
			if !s.target.LMTP {
				recipient = ""
			}
			err = check(reply, ".", recipient, reply.positive())
		}
	}
	return replies, err
}

// command says a line and wants a positive answer, which for DATA is 354.
func (s *Session) command(line, name, recipient string) error {
	reply, err := s.ask(line)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if name == "DATA" {
		return check(reply, name, recipient, reply.Code == 354)
	}
	return check(reply, name, recipient, reply.positive())
}

// reset takes back a transaction that was refused before the data, for the
// reason err. It is said beside go-smtp's client, which says EHLO once more
// after a RSET.
func (s *Session) reset(err error) error {
	var refused *Refused
	if errors.As(err, &refused) && !refused.closing() {
		s.broken = s.command("RSET", "RSET", "") != nil
	}
	return err
}

func (s *Session) ask(line string) (Reply, error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.target.Timeout)); err != nil {
		return Reply{}, err
	}
	if _, err := s.conn.Write([]byte(line + "\r\n")); err != nil {
		return Reply{}, err
	}
	return s.reply(s.target.Timeout)
}

// enhanced is an enhanced status code and what follows it (RFC 3463, section 2).
var enhanced = regexp.MustCompile(`^([245]\.\d{1,3}\.\d{1,3}) `)

func (s *Session) reply(timeout time.Duration) (Reply, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Reply{}, err
	}
	code, text, err := s.replies.ReadResponse(0)
	if err != nil {
		return Reply{}, err
	}
	reply := Reply{Code: code, Text: text}
	if found := enhanced.FindString(text); found != "" {
		reply.Enhanced = found[:len(found)-1]
		// RFC 2034, section 3: it stands in each line.
		reply.Text = strings.ReplaceAll(text[len(found):], "\n"+found, "\n")
	}
	return reply, nil
}

// check makes an error of a reply that is not good.
func check(reply Reply, command, recipient string, good bool) error {
	if good {
		return nil
	}
	if !reply.negative() {
		return fmt.Errorf("%s: unexpected reply %d", command, reply.Code)
	}
	return &Refused{Command: command, Recipient: recipient, Reply: reply}
}

// interrupted says of an error that it came from the end of the context, where
// that is so: the connection was closed under whoever read or wrote.
func interrupted(ctx context.Context, err error) error {
	if ended := context.Cause(ctx); ended != nil && err != nil {
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

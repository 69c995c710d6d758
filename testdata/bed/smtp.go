package bed

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Reply is what an SMTP server answered.
type Reply struct {
	Command string // what it answers: "greeting", "EHLO", "MAIL", "RCPT r@b.test", "DATA", "."
	Code    int
	Text    string // verbatim from the code on, lines joined by LF
}

func (r Reply) String() string { return r.Command + ": " + r.Text }

// OK says whether the server went along.
func (r Reply) OK() bool { return r.Code < 400 }

// SendMail sends one message over a connection of its own and returns the
// replies: to MAIL, to each RCPT, to DATA, and to the dot that ends the
// message, as far as it came; where the server refuses the connection, only
// that reply. As an MTA's queue does, it goes on with those recipients that
// were accepted. Each line goes out as it is, line end and all: a dot in front
// of it is doubled, and an end is added only to the last line, where that has
// none. A server that does not speak SMTP fails the test.
func SendMail(t testing.TB, addr, from string, to []string, raw []byte) []Reply {
	t.Helper()
	replies, err := sendMail(addr, from, to, raw)
	if err != nil {
		t.Fatalf("sending to %s: %v (so far: %v)", addr, err, replies)
	}
	return replies
}

// Sent says whether the last of a message's replies accepts it.
func Sent(replies []Reply) bool {
	last := replies[len(replies)-1]
	return last.Command == "." && last.OK()
}

func sendMail(addr, from string, to []string, raw []byte) (replies []Reply, err error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &smtpClient{conn, bufio.NewReader(conn)}
	r, err := c.reply("greeting")
	if err == nil && r.OK() {
		r, err = c.command("EHLO", "EHLO client.bed.test")
	}
	if err != nil {
		return nil, err
	}
	if !r.OK() {
		return []Reply{r}, nil
	}
	say := func(name, line string) bool {
		var r Reply
		if r, err = c.command(name, line); err == nil {
			replies = append(replies, r)
		}
		return err == nil && r.OK()
	}
	if !say("MAIL", "MAIL FROM:<"+from+"> BODY=8BITMIME") {
		return replies, err
	}
	accepted := false
	for _, rcpt := range to {
		if say("RCPT "+rcpt, "RCPT TO:<"+rcpt+">") {
			accepted = true
		}
		if err != nil {
			return replies, err
		}
	}
	if !accepted || !say("DATA", "DATA") {
		return replies, err
	}
	say(".", string(stuffed(raw))+".")
	if err == nil {
		_, err = c.command("QUIT", "QUIT")
	}
	return replies, err
}

// stuffed is a message as DATA wants it. Servers that take LF for a line end
// take the dot off behind it too.
func stuffed(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+64)
	for line := range bytes.Lines(raw) {
		if line[0] == '.' {
			out = append(out, '.')
		}
		out = append(out, line...)
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

// smtpClient is a connection to an SMTP server.
type smtpClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func (c *smtpClient) command(name, line string) (Reply, error) {
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return Reply{}, err
	}
	return c.reply(name)
}

// reply reads one reply, perhaps of several lines.
func (c *smtpClient) reply(name string) (Reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return Reply{}, err
	}
	r := Reply{Command: name}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return r, fmt.Errorf("waiting for the reply to %s: %w", name, err)
		}
		line, crlf := strings.CutSuffix(line, "\r\n")
		if !crlf || len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return r, fmt.Errorf("reply to %s: malformed line %q", name, line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil || r.Code != 0 && r.Code != code {
			return r, fmt.Errorf("reply to %s: malformed code in %q", name, line)
		}
		r.Code = code
		r.Text = strings.TrimPrefix(r.Text+"\n"+line, "\n")
		if len(line) == 3 || line[3] == ' ' {
			if c.in.Buffered() > 0 {
				return r, fmt.Errorf("the server said more than its reply to %s", name)
			}
			return r, nil
		}
	}
}

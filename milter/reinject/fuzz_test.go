package reinject

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// parrot is a server that says the next of its replies after each line that it
// is told, and after the end of the data, whatever that is.
type parrot struct {
	net.Conn
	replies [][]byte
	said    bytes.Buffer // and not read yet
	told    []byte
	data    bool // it is told data, to a line with a dot
	final   []byte
	ended   bool // the end of the data has come
	closed  bool
}

func (p *parrot) Read(b []byte) (int, error) {
	if p.said.Len() == 0 {
		return 0, io.EOF
	}
	return p.said.Read(b)
}

func (p *parrot) Write(b []byte) (int, error) {
	if p.closed {
		return 0, net.ErrClosed
	}
	p.told = append(p.told, b...)
	switch {
	case !p.data:
		p.data = string(b) == "DATA\r\n"
		p.answer()
	case bytes.HasSuffix(p.told, []byte("\r\n.\r\n")):
		p.data, p.ended = false, true
		p.final = p.answer()
	}
	return len(b), nil
}

func (p *parrot) answer() (reply []byte) {
	if len(p.replies) > 0 {
		reply, p.replies = p.replies[0], p.replies[1:]
		p.said.Write(reply)
	}
	return reply
}

func (p *parrot) Close() error                     { p.closed = true; return nil }
func (p *parrot) SetDeadline(time.Time) error      { return nil }
func (p *parrot) SetReadDeadline(time.Time) error  { return nil }
func (p *parrot) SetWriteDeadline(time.Time) error { return nil }

// FuzzReplies: whatever a server says, in replies that are separated by RS, no
// message counts as taken but one of which it was told the end and answered that
// with 2xx; and none counts as not taken where it may have been.
func FuzzReplies(f *testing.F) {
	add := func(lmtp bool, replies ...string) { f.Add([]byte(strings.Join(replies, "\x1e")), lmtp) }
	hello := []string{"220 hello\r\n", "250-hello\r\n250-SIZE\r\n250-DSN\r\n250 XFORWARD NAME ADDR HELO\r\n"}
	usual := append(slices.Clone(hello), "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n")
	add(false, append(slices.Clone(usual), "250-2.0.0 taken\r\n250 2.0.0 yes\r\n")...)
	add(false, append(slices.Clone(usual), "451 4.3.0 later\r\n", "250 ok\r\n")...)
	add(false, append(slices.Clone(usual), "354 go on\r\n")...)
	add(false, append(slices.Clone(usual), "250 ok")...)
	add(false, append(slices.Clone(usual), "250\r\n")...)
	add(true, "220\r\n", "250-hello\r\n250\r\n", "250\r\n", "250\n", "250\r\n", "354\r\n", "250-a\r\n250\r\n550\r\n")
	add(false, append(slices.Clone(hello), "500 what\r\n", "500 what\r\n", "250 ok\r\n", "550 5.1.1 nobody\r\n", "250 ok\r\n")...)
	add(false, append(slices.Clone(hello), "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n")...)
	add(true, "220 hello\r\n", "250 hello\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 a\r\n451 4.2.2 full\r\n")
	add(true, "220 hello\r\n", "250 hello\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250-2.0.0 a\r\n250 2.0.0 b\r\n")
	add(false, "220 hello\r\n", "502 no\r\n", "250 hello\r\n")
	add(false, "421 4.3.2 busy\r\n")
	f.Fuzz(func(t *testing.T, script []byte, lmtp bool) {
		p := &parrot{replies: bytes.Split(script, []byte{0x1e})}
		p.answer()
		s := &Session{target: Target{LMTP: lmtp, Hello: "localhost", Timeout: time.Second}, conn: newConn(p, time.Second), buf: make([]byte, 0, writeSize+len("\r\n.\r\n"))}
		s.replies = textproto.NewReader(bufio.NewReader(s.conn))
		if s.greet() != nil {
			return
		}
		m := Message{From: "a@b.test", To: []Recipient{{Address: "c@d.test"}, {Address: "e@f.test"}},
			Client: Client{Name: "c.test", Helo: "h"},
			Write:  func(w io.Writer) error { _, err := io.WriteString(w, "A: b\r\n\r\n.\r\n"); return err }}
		out, err := s.Send(context.Background(), m)
		wants := finals(p.final)
		for i := range m.To {
			want := wants[0]
			if lmtp {
				want = wants[i]
			}
			if out.Accepted(i) != (p.ended && want == 2) {
				t.Errorf("recipient %d: accepted is %v, and the server said %q (data ended: %v)", i, out.Accepted(i), p.final, p.ended)
			}
			if p.ended && want == 0 && !errors.Is(err, ErrUnknown) {
				t.Errorf("recipient %d: after %q the error is %v", i, p.final, err)
			}
		}
		if both := out.Accepted(0) && out.Accepted(1); both != (err == nil) {
			t.Errorf("both accepted: %v, and the error is %v", both, err)
		}
		if !p.ended && errors.Is(err, ErrUnknown) {
			t.Errorf("the data has no end, and the error is %v", err)
		}
	})
}

// finals are the first digits of two replies, one after the other in what a
// server said; 0 where it is none that answers the data. A reply has a blank
// behind its code, or a hyphen where more lines of it follow, or nothing at all.
func finals(said []byte) (digits [2]byte) {
	for i := range digits {
		code := ""
		for more := true; more; {
			line, rest, ended := strings.Cut(string(said), "\n")
			if !ended && line == "" {
				return digits
			}
			said = []byte(rest)
			line = strings.TrimSuffix(line, "\r")
			if ended && len(line) == 3 {
				line += " "
			}
			isReply := len(line) > 3 && (line[3] == ' ' || line[3] == '-')
			if code == "" && !isReply {
				return digits
			}
			if code == "" {
				code = line[:3]
			}
			more = !isReply || line[:3] != code || line[3] == '-'
		}
		if number, err := strconv.Atoi(code); err != nil || !strings.Contains("245", code[:1]) || number < 100 {
			return digits
		}
		digits[i] = code[0] - '0'
	}
	return digits
}

// FuzzForward: whatever a client calls itself, XFORWARD is two commands at most,
// each one line of printable ASCII that Postfix reads whole, and says what it was
// given and nothing beside it.
func FuzzForward(f *testing.F) {
	f.Add("c.test", "a b=+\xff\r\nRSET", "4F2C91A0B7", "NAME ADDR PORT PROTO HELO IDENT SOURCE", []byte{192, 0, 2, 1})
	f.Add("[192.0.2.1]", "[UNAVAILABLE]", "", "helo Name HELO X", []byte("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, name, helo, id, offered string, addr []byte) {
		c := Client{Name: name, Helo: helo, QueueID: id}
		c.Addr, _ = netip.AddrFromSlice(addr)
		said := make(map[string]string)
		for _, line := range c.xforward(strings.Fields(offered)) {
			words := strings.Split(line, " ")
			if len(line) > 4*maxAttribute*3 || words[0] != "XFORWARD" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
				t.Fatalf("the command is %q", line)
			}
			for _, word := range words[1:] {
				attribute, value, _ := strings.Cut(word, "=")
				if _, twice := said[attribute]; twice || !strings.Contains(strings.ToUpper(offered), attribute) {
					t.Errorf("%s is said twice, or was not offered", attribute)
				}
				said[attribute] = value
			}
		}
		if value, is := said["HELO"]; is && helo != "" && decoded(t, value) != helo[:min(len(helo), maxAttribute)] {
			t.Errorf("%q is said as %q", helo, value)
		}
		if value, is := said["IDENT"]; is && id != "" && decoded(t, value) != id[:min(len(id), maxAttribute)] {
			t.Errorf("%q is said as %q", id, value)
		}
	})
}

// decoded reads xtext (RFC 3461, section 4).
func decoded(t *testing.T, text string) string {
	t.Helper()
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '+' {
			out = append(out, text[i])
			continue
		}
		if i+3 > len(text) {
			t.Fatalf("%q is no xtext", text)
		}
		code, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil {
			t.Fatalf("%q is no xtext", text)
		}
		out = append(out, byte(code))
		i += 2
	}
	return string(out)
}

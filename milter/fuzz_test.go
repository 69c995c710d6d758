package milter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// canned is a connection on which everything that will ever come has come.
type canned struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *canned) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *canned) Close() error                     { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

func newCanned(raw []byte) (*canned, *conn) {
	c := &canned{in: bytes.NewReader(raw)}
	return c, newConn(c, defaultTimeouts)
}

func framed(code byte, data []byte) []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))
	return append(append(frame, code), data...)
}

// FuzzNegotiation: nothing is agreed on that was not offered, what is lacking
// is noted, and whoever offers nothing sound is not answered.
func FuzzNegotiation(f *testing.F) {
	f.Add(framed('O', offer(6, client.AllActions, client.AllProtocol)))
	f.Add(framed('O', offer(2, 0x3f, 0x7f)))
	f.Add(framed('O', offer(7, 0xffffffff, 0xffffffff)))
	f.Add(framed('O', append(offer(6, 0x100, 0), "\x00\x00\x00\x01j\x00"...)))
	f.Add(framed('O', offer(1, client.AllActions, 0)))
	f.Add(framed('C', []byte("mx\x00U")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		wire, c := newCanned(raw)
		if err := c.negotiate(); err != nil {
			if wire.out.Len() > 0 {
				t.Fatalf("%v, and it is answered %x", err, wire.out.Bytes())
			}
			return
		}
		answer := wire.out.Bytes()
		if len(answer) != 17 || binary.BigEndian.Uint32(answer) != 13 || answer[4] != 'O' {
			t.Fatalf("the answer is %x", answer)
		}
		number := func(from []byte, i int) uint32 { return binary.BigEndian.Uint32(from[5+4*i:]) }
		offered, taken := milter.OptAction(number(raw, 1)), milter.OptAction(number(answer, 1))
		if number(answer, 0) > min(number(raw, 0), version) || number(answer, 0) < oldestVersion {
			t.Errorf("version %d was offered, and %d is spoken", number(raw, 0), number(answer, 0))
		}
		if taken&^offered != 0 || taken|c.lacking != actionsNeeded || c.lacking&offered != 0 {
			t.Errorf("actions %#x were offered, %#x are taken, %#x are lacking", offered, taken, c.lacking)
		}
		if agreed := milter.OptProtocol(number(answer, 2)); agreed != c.protocol || number(answer, 2)&^number(raw, 2) != 0 {
			t.Errorf("protocol %#x was offered, %#x is agreed on and %#x held", number(raw, 2), agreed, c.protocol)
		}
	})
}

// FuzzCommand: what is noted of a command is what the frame says, byte for
// byte, and nothing is noted of one that is malformed.
func FuzzCommand(f *testing.F) {
	f.Add(byte('M'), []byte("<sender@example.net>\x00SIZE=100\x00BODY=8BITMIME\x00"))
	f.Add(byte('R'), []byte("<ann@example.org>\x00ORCPT=rfc822;ann@example.org\x00NOTIFY=NEVER\x00"))
	f.Add(byte('R'), []byte("\x00"))
	f.Add(byte('L'), []byte("Subject\x00 hello\n\tthere\x00"))
	f.Add(byte('L'), []byte("Subject\x00\x00"))
	f.Add(byte('D'), []byte("R{rcpt_addr}\x00ann@example.org\x00i\x004F2C91A0B7\x00"))
	f.Add(byte('D'), []byte("M"))
	f.Add(byte('C'), []byte("mail.example.net\x004\xc0\x00192.0.2.1\x00"))
	f.Add(byte('C'), []byte("local\x00L\x00\x00/run/sock\x00"))
	f.Add(byte('U'), []byte("XYZZY\x00"))
	f.Fuzz(func(t *testing.T, code byte, data []byte) {
		wire, c := newCanned(nil)
		c.message["rcpt_addr"] = "before@example.org"
		var fields []string
		c.header = func(name, value string) { fields = append(fields, name+"\x00"+value+"\x00") }
		ours, err := c.take(milter.Code(code), data)
		if wire.out.Len() > 0 && (err != nil || !bytes.Equal(wire.out.Bytes(), []byte{0, 0, 0, 1, 'c'})) {
			t.Fatalf("%c %q is answered %x (%v)", code, data, wire.out.Bytes(), err)
		}
		if err != nil {
			if len(fields) > 0 {
				t.Fatalf("a header field of a malformed command: %q", fields)
			}
			return
		}
		switch code {
		case 'M', 'R':
			if said := strings.Join(c.args, "\x00") + "\x00"; ours || said != string(data) || c.resolved != "before@example.org" || c.macro("rcpt_addr") != "" {
				t.Errorf("%q became %q, of %q", data, c.args, c.resolved)
			}
		case 'L':
			if !ours || len(fields) != 1 || fields[0] != string(data) || fields[0][0] == 0 {
				t.Errorf("%q became %q", data, fields)
			}
		case 'D':
			sameMacros(t, c, data)
		case 'C':
			if c.client != "" && !bytes.Contains(data, []byte(c.client)) {
				t.Errorf("%q has the address %q", data, c.client)
			}
		}
	})
}

// sameMacros looks each macro of a packet up again; the last of a name counts.
func sameMacros(t *testing.T, c *conn, data []byte) {
	t.Helper()
	words := strings.Split(string(data[1:]), "\x00")
	seen := make(map[string]bool)
	for i := len(words) - 3; i >= 0; i -= 2 {
		name := strings.Trim(words[i], "{}")
		if !seen[name] && c.macro(name) != words[i+1] && !strings.ContainsRune("CH", rune(data[0])) {
			t.Errorf("%q: the macro %q is %q", data, name, c.macro(name))
		}
		seen[name] = true
	}
	if data[0] == 'M' && !seen["rcpt_addr"] && c.macro("rcpt_addr") != "" {
		t.Error("a macro of the message before is left")
	}
}

// everybody is a store in which every address has the same key.
type everybody struct{ key string }

func (e everybody) RecipientKeys(_ context.Context, addresses []string) (rows []keys.Row, _ error) {
	for _, address := range addresses {
		rows = append(rows, keys.Row{Address: address, Account: address, Known: true, Enabled: true, Key: e.key})
	}
	return rows, nil
}

func (everybody) Close() {}

// FuzzFrames plays an MTA that says anything, in steps that are separated by RS;
// what begins with "!" goes out without a frame around it. Each command that has
// an answer gets one; and since everybody has a key, nothing is ever accepted
// but a message that is sealed, and that opens as what was shown of it, and not
// of another.
func FuzzFrames(f *testing.F) {
	owner, public := newEntity(f, "ann@example.org")
	usual := []string{"Cmail.example.net\x004\xc0\x00192.0.2.1\x00", "Hmail.example.net\x00", "DM{mail_addr}\x00a@b\x00", "M<sender@example.net>\x00SIZE=1\x00",
		"DR{rcpt_addr}\x00ann@example.org\x00", "R<ann@example.org>\x00", "T", "LSubject\x00 hello\x00", "LContent-Type\x00 text/plain;\n charset=x\x00", "N", "Bbody\r", "B\nmore", "E"}
	add := func(protocol uint32, steps ...string) { f.Add(protocol, []byte(strings.Join(steps, "\x1e"))) }
	add(uint32(client.AllProtocol), append(slices.Clone(usual), append([]string{"A"}, usual...)...)...)
	add(0, append(slices.Clone(usual), usual[2:]...)...)
	add(0, "M<a>\x00", "R<a@b>\x00", "LA\x00b\x00", "A", "M<a>\x00", "R<a@b>\x00", "R<c@d>\x00", "N", "E", "Q")
	add(0, "R<a@b>\x00", "N", "B", "E", "M<>\x00", "N", "R<a@b>\x00", "E", "Ux\x00", "K")
	add(0, "M<a>\x00", "R<a@b>\x00", "N", "N", "LA\x00b\x00", "Bx", "E", "E")
	add(uint32(client.AllProtocol), "Cmx\x004", "M<a>\x00") // go-milter would answer it
	add(0, "M<a>\x00", "R<(>\x00", "R<a%b@c>\x00", "R<a@b>\x00", "N", "E", "!\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, protocol uint32, script []byte) {
		log := &logged{}
		always := true
		config := Config{Store: everybody{public}, Policy: policy.Default(), Spool: envelope.Spool{Dir: "/nonexistent", Memory: 16 << 20}, Log: slog.New(slog.NewTextHandler(log, nil))}
		config.Policy.Settings.Always = &always
		server := NewServer(config, 1)
		near, far := net.Pipe()
		near.SetDeadline(time.Now().Add(20 * time.Second))
		server.places <- struct{}{}
		server.start(far, "inet:fuzz")
		m := &anyMTA{t: t, conn: near, owner: owner}
		m.play(milter.OptProtocol(protocol), bytes.Split(script, []byte{0x1e}))
		near.Close()
		server.ended.Wait()
		if strings.Contains(log.String(), "panic") {
			t.Fatalf("the log has a panic:\n%s", log)
		}
		if server.current.users != 0 {
			t.Errorf("%d messages hold the settings", server.current.users)
		}
	})
}

// anyMTA notes of what it says what a filter has to go by.
type anyMTA struct {
	t        *testing.T
	conn     net.Conn
	owner    *openpgp.Entity
	protocol milter.OptProtocol

	shown  []byte // of the message, while it came in its order
	stage  byte   // the last step of a message that was accepted: M, R, N; 0 outside
	odd    bool   // out of order, so that nobody can say what was shown
	header []byte // that the filter added at the end
	body   []byte // that the filter made
}

func (m *anyMTA) play(protocol milter.OptProtocol, steps [][]byte) {
	if m.say(framed('O', offer(6, client.AllActions, protocol))) != nil {
		return
	}
	code, answer, err := m.hear()
	if err != nil || code != 'O' || len(answer) != 12 {
		m.t.Fatalf("the negotiation is answered %c %x, %v", code, answer, err)
	}
	m.protocol = milter.OptProtocol(binary.BigEndian.Uint32(answer[8:]))
	for _, step := range steps {
		if len(step) == 0 {
			continue
		}
		if step[0] == '!' { // whether that is a frame, and which, is not followed
			m.say(step[1:])
			return
		}
		if m.say(framed(step[0], step[1:])) != nil || m.answered(step[0], step[1:]) != nil {
			return
		}
	}
}

func (m *anyMTA) say(raw []byte) error {
	_, err := m.conn.Write(raw)
	m.notLate(err)
	return err
}

// notLate fails the test where the filter does not do its part.
func (m *anyMTA) notLate(err error) {
	m.t.Helper()
	if late, is := errors.AsType[net.Error](err); is && late.Timeout() {
		m.t.Fatal("the filter neither reads nor answers")
	}
}

func (m *anyMTA) hear() (code byte, data []byte, err error) {
	var head [5]byte
	if _, err = io.ReadFull(m.conn, head[:]); err == nil {
		data = make([]byte, binary.BigEndian.Uint32(head[:])-1)
		_, err = io.ReadFull(m.conn, data)
	}
	m.notLate(err)
	return head[4], data, err
}

// answered waits for the answer to a command, where one is due. An error is the
// end of the connection.
func (m *anyMTA) answered(code byte, data []byte) error {
	promised := map[byte]milter.OptProtocol{'C': milter.OptNoConnReply, 'H': milter.OptNoHeloReply, 'L': milter.OptNoHeaderReply, 'B': milter.OptNoBodyReply}
	if !strings.ContainsRune("CHMRTLNBEU", rune(code)) || m.protocol&promised[code] != 0 {
		m.follow(code, data, 'c')
		return nil
	}
	m.header, m.body = nil, nil
	for {
		answer, said, err := m.hear()
		if err != nil {
			return err
		}
		if code == 'E' && m.edit(answer, said) {
			continue
		}
		m.verdict(code, answer, said)
		m.follow(code, data, answer)
		return nil
	}
}

// edit takes an edit: header fields, and behind them nothing but the body.
func (m *anyMTA) edit(answer byte, said []byte) bool {
	switch answer {
	case 'p', 'm':
	case 'h':
		name, value, _ := strings.Cut(string(said), "\x00")
		m.header = append(m.header, name+":"+strings.TrimSuffix(value, "\x00")+"\n"...)
	case 'b':
		m.body = append(m.body, said...)
		return true
	default:
		return false
	}
	if m.body != nil {
		m.t.Fatalf("%c %q behind the body", answer, said)
	}
	return true
}

var refusal = regexp.MustCompile(`^[45][0-9][0-9] [45]\.[0-9]\.[0-9] [ -~]+\x00$`)

// verdict holds an answer to what may be answered.
func (m *anyMTA) verdict(code, answer byte, said []byte) {
	m.t.Helper()
	switch {
	case answer == 'y' && refusal.Match(said) && strings.ContainsRune("MRNE", rune(code)):
	case answer == 'c' && len(said) == 0 && code != 'E':
	case answer == 'a' && len(said) == 0 && code == 'E' && m.body != nil:
		m.opens()
	default:
		m.t.Fatalf("%c is answered %c %q", code, answer, said)
	}
}

func (m *anyMTA) opens() {
	m.t.Helper()
	sealed := append(append(bytes.Clone(m.header), '\n'), m.body...)
	got, err := envelope.Open(sealed, &envelope.Secret{OpenPGP: openpgp.EntityList{m.owner}})
	if err != nil {
		m.t.Fatalf("what was accepted does not open: %v\n%.2000q", err, sealed)
	}
	if !m.odd && !bytes.Equal(got, m.shown) {
		m.t.Fatalf("it opens as\n%.2000q\nand shown was\n%.2000q", got, m.shown)
	}
}

// follow notes what the filter has been shown.
func (m *anyMTA) follow(code byte, data []byte, answer byte) {
	went := answer == 'c'
	switch {
	case code == 'M':
		m.shown, m.stage, m.odd = nil, 'M', !went
	case code == 'R' && went && m.stage != 0:
		m.odd = m.odd || m.stage == 'N'
	case code == 'L' && m.stage != 0:
		name, value, _ := strings.Cut(string(data), "\x00")
		if m.protocol&milter.OptHeaderLeadingSpace == 0 {
			value = " " + value
		}
		value = strings.ReplaceAll(strings.TrimSuffix(value, "\x00"), "\n", "\r\n")
		m.shown = append(m.shown, name+":"+value+"\r\n"...)
		m.odd = m.odd || m.stage == 'N'
	case code == 'N':
		m.odd = m.odd || m.stage != 'M' || !went
		m.shown, m.stage = append(m.shown, "\r\n"...), 'N'
	case code == 'B':
		m.odd = m.odd || m.stage != 'N'
		m.shown = append(m.shown, data...)
	case code == 'A', code == 'E':
		m.stage, m.odd = 0, true
	}
}

// FuzzChanges: whatever is to become of each header field, the edits make it
// come about in Postfix, which counts anew behind a removal, and in Sendmail,
// which does not.
func FuzzChanges(f *testing.F) {
	f.Add([]byte("A: 1\nB: 2\na: 3\nA: 4\nb: 5\nC:\n\n"), uint64(1))
	f.Add([]byte(strings.Repeat("DKIM-Signature: x\n", 20)+"Subject: y\n\n"), uint64(2))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		var shown, kept, want []envelope.Field
		chance := rand.New(rand.NewPCG(seed, 0))
		for _, field := range client.ParseMessage(raw).Header {
			was := envelope.Field(field)
			is := []envelope.Field{was, {}, {Name: was.Name, Value: " changed"}}[chance.IntN(3)]
			shown, kept = append(shown, was), append(kept, is)
			if is.Name != "" {
				want = append(want, is)
			}
		}
		edits := changes(shown, kept)
		for who, renumbers := range map[string]bool{"Postfix": true, "Sendmail": false} {
			if got := carriedOut(t, shown, edits, renumbers); !slices.Equal(got, want) {
				t.Errorf("in %s it becomes\n%q\nwant\n%q", who, got, want)
			}
		}
	})
}

// carriedOut is a header after the edits.
func carriedOut(t *testing.T, header []envelope.Field, edits []change, renumbers bool) []envelope.Field {
	t.Helper()
	fields := slices.Clone(header)
	none := func(f envelope.Field) bool { return f.Name == "" }
	for _, edit := range edits {
		named := func(f envelope.Field) bool { return strings.EqualFold(f.Name, edit.name) }
		var places []int
		for i, f := range header {
			if renumbers {
				f = fields[i]
			}
			if named(f) {
				places = append(places, i)
			}
		}
		if edit.index < 1 || edit.index > len(places) {
			t.Fatalf("the edit %+v is of a field that is not there", edit)
		}
		fields[places[edit.index-1]] = edit.to
	}
	return slices.DeleteFunc(fields, none)
}

// FuzzHeader seals messages with any header on the way of Postfix and of
// Sendmail, with every protection of the header. Outside stays what is not the
// payload's, in its order, or what hides it; and opened, the message is the one
// that was shown.
func FuzzHeader(f *testing.F) {
	owner, public := newEntity(f, "ann@example.org")
	var sessions [12]*client.Session
	for i, protection := range keys.Protections {
		filter := newFilter(f, func(c *Config) {
			c.Store = everybody{public}
			c.Policy.Settings.Protection = &protection
		})
		for way := range 4 {
			sessions[4*i+way] = filter.dial(f, optionsOf(way))
		}
	}
	f.Add([]byte("Received: a\n\tb\nSubject:  x\ndkim-signature: y\nMIME-Version: 1.0\ncontent-TYPE: text/html\nX-Sealmilter-Copy: 1\n\nbody"), byte(0))
	f.Add([]byte("Mime-Version: 1.0\nMIME-Version: 1.0\nA:\nARC-Seal: i=1\nContent-Type:\n\n.\n"), byte(1))
	f.Add([]byte("A:b\nMIME-Version: 1.0 (x)\nA:  c\nDKIM-Signature:\nSubject:\n\n"), byte(2))
	f.Add([]byte("\n"), byte(3))
	f.Add([]byte("Subject:x\nsubject:\nKeywords: a\n b\nComments:\nHP-Outer: Subject: y\nContent-Type: text/plain; hp=\"cipher\"\n\n"), byte(6))
	f.Add([]byte("From: \"Ann, a\" <ann@example.org>\nTo: b@c.test (B)\nDate: Tue, 3 Mar 2026 12:34:56 +0530\nSubject: x\n\n"), byte(9))
	f.Fuzz(func(t *testing.T, raw []byte, way byte) {
		way %= byte(len(sessions))
		m := client.ParseMessage(raw)
		result, err := sessions[way].Send(client.Envelope{From: "a@b.test", To: client.To("ann@example.org")}, m)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Header) > maxChanges && result.Queued == nil {
			return
		}
		opens(t, result, owner, asShown(m, int(way%4)))
		if got, want := result.Queued.Header, outside(m.Header); way < 4 && (len(got) < len(want) || !slices.Equal(got[:len(want)], want)) {
			t.Errorf("outside is\n%q\nwant\n%q", got, want)
		}
		for _, name := range []string{"MIME-Version", "Content-Type", "X-Sealmilter"} {
			if values := result.Queued.Values(name); len(values) != 1 {
				t.Errorf("%s is %q", name, values)
			}
		}
		if way < 4 {
			return
		}
		for _, hidden := range []string{"Subject", "Keywords", "Comments"} {
			for _, value := range result.Queued.Values(hidden) {
				if hidden != "Subject" || value != "[...]" {
					t.Errorf("outside %s is %q", hidden, value)
				}
			}
		}
	})
}

// optionsOf are those of an MTA of one kind or the other, which offers
// HDR_LEADSPC or does not.
func optionsOf(way int) client.Options {
	opts := client.Options{Version: 6, Actions: client.AllActions, Protocol: client.AllProtocol, Sendmail: way&1 != 0}
	if way&2 != 0 {
		opts.Protocol &^= milter.OptHeaderLeadingSpace
	}
	return opts
}

// asShown is a message as a filter takes it: where the MTA eats one space behind
// the colon, nobody can tell whether there was one.
func asShown(m client.Message, way int) client.Message {
	if way&2 != 0 {
		m = m.WithoutLeadingSpace()
		for i := range m.Header {
			m.Header[i].Value = " " + m.Header[i].Value
		}
	}
	return m
}

// outside are the fields that stay as they came.
func outside(header []client.Field) (stay []client.Field) {
	versions := 0
	for _, field := range header {
		if strings.EqualFold(field.Name, "MIME-Version") {
			versions++
		}
	}
	inside := regexp.MustCompile(`(?i)^(content-.*|dkim-signature|arc-.*|x-sealmilter.*)$`)
	for _, field := range header {
		sound := versions == 1 && strings.TrimSpace(field.Value) == "1.0"
		if !inside.MatchString(field.Name) && (sound || !strings.EqualFold(field.Name, "MIME-Version")) {
			stay = append(stay, field)
		}
	}
	return stay
}

// FuzzGuard: a guard is good for its recipients in any order, for its time, and
// for nothing else; and nothing is one that was not made with the secret.
func FuzzGuard(f *testing.F) {
	f.Add("ann@example.org", "bob@example.org", "", int64(60))
	f.Add("a,1:b", "b", "-", int64(-3601))
	f.Add("", "5:", "5f5e100-x-00", int64(3600))
	now := time.Unix(1_800_000_000, 0)
	secret := []byte("a secret of the site")
	to := func(addresses ...string) (all []*recipient) {
		for _, address := range addresses {
			all = append(all, &recipient{address: address})
		}
		return all
	}
	f.Fuzz(func(t *testing.T, a, b, value string, age int64) {
		guard, err := newGuard(secret, to(a, b), now)
		if err != nil {
			t.Fatal(err)
		}
		seconds := time.Duration(age%10_000) * time.Second
		if fresh := seconds.Abs() < guardLife; isGuard(secret, guard, to(b, a), now.Add(seconds)) != fresh {
			t.Errorf("after %v the guard %q is good: %v", seconds, guard, !fresh)
		}
		for _, others := range [][]*recipient{to(a), to(b), to(a + b), to(), to(a, b, b+"x"), to(a+","+b, b)} {
			same := guardMAC(secret, "", others) == guardMAC(secret, "", to(a, b))
			alike := maps.Equal(addresses(others), addresses(to(a, b)))
			if same != alike || isGuard(secret, guard, others, now) != alike {
				t.Errorf("the guard for %q and %q is good for %d others", a, b, len(others))
			}
		}
		if value != guard && isGuard(secret, value, to(a, b), now) {
			t.Errorf("%q is a guard", value)
		}
	})
}

func addresses(of []*recipient) map[string]bool {
	all := make(map[string]bool)
	for _, r := range of {
		all[r.address] = true
	}
	return all
}

// FuzzDisclosed: who is written in To between brackets or blanks is disclosed,
// and whoever is disclosed is written there.
func FuzzDisclosed(f *testing.F) {
	f.Add(`Ann <ann@example.org>, "Bob, the" <bob@example.org> (cc: cleo@example.org)`, "ann@example.org")
	f.Add("undisclosed-recipients:;", "ann@example.org")
	f.Add(`"ann"@Example.ORG`, "Ann@example.org")
	f.Add("ann@example.org.uk, joann@example.org", "ann@example.org")
	f.Add("ann@xn--bcher-kva.example", "ann@bücher.example")
	f.Fuzz(func(t *testing.T, value, address string) {
		known := func(value string, naming keys.Naming) bool {
			m := &message{settings: newSettings(Config{Naming: naming}), header: []envelope.Field{{Name: "To", Value: " " + value}}}
			return m.isDisclosed(&recipient{address: address})
		}
		disclosed := known(value, keys.Naming{})
		if known(value, keys.Naming{CaseSensitive: true}) && !disclosed {
			t.Errorf("%q in %q is disclosed only where case counts", address, value)
		}
		if plain := isDotAtom(strings.Replace(address, "@", ".", 1)) && strings.Count(address, "@") == 1; plain {
			for _, written := range []string{address, "Ann <" + address + ">", value + ",\n\t" + address} {
				if !known(written, keys.Naming{}) {
					t.Errorf("%q in %q is not disclosed", address, written)
				}
			}
		}
		if disclosed && len(value) < 100 && !isWritten(value, address) {
			t.Errorf("%q in %q is disclosed", address, value)
		}
	})
}

// isWritten looks at every part of a text for one that means the address.
func isWritten(text, address string) bool {
	for from := range text {
		for to := from + 1; to <= len(text); to++ {
			if folded(text[from:to], keys.Naming{}) == folded(address, keys.Naming{}) {
				return true
			}
		}
	}
	return false
}

// FuzzNames: a recipient is looked up by its address, and by each address that
// its local part is; whoever has a local part that could mean another mailbox is
// not looked up where the MTA has not said what it means.
func FuzzNames(f *testing.F) {
	for _, address := range []string{"ann@example.org", `"ann@example.org"@example.org`, "a@b@c@d", "ann%b@c", "b!ann@c", "ann", `"a\"@b"@c`, "(", "@a:b@c"} {
		f.Add(address, "")
		f.Add(address, "ann@example.org")
	}
	f.Fuzz(func(t *testing.T, address, resolved string) {
		r := &recipient{address: address, resolved: resolved}
		names, err := r.names(keys.Naming{})
		if err != nil {
			if local, _, _ := strings.Cut(address, "@"); resolved != "" || strings.Contains(address, "@") && !strings.ContainsAny(local, "%!") {
				t.Errorf("%q, resolved as %q: %v", address, resolved, err)
			}
			return
		}
		asked := address
		if resolved != "" {
			asked = resolved
		}
		if names[0] != asked || resolved != "" && keys.Readable(address) && !slices.Contains(names, address) {
			t.Errorf("%q, resolved as %q, is looked up as %q", address, resolved, names)
		}
		for _, name := range names[1:] {
			if name != address && (!strings.HasPrefix(keys.Canonical(asked), name+"@") || !strings.Contains(name, "@")) {
				t.Errorf("%q, resolved as %q, is looked up as %q", address, resolved, names)
			}
		}
	})
}

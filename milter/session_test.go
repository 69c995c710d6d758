package milter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/detect"
	"sealmilter/policy"
)

func TestSealed(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	m := client.ParseMessage([]byte(strings.Join([]string{
		"Received: from a\n\tby b", "DKIM-Signature: v=1; one", "Subject: secret words", "MIME-Version: 1.0",
		"Content-Type: text/html", "content-transfer-encoding: 8bit", "X-Sealmilter: forged", "dkim-signature: v=1; two",
		"ARC-Seal: i=1", "Authentication-Results: mx; dkim=pass", "", "body words"}, "\n")))
	result := f.send(t, m, "ann@example.org")
	opens(t, result, ann, m)

	q := result.Queued
	for name, want := range map[string][]string{
		"Subject":                   {"secret words"},
		"Authentication-Results":    {"mx; dkim=pass"},
		"MIME-Version":              {"1.0"},
		"X-Sealmilter":              {"sealed"},
		"DKIM-Signature":            nil,
		"ARC-Seal":                  nil,
		"Content-Transfer-Encoding": nil,
	} {
		if got := q.Values(name); !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if types := q.Values("Content-Type"); len(types) != 1 || !strings.HasPrefix(types[0], "multipart/encrypted;") {
		t.Errorf("Content-Type is %q", types)
	}
	if !slices.Equal(q.Recipients, []string{"ann@example.org"}) {
		t.Errorf("recipients are %q", q.Recipients)
	}
	if strings.Contains(string(q.Body), "body words") {
		t.Error("the body is in the clear")
	}
	for _, want := range []string{"msg=sealed", "queue_id=4F2C91A0B7", "recipients=1", "cipher=aes256"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, f.log)
		}
	}
}

// TestHeaders removes and keeps fields in every mixture, for both MTAs: they
// count differently after a removal.
func TestHeaders(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	tests := []struct{ name, header, stays string }{
		{"MIME-Version twice", "MIME-Version: 1.0\nA: 1\nMIME-Version: 1.0", "A"},
		{"an unsound MIME-Version", "Mime-Version: 1.0 (made by hand)\nA: 1", "A"},
		{"many of a kind", "Content-Type: a\nA: 1\nCONTENT-TYPE: b\nB: 2\ncontent-type: c\nDKIM-Signature: x\nDKIM-Signature: y\nA: 3", "A B A"},
		{"all of it goes", "Content-Type: text/plain\nContent-ID: <1@x>\nContent-Language: de", ""},
		{"none", "", ""},
		{"empty values", "A:\nContent-Disposition:\nSubject:", "A Subject"},
	}
	for _, sendmail := range []bool{false, true} {
		s := f.dial(t, client.Options{Sendmail: sendmail})
		for _, test := range tests {
			m := client.ParseMessage([]byte(test.header + "\n\nbody\n"))
			result := sendOn(t, s, m, "ann@example.org")
			opens(t, result, ann, m)
			var names []string
			for _, field := range result.Queued.Header {
				names = append(names, field.Name)
			}
			want := append(strings.Fields(test.stays), "MIME-Version", "Content-Type", "X-Sealmilter")
			if !slices.Equal(names, want) {
				t.Errorf("%s (Sendmail: %v): the header is %q, want %q", test.name, sendmail, names, want)
			}
		}
	}
}

func TestCiphers(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	for _, cipher := range []keys.Cipher{keys.AES128, keys.AES256} {
		f.useStore(altered{f.store, func(r *keys.Row) { r.Cipher = cipher }})
		opens(t, f.send(t, textMessage("hello"), "ann@example.org"), ann, textMessage("hello"))
		if want := "cipher=" + string(cipher); !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// altered changes what a store answers.
type altered struct {
	keys.Store
	change func(*keys.Row)
}

func (a altered) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	rows, err := a.Store.RecipientKeys(ctx, addresses)
	for i := range rows {
		a.change(&rows[i])
	}
	return rows, err
}

func TestSpellings(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "Ann@Example.org")
	for _, address := range []string{"ann@example.org", "ANN@EXAMPLE.ORG", `"ann"@example.org`, `"a\nn"@example.org`,
		"ann@example.org.", "@relay.example,@other.example:ann@example.org"} {
		opens(t, f.send(t, textMessage("hello"), address), ann, textMessage("hello"))
	}
}

func TestPassed(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "off@example.org")
	untouched(t, f.send(t, textMessage("hello"), "bob@example.org"))
	untouched(t, f.send(t, textMessage("hello"), "bob@example.org", "cleo@example.org", "postmaster"))
	f.useStore(altered{f.store, func(r *keys.Row) { r.Enabled = false }})
	untouched(t, f.send(t, textMessage("hello"), "off@example.org"))
	for _, want := range []string{"no key is enrolled", "the account, or its domain, has switched sealing off"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestSwitchedOff(t *testing.T) {
	f := newFilter(t, func(c *Config) {
		c.Policy = policy.Policy{Enable: false}
		c.Store = failing{errors.New("must not be asked")}
	})
	untouched(t, f.send(t, textMessage("hello"), "ann@example.org", "bob@example.org"))
}

// TestMixed holds the first form of a mixed transaction: one sealed recipient,
// or any number of others, and the rest are asked for apart.
func TestMixed(t *testing.T) {
	f := newFilter(t, nil)
	ann, bea := f.enrol(t, "ann@example.org"), f.enrol(t, "bea@example.org")
	const yes, apart = "250", replyApart
	tests := []struct {
		to      []string
		replies []string
		sealed  bool
	}{
		{[]string{"ann@example.org", "bob@example.org"}, []string{yes, apart}, true},
		{[]string{"bob@example.org", "ann@example.org", "cleo@example.org"}, []string{yes, apart, yes}, false},
		{[]string{"ann@example.org", "bea@example.org"}, []string{yes, apart}, true},
		{[]string{"ann@example.org", "ann@example.org"}, []string{yes, yes}, true},
	}
	for _, test := range tests {
		result := f.send(t, textMessage("hello"), test.to...)
		var replies []string
		for _, r := range result.Recipients {
			replies = append(replies, r.String())
		}
		if !slices.Equal(replies, test.replies) {
			t.Errorf("to %q the answers are %q", test.to, replies)
		}
		if !test.sealed {
			untouched(t, result)
			continue
		}
		opens(t, result, ann, textMessage("hello"))
		if _, err := envelope.Open(result.Queued.Bytes(), &envelope.Secret{OpenPGP: openpgp.EntityList{bea}}); err == nil {
			t.Errorf("to %q: bea can read it", test.to)
		}
	}
}

// failing is a store that is away.
type failing struct{ err error }

func (f failing) RecipientKeys(context.Context, []string) ([]keys.Row, error) {
	return nil, fmt.Errorf("%w: %w", keys.ErrStore, f.err)
}
func (failing) Close() {}

// panicking is a store with a fault.
type panicking struct{}

func (panicking) RecipientKeys(context.Context, []string) ([]keys.Row, error) { panic("a fault") }
func (panicking) Close()                                                      {}

// silent is a store that leaves an address out.
type silent struct{ keys.Store }

func (silent) RecipientKeys(context.Context, []string) ([]keys.Row, error) { return nil, nil }

// TestRecipientDeferred holds what makes the answer to RCPT a 451.
func TestRecipientDeferred(t *testing.T) {
	tests := []struct {
		name   string
		store  func(keys.Store) keys.Store
		reason string
	}{
		{"the store is away", func(keys.Store) keys.Store { return failing{errors.New("connection refused")} }, "connection refused"},
		{"a row is missing", func(s keys.Store) keys.Store { return silent{s} }, "no row for one of the addresses"},
		{"the store panics", func(keys.Store) keys.Store { return panicking{} }, "a panic while the message was handled"},
		{"a key cannot be read", func(s keys.Store) keys.Store {
			return altered{s, func(r *keys.Row) { r.Key = strings.Replace(r.Key, "PGP PUBLIC", "PGP PRIVATE", 2) }}
		}, "this is a secret key"},
		{"an unknown cipher", func(s keys.Store) keys.Store {
			return altered{s, func(r *keys.Row) { r.Cipher = "des" }}
		}, `cipher \"des\"`},
		{"an unknown method", func(s keys.Store) keys.Store {
			return altered{s, func(r *keys.Row) { r.Method = "rot13" }}
		}, `method \"rot13\"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFilter(t, nil)
			ann := f.enrol(t, "ann@example.org")
			f.useStore(test.store(f.store))
			s, err := client.Dial(f.network, f.addr, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			result, err := s.Send(client.Envelope{To: client.To("ann@example.org")}, textMessage("hello"))
			if err != nil && test.name != "the store panics" { // there the connection ends with the answer
				t.Fatal(err)
			}
			if len(result.Recipients) != 1 || result.Queued != nil {
				t.Fatalf("queued: %v, answers: %v", result.Queued, result.Recipients)
			}
			f.deferred(t, result.Recipients[0], test.reason)
			f.useStore(f.store)
			opens(t, f.send(t, textMessage("hello"), "ann@example.org"), ann, textMessage("hello"))
		})
	}
}

// TestOneOfTwoKeysUnreadable seals to the key that can be read.
func TestOneOfTwoKeysUnreadable(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	if _, err := f.store.AddKey(t.Context(), keys.NewKey{Address: "ann@example.org", Key: "no key at all"}); err != nil {
		t.Fatal(err)
	}
	opens(t, f.send(t, textMessage("hello"), "ann@example.org"), ann, textMessage("hello"))
	if !strings.Contains(f.log.String(), "not every key of a recipient can be read") {
		t.Error("the log does not say so")
	}
}

// TestMessageDeferred holds what makes the answer to the message a 451, with
// the message in the queue unchanged and thrown away.
func TestMessageDeferred(t *testing.T) {
	t.Run("no spool", func(t *testing.T) {
		f := newFilter(t, func(c *Config) { c.Spool.Dir = filepath.Join(t.TempDir(), "gone") })
		f.enrol(t, "ann@example.org")
		result := f.send(t, numbered("token", 1<<20), "ann@example.org")
		f.deferred(t, result.Final, "making a spool file")
		if result.Queued != nil || len(result.Edits) > 0 {
			t.Errorf("queued: %v, edits: %v", result.Queued, result.Edits)
		}
	})
	t.Run("header too large", func(t *testing.T) {
		f := newFilter(t, nil)
		f.enrol(t, "ann@example.org")
		m := textMessage("hello")
		for range 50 {
			m.Header = append(m.Header, client.Field{Name: "X-Filler", Value: " " + strings.Repeat("x", 100_000)})
		}
		f.deferred(t, f.send(t, m, "ann@example.org").Final, "its header is longer than")
	})
	t.Run("missing action", func(t *testing.T) {
		f := newFilter(t, nil)
		f.enrol(t, "ann@example.org")
		for _, missing := range []milter.OptAction{milter.OptChangeBody, milter.OptChangeHeader, milter.OptAddHeader, milter.OptRemoveRcpt} {
			s := f.dial(t, client.Options{Actions: client.AllActions &^ missing})
			for range 2 {
				result := sendOn(t, s, textMessage("hello"), "ann@example.org")
				f.deferred(t, result.Mail, fmt.Sprintf("missing actions %#x", uint32(missing)))
				if result.Queued != nil {
					t.Error("it was queued")
				}
			}
		}
	})
}

// TestPanicInTheBody has no reply to give where the panic happens: the 451
// comes with the end of the message, and the connection is given up.
func TestPanicInTheBody(t *testing.T) {
	for _, protocol := range []milter.OptProtocol{protocolWanted, 0} {
		f := newFilter(t, nil)
		ours, _ := pipe(t)
		s := newSession(f.Server, newConn(ours, defaultTimeouts), "")
		s.conn.protocol = protocol
		s.message = &message{settings: f.acquire(), detector: &detect.Detector{}, sealings: map[keys.Form]*envelope.Sealing{{}: {}}} // its encrypter is missing
		reply, err := s.BodyChunk([]byte("first"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if protocol != 0 {
			if reply != nil {
				t.Errorf("a reply where none is due: %v", reply.Response())
			}
			if reply, err = s.Body(nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := reply.Response(); got.Code != codeReply || string(got.Data) != replyDefer+"\x00" {
			t.Errorf("the answer is %c %q", got.Code, got.Data)
		}
		if s.conn.awaitFrame(time.Second) {
			t.Error("the connection would be used again")
		}
		if !strings.Contains(f.log.String(), "message.go") {
			t.Errorf("the log has no stack:\n%s", f.log)
		}
	}
}

// TestPayloads shows the filter messages of every shape that is hard to keep.
func TestPayloads(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	files, err := filepath.Glob("../testdata/messages/*.eml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d messages in testdata, error %v", len(files), err)
	}
	sessions := map[string]*client.Session{
		"postfix":         f.dial(t, client.Options{}),
		"sendmail":        f.dial(t, client.Options{Sendmail: true}),
		"small chunks":    f.dial(t, client.Options{ChunkSize: 7}),
		"without options": f.dial(t, client.Options{Version: 2, Actions: 0x3f, Protocol: 0x7f}),
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range sessions {
			m := client.ParseMessage(raw)
			if name == "small chunks" && len(raw) > 20_000 {
				continue
			}
			result := sendOn(t, s, m, "ann@example.org")
			if name == "without options" { // the one space that the MTA takes off is put back
				m = withSpace(m)
			}
			opens(t, result, ann, m)
		}
	}
}

// withSpace is how a message can be told where the MTA hides the first space
// of each value: as if there always were one.
func withSpace(m client.Message) client.Message {
	m = m.WithoutLeadingSpace()
	for i := range m.Header {
		m.Header[i].Value = " " + m.Header[i].Value
	}
	return m
}

// TestReuse plays message after message on one connection, some of them
// aborted, and none must know of another.
func TestReuse(t *testing.T) {
	f := newFilter(t, nil)
	ann, bea := f.enrol(t, "ann@example.org"), f.enrol(t, "bea@example.org")
	for _, sendmail := range []bool{false, true} {
		s := f.dial(t, client.Options{Sendmail: sendmail})
		opens(t, sendOn(t, s, textMessage("one"), "ann@example.org"), ann, textMessage("one"))
		for stage := client.Mail; stage <= client.EndOfMessage; stage++ {
			if _, err := s.Abort(client.Envelope{To: client.To("ann@example.org")}, numbered("aborted", 200_000), client.Point{Stage: stage}); err != nil {
				t.Fatalf("aborting at %v: %v", stage, err)
			}
			opens(t, sendOn(t, s, textMessage("two"), "bea@example.org"), bea, textMessage("two"))
			untouched(t, sendOn(t, s, textMessage("three"), "bob@example.org"))
		}
	}
}

// TestLocalSubmission plays Postfix's cleanup(8), which emulates SMTP for mail
// from sendmail(1): a recipient cannot be refused there, the message can.
func TestLocalSubmission(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	local := func(to ...string) []byte {
		w := f.raw(t, client.AllProtocol)
		w.send('D', "C", "v", "Postfix 3.7.11")
		w.send('D', "M", "i", "4F2C91A0B7")
		w.send('M', "<sender@example.net>")
		w.want('c')
		for _, address := range to {
			w.send('R', "<"+address+">")
			w.want('c')
		}
		w.send('L', "Subject", " hello")
		w.send('N')
		frame := w.receive()
		return append([]byte{frame.Code}, frame.Data...)
	}
	if got := local("ann@example.org"); got[0] != 'c' {
		t.Errorf("one sealed recipient: the header is answered %q", got)
	}
	if got := local("ann@example.org", "bob@example.org"); string(got) != "y"+replyDefer+"\x00" {
		t.Errorf("a mixed message: the header is answered %q", got)
	}
	f.useStore(failing{errors.New("connection refused")})
	if got := local("bob@example.org"); string(got) != "y"+replyDefer+"\x00" {
		t.Errorf("the store is away: the header is answered %q", got)
	}
}

// TestProgress makes the end of a message slow.
func TestProgress(t *testing.T) {
	ours, theirs := pipe(t)
	c := newConn(ours, defaultTimeouts)
	stop := keepWaiting(c, 5*time.Millisecond)
	frame := make([]byte, 5)
	for range 3 {
		if _, err := theirs.Read(frame); err != nil || string(frame) != "\x00\x00\x00\x01p" {
			t.Fatalf("got %q, error %v", frame, err)
		}
	}
	go stop()
	for { // what was on its way when stop was called still comes; then nothing
		theirs.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := theirs.Read(frame); err != nil {
			return
		}
	}
}

// TestReconfigure changes the store in the middle of a message, which keeps
// the one it began with; what the old one holds can be closed behind it.
func TestReconfigure(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	w := f.raw(t, client.AllProtocol)
	w.send('M', "<a@b>")
	w.want('c')
	config := f.config
	config.Store = failing{errors.New("the new one is away")}
	released := f.Reconfigure(config)
	w.send('R', "<ann@example.org>")
	w.want('c')
	select {
	case <-released:
		t.Error("the old store was given up in the middle of a message")
	default:
	}
	w.send('A')
	w.send('M', "<a@b>")
	w.want('c')
	w.send('R', "<ann@example.org>")
	w.want(codeReply)
	select {
	case <-released:
	case <-time.After(5 * time.Second):
		t.Error("the old store is never given up")
	}
	select {
	case <-f.Reconfigure(f.config): // the message that was refused is still under way
		t.Error("a message under way was forgotten")
	default:
	}
}

// TestSizeLimit refuses a message for good that would be a byte too large, and
// takes one that just fits. The size is that of the message as it is queued.
func TestSizeLimit(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	m := numbered("token", 100_000)
	size := int64(len(f.send(t, m, "ann@example.org").Queued.Bytes()))
	f.change(func(c *Config) { c.SizeLimit = size })
	opens(t, f.send(t, m, "ann@example.org"), ann, m)
	f.change(func(c *Config) { c.SizeLimit = size - 1 })
	result := f.send(t, m, "ann@example.org")
	if want := fmt.Sprintf("552 5.3.4 The message is too large once it is sealed (%d bytes, at most %d can be taken)", size, size-1); result.Final.String() != want {
		t.Errorf("the answer is %q, want %q", result.Final, want)
	}
	if result.Queued != nil || len(result.Edits) > 0 {
		t.Error("it was edited all the same")
	}
	untouched(t, f.send(t, m, "bob@example.org")) // no limit of ours for what stays as it is
}

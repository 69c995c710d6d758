package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/detect"
	"sealmilter/testdata/bed"
)

// begin says MAIL.
func (w raw) begin() {
	w.t.Helper()
	w.send('M', "<sender@example.net>")
	w.want('c')
}

// rcpt says RCPT, with the macro {rcpt_addr} where resolved is not empty, and
// wants an answer.
func (w raw) rcpt(address, resolved string, answer byte) {
	w.t.Helper()
	if resolved != "" {
		w.send('D', "R", "{rcpt_addr}", resolved)
	}
	w.send('R', "<"+address+">")
	w.want(answer)
}

// TestOtherNames writes a mailbox in ways that only the MTA can resolve. What
// it resolves them to is found, and what it does not resolve is deferred.
func TestOtherNames(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	for _, address := range []string{"ann", "ann%example.org", "example.org!ann", `"ann@example.org"`, "ann%example.org@mx.example.org", "Ann <ann@example.org>", "ann@example.org,"} {
		w := f.raw(t, client.AllProtocol)
		w.begin()
		w.rcpt(address, "ann@example.org", 'c')
		w.rcpt("bob@example.org", "bob@example.org", codeReply) // 452: ann is sealed to
		w.send('A')

		w.begin()
		w.rcpt("bob@example.org", "bob@example.org", 'c')
		w.send('N')
		w.want('a')
		if address == `"ann@example.org"` {
			continue
		}
		w.begin()
		w.rcpt(address, "", codeReply) // 451; the macro of the recipient before it does not count
	}
	if !strings.Contains(f.log.String(), "the address may mean another one") {
		t.Errorf("the log does not say why:\n%s", f.log)
	}
	// Enrolled under what the sender wrote, and not under what the MTA made of
	// it, as with a relay that rewrites: sealed all the same.
	w := f.raw(t, client.AllProtocol)
	w.begin()
	w.rcpt("ann@example.org", "ann", 'c')
	w.send('N')
	w.want('c')
	// Sendmail's local mailer makes a bare name of every spelling: where it is
	// not told in which domain that is, nobody can say that there is no key.
	w = f.raw(t, client.AllProtocol)
	for _, address := range []string{"ann", "ann@localhost", "ann@[127.0.0.1]", "ann%example.org@mx.example.org", "info@example.org"} {
		w.begin()
		w.rcpt(address, "ann", codeReply)
		w.send('A')
	}
	f.change(func(c *Config) { c.Naming.Domain = "example.org" })
	for _, address := range []string{"ann", "ann@localhost", "ann@[127.0.0.1]", "ann%example.org@mx.example.org", "info@example.org"} {
		w.begin()
		w.rcpt(address, "ann", 'c')
		w.send('N')
		w.want('c')
		w.send('A')
	}
}

func TestNoRecipient(t *testing.T) {
	f := newFilter(t, nil)
	w := f.raw(t, client.AllProtocol)
	w.begin()
	w.send('L', "Subject", " x")
	w.send('N')
	w.want(codeReply)
}

// group is a store in which an address leads to several accounts.
type memberStore struct {
	keys.Store
	members []keys.Row
}

func (g memberStore) RecipientKeys(_ context.Context, addresses []string) (rows []keys.Row, _ error) {
	for _, address := range addresses {
		for _, row := range g.members {
			row.Address = address
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// TestGroup seals to all members, with the strongest cipher that one of them
// wants; where one has no key, nobody gets anything.
func TestGroup(t *testing.T) {
	f := newFilter(t, nil)
	ann, annKey := newEntity(t, "ann@example.org")
	bea, beaKey := newEntity(t, "bea@example.org")
	a := keys.Row{Account: "ann@example.org", Known: true, Enabled: true, Key: annKey, Cipher: keys.AES128}
	b := keys.Row{Account: "bea@example.org", Known: true, Enabled: true, Key: beaKey, Cipher: keys.AES256}
	none := keys.Row{Account: "bob@example.org", Known: true, Enabled: true}

	f.useStore(memberStore{members: []keys.Row{a, b}})
	result := f.send(t, textMessage("hello"), "all@example.org")
	for _, member := range []*openpgp.Entity{ann, bea} {
		opens(t, result, member, textMessage("hello"))
	}
	if !strings.Contains(f.log.String(), "cipher=aes256") {
		t.Errorf("the weaker cipher was taken:\n%s", f.log)
	}
	for _, members := range [][]keys.Row{{a, none}, {none, a}} {
		f.useStore(memberStore{members: members})
		result := f.send(t, textMessage("hello"), "all@example.org")
		f.deferred(t, result.Recipients[0], "of which some cannot be sealed to")
	}
}

func TestAddressesAreNotLogged(t *testing.T) {
	f := newFilter(t, func(c *Config) { c.LogAddresses = false })
	f.enrol(t, "ann@example.org")
	f.send(t, textMessage("hello"), "ann@example.org", "bob@example.org")
	f.send(t, textMessage("hello"), "bob@example.org")
	f.useStore(failing{errors.New("away")})
	f.send(t, textMessage("hello"), "ann@example.org")
	if log := f.log.String(); strings.Contains(log, "@") || !strings.Contains(log, "recipient deferred") {
		t.Errorf("the log holds an address:\n%s", log)
	}
}

// TestQueueID holds that a deferral is logged under the queue id, and with the
// client where there is no id yet.
func TestQueueID(t *testing.T) {
	f := newFilter(t, func(c *Config) { c.Spool.Dir = "/nonexistent" })
	f.enrol(t, "ann@example.org")
	f.send(t, numbered("token", 1<<20), "ann@example.org")
	f.useStore(failing{errors.New("away")})
	f.send(t, textMessage("hello"), "ann@example.org")
	for _, want := range []string{"msg=deferred queue_id=4F2C91A0B7 client=192.0.2.1 ", `msg="recipient deferred" queue_id=NOQUEUE client=192.0.2.1 address=ann@example.org`} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, f.log)
		}
	}
}

// panicOnce is a log handler with a fault that shows once.
type panicOnce struct {
	slog.Handler
	once *sync.Once
}

func (p panicOnce) Handle(ctx context.Context, r slog.Record) error {
	p.once.Do(func() { panic("a fault") })
	return p.Handler.Handle(ctx, r)
}

// TestPanics has a fault at each step that has a reply.
func TestPanics(t *testing.T) {
	faulty := func(c *Config) {
		c.Log = slog.New(panicOnce{c.Log.Handler(), &sync.Once{}})
	}
	t.Run("MAIL", func(t *testing.T) {
		f := newFilter(t, faulty)
		s, err := client.Dial(f.network, f.addr, client.Options{Actions: milter.OptAddHeader})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		result, _ := s.Send(client.Envelope{To: client.To("ann@example.org")}, textMessage("hello"))
		f.deferred(t, result.Mail, "a panic while the message was handled")
	})
	t.Run("the end of the header", func(t *testing.T) {
		f := newFilter(t, faulty)
		w := f.raw(t, client.AllProtocol)
		w.begin()
		w.rcpt("bob@example.org", "", 'c')
		w.send('N')
		w.want(codeReply)
		w.wantClosed()
	})
	t.Run("the end of the message", func(t *testing.T) {
		f := newFilter(t, nil)
		ours, _ := pipe(t)
		s := newSession(f.Server, newConn(ours, defaultTimeouts), "")
		s.message = &message{settings: f.acquire(), detector: &detect.Detector{}, recipients: nil}
		reply, err := s.Body(nil)
		if err != nil || reply.Response().Code != codeReply || s.conn.awaitFrame(time.Second) {
			t.Errorf("the answer is %v, error %v", reply, err)
		}
	})
}

// TestSpoolFailsOnce fills the disk in the middle of a message and makes room
// again: what came in between is lost, so the message must not be sealed.
func TestSpoolFailsOnce(t *testing.T) {
	bed.NeedRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=400k"); err != nil {
		bed.Skip(t, "a small file system cannot be mounted: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	f := newFilter(t, func(c *Config) { c.Spool = envelope.Spool{Dir: dir, Memory: 1000} })
	f.enrol(t, "ann@example.org")
	w := f.raw(t, client.AllProtocol)
	w.begin()
	w.rcpt("ann@example.org", "", 'c')
	w.send('N')
	w.want('c')
	piece := strings.Repeat("x", 60_000)
	for range 20 {
		w.send('B', piece)
	}
	eventually(t, func() bool { return free(t, dir) == 0 })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w.send('B', piece)
	}
	w.send('E')
	w.want(codeReply)
	if !strings.Contains(f.log.String(), "no space left on device") {
		t.Errorf("the log does not say why:\n%s", f.log)
	}
}

func free(t *testing.T, dir string) uint64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Bfree
}

// hurry shortens what the server waits for, before it serves anything.
func (f *filter) hurry(change func(*timeouts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.timeouts)
}

// slow is a store that answers when it is too late.
type slow struct{ keys.Store }

func (s slow) RecipientKeys(ctx context.Context, _ []string) ([]keys.Row, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", keys.ErrStore, ctx.Err())
}

// TestTimeouts lets the MTA, or the store, be silent in every place.
func TestTimeouts(t *testing.T) {
	const short = 50 * time.Millisecond
	tests := []struct {
		name   string
		hurry  func(*timeouts)
		play   func(raw)
		reason string
	}{
		{"no negotiation", func(t *timeouts) { t.first = short }, nil, "negotiation failed"},
		{"no command", func(t *timeouts) { t.idle = short }, func(w raw) { w.begin() }, "waiting for a frame"},
		{"half a frame", func(t *timeouts) { t.frame = short }, func(w raw) { w.wire.SendBytes([]byte{0, 0, 0, 9, 'M', '<'}) }, "reading a frame"},
	}
	for _, test := range tests {
		f := newFilter(t, nil)
		f.hurry(test.hurry)
		w := f.rawUnnegotiated(t)
		if test.play != nil {
			w.wire.Send(client.Frame{Code: 'O', Data: offer(6, client.AllActions, client.AllProtocol)})
			w.want('O')
			test.play(w)
		}
		w.wantClosed()
		eventually(t, func() bool { return strings.Contains(f.log.String(), test.reason) })
	}
	t.Run("the store", func(t *testing.T) {
		f := newFilter(t, nil)
		f.hurry(func(t *timeouts) { t.lookup = short })
		f.useStore(slow{f.store})
		f.deferred(t, f.send(t, textMessage("hello"), "ann@example.org").Recipients[0], "deadline exceeded")
	})
	for name, hurry := range map[string]func(*timeouts){
		"a piece of the answer": func(t *timeouts) { t.write = short },
		"the answer as a whole": func(t *timeouts) { t.end = short },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFilter(t, nil)
			f.enrol(t, "ann@example.org")
			f.hurry(hurry)
			deaf(t, f)
			eventually(t, func() bool { return strings.Contains(f.log.String(), "i/o timeout") })
		})
	}
}

// deaf is an MTA that sends a large message and never reads the answer.
func deaf(t *testing.T, f *filter) {
	conn, err := net.Dial(f.network, f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(4096)
	frame := func(code byte, data string) {
		n := len(data) + 1
		conn.Write(append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), code}, data...))
	}
	frame('O', string(offer(6, client.AllActions, client.AllProtocol)))
	frame('M', "<a@b>\x00")
	frame('R', "<ann@example.org>\x00")
	frame('N', "")
	for range 200 {
		frame('B', strings.Repeat("x", 60_000))
	}
	frame('E', "")
}

// TestNothingBehindAnError holds that a verdict never stands behind half a
// frame.
func TestNothingBehindAnError(t *testing.T) {
	ours, theirs := pipe(t)
	c := newConn(ours, timeouts{write: 20 * time.Millisecond})
	go theirs.Read(make([]byte, 2))
	if _, err := c.Write([]byte("a long frame")); err == nil {
		t.Fatal("half a frame was written without an error")
	}
	if _, err := c.Write([]byte("verdict")); err == nil {
		t.Error("something was written behind half a frame")
	}
	theirs.SetReadDeadline(time.Now().Add(time.Second))
	if rest, err := io.ReadAll(theirs); err != nil || strings.Contains(string(rest), "verdict") {
		t.Errorf("the MTA got %q, error %v", rest, err)
	}
}

// TestProgressAtTheEnd seals to so many keys that the MTA has to wait.
func TestProgressAtTheEnd(t *testing.T) {
	f := newFilter(t, nil)
	ann := f.enrol(t, "ann@example.org")
	for range 300 {
		_, public := newEntity(t, "ann@example.org")
		if _, err := f.store.AddKey(t.Context(), keys.NewKey{Address: "ann@example.org", Key: public}); err != nil {
			t.Fatal(err)
		}
	}
	f.hurry(func(t *timeouts) { t.progress = time.Millisecond })
	result := f.send(t, numbered("token", 300_000), "ann@example.org")
	opens(t, result, ann, numbered("token", 300_000))
	if result.Progress == 0 {
		t.Error("the MTA heard nothing while it waited")
	}
}

// TestOuterSpacing holds that the MTA delivers one space behind the colon of
// what is added, whether it or the filter puts it there.
func TestOuterSpacing(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	for _, opts := range []client.Options{{}, {Version: 6, Actions: client.AllActions, Protocol: client.AllProtocol &^ milter.OptHeaderLeadingSpace}} {
		result := sendOn(t, f.dial(t, opts), textMessage("hello"), "ann@example.org")
		for _, want := range []string{"\nContent-Type: multipart/encrypted;", "\nX-Sealmilter: sealed\n", "\nMIME-Version: 1.0\n"} {
			if !strings.Contains("\n"+string(result.Queued.Bytes()), want) {
				t.Errorf("there is no %q in\n%.600s", want, result.Queued.Bytes())
			}
		}
	}
}

// TestManyFields holds the bounds on what a header may cost us, and Postfix.
func TestManyFields(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	many := func(name string, n int) client.Message {
		m := textMessage("hello")
		for range n {
			m.Header = append(m.Header, client.Field{Name: name})
		}
		return m
	}
	s := f.dial(t, client.Options{})
	f.deferred(t, sendOn(t, s, many("a", 70_000), "ann@example.org").Final, "its header is longer than")
	untouched(t, sendOn(t, s, many("a", 70_000), "bob@example.org"))
	f.deferred(t, sendOn(t, s, many("DKIM-Signature", 1001), "ann@example.org").Final, "more than 1000 header fields")
}

// TestNothingIsKept sends large headers over one connection of an MTA that
// sends no ABORT.
func TestNothingIsKept(t *testing.T) {
	f := newFilter(t, nil)
	s := f.dial(t, client.Options{Sendmail: true})
	m := textMessage("hello")
	for range 300 {
		m.Header = append(m.Header, client.Field{Name: "X-Filler", Value: " " + strings.Repeat("x", 1000)})
	}
	before := heap()
	for range 200 {
		untouched(t, sendOn(t, s, m, "bob@example.org"))
	}
	if grown := heap() - before; grown > 10<<20 {
		t.Errorf("%d bytes are kept of 200 messages", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lazy is a store that takes its time, and the context's end for nothing.
type lazy struct{ keys.Store }

func (l lazy) RecipientKeys(ctx context.Context, addresses []string) ([]keys.Row, error) {
	time.Sleep(300 * time.Millisecond)
	return l.Store.RecipientKeys(ctx, addresses)
}

// TestCutOff ends the patience of a shutdown while a step is at work.
func TestCutOff(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	f.useStore(lazy{f.store})
	w := f.raw(t, client.AllProtocol)
	w.begin()
	w.send('R', "<ann@example.org>")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("the error is %v", err)
	}
	if strings.Contains(f.log.String(), "panic") {
		t.Errorf("the log speaks of a panic:\n%s", f.log)
	}
}

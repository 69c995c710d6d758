package milter

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/milter/client"
)

// raw is a session that may say anything.
type raw struct {
	t    testing.TB
	wire *client.Wire
}

// raw connects, negotiates as an MTA that offers protocol, and says CONNECT.
func (f *filter) raw(t testing.TB, protocol milter.OptProtocol) raw {
	t.Helper()
	w := f.rawUnnegotiated(t)
	w.wire.Send(client.Frame{Code: 'O', Data: offer(6, client.AllActions, protocol)})
	w.want('O')
	return w
}

func (f *filter) rawUnnegotiated(t testing.TB) raw {
	t.Helper()
	wire, err := client.DialWire(f.network, f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wire.Close() })
	return raw{t, wire}
}

func offer(version uint32, actions milter.OptAction, protocol milter.OptProtocol) []byte {
	var data []byte
	for _, v := range []uint32{version, uint32(actions), uint32(protocol)} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	return data
}

// send sends a command of strings that each end in NUL. For a macro command
// the first of them is the command that the macros belong to.
func (w raw) send(code byte, strs ...string) {
	w.t.Helper()
	var data []byte
	for i, s := range strs {
		data = append(data, s...)
		if code != 'D' || i > 0 {
			data = append(data, 0)
		}
	}
	if err := w.wire.Send(client.Frame{Code: code, Data: data}); err != nil {
		w.t.Fatal(err)
	}
}

func (w raw) receive() client.Frame {
	w.t.Helper()
	frame, err := w.wire.Receive(5 * time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	return frame
}

func (w raw) want(code byte) {
	w.t.Helper()
	if got := w.receive(); got.Code != code {
		w.t.Fatalf("the answer is %c %q, want %c", got.Code, got.Data, code)
	}
}

func (w raw) wantClosed() {
	w.t.Helper()
	if frame, err := w.wire.Receive(5 * time.Second); err == nil {
		w.t.Fatalf("the answer is %c %q, want the connection closed", frame.Code, frame.Data)
	}
}

func pipe(t testing.TB) (net.Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestNegotiation(t *testing.T) {
	f := newFilter(t, nil)
	tests := []struct {
		name                       string
		version                    uint32
		protocol, wantProtocol     milter.OptProtocol
		wantVersion                uint32
		offerActions, wantsActions milter.OptAction
	}{
		{"both MTAs today", 6, client.AllProtocol, protocolWanted, 6, client.AllActions, actionsNeeded},
		{"a newer one", 7, 0xffffffff, protocolWanted, 6, 0xffffffff, actionsNeeded},
		{"an old one", 2, 0x7f, 0, 2, 0x3f, actionsNeeded},
		{"without leading space", 6, client.AllProtocol &^ milter.OptHeaderLeadingSpace, protocolWanted &^ milter.OptHeaderLeadingSpace, 6, 0x3f, actionsNeeded},
		{"lacking an action", 6, client.AllProtocol, protocolWanted, 6, milter.OptAddHeader, milter.OptAddHeader},
	}
	for _, test := range tests {
		w := f.rawUnnegotiated(t)
		w.wire.Send(client.Frame{Code: 'O', Data: offer(test.version, test.offerActions, test.protocol)})
		got := w.receive()
		if want := offer(test.wantVersion, test.wantsActions, test.wantProtocol); string(got.Data) != string(want) {
			t.Errorf("%s: the answer is %x, want %x", test.name, got.Data, want)
		}
	}
}

// TestHostileFrames sends what no MTA sends. The connection ends, nothing is
// answered that could be taken for a verdict, and the next one is served.
func TestHostileFrames(t *testing.T) {
	f := newFilter(t, nil)
	begun := func() raw {
		w := f.raw(t, client.AllProtocol)
		w.send('M', "<a@example.net>")
		w.want('c')
		return w
	}
	tests := []struct {
		name   string
		bytes  string
		reason string
	}{
		{"no length", "\x00\x00\x00\x00", "a frame of 0 bytes"},
		{"one byte too long", "\x00\x10\x00\x01", "a frame of 1048577 bytes"},
		{"four gigabytes", "\xff\xff\xff\xff", "a frame of 4294967295 bytes"},
		{"an unknown command", "\x00\x00\x00\x01Z", "unknown command"},
		{"a second negotiation", "\x00\x00\x00\x01O", "unknown command"},
		{"a header of one string", "\x00\x00\x00\x03La\x00", "malformed header"},
		{"a header of three strings", "\x00\x00\x00\x07La\x00b\x00c\x00", "malformed header"},
		{"a header without an end", "\x00\x00\x00\x04La\x00b", "malformed header"},
		{"a header without a name", "\x00\x00\x00\x04L\x00b\x00", "malformed header"},
		{"a recipient without an end", "\x00\x00\x00\x04R<a>", "malformed R command"},
		{"no recipient", "\x00\x00\x00\x01R", "malformed R command"},
		{"no sender", "\x00\x00\x00\x01M", "malformed M command"},
		{"macros for nothing", "\x00\x00\x00\x01D", "malformed macro"},
		{"a macro without a value", "\x00\x00\x00\x04DMi\x00", "malformed macro"},
		{"a body in the end", "\x00\x00\x00\x02Ex", "a piece of body in it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := begun()
			w.wire.SendBytes([]byte(test.bytes))
			w.wantClosed()
			eventually(t, func() bool { return strings.Contains(f.log.String(), test.reason) })
		})
	}
	for _, first := range []string{"\x00\x00\x00\x01O", "\x00\x00\x00\x01C", "\x00\x00\x00\x0dO\x00\x00\x00\x01\x00\x00\x01\xff\x00\x1f\xff\xff", "GET / HTTP/1.1\r\n\r\n"} {
		w := f.rawUnnegotiated(t)
		w.wire.SendBytes([]byte(first))
		w.wantClosed()
	}
}

// TestCommandsOutOfOrder gets no verdict but a 451 out of the filter.
func TestCommandsOutOfOrder(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	for name, play := range map[string]func(raw){
		"a recipient first":   func(w raw) { w.send('R', "<ann@example.org>") },
		"a header first":      func(w raw) { w.send('L', "Subject", " x"); w.send('N') },
		"the end first":       func(w raw) { w.send('E') },
		"a body and the end":  func(w raw) { w.send('B', "body"); w.send('E') },
		"the end after abort": func(w raw) { w.send('M', "<a@b>"); w.want('c'); w.send('A'); w.send('E') },
		"the end before the header's": func(w raw) {
			w.send('M', "<a@b>")
			w.want('c')
			w.send('R', "<ann@example.org>")
			w.want('c')
			w.send('B', "body")
			w.send('E')
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.raw(t, client.AllProtocol)
			play(w)
			w.want(codeReply)
			w.send('Q')
			w.wantClosed()
		})
	}
}

// TestUnknownCommand is what an MTA sends that does not know NOUNKNOWN.
func TestUnknownCommand(t *testing.T) {
	w := newFilter(t, nil).raw(t, 0)
	w.send('U', "XYZZY")
	w.want('c')
	w.send('T')
	w.want('c')
}

// TestBrokenOff drops the connection in the middle of everything: nothing is
// left over.
func TestBrokenOff(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	before := runtime.NumGoroutine()
	for i := range 50 {
		w := f.raw(t, client.AllProtocol)
		w.send('M', "<a@b>")
		w.want('c')
		w.send('R', "<ann@example.org>")
		w.want('c')
		w.send('N')
		w.want('c')
		w.send('B', strings.Repeat("x", 60_000))
		w.send('B', strings.Repeat("x", 60_000))
		w.wire.SendBytes([]byte{0, 1, 0, 0, 'B', 'x'}[:i%6])
		w.wire.Close()
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= before })
}

func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	for range 500 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Fatalf("it does not come true; the goroutines are\n%s", stacks[:runtime.Stack(stacks, true)])
}

// TestShutdown lets the message under way finish, ends the idle connection at
// once, and accepts nothing new.
func TestShutdown(t *testing.T) {
	f := newFilter(t, nil)
	f.enrol(t, "ann@example.org")
	idle, busy := f.raw(t, client.AllProtocol), f.raw(t, client.AllProtocol)
	busy.send('M', "<a@b>")
	busy.want('c')
	busy.send('R', "<ann@example.org>")
	busy.want('c')
	done := make(chan error, 1)
	go func() { done <- f.Shutdown(t.Context()) }()
	idle.wantClosed()
	if _, err := client.DialWire(f.network, f.addr); err == nil {
		t.Error("a connection was accepted during the shutdown")
	}
	busy.send('L', "Subject", " x")
	busy.send('N')
	busy.want('c')
	busy.send('B', "body")
	select {
	case err := <-done:
		t.Fatalf("the shutdown was over before the message: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	busy.send('E')
	for frame := busy.receive(); frame.Code != 'a'; frame = busy.receive() {
		if !strings.ContainsRune("mhb", rune(frame.Code)) {
			t.Fatalf("the answer is %c %q", frame.Code, frame.Data)
		}
	}
	busy.wantClosed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownTimesOut cuts off a message that never ends.
func TestShutdownTimesOut(t *testing.T) {
	f := newFilter(t, nil)
	w := f.raw(t, client.AllProtocol)
	w.send('M', "<a@b>")
	w.want('c')
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("the error is %v", err)
	}
	w.wantClosed()
}

// TestMaxConnections serves the last one only when one has gone.
func TestMaxConnections(t *testing.T) {
	f := newFilter(t, nil)
	first := f.raw(t, client.AllProtocol)
	for range maxConnections - 1 {
		f.raw(t, client.AllProtocol)
	}
	third := f.rawUnnegotiated(t)
	third.wire.Send(client.Frame{Code: 'O', Data: offer(6, client.AllActions, client.AllProtocol)})
	if frame, err := third.wire.Receive(100 * time.Millisecond); err == nil {
		t.Fatalf("one connection too many was answered %c", frame.Code)
	}
	first.wire.Close()
	third.want('O')
}

package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"
)

// maxFrame is the largest frame that is read, in bytes: more than the longest
// header field that Postfix shows (header_size_limit, 102,400) and than a body
// chunk (65,535).
const maxFrame = 1 << 20

// timeouts bound all that is waited for.
type timeouts struct {
	first    time.Duration // for the option negotiation, which follows a connection at once
	idle     time.Duration // for the next command: an SMTP client may take five minutes for each, and Sendmail an hour
	frame    time.Duration // for the rest of a frame that has begun
	write    time.Duration // for the MTA to take a piece of a reply
	lookup   time.Duration // for the store: Sendmail waits 10 seconds for a reply (timeout R)
	end      time.Duration // for the whole end of a message: both MTAs wait 300 seconds (milter_content_timeout, timeout E)
	progress time.Duration // between two signs of life meanwhile
}

var defaultTimeouts = timeouts{
	first:    30 * time.Second,
	idle:     2 * time.Hour,
	frame:    30 * time.Second,
	write:    60 * time.Second,
	lookup:   8 * time.Second,
	end:      240 * time.Second,
	progress: 4 * time.Second,
}

// Protocol version 6 is what Postfix 2.6 and Sendmail 8.14 speak, and newer.
const (
	oldestVersion = 2
	version       = 6
)

// What is asked of the MTA. All the actions are needed; of the protocol
// options the MTA grants what it knows.
const (
	actionsNeeded  = milter.OptAddHeader | milter.OptChangeHeader | milter.OptChangeBody | milter.OptRemoveRcpt
	protocolWanted = milter.OptNoUnknown | milter.OptNoData | milter.OptHeaderLeadingSpace |
		milter.OptNoConnReply | milter.OptNoHeloReply | milter.OptNoHeaderReply | milter.OptNoBodyReply
)

// What go-milter has no name for.
const (
	codeUnknown  = 'U' // SMFIC_UNKNOWN, an SMTP command that the MTA does not know either
	codeProgress = 'p' // SMFIR_PROGRESS
)

// conn is the connection that go-milter's server reads from. It hands on
// whole frames only, has noted what go-milter drops, and takes away what
// go-milter does not understand or would keep.
type conn struct {
	net.Conn
	timeouts timeouts
	header   func(name, value string) // takes each header field

	protocol milter.OptProtocol // what was agreed on
	lacking  milter.OptAction   // needed actions that the MTA did not offer

	buffer    []byte            // the frame last read, its length in front
	pending   []byte            // what go-milter has still to read of it
	args      []string          // of the MAIL or RCPT command last read: the address, then its ESMTP arguments
	resolved  string            // the macro {rcpt_addr} of the RCPT command last read
	connect   map[string]string // macros of the connection
	message   map[string]string // macros of the message
	client    string            // the SMTP client's address as the MTA wrote it, "" where it has none
	drained   bool              // we have ended the connection, between two messages
	quit      bool              // the MTA has said that it is done
	readErr   error             // why reading ended, nil where the MTA ended it
	lastReply bool              // nothing is read any more once the reply is out

	writing  sync.Mutex // one writer at a time
	until    time.Time  // when the verdict must be out, zero where nothing presses
	writeErr error      // the first; nothing is written behind it

	state    sync.Mutex
	busy     bool // a message is under way
	draining bool // the server is shutting down

	closing sync.Once
	closed  chan struct{} // closed when go-milter is done with the connection
}

func newConn(nc net.Conn, t timeouts) *conn {
	return &conn{
		Conn:     nc,
		timeouts: t,
		header:   func(string, string) {},
		connect:  make(map[string]string),
		message:  make(map[string]string),
		closed:   make(chan struct{}),
	}
}

// Close closes the connection, which may be closed already. go-milter does so
// as its last act; whoever else wants it to end closes c.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() { close(c.closed) })
	return err
}

// negotiate answers the MTA's first frame. go-milter would announce version 2
// and options that the MTA may not have offered.
func (c *conn) negotiate() error {
	frame, err := c.readFrame(c.timeouts.first)
	if err != nil {
		return err
	}
	if milter.Code(frame[0]) != milter.CodeOptNeg || len(frame) < 1+3*4 {
		return fmt.Errorf("the peer does not begin with an option negotiation")
	}
	offer := func(i int) uint32 { return binary.BigEndian.Uint32(frame[1+4*i:]) }
	if offer(0) < oldestVersion {
		return fmt.Errorf("the MTA speaks version %d of the protocol, the oldest supported is %d", offer(0), oldestVersion)
	}
	actions := actionsNeeded & milter.OptAction(offer(1))
	c.lacking = actionsNeeded &^ actions
	c.protocol = protocolWanted & milter.OptProtocol(offer(2))
	reply := []byte{0, 0, 0, 1 + 3*4, byte(milter.CodeOptNeg)}
	for _, value := range []uint32{min(offer(0), version), uint32(actions), uint32(c.protocol)} {
		reply = binary.BigEndian.AppendUint32(reply, value)
	}
	_, err = c.Write(reply)
	return err
}

// Read gives go-milter the next frame, length and all. Every end looks like
// the MTA's own to it; the reason stays in c.readErr.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.pending) == 0 {
		frame, err := c.readFrame(c.timeouts.idle)
		ours := false
		if err == nil {
			ours, err = c.take(milter.Code(frame[0]), frame[1:])
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.readErr = err
			}
			return 0, io.EOF
		}
		if !ours {
			c.pending = c.buffer
		}
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// readFrame reads one frame and returns it without its length. Nothing is
// allocated before the length is known to be sound. The frame is good until
// the next one is read.
func (c *conn) readFrame(patience time.Duration) ([]byte, error) {
	if !c.awaitFrame(patience) {
		return nil, io.EOF
	}
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return nil, c.readError(err)
	}
	length := binary.BigEndian.Uint32(head[:])
	if length == 0 || length > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes, at most %d are read", length, maxFrame)
	}
	if err := c.SetReadDeadline(time.Now().Add(c.timeouts.frame)); err != nil {
		return nil, err
	}
	c.buffer = slices.Grow(append(c.buffer[:0], head[:]...), int(length))[:len(head)+int(length)]
	frame := c.buffer[len(head):]
	if _, err := io.ReadFull(c.Conn, frame); err != nil {
		return nil, fmt.Errorf("reading a frame: %w", err)
	}
	return frame, nil
}

// awaitFrame sets the deadline for the next frame. It says no where none is
// to be read: the last reply is out, or the server shuts down and no message
// is under way.
func (c *conn) awaitFrame(patience time.Duration) bool {
	c.state.Lock()
	defer c.state.Unlock()
	if c.lastReply || c.draining && !c.busy {
		c.drained = c.draining && c.writeErr == nil
		return false
	}
	return c.SetReadDeadline(time.Now().Add(patience)) == nil
}

// begin notes that a message is under way.
func (c *conn) begin() {
	c.state.Lock()
	defer c.state.Unlock()
	c.busy = true
}

// end notes that the message is over. Its macros must not be taken for those
// of the next one, which need not have any.
func (c *conn) end() {
	clear(c.message)
	c.state.Lock()
	defer c.state.Unlock()
	c.busy = false
}

// drain lets the message under way finish and ends the connection after it;
// without one, at once.
func (c *conn) drain() {
	c.state.Lock()
	defer c.state.Unlock()
	c.draining = true
	if !c.busy {
		c.SetReadDeadline(time.Now()) // wakes the reader; an error means that it is gone already
	}
}

// readError tells the end of a connection from its breaking.
func (c *conn) readError(err error) error {
	c.state.Lock()
	defer c.state.Unlock()
	if c.draining && !c.busy && errors.Is(err, os.ErrDeadlineExceeded) {
		c.drained = true
		return io.EOF
	}
	if c.draining && !c.busy || errors.Is(err, net.ErrClosed) {
		return io.EOF
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("waiting for a frame: %w", err)
}

// take notes what a frame says, and whether it was for us alone.
func (c *conn) take(code milter.Code, data []byte) (ours bool, err error) {
	switch code {
	case milter.CodeMacro:
		return true, c.takeMacros(data)
	case milter.CodeMail, milter.CodeRcpt:
		if c.args, err = split(data); err != nil || len(c.args) == 0 {
			return false, fmt.Errorf("a malformed %c command", code)
		}
		if code == milter.CodeMail {
			c.limit(time.Time{})
			c.begin()
		}
		c.resolved = c.message["rcpt_addr"]
		delete(c.message, "rcpt_addr") // it is of this recipient only
	case milter.CodeHeader:
		return true, c.takeHeader(data)
	case codeUnknown:
		return true, c.goOn(0)
	case milter.CodeQuitNewConn:
		c.quit = true
		return true, io.EOF
	case milter.CodeQuit:
		c.quit = true
	case milter.CodeEOB:
		if len(data) > 0 {
			return false, errors.New("an end of message with a piece of body in it")
		}
	case milter.CodeConn:
		sound := false
		if c.client, sound = clientAddress(data); !sound { // go-milter would answer it, though the MTA was promised no answer
			return false, errors.New("a malformed connect command")
		}
	case milter.CodeHelo, milter.CodeData, milter.CodeEOH, milter.CodeBody,
		milter.CodeAbort:
	default:
		return false, fmt.Errorf("an unknown command %q", byte(code))
	}
	return false, nil
}

// clientAddress reads the address in a CONNECT command: a name, NUL, the family
// and, but for an unknown one, two octets of port and the address.
func clientAddress(data []byte) (address string, sound bool) {
	_, rest, _ := bytes.Cut(data, []byte{0})
	if len(rest) == 0 {
		return "", false
	}
	if rest[0] != '4' && rest[0] != '6' {
		return "", true
	}
	const before = len("4") + 2
	if len(rest) < before {
		return "", false
	}
	found, _, _ := bytes.Cut(rest[before:], []byte{0})
	return string(found), true
}

// takeHeader hands a header field on. go-milter is not shown it: it would keep
// the fields of all messages until the next ABORT, which Sendmail need not
// send, and it skips what is not two strings, but answers it.
func (c *conn) takeHeader(data []byte) error {
	field, err := split(data)
	if err != nil || len(field) != 2 || field[0] == "" {
		return errors.New("a malformed header command")
	}
	c.header(field[0], field[1])
	return c.goOn(milter.OptNoHeaderReply)
}

// goOn answers a command that go-milter is not shown, unless the MTA was
// promised no answer.
func (c *conn) goOn(promised milter.OptProtocol) error {
	if c.protocol&promised != 0 {
		return nil
	}
	_, err := c.Write([]byte{0, 0, 0, 1, byte(milter.ActContinue)})
	return err
}

// takeMacros notes the macros that come before a command. Those of MAIL begin
// a message; those of CONNECT and HELO hold for the connection.
func (c *conn) takeMacros(data []byte) error {
	if len(data) == 0 {
		return errors.New("a malformed macro command")
	}
	pairs, err := split(data[1:])
	if err != nil || len(pairs)%2 != 0 {
		return errors.New("a malformed macro command")
	}
	into := c.message
	switch milter.Code(data[0]) {
	case milter.CodeConn, milter.CodeHelo:
		into = c.connect
	case milter.CodeMail:
		clear(c.message)
	}
	for pair := range slices.Chunk(pairs, 2) {
		into[strings.Trim(pair[0], "{}")] = pair[1]
	}
	return nil
}

// macro is the value that the MTA gave a macro last, "" where it gave none.
// Names are without braces.
func (c *conn) macro(name string) string {
	if value, ok := c.message[name]; ok {
		return value
	}
	return c.connect[name]
}

// split cuts strings that each end in NUL.
func split(data []byte) ([]string, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if data[len(data)-1] != 0 {
		return nil, errors.New("a string without its end")
	}
	var all []string
	for s := range bytes.SplitSeq(data[:len(data)-1], []byte{0}) {
		all = append(all, string(s))
	}
	return all, nil
}

// limit sets the moment by which all that is written must be out; the zero
// time takes the limit off.
func (c *conn) limit(until time.Time) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.until = until
}

// Write sends what go-milter writes, which for a long frame are several
// pieces. After an error nothing more goes out: behind half a frame, a verdict
// would be taken for the rest of it.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	deadline := time.Now().Add(c.timeouts.write)
	if !c.until.IsZero() && c.until.Before(deadline) {
		deadline = c.until
	}
	if c.writeErr = c.SetWriteDeadline(deadline); c.writeErr != nil {
		return 0, c.writeErr
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.writeErr = err
		c.Conn.Close()
	}
	return n, err
}

// progress tells the MTA that the filter is still at work, which begins its
// time-out anew. It is allowed at the end of a message only, while go-milter
// writes nothing: never within a frame, or between two pieces of a body.
func (c *conn) progress() error {
	_, err := c.Write([]byte{0, 0, 0, 1, codeProgress})
	return err
}

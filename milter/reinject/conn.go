package reinject

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// maxReply is the most that a server may say in answer to one command. Of
	// what is longer nothing is kept, and the connection ends.
	maxReply = 16 << 10

	// writeSize is the most that goes out in one write. The kernel's buffers
	// take a few of these, and fewer and larger writes cost less.
	writeSize = 256 << 10
)

var (
	errReplyTooLong = errors.New("the server's reply is too long")
	errOutOfTurn    = errors.New("the server spoke before it was asked")
)

// conn is the connection, below go-smtp's client and beside it. It gives out
// at most one line per Read, so that whoever reads a reply, through a buffer of
// their own or not, never takes bytes of the next one with them.
type conn struct {
	net.Conn
	in      *bufio.Reader
	rest    []byte // of a line of which Read has given out the beginning
	within  bool   // what comes next is not the beginning of a line
	said    int    // bytes that the server said since it was last asked
	timeout time.Duration
}

func newConn(c net.Conn, timeout time.Duration) *conn {
	return &conn{Conn: c, in: bufio.NewReader(c), timeout: timeout}
}

// Read reads at most to the end of a line.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// fill reads a line, or a part of a long one. To a code without text, which is a
// whole reply (RFC 5321, section 4.2), it adds the blank without which neither
// go-smtp nor net/textproto takes it for one.
func (c *conn) fill() error {
	if c.said >= maxReply {
		return errReplyTooLong
	}
	line, err := c.in.ReadSlice('\n')
	if len(line) == 0 {
		return err // where there is something, the next Read meets the error again
	}
	c.said += len(line)
	c.rest = line
	if code := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")); !c.within && len(code) == 3 && err == nil {
		c.rest = []byte(string(code) + " \r\n")
	}
	c.within = err == bufio.ErrBufferFull
	return nil
}

// Write writes a command. The server must have been silent since its last
// reply: else that would be taken for the answer to this command, and the true
// answer for that of the next one, up to a 250 that is not the message's.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.silent(); err != nil {
		return 0, err
	}
	c.said = 0
	return c.Conn.Write(p)
}

// writeData writes a piece of the data, for which there is time anew.
func (c *conn) writeData(p []byte) error {
	for len(p) > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
		n, err := c.Conn.Write(p[:min(len(p), writeSize)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// silent looks whether there is something to be read that nobody asked for,
// without waiting for it. That the server is gone is left to be found by
// whoever reads or writes.
func (c *conn) silent() error {
	if len(c.rest) > 0 || c.in.Buffered() > 0 {
		return errOutOfTurn
	}
	socket, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if err == nil && n > 0 {
		err = errOutOfTurn
	}
	return err
}

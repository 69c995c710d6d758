package client

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// maxFrame bounds what is read of a filter in one frame. Postfix gives up at
// twice the size of a body chunk; a longer frame is reported all the same, so
// that a test can say what it was.
const maxFrame = 1 << 20

// Frame is one packet of the milter protocol.
type Frame struct {
	Code byte
	Data []byte
}

// Wire is a bare connection to a filter for tests that speak out of turn. What
// comes from the filter is read as it comes, so that an answer nobody asked for
// is noticed.
type Wire struct {
	conn   net.Conn
	frames chan Frame    // closed when nothing more will come
	err    error         // why, once frames is closed
	quit   chan struct{} // closed by Close
	done   chan struct{} // closed when the reader is gone
}

// ErrClosed says that the filter ended the connection.
var ErrClosed = errors.New("the filter closed the connection")

var errTimeout = errors.New("no answer in time")

// DialWire connects to a filter and says nothing yet.
func DialWire(network, addr string) (*Wire, error) {
	conn, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connecting to the filter: %w", err)
	}
	w := &Wire{
		conn:   conn,
		frames: make(chan Frame, 64),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go w.read()
	return w, nil
}

// Send writes frames in one go.
func (w *Wire) Send(frames ...Frame) error {
	var b []byte
	for _, f := range frames {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Data)+1))
		b = append(b, f.Code)
		b = append(b, f.Data...)
	}
	return w.SendBytes(b)
}

// SendBytes writes bytes that need not be frames.
func (w *Wire) SendBytes(b []byte) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}

// Receive waits for the filter's next frame.
func (w *Wire) Receive(timeout time.Duration) (Frame, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case f, ok := <-w.frames:
		if !ok {
			return Frame{}, w.err
		}
		return f, nil
	case <-timer.C:
		return Frame{}, fmt.Errorf("%w (%v)", errTimeout, timeout)
	}
}

// Pending says whether a frame has come that nobody has received.
func (w *Wire) Pending() bool { return len(w.frames) > 0 }

// Close ends the connection at once, as an MTA that dies does.
func (w *Wire) Close() error {
	select {
	case <-w.quit:
		return nil
	default:
	}
	close(w.quit)
	err := w.conn.Close()
	<-w.done
	return err
}

// read receives until the connection ends, or the Wire is closed.
func (w *Wire) read() {
	defer close(w.done)
	defer close(w.frames)
	in := bufio.NewReaderSize(w.conn, 1<<16)
	for {
		f, err := readFrame(in)
		if err != nil {
			w.err = err
			return
		}
		select {
		case w.frames <- f:
		case <-w.quit:
			w.err = net.ErrClosed
			return
		}
	}
}

func readFrame(in io.Reader) (Frame, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			return Frame{}, errors.New("the connection ended within a frame's length")
		}
		return Frame{}, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 1 || n > maxFrame {
		return Frame{}, fmt.Errorf("a frame of %d bytes", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(in, data); err != nil {
		return Frame{}, fmt.Errorf("the connection ended within a frame: %w", err)
	}
	return Frame{Code: data[0], Data: data[1:]}, nil
}

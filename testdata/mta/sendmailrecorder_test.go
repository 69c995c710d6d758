package mta_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-milter"

	"sealmilter/milter/client"
)

// recorder is a filter in front of sealmilter that lets everything pass. What
// Sendmail made of a message before it showed it to filters is known to nobody
// else.
type recorder struct {
	addr *net.TCPAddr

	mutex    sync.Mutex
	messages []client.Message
	resolved string // the macro {rcpt_addr} of the last RCPT
	failed   error
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: ln.Addr().(*net.TCPAddr)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if err := r.serve(conn); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					r.mutex.Lock()
					defer r.mutex.Unlock()
					r.failed = err
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		if r.failed != nil {
			t.Errorf("the recording filter: %v", r.failed)
		}
	})
	return r
}

// line is the recorder as sendmail.mc has it.
func (r *recorder) line() string {
	return fmt.Sprintf("INPUT_MAIL_FILTER(`recorder', `S=inet:%d@127.0.0.1, F=T')dnl", r.addr.Port)
}

// serve follows one connection. It asks for nothing but the space that
// stands behind a header field's colon.
func (r *recorder) serve(conn net.Conn) error {
	var message client.Message
	for {
		frame, err := readFrame(conn)
		if err != nil {
			return err
		}
		code, data := milter.Code(frame[0]), frame[1:]
		reply := []byte{byte(milter.ActContinue)}
		switch code {
		case milter.CodeOptNeg:
			reply = binary.BigEndian.AppendUint32([]byte{frame[0], 0, 0, 0, 6, 0, 0, 0, 0}, uint32(milter.OptHeaderLeadingSpace))
		case milter.CodeMacro:
			r.note(data)
			continue
		case milter.CodeAbort, milter.CodeQuit:
			continue
		case milter.CodeMail:
			message = client.Message{}
		case milter.CodeHeader:
			name, value, _ := bytes.Cut(bytes.TrimSuffix(data, []byte{0}), []byte{0})
			message.Header = append(message.Header, client.Field{Name: string(name), Value: string(value)})
		case milter.CodeBody:
			message.Body = append(message.Body, data...)
		case milter.CodeEOB:
			message.Body = append(message.Body, data...)
			r.mutex.Lock()
			r.messages = append(r.messages, message)
			r.mutex.Unlock()
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(reply))), reply...)); err != nil {
			return err
		}
	}
}

func readFrame(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	if len(frame) == 0 {
		return nil, errors.New("an empty frame")
	}
	_, err := io.ReadFull(in, frame)
	return frame, err
}

// note keeps what Sendmail says a recipient's address to be.
func (r *recorder) note(macros []byte) {
	if len(macros) == 0 || milter.Code(macros[0]) != milter.CodeRcpt {
		return
	}
	_, rest, _ := strings.Cut(string(macros), "{rcpt_addr}\x00")
	value, _, _ := strings.Cut(rest, "\x00")
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.resolved = value
}

// rcptAddr is what Sendmail said last in {rcpt_addr}.
func (r *recorder) rcptAddr(t *testing.T) string {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.resolved
}

// last is the message that was shown last.
func (r *recorder) last(t *testing.T) client.Message {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.messages) == 0 {
		t.Fatal("the recording filter has seen no message")
	}
	return r.messages[len(r.messages)-1]
}

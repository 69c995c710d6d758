// Package client plays the MTA's part of the milter protocol, strictly: it shows
// a filter messages as Postfix shows them, says what the MTA would hold in its
// queue after the filter's edits, and reports as an error whatever breaks the
// protocol, where an MTA would shrug, lose the edit or lose the mail. The demo
// and the tests use it.
//
// It writes frames of its own, because the client of go-milter hides what has to
// be seen here: the order of edits, progress packets between them, and answers
// that nobody asked for. Of go-milter it takes the protocol's constants.
package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/emersion/go-milter"
)

// What Postfix 3.7 and Sendmail 8.17 offer.
const (
	AllActions  milter.OptAction   = 0x1ff
	AllProtocol milter.OptProtocol = 0x1fffff
)

// Options say which MTA is played. The zero value is Postfix 3.7 with its
// default settings.
type Options struct {
	// Version, Actions and Protocol are what the MTA offers. With Version 0 a
	// zero mask means all of version 6; to play an older MTA set Version, and
	// both masks are offered as they stand.
	Version  uint32
	Actions  milter.OptAction
	Protocol milter.OptProtocol

	// Sendmail plays Sendmail 8 where it differs: deleting a header field does
	// not renumber those behind it, no ABORT follows a message, and macros come
	// with other events.
	Sendmail bool

	Hostname   string // the MTA's own name; mx.example.org
	ClientName string // of the SMTP client; [ClientAddr], as where no name is found
	ClientAddr string // 192.0.2.1
	ClientPort uint16 // 49152
	Helo       string // client.example.net

	// ChunkSize is the most body bytes sent in a frame; 65535. A small one lets
	// CRLF straddle two chunks.
	ChunkSize int

	// Timeout is for each frame waited for, 10 s as in Sendmail; a progress
	// packet starts it anew. EndTimeout is for the end of the message as a
	// whole, 300 s as in both MTAs.
	Timeout    time.Duration
	EndTimeout time.Duration

	// Macros are more of them, name and value in turn, that come with CONNECT, as
	// an administrator may define them (milter_macro_defaults), and EndMacros those
	// that come with the end of the message.
	Macros, EndMacros []string

	// Settle is how long Send listens after the verdict for answers that nobody
	// asked for; 1 ms. Close finds those that come later.
	Settle time.Duration
}

func (o Options) withDefaults() Options {
	if o.Version == 0 {
		o.Version = 6
		o.Actions = orElse(o.Actions, AllActions)
		o.Protocol = orElse(o.Protocol, AllProtocol)
	}
	o.Hostname = orElse(o.Hostname, "mx.example.org")
	o.ClientAddr = orElse(o.ClientAddr, "192.0.2.1")
	o.ClientName = orElse(o.ClientName, "["+o.ClientAddr+"]")
	o.ClientPort = orElse(o.ClientPort, 49152)
	o.Helo = orElse(o.Helo, "client.example.net")
	o.ChunkSize = min(orElse(o.ChunkSize, milter.MaxBodyChunk), milter.MaxBodyChunk)
	o.Timeout = orElse(o.Timeout, 10*time.Second)
	o.EndTimeout = orElse(o.EndTimeout, 300*time.Second)
	o.Settle = orElse(o.Settle, time.Millisecond)
	return o
}

func orElse[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Session is one SMTP client's connection as the filter sees it. It is not safe
// for use by several goroutines.
type Session struct {
	// What the filter answered to the offer.
	Version  uint32
	Actions  milter.OptAction
	Protocol milter.OptProtocol

	opts    Options
	wire    *Wire
	symbols map[Stage][]string // the macros the filter asked for, where it did
	verdict *Reply             // of CONNECT or HELO, where it was final for the connection
	broken  error              // the protocol was broken: the session cannot go on
}

// Dial connects to a filter, negotiates, and sends CONNECT and HELO. A filter
// that refuses or accepts the whole connection there is no error: Send then
// answers as the MTA would, without asking the filter.
func Dial(network, addr string, opts Options) (*Session, error) {
	wire, err := DialWire(network, addr)
	if err != nil {
		return nil, err
	}
	s := &Session{opts: opts.withDefaults(), wire: wire}
	if err := s.open(); err != nil {
		wire.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) open() error {
	if err := s.negotiate(); err != nil {
		return fmt.Errorf("negotiating: %w", err)
	}
	for _, st := range []Stage{Connect, Helo} {
		data := append([]byte(s.opts.Helo), 0)
		if st == Connect {
			data = s.connectData()
		}
		reply, err := s.event(st, s.macros(st, Envelope{}, Recipient{}), data)
		if err != nil {
			return fmt.Errorf("at %s: %w", st, err)
		}
		switch reply.Action {
		case milter.ActContinue:
		case milter.ActDiscard, milter.ActSkip:
			return fmt.Errorf("at %s: answer %q is not allowed there", st, reply.Action)
		default:
			s.verdict = &reply
			return s.Close() // Postfix closes the connection to the filter at once
		}
	}
	return nil
}

// Wire is the connection below the session, for tests that leave the protocol.
func (s *Session) Wire() *Wire { return s.wire }

// Close says good-bye and waits until the filter has closed the connection too.
// Then everything that it ever sent has been read: an answer that nobody asked
// for is an error here at the latest. Closing a closed session does nothing.
func (s *Session) Close() error {
	select {
	case <-s.wire.quit:
		return nil
	default:
	}
	defer s.wire.Close()
	if s.broken != nil {
		return nil // reported already
	}
	if err := s.wire.Send(Frame{Code: byte(milter.CodeAbort)}, Frame{Code: byte(milter.CodeQuit)}); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	f, err := s.wire.Receive(s.opts.Timeout)
	switch {
	case err == nil:
		return fmt.Errorf("closing: the filter sent %q (%d bytes) that nobody asked for", f.Code, len(f.Data))
	case errors.Is(err, ErrClosed):
		return nil
	default:
		return fmt.Errorf("closing: %w", err)
	}
}

func (s *Session) negotiate() error {
	var offer []byte
	for _, n := range []uint32{s.opts.Version, uint32(s.opts.Actions), uint32(s.opts.Protocol)} {
		offer = binary.BigEndian.AppendUint32(offer, n)
	}
	if err := s.wire.Send(Frame{byte(milter.CodeOptNeg), offer}); err != nil {
		return err
	}
	f, err := s.wire.Receive(s.opts.Timeout)
	if err != nil {
		return err
	}
	if f.Code != byte(milter.CodeOptNeg) || len(f.Data) < 12 {
		return fmt.Errorf("answer %q with %d bytes", f.Code, len(f.Data))
	}
	s.Version = binary.BigEndian.Uint32(f.Data)
	s.Actions = milter.OptAction(binary.BigEndian.Uint32(f.Data[4:]))
	s.Protocol = milter.OptProtocol(binary.BigEndian.Uint32(f.Data[8:]))
	if s.Version < 2 || s.Version > s.opts.Version {
		return fmt.Errorf("version %d was offered, the filter speaks %d", s.opts.Version, s.Version)
	}
	if extra := s.Actions &^ s.opts.Actions; extra != 0 {
		return fmt.Errorf("the filter wants actions %#x, which were not offered", uint32(extra))
	}
	if extra := s.Protocol &^ s.opts.Protocol; extra != 0 {
		return fmt.Errorf("the filter wants protocol flags %#x, which were not offered", uint32(extra))
	}
	return s.readSymbols(f.Data[12:])
}

// connectData is the CONNECT event's: name, family, port, address.
func (s *Session) connectData() []byte {
	family := milter.FamilyInet
	if ip := net.ParseIP(s.opts.ClientAddr); ip != nil && ip.To4() == nil {
		family = milter.FamilyInet6
	}
	data := append([]byte(s.opts.ClientName), 0, byte(family))
	data = binary.BigEndian.AppendUint16(data, s.opts.ClientPort)
	return append(append(data, s.opts.ClientAddr...), 0)
}

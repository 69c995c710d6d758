package milter

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// Config is what a Server works with. All fields but the last two are needed.
type Config struct {
	Store  keys.Store
	Policy policy.Policy
	Spool  envelope.Spool
	Log    *slog.Logger

	MaxConnections int  // further ones wait in the listener's queue; 0: DefaultMaxConnections
	LogAddresses   bool // whether recipients are named in the log
}

// DefaultMaxConnections is more than smtpd processes of a busy Postfix
// (default_process_limit, 100).
const DefaultMaxConnections = 500

// Server is the filter's side of the milter protocol.
type Server struct {
	Config
	places chan struct{}

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	closing   bool
	ended     sync.WaitGroup // of connections
}

// NewServer returns a server that serves nothing yet.
func NewServer(config Config) *Server {
	if config.MaxConnections == 0 {
		config.MaxConnections = DefaultMaxConnections
	}
	return &Server{
		Config:    config,
		places:    make(chan struct{}, config.MaxConnections),
		listeners: make(map[net.Listener]bool),
		conns:     make(map[*conn]bool),
	}
}

// acceptPause is how long accepting rests after an error that may pass, such
// as too many open files.
const acceptPause = 100 * time.Millisecond

// Serve accepts connections until Shutdown is called, when it returns nil, or
// until the listener fails. It may be called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	if !s.addListener(ln) {
		return ln.Close()
	}
	defer ln.Close()
	for {
		s.places <- struct{}{}
		nc, err := ln.Accept()
		if err == nil {
			s.start(nc)
			continue
		}
		<-s.places
		var ne net.Error
		switch {
		case s.isClosing():
			return nil
		case errors.As(err, &ne) && !errors.Is(err, net.ErrClosed):
			s.Log.Warn("a connection was not accepted", "error", err)
			time.Sleep(acceptPause)
		default:
			return err
		}
	}
}

// start begins to serve a connection, unless Shutdown was called.
func (s *Server) start(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newConn(nc)
	if s.closing {
		c.Close()
		<-s.places
		return
	}
	s.conns[c] = true
	s.ended.Go(func() { s.serve(c) })
}

// serve serves one connection to its end.
func (s *Server) serve(c *conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		<-s.places
	}()
	if err := c.negotiate(); err != nil {
		s.Log.Warn("the option negotiation failed", "error", err)
		return
	}
	session := newSession(s, c)
	defer session.reset()
	filter := milter.Server{
		NewMilter: func() milter.Milter { return session },
		Actions:   actionsNeeded,
		Protocol:  c.protocol,
	}
	filter.Serve(&oneConn{Conn: c, gone: c.closed}) // its error is that there is no second connection
	if c.fault != nil {
		s.logBroken(session, c.fault)
	}
}

// Shutdown stops accepting, lets messages under way finish, and returns when
// all connections have ended. Those that have not when ctx ends are cut off,
// and their messages stay with the MTA; the error is ctx's then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.ended.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[ln] = true
	return !s.closing
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// oneConn is a listener that accepts one connection, and closes with it: so
// go-milter's Serve returns when its only session has ended.
type oneConn struct {
	net.Conn
	gone     <-chan struct{}
	accepted bool
}

func (o *oneConn) Accept() (net.Conn, error) {
	if !o.accepted {
		o.accepted = true
		return o.Conn, nil
	}
	<-o.gone
	return nil, net.ErrClosed
}

func (o *oneConn) Addr() net.Addr { return o.LocalAddr() }

package milter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// Config is what a message is handled by.
type Config struct {
	Store        keys.Store
	Naming       keys.Naming
	Policy       policy.Policy
	Hidden       bool // whether a message sealed to hidden readers counts as sealed to its recipient
	Spool        envelope.Spool
	Addressing   envelope.Addressing
	Log          *slog.Logger
	LogAddresses bool  // whether recipients are named in the log
	SizeLimit    int64 // bytes that a sealed message may have in the MTA's queue; 0: no limit
	Split        Split
	Separate     Separate
	Reinjection  *Reinjection // with SplitReinject
}

// settings are a Config and the messages that go by it.
type settings struct {
	Config
	users    int
	retired  bool
	released chan struct{} // closed when retired and without users
}

// Server is the filter's side of the milter protocol.
type Server struct {
	places   chan struct{} // for connections
	timeouts timeouts

	mu        sync.Mutex
	current   *settings
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	closing   bool
	ended     sync.WaitGroup // of connections
}

// NewServer returns a server that serves nothing yet. Of more than
// maxConnections at once the further ones wait in the listener's queue.
func NewServer(config Config, maxConnections int) *Server {
	return &Server{
		places:    make(chan struct{}, maxConnections),
		timeouts:  defaultTimeouts,
		current:   newSettings(config),
		listeners: make(map[net.Listener]bool),
		conns:     make(map[*conn]bool),
	}
}

func newSettings(config Config) *settings {
	return &settings{Config: config, released: make(chan struct{})}
}

// Reconfigure makes the messages that begin from now on go by config. Those
// under way keep what they began with; the channel is closed when the last of
// them has ended, and nothing of the old Config is used any more.
func (s *Server) Reconfigure(config Config) (released <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.current
	s.current = newSettings(config)
	old.retired = true
	if old.users == 0 {
		close(old.released)
	}
	return old.released
}

// acquire gives a message the settings that it goes by.
func (s *Server) acquire() *settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.users++
	return s.current
}

// share gives a message's settings another user.
func (s *Server) share(by *settings) *settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	by.users++
	return by
}

// release takes note that a message has ended.
func (s *Server) release(by *settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by.users--
	if by.retired && by.users == 0 {
		close(by.released)
	}
}

// now is the Config that a message would get.
func (s *Server) now() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Config
}

// acceptPause is how long accepting rests after an error that may pass, such
// as too many open files.
const acceptPause = time.Second

// Serve accepts connections until Shutdown is called, when it returns nil, or
// until somebody else closes the listener. It may be called for several; name
// is what the site's rules call this one.
func (s *Server) Serve(ln net.Listener, name string) error {
	if !s.addListener(ln) {
		return ln.Close()
	}
	defer ln.Close()
	for {
		s.places <- struct{}{}
		nc, err := ln.Accept()
		if err == nil {
			s.start(nc, name)
			continue
		}
		<-s.places
		switch {
		case s.isClosing():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		s.now().Log.Warn("a connection was not accepted", "error", err)
		time.Sleep(acceptPause)
	}
}

// start begins to serve a connection, unless Shutdown was called.
func (s *Server) start(nc net.Conn, listener string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newConn(nc, s.timeouts)
	if s.closing {
		c.Close()
		<-s.places
		return
	}
	s.conns[c] = true
	s.ended.Go(func() { s.serve(newSession(s, c, listener)) })
}

// serve serves one connection to its end. Whatever goes wrong in it ends this
// one connection.
func (s *Server) serve(session *session) {
	c := session.conn
	defer func() {
		if cause := recover(); cause != nil {
			session.logPanic(cause, debug.Stack())
		}
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		<-s.places
	}()
	switch err := c.negotiate(); {
	case errors.Is(err, io.EOF): // somebody looked whether there is anybody
		return
	case err != nil:
		s.now().Log.Warn("the option negotiation failed", "error", err)
		return
	}
	filter := milter.Server{
		NewMilter: func() milter.Milter { return session },
		Actions:   actionsNeeded,
		Protocol:  c.protocol,
	}
	// Serve returns when go-milter has closed the connection; its error is that
	// there is no second one.
	filter.Serve(&oneConn{Conn: c, gone: c.closed})
	if c.readErr != nil {
		session.logBroken(c.readErr)
	}
	session.reset()
	session.endClaim(c.quit || c.drained)
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
		c.Conn.Close() // what is under way there meets the error and ends
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

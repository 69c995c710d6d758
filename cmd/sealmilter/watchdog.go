package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// countedListener counts the connections that are open.
type countedListener struct {
	net.Listener
	open *atomic.Int64
}

// Accept waits for the next connection.
func (l countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: conn, open: l.open}, nil
}

type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

// Close closes the connection, which may be closed already.
func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// watchdog tells the service manager that the daemon is alive, as long as it
// is. Alive means that it does what an MTA asks of it: every address accepts a
// connection and answers the milter negotiation, asked over the socket itself.
// That the key store is away is no reason: a restart would not bring it back,
// and the messages under way would be lost to their senders' patience. Nor are
// too many connections, which only wait for their turn.
type watchdog struct {
	manager   *manager
	listeners []listener
	open      *atomic.Int64 // connections
	most      int64         // max_connections

	mute map[string]bool // addresses that this process may not connect to
}

// run watches until ctx ends. What it logs goes to slog's default logger,
// which a reload changes under it.
//
// It looks after half of the interval, and gives each look a fifth of it; one
// that failed is followed by another before the manager's patience ends, for a
// machine that stood still for a moment.
func (w *watchdog) run(ctx context.Context) {
	interval := w.manager.watchdog
	w.mute = make(map[string]bool)
	for pause := interval / 2; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err := w.look(interval / 5); err != nil && ctx.Err() == nil {
			slog.Error("the daemon does not answer itself, the watchdog will end it unless it does soon", "error", err)
			pause = interval / 10
			continue
		}
		w.manager.alive()
		pause = interval / 2
	}
}

// look asks every address. A listener holds one place of max_connections
// while it waits for the next connection: where there are not enough left for
// all of them, an address that does not answer is busy and not dead.
func (w *watchdog) look(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for _, ln := range w.listeners {
		addr := ln.Addr()
		err := answers(addr, deadline)
		switch {
		case err == nil, w.mute[addr.String()], w.open.Load()+int64(len(w.listeners)) > w.most:
		case errors.Is(err, os.ErrPermission):
			w.mute[addr.String()] = true
			slog.Warn("the daemon may not connect to its own socket, which the watchdog leaves alone therefore", "address", addr.String(), "error", err)
		default:
			return fmt.Errorf("%s: %w", addr, err)
		}
	}
	return nil
}

// answers connects as an MTA does, negotiates, and says good-bye.
func answers(addr net.Addr, deadline time.Time) error {
	conn, err := (&net.Dialer{Deadline: deadline}).Dial(addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	const negotiation, quit, version = 'O', 'Q', 6
	offer := []byte{0, 0, 0, 13, negotiation}
	for _, word := range []uint32{version, 0, 0} { // no actions and no options are offered
		offer = binary.BigEndian.AppendUint32(offer, word)
	}
	if _, err := conn.Write(offer); err != nil {
		return err
	}
	answer := make([]byte, len(offer))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("waiting for the negotiation's answer: %w", err)
	}
	if answer[4] != negotiation {
		return fmt.Errorf("the negotiation is answered with %q", answer[4])
	}
	if _, err := conn.Write([]byte{0, 0, 0, 1, quit}); err != nil {
		return err
	}
	// The server closes first: closed from here it could look like a break.
	_, err = io.Copy(io.Discard, io.LimitReader(conn, 1<<10))
	return err
}

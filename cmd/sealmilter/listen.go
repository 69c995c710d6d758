package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// listener is a socket and what the configuration calls it, by which the site's
// rules know it. Several that systemd passes may have one name.
type listener struct {
	net.Listener
	name string
}

// listen opens all the sockets that the configuration names, or none. Those
// that systemd passed are taken from it.
func listen(cfg MilterConfig, passed []*passedSocket) (listeners []listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				ln.Close()
			}
		}
	}()
	for _, address := range cfg.Listen {
		network, target, err := parseListen(address)
		if err != nil {
			return listeners, configError("%s: %w", address, err)
		}
		if network == networkSystemd {
			found := named(passed, target)
			if len(found) == 0 {
				return listeners, configError("listening on %s: systemd has passed no such socket, is the socket's unit enabled and started?", address)
			}
			for _, ln := range found {
				listeners = append(listeners, listener{ln, address})
			}
			continue
		}
		ln := boundTo(passed, network, target)
		if ln == nil {
			if ln, err = listenOne(network, target, cfg); err != nil {
				return listeners, failure("listening on %s: %w", address, err)
			}
		}
		listeners = append(listeners, listener{ln, address})
	}
	return listeners, allServed(passed)
}

// allServed refuses a passed socket that nothing names: systemd keeps it open,
// and an MTA that connects to it would wait for an answer that never comes.
func allServed(passed []*passedSocket) error {
	for _, socket := range passed {
		if !socket.used {
			return configError("systemd passes the socket %s (%s), which listen under [milter] does not name: add \"systemd:\" there, or disable the socket's unit",
				socket.name, socket.Addr())
		}
	}
	return nil
}

// listenOne opens one socket. A unix socket that a killed daemon has left
// behind is removed; one that answers is another daemon's.
func listenOne(network, target string, cfg MilterConfig) (net.Listener, error) {
	if network != "unix" {
		return net.Listen(network, target)
	}
	if conn, err := net.Dial(network, target); err == nil {
		conn.Close()
		return nil, errors.New("another process serves this socket")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(target); err != nil {
			return nil, fmt.Errorf("removing the socket that was left behind: %w", err)
		}
	}
	// Nobody may connect before mode and group are set.
	old := syscall.Umask(0o177)
	ln, err := net.Listen(network, target)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := giveSocket(target, cfg); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// giveSocket sets the group and then the mode of a unix socket.
func giveSocket(path string, cfg MilterConfig) error {
	if cfg.Group != "" {
		group, err := user.LookupGroup(cfg.Group)
		if err != nil {
			return err
		}
		id, err := strconv.Atoi(group.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, id); err != nil {
			return err
		}
	}
	return os.Chmod(path, os.FileMode(cfg.Mode))
}

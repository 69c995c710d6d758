package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// firstPassed is the descriptor of the first socket that systemd passes
	// (SD_LISTEN_FDS_START).
	firstPassed = 3
	// maxPassed is more sockets than any site has.
	maxPassed = 64
)

// passedSocket is a listening socket that the service manager has opened and
// passed to the daemon (socket activation, sd_listen_fds(3)).
type passedSocket struct {
	net.Listener
	name string // FileDescriptorName= of its unit, or the unit's own name
	used bool
}

// takePassedSockets takes the sockets that the environment announces, and the
// announcement out of the environment: for a child the numbers mean nothing.
func takePassedSockets() ([]*passedSocket, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // they are meant for another process
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxPassed {
		return nil, configError("LISTEN_FDS is %q, expected a number of sockets up to %d", count, maxPassed)
	}
	var passed []*passedSocket
	for i := range n {
		socket := &passedSocket{name: "unknown"} // as sd_listen_fds_with_names(3) has it
		if len(names) == n && names[i] != "" {
			socket.name = names[i]
		}
		if socket.Listener, err = passedListener(firstPassed + i); err != nil {
			closeAll(listenersOf(passed))
			return nil, configError("the socket %s (descriptor %d) that systemd passes: %w", socket.name, firstPassed+i, err)
		}
		passed = append(passed, socket)
	}
	return passed, nil
}

// passedListener makes a listener of a descriptor, which must be a stream
// socket that listens: with Accept=yes systemd would pass a connection.
func passedListener(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil {
		return nil, fmt.Errorf("it is no socket: %w", err)
	} else if kind != syscall.SOCK_STREAM {
		return nil, fmt.Errorf("it is no stream socket, expected ListenStream= in its unit")
	}
	if listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, fmt.Errorf("it does not listen, expected Accept=no in its unit")
	}
	file := os.NewFile(uintptr(fd), "passed socket")
	defer file.Close() // the listener has a duplicate
	return net.FileListener(file)
}

func listenersOf(passed []*passedSocket) (listeners []net.Listener) {
	for _, socket := range passed {
		listeners = append(listeners, socket.Listener)
	}
	return listeners
}

func closeAll(listeners []net.Listener) {
	for _, ln := range listeners {
		ln.Close()
	}
}

// named takes the sockets of a name out of those that were passed, or all of
// them where the name is empty.
func named(passed []*passedSocket, name string) (found []net.Listener) {
	for _, socket := range passed {
		if !socket.used && (name == "" || name == socket.name) {
			socket.used = true
			found = append(found, socket.Listener)
		}
	}
	return found
}

// boundTo takes the passed socket that listens at an address, if there is one.
// So a configuration that names the address is right with and without the
// socket's unit.
func boundTo(passed []*passedSocket, network, target string) net.Listener {
	for _, socket := range passed {
		if !socket.used && sameAddress(socket.Addr(), network, target) {
			socket.used = true
			return socket.Listener
		}
	}
	return nil
}

func sameAddress(addr net.Addr, network, target string) bool {
	switch addr := addr.(type) {
	case *net.UnixAddr:
		return network == "unix" && filepath.Clean(addr.Name) == filepath.Clean(target)
	case *net.TCPAddr:
		if network == "unix" {
			return false
		}
		wanted, err := net.ResolveTCPAddr(network, target)
		return err == nil && wanted.IP.Equal(addr.IP) && wanted.Port == addr.Port
	}
	return false
}

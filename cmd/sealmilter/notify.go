package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifyTimeout is what the service manager may take to read one message. Its
// queue is short, and the daemon must not hang on it.
const notifyTimeout = 2 * time.Second

// manager is the service manager, as far as the daemon talks to it
// (sd_notify(3)). Without one everything said to it goes nowhere.
type manager struct {
	socket   string        // a path, or a name in the abstract name space behind "@"
	watchdog time.Duration // within which it wants to hear of the daemon, 0 for never
}

// newManager reads what the service manager put into the environment, and
// takes it out: no child of ours may speak in our name.
func newManager() *manager {
	m := &manager{socket: os.Getenv("NOTIFY_SOCKET")}
	if !strings.HasPrefix(m.socket, "/") && !strings.HasPrefix(m.socket, "@") {
		m.socket = "" // systemd has other kinds, for virtual machines alone
	}
	forUs := os.Getenv("WATCHDOG_PID")
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err == nil && usec > 0 && m.socket != "" && (forUs == "" || forUs == strconv.Itoa(os.Getpid())) {
		m.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(name)
	}
	return m
}

// ready says that the daemon serves, after its start or after a reload.
func (m *manager) ready(status string) {
	m.say("READY=1", "STATUS="+oneLine(status))
}

// reloading says that a reload has begun. systemd 253 and newer match it to
// the SIGHUP by its time (Type=notify-reload), older ones ignore the time.
func (m *manager) reloading() {
	lines := []string{"RELOADING=1", "STATUS=reading the configuration"}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		lines = append(lines, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
	}
	m.say(lines...)
}

// stopping says that the daemon ends, and how long it may take: the messages
// under way have shutdown_timeout, which may be more than TimeoutStopSec=.
func (m *manager) stopping(patience time.Duration) {
	m.say("STOPPING=1", "STATUS=stopping, messages under way may finish",
		fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (patience+5*time.Second).Microseconds()))
}

// alive keeps the watchdog quiet for one more interval.
func (m *manager) alive() { m.say("WATCHDOG=1") }

// say sends one message. There is a connection for each, so that a service
// manager that was restarted is found again.
func (m *manager) say(lines ...string) {
	if m.socket == "" {
		return
	}
	if err := m.send(strings.Join(lines, "\n")); err != nil {
		slog.Warn("the service manager could not be told", "message", lines[0], "error", err)
	}
}

func (m *manager) send(message string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}

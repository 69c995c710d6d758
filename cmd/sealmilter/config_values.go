package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The types of settings that TOML has no type for. Each reads its text, says
// what it expects for the error message, and writes itself as the file would.

// setting is what the error about a wrong type asks a setting's type.
type setting interface{ expects() string }

// duration is a length of time, written "60s", or "7d" for whole days.
type duration time.Duration

const (
	day     = duration(24 * time.Hour)
	maxDays = 36500 // a hundred years, far from overflowing
)

func (duration) expects() string { return `a length of time in quotes such as "60s", "5m" or "7d"` }

func (d duration) String() string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	if number, inDays := strings.CutSuffix(string(text), "d"); inDays {
		if days, err := strconv.ParseUint(number, 10, 32); err == nil && days <= maxDays {
			*d = duration(days) * day
			return nil
		}
	}
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no length of time, expected %s", text, d.expects())
	}
	*d = duration(parsed)
	return nil
}

// size is a number of bytes, written "1MiB" or plain.
type size int64

// sizeUnits are in descending order.
var sizeUnits = []struct {
	name  string
	bytes size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// maxSize is far more than a machine has, and far from overflowing.
const maxSize size = 1 << 50

func (size) expects() string { return `a size such as "512KiB", "1MiB" or a plain number of bytes` }

func (s size) String() string {
	for _, unit := range sizeUnits[:len(sizeUnits)-1] {
		if s != 0 && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	digits, factor := string(text), size(1)
	for _, unit := range sizeUnits {
		if number, ok := strings.CutSuffix(digits, unit.name); ok {
			digits, factor = strings.TrimSpace(number), unit.bytes
			break
		}
	}
	number, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || size(number) > maxSize/factor {
		return fmt.Errorf("%q is no size, expected %s", text, s.expects())
	}
	*s = size(number) * factor
	return nil
}

// fileMode is the mode of a socket, written "0660". It is a string because
// TOML knows no number with a leading zero, and 660 would be another mode.
type fileMode os.FileMode

func (fileMode) expects() string { return `an octal mode in quotes such as "0660"` }

func (m fileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *fileMode) UnmarshalText(text []byte) error {
	mode, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || mode > 0o777 {
		return fmt.Errorf("%q is no file mode, expected %s", text, m.expects())
	}
	*m = fileMode(mode)
	return nil
}

// logLevel is one of four names.
type logLevel slog.Level

var logLevels = []string{"debug", "info", "warn", "error"}
var logFormats = []string{"text", "json"}

func (logLevel) expects() string { return quotedList(logLevels) }

func (l logLevel) String() string { return strings.ToLower(slog.Level(l).String()) }

// UnmarshalText implements encoding.TextUnmarshaler. slog's own would take
// "INFO+3" as well.
func (l *logLevel) UnmarshalText(text []byte) error {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if logLevel(level).String() == string(text) {
			*l = logLevel(level)
			return nil
		}
	}
	return fmt.Errorf("%q is no level, expected %s", text, l.expects())
}

// listenList is one address to listen on, or several.
type listenList []string

func (listenList) expects() string {
	return `an address such as "inet:127.0.0.1:8890", or a list of them`
}

// UnmarshalText implements encoding.TextUnmarshaler: a string is a list of
// one.
func (l *listenList) UnmarshalText(text []byte) error {
	*l = listenList{string(text)}
	return nil
}

// textList is one text or several.
type textList []string

func (textList) expects() string { return `a text in quotes, or a list of them` }

// UnmarshalText implements encoding.TextUnmarshaler: a string is a list of
// one.
func (l *textList) UnmarshalText(text []byte) error {
	*l = textList{string(text)}
	return nil
}

// maxSocketPath is what sockaddr_un holds on Linux, without the final NUL.
const maxSocketPath = 107

// networkSystemd is what parseListen calls the sockets that systemd passes;
// the target is their name, or empty for all of them.
const networkSystemd = "systemd"

// parseListen splits an address as the configuration writes it into the two
// arguments of net.Listen.
func parseListen(address string) (network, target string, err error) {
	family, rest, _ := strings.Cut(address, ":")
	switch family {
	case "inet", "inet6":
		if err := checkHostPort(family, rest); err != nil {
			return "", "", fmt.Errorf("%q: %w", address, err)
		}
		return map[string]string{"inet": "tcp4", "inet6": "tcp6"}[family], rest, nil
	case networkSystemd:
		if strings.ContainsFunc(rest, unicode.IsSpace) || !strings.Contains(address, ":") {
			return "", "", fmt.Errorf("%q names no sockets of systemd, expected systemd: or systemd:NAME", address)
		}
		return networkSystemd, rest, nil
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return "", "", fmt.Errorf("%q is no absolute path, expected unix:/PATH", address)
		}
		if len(rest) > maxSocketPath {
			return "", "", fmt.Errorf("%q has a path of %d bytes, expected at most %d, which is what a unix socket may have", address, len(rest), maxSocketPath)
		}
		return "unix", rest, nil
	}
	return "", "", fmt.Errorf("%q is no address to listen on, expected inet:HOST:PORT, inet6:[ADDRESS]:PORT, systemd: or unix:/PATH", address)
}

func checkHostPort(family, hostPort string) error {
	expected := "inet:HOST:PORT"
	if family == "inet6" {
		expected = "inet6:[ADDRESS]:PORT"
	}
	if port, host, ok := strings.Cut(hostPort, "@"); ok { // Sendmail's way
		return fmt.Errorf("this is how Sendmail writes it, expected %s:%s:%s", family, host, port)
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return fmt.Errorf("this is no host and port, expected %s", expected)
	}
	if host == "" {
		return fmt.Errorf("the host is missing, expected %s (0.0.0.0 or [::] for every interface)", expected)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is no port, expected a number from 0 to 65535", port)
	}
	ip := net.ParseIP(host)
	if family == "inet" && ip != nil && ip.To4() == nil {
		return fmt.Errorf("%s is an IPv6 address, expected inet6:[ADDRESS]:PORT", host)
	}
	if family == "inet6" && ip != nil && ip.To4() != nil {
		return fmt.Errorf("%s is an IPv4 address, expected inet:HOST:PORT", host)
	}
	return nil
}

// quotedList writes a choice as a person would: "a", "b" or "c".
func quotedList(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = strconv.Quote(word)
	}
	last := len(quoted) - 1
	if last < 1 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

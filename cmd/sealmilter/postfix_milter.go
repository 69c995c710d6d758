package main

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// milterRef is one filter in smtpd_milters or non_smtpd_milters.
type milterRef struct {
	endpoint string            // "inet:HOST:PORT" or "unix:PATH"
	options  map[string]string // what stands with it in braces, as default_action
}

// parseMilters reads the value of smtpd_milters: filters with commas or white
// space between them, each with options of its own where it is in braces.
func parseMilters(value string) (milters []milterRef) {
	for _, word := range splitBraced(value) {
		inner, braced := unbrace(word)
		if !braced {
			milters = append(milters, milterRef{endpoint: word})
			continue
		}
		parts := splitBraced(inner)
		if len(parts) == 0 {
			continue
		}
		ref := milterRef{endpoint: parts[0], options: make(map[string]string)}
		for _, option := range parts[1:] {
			if bare, is := unbrace(option); is { // { name = value }, where the value has spaces
				option = bare
			}
			name, value, _ := strings.Cut(option, "=")
			ref.options[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		milters = append(milters, ref)
	}
	return milters
}

// splitBraced splits at commas and white space outside of braces.
func splitBraced(value string) (words []string) {
	depth, start := 0, -1
	for i := range len(value) {
		switch c := value[i]; {
		case depth == 0 && strings.IndexByte(", \t\r\n", c) >= 0:
			if start >= 0 {
				words = append(words, value[start:i])
			}
			start = -1
			continue
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		words = append(words, value[start:])
	}
	return words
}

func unbrace(word string) (inner string, braced bool) {
	if strings.HasPrefix(word, "{") && strings.HasSuffix(word, "}") && len(word) >= 2 {
		return strings.TrimSpace(word[1 : len(word)-1]), true
	}
	return word, false
}

// ourSocket is one address that sealmilter listens on.
type ourSocket struct {
	listen          string // as the configuration has it
	network, target string
}

// resolveTimeout bounds the look-up of a host name in smtpd_milters.
const resolveTimeout = 3 * time.Second

// is says whether an endpoint of Postfix means this socket. A path may be
// given as it would be without a chroot: that is a mistake, not another filter.
func (o ourSocket) is(ctx context.Context, endpoint, queue string) bool {
	transport, address, _ := strings.Cut(endpoint, ":")
	switch transport {
	case "unix", "local":
		return o.network == "unix" && (samePath(seenAt(address, queue, false), o.target) || samePath(seenAt(address, queue, true), o.target))
	case "inet":
		return o.network != "unix" && sameHostPort(ctx, address, o.target)
	}
	return false
}

// seenAt is where a path of Postfix leads: what is relative is below the queue
// folder, and in a chroot everything is.
func seenAt(path, queue string, chroot bool) string {
	if chroot || !strings.HasPrefix(path, "/") {
		return filepath.Join(queue, path)
	}
	return filepath.Clean(path)
}

// samePath knows that /var/run may be a link to /run.
func samePath(a, b string) bool {
	if a = filepath.Clean(a); a == filepath.Clean(b) {
		return true
	}
	folder := func(path string) string {
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			return real
		}
		return filepath.Dir(path)
	}
	return filepath.Base(a) == filepath.Base(b) && folder(a) == folder(b)
}

// sameHostPort says whether Postfix's "host:port" leads to what we listen on.
func sameHostPort(ctx context.Context, theirs, ours string) bool {
	host, port, err := net.SplitHostPort(theirs)
	ourHost, ourPort, ourErr := net.SplitHostPort(ours)
	if err != nil || ourErr != nil || portNumber(port) != portNumber(ourPort) {
		return false
	}
	if host == ourHost {
		return true
	}
	theirAddrs := addresses(ctx, host)
	for _, our := range addresses(ctx, ourHost) {
		for _, their := range theirAddrs {
			// Of an address for all interfaces it is enough that theirs is of this machine.
			if our == their || our.IsUnspecified() && our.Is4() == their.Is4() && isLocal(their) {
				return true
			}
		}
	}
	return false
}

// portNumber knows the names that services have too.
func portNumber(port string) int {
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return -1
	}
	return number
}

// addresses are those of a host name, or the address itself.
func addresses(ctx context.Context, host string) (found []netip.Addr) {
	if literal, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{literal.Unmap()}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	resolved, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // one that does not resolve is nobody's
	for _, addr := range resolved {
		found = append(found, addr.Unmap())
	}
	return found
}

// isLocal says whether an address is one of this machine's.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	interfaces, _ := net.InterfaceAddrs()
	for _, a := range interfaces {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// endpoint is how main.cf names this socket for a service that is or is not
// in a chroot. It is empty where it cannot be reached from there.
func (o ourSocket) endpoint(queue string, chroot bool) string {
	if o.network != "unix" {
		host, port, _ := net.SplitHostPort(o.target) // parseListen has looked at it
		if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
			host = map[bool]string{true: "127.0.0.1", false: "::1"}[addr.Is4()]
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "inet:" + host + ":" + port
	}
	if below, err := filepath.Rel(queue, o.target); err == nil && filepath.IsLocal(below) {
		return "unix:" + below
	}
	if chroot {
		return ""
	}
	return "unix:" + o.target
}

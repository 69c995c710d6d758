package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// postconfTimeout is far more than postconf takes, unless a table of it hangs.
const postconfTimeout = 30 * time.Second

// postfixConf is the configuration of one Postfix, as postconf tells it.
type postfixConf struct {
	main     map[string]string // every parameter, with its default where main.cf has none
	services []*postfixService // in the order of master.cf
}

// postfixService is one line of master.cf.
type postfixService struct {
	name    string // as postconf -P writes it, "smtp/inet"
	program string
	chroot  bool
	own     map[string]string // what its -o options set
}

// value is what a parameter is for a service.
func (c *postfixConf) value(s *postfixService, parameter string) string {
	if value, ok := s.own[parameter]; ok {
		return value
	}
	return c.main[parameter]
}

// running lists the services that run a program.
func (c *postfixConf) running(program string) (found []*postfixService) {
	for _, s := range c.services {
		if s.program == program {
			found = append(found, s)
		}
	}
	return found
}

// service is the one of a name, nil where there is none.
func (c *postfixConf) service(name string) *postfixService {
	for _, s := range c.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

// readPostfix asks postconf for the configuration in a folder, or for that of
// the machine's own Postfix where no folder is named.
func readPostfix(ctx context.Context, dir string) (*postfixConf, error) {
	program, err := exec.LookPath("postconf")
	if err != nil {
		// A user's PATH need not have it.
		if program, err = exec.LookPath("/usr/sbin/postconf"); err != nil {
			return nil, errors.New("postconf was not found: Postfix is not installed here, or its folder is not in PATH")
		}
	}
	args := []string{"-x"} // $name is expanded
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		args = append(args, "-c", dir)
	}
	ctx, cancel := context.WithTimeout(ctx, postconfTimeout)
	defer cancel()
	c := &postfixConf{main: make(map[string]string)}
	parts := []struct {
		args []string
		take func(name, value string)
	}{
		{args, func(name, value string) { c.main[name] = value }},
		{append([]string{"-F"}, args...), c.takeField},
		{append([]string{"-P"}, args...), c.takeOption},
	}
	for _, part := range parts {
		if err := postconf(ctx, program, part.args, part.take); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// postconf hands on what it lists, a "name = value" on each line.
func postconf(ctx context.Context, program string, args []string, take func(name, value string)) error {
	cmd := exec.CommandContext(ctx, program, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, oneLine(said.String()))
	}
	for line := range strings.Lines(string(out)) {
		if name, value, found := strings.Cut(line, "="); found {
			take(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return nil
}

// splitService cuts "smtp/inet/chroot" into "smtp/inet" and "chroot". The
// service's own name may have a slash in it.
func splitService(name string) (service, field string) {
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return "", name
	}
	return name[:slash], name[slash+1:]
}

// takeField takes a line of "postconf -F". The fields of a service stand
// together.
func (c *postfixConf) takeField(name, value string) {
	service, field := splitService(name)
	if len(c.services) == 0 || c.services[len(c.services)-1].name != service {
		c.services = append(c.services, &postfixService{name: service, own: make(map[string]string)})
	}
	s := c.services[len(c.services)-1]
	switch field {
	case "chroot":
		s.chroot = value == "y" || value == "-" && c.oldDefaults()
	case "command":
		s.program, _, _ = strings.Cut(value, " ")
	}
}

// oldDefaults says whether "-" for chroot is "y" still: until Postfix 3.0 it
// was, and is with compatibility_level 0.
func (c *postfixConf) oldDefaults() bool {
	level, known := c.main["compatibility_level"]
	return !known || level == "0"
}

// takeOption takes a line of "postconf -P".
func (c *postfixConf) takeOption(name, value string) {
	service, parameter := splitService(name)
	if s := c.service(service); s != nil {
		s.own[parameter] = value
	}
}

// splitFilter cuts content_filter's "transport:[127.0.0.1]:10026" into the
// transport and where it leads, "" where that is no host with a port.
func splitFilter(value string) (transport, address string) {
	transport, address, _ = strings.Cut(value, ":")
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = ""
	}
	return transport, address
}

// listensAt says whether a service is what answers at "host:port". A service
// may be named by its port alone.
func (s *postfixService) listensAt(ctx context.Context, address string) bool {
	name, isInet := strings.CutSuffix(s.name, "/inet")
	if !strings.Contains(name, ":") {
		name = "0.0.0.0:" + name
	}
	return isInet && sameHostPort(ctx, address, name)
}

// seconds reads a length of time as main.cf writes it, "30s" or "5m"; a bare
// number is in seconds, as it is with every time-out of a milter. It is no
// where this cannot be read, which Postfix itself would not bear either.
func seconds(value string) (time.Duration, bool) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit := time.Second
	if n := len(value); n > 0 {
		if u, ok := units[value[n-1]|0x20]; ok {
			unit, value = u, value[:n-1]
		}
	}
	number, err := strconv.ParseUint(value, 10, 31)
	return time.Duration(number) * unit, err == nil
}

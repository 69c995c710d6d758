package main

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sealmilter/keys/postgres"
	"sealmilter/keys/sqlite"
	"sealmilter/milter"
	"sealmilter/milter/reinject"
)

// ReinjectConfig is where copies go that cannot stay in their transaction.
type ReinjectConfig struct {
	Address  string   `toml:"address"`
	Protocol string   `toml:"protocol"`
	Timeout  duration `toml:"timeout"`
	Secret   string   `toml:"secret"`
	Copies   string   `toml:"copies"`
}

// The words of [recipients] and [reinject], in the order of package milter's.
var (
	splits    = []string{milter.SplitDefer: "defer", milter.SplitReinject: "reinject", milter.SplitRefuse: "refuse"}
	separates = []string{milter.SeparateUndisclosed: "undisclosed", milter.SeparateAlways: "always", milter.SeparateNever: "never"}
	protocols = []string{"smtp", "lmtp"}
)

// split is what is done with recipients who cannot share a copy. Where the
// configuration does not say, they are re-injected if that is possible.
func (c *Config) split() milter.Split {
	switch {
	case c.Recipients.Split != "":
		return milter.Split(slices.Index(splits, c.Recipients.Split))
	case c.Reinject.Address != "":
		return milter.SplitReinject
	}
	return milter.SplitDefer
}

func (c *Config) separate() milter.Separate {
	return milter.Separate(slices.Index(separates, c.Recipients.Separate))
}

// validateReinject checks how copies leave. The secret's file is read by the
// daemon alone, since nobody else needs to be able to.
func (c *Config) validateReinject() error {
	split, r := c.Recipients.Split, c.Reinject
	switch {
	case split != "" && !slices.Contains(splits, split):
		return c.invalid("recipients.split", "%q is no way to split, expected %s", split, quotedList(splits))
	case !slices.Contains(separates, c.Recipients.Separate):
		return c.invalid("recipients.separate", "%q cannot be chosen, expected %s", c.Recipients.Separate, quotedList(separates))
	case !slices.Contains(protocols, r.Protocol):
		return c.invalid("reinject.protocol", "%q is no protocol, expected %s", r.Protocol, quotedList(protocols))
	case r.Timeout <= 0:
		return c.invalid("reinject.timeout", "%s is no time to answer in, expected more than 0s", r.Timeout)
	case split == splits[milter.SplitReinject] && r.Address == "":
		return c.invalid("recipients.split", "\"reinject\" needs the address of a service that takes the copies: address under [reinject]")
	case r.Address == "":
		return nil
	case r.Secret == "":
		return c.invalid("reinject.address", "re-injection needs a secret, the same on all hosts that filter for the same mail: name its file with secret under [reinject], and make it by (umask 027; head -c 32 /dev/urandom | base64 > FILE)")
	}
	if path, isUnix := strings.CutPrefix(r.Address, "unix:"); isUnix {
		if !strings.HasPrefix(path, "/") {
			return c.invalid("reinject.address", "%q is no absolute path, expected unix:/PATH", r.Address)
		}
	} else if host, _, err := net.SplitHostPort(r.Address); err != nil {
		return c.invalid("reinject.address", "%q is no address, expected HOST:PORT or unix:/PATH", r.Address)
	} else if !isLoopback(host) { // whoever reaches that service sends mail past the filter
		return c.invalid("reinject.address", "%q is not this machine, expected an address on loopback such as 127.0.0.1, or unix:/PATH", host)
	}
	for _, file := range []struct{ key, path string }{{"reinject.secret", r.Secret}, {"reinject.copies", r.Copies}} {
		if file.path != "" && !strings.HasPrefix(file.path, "/") {
			return c.invalid(file.key, "%q is no absolute path", file.path)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// minSecret is what a secret must have at least, in octets.
const minSecret = 32

// readSecret reads the secret that copies are known by.
func (c *Config) readSecret() ([]byte, error) {
	const key = "reinject.secret"
	info, err := os.Stat(c.Reinject.Secret)
	if err != nil {
		return nil, c.invalid(key, "%w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, c.invalid(key, "%s can be read by everybody (mode %04o), expected 0640 or less", c.Reinject.Secret, info.Mode().Perm())
	}
	secret, err := os.ReadFile(c.Reinject.Secret)
	if err != nil {
		return nil, c.invalid(key, "%w", err)
	}
	if secret = bytes.TrimSpace(secret); len(secret) < minSecret {
		return nil, c.invalid(key, "%s holds %d octets, expected %d or more", c.Reinject.Secret, len(secret), minSecret)
	}
	return secret, nil
}

// target is the service that takes the copies.
func (c *Config) target() reinject.Target {
	return reinject.Target{
		Address: c.Reinject.Address,
		LMTP:    c.Reinject.Protocol == "lmtp",
		Timeout: time.Duration(c.Reinject.Timeout),
	}
}

// defaultCopies is where copies in flight are remembered beside a SQLite store:
// that may be one which the daemon cannot write.
const defaultCopies = "/var/lib/sealmilter/copies.db"

// openCopies opens the memory of copies in flight: in the PostgreSQL store, or
// in a file of its own. A file must be closed.
func (c *Config) openCopies(st store) (copies milter.Copies, file *sqlite.Copies, err error) {
	path := c.Reinject.Copies
	if path == "" {
		if server, is := st.(*postgres.Store); is {
			return server.Copies(), nil, nil
		}
		path = defaultCopies
	}
	file, err = sqlite.OpenCopies(path)
	if err != nil {
		return nil, nil, c.invalid("reinject.copies", "%w", err)
	}
	return file, file, nil
}

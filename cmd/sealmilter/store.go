package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/postgres"
	"sealmilter/keys/sqlite"
)

// store is what the commands need of a key store.
type store interface {
	keys.Store
	keys.Registry
	keys.Lifecycle
	keys.Findings
	keys.Journal
	// AddKeys adds keys as AddKey does, all of them or none.
	AddKeys(ctx context.Context, keys []keys.NewKey) (ids []int64, err error)
	keys.Aliases
	keys.Accounts
	// Check says what is not as it should be although the store answers. Its
	// error says why the store cannot be used.
	Check(ctx context.Context) (warnings []string, err error)
}

// storeKind is a kind of store as a person calls it.
type storeKind string

const (
	kindPostgres storeKind = "PostgreSQL"
	kindSQLite   storeKind = "SQLite"
)

// storeName is a parsed store URL.
type storeName struct {
	kind   storeKind
	target string // the DSN or the path, as the store's package wants it
}

// String names the store without its password.
func (n storeName) String() string {
	if n.kind == kindSQLite {
		return string(n.kind) + " " + n.target
	}
	return string(n.kind) + " " + redactDSN(n.target)
}

// keywordDSN matches the beginning of a connection string of keywords, as
// libpq reads them.
var keywordDSN = regexp.MustCompile(`^\s*[a-z_]+\s*=`)

// parseStoreURL tells the kinds of store apart. Its errors quote no more than
// the scheme: behind it there may be a password.
func parseStoreURL(url string) (storeName, error) {
	const expected = `expected postgres://…, a connection string such as "host=… dbname=…", or sqlite:/PATH`
	scheme, rest, hasScheme := strings.Cut(url, ":")
	switch {
	case hasScheme && (scheme == "postgres" || scheme == "postgresql"):
		if !strings.HasPrefix(rest, "//") {
			return storeName{}, fmt.Errorf("%s: must be followed by //, %s", scheme, expected)
		}
		return storeName{kindPostgres, url}, nil
	case hasScheme && scheme == "sqlite":
		if strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
			return storeName{}, errors.New("sqlite:// is followed by a host, which SQLite has not, expected sqlite:/PATH")
		}
		if rest == "" {
			return storeName{}, errors.New("sqlite: names no file, expected sqlite:/PATH")
		}
		if !strings.HasPrefix(rest, "/") { // which folder it is below would depend on who reads it
			return storeName{}, fmt.Errorf("sqlite:%s is no absolute path, expected sqlite:/PATH", rest)
		}
		return storeName{kindSQLite, rest}, nil
	case keywordDSN.MatchString(url):
		return storeName{kindPostgres, url}, nil
	case hasScheme && plainScheme.MatchString(scheme):
		return storeName{}, fmt.Errorf("%s: is no kind of key store that is known, %s", scheme, expected)
	}
	return storeName{}, errors.New("this names no kind of key store, " + expected)
}

// plainScheme is what may be quoted as a scheme: it is no part of a password.
var plainScheme = regexp.MustCompile(`^[a-z][a-z0-9+]{0,15}$`)

// openStore opens the store that the configuration names. It need not answer
// yet. An error is the configuration's fault unless the store is away.
func openStore(ctx context.Context, cfg Config) (store, error) {
	name, err := parseStoreURL(cfg.Store.URL)
	if err != nil {
		return nil, cfg.invalid(keyStoreURL, "%w", err)
	}
	timeout := time.Duration(cfg.Store.Timeout)
	var opened store
	if name.kind == kindSQLite {
		opened, err = sqlite.Open(ctx, name.target, sqlite.Options{Timeout: timeout, Actor: cfg.actor})
	} else {
		opened, err = postgres.Open(ctx, name.target, postgres.Options{Timeout: timeout, Actor: cfg.actor})
	}
	switch {
	case errors.Is(err, keys.ErrStore):
		return nil, storeError(name, err)
	case err != nil:
		// Not %w: the text of the cause is what must not get out.
		return nil, configError("%s: %s", name, quotedDSN.ReplaceAllString(err.Error(), ""))
	}
	return opened, nil
}

// quotedDSN matches how pgx repeats a connection string that it cannot read.
// It hides the password, but of one with an "@" or a space only the first part.
var quotedDSN = regexp.MustCompile("(?s)cannot parse `.*`: ")

// storeError names the store in an error. A store without its tables, or one
// that refuses, is not away: only an administrator can mend it.
func storeError(name storeName, err error) error {
	switch {
	case err == nil:
		return nil
	case needsAdministrator(err):
		return configError("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// needsAdministrator says whether a store's error is one that does not pass by
// itself: it was never migrated, or it answered that it will not.
func needsAdministrator(err error) bool {
	for _, final := range []error{postgres.ErrNoSchema, postgres.ErrRefused, sqlite.ErrNoSchema, sqlite.ErrRefused} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// enrolledAlready says whether a key was not added because its account has it.
func enrolledAlready(err error) bool {
	return errors.Is(err, postgres.ErrEnrolledAlready) || errors.Is(err, sqlite.ErrEnrolledAlready)
}

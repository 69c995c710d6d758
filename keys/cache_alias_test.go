package keys

import (
	"context"
	"slices"
	"testing"
	"time"
)

// renamed is a store that changes when it is first asked for a name.
type renamed struct {
	before, after names
	at            string
	changed       bool
}

func (r *renamed) RecipientKeys(ctx context.Context, asked []string) ([]Row, error) {
	if r.changed = r.changed || slices.Contains(asked, r.at); r.changed {
		return r.after.RecipientKeys(ctx, asked)
	}
	return r.before.RecipientKeys(ctx, asked)
}

func (*renamed) Close() {}

// TestCacheAlias: an alias that is remembered, all of whose ends have keys, and what
// it leads to are changed together while a lookup goes on. Before and after, the mail
// is sealed.
func TestCacheAlias(t *testing.T) {
	const u, a = "ann@bücher.test", "ann@xn--bcher-kva.test"
	for name, test := range map[string]struct {
		before, after           names
		address, remembered, at string
	}{
		"to a domain that is renamed": {names{"@a.test": "+@b.test", "@b.test": "+@b.test"}, names{"@a.test": "+@c.test", "@c.test": "+@c.test"},
			"ann@a.test", "@a.test", "ann@b.test"},
		"of a domain that has keys then": {names{"@a.test": "+all@b.test"}, names{"@a.test": "+@a.test", "ann@a.test": "-ann@a.test"},
			"ann@a.test", "@a.test", "ann@a.test"},
		"of another spelling": {names{a: "+ann@c.test"}, names{u: "-" + u, a: "+" + a}, u, a, u},
	} {
		sealed := func(store Store) bool {
			found, err := Lookup(t.Context(), store, Naming{}, []string{test.address})
			if err != nil {
				t.Fatal(err)
			}
			accounts := found[test.address].Accounts
			return len(accounts) > 0 && !slices.ContainsFunc(accounts, func(a *Account) bool { return !a.Enrolled() })
		}
		if !sealed(test.before) || !sealed(test.after) {
			t.Fatalf("%s: there is no key before, or none after", name)
		}
		cache := NewCache(&renamed{before: test.before, after: test.after, at: test.at}, CacheSettings{Size: 1 << 20, TTL: time.Hour, NoKeyTTL: time.Hour})
		cache.Follow()
		if _, err := cache.accounts(t.Context(), []string{test.remembered}); err != nil {
			t.Fatal(err)
		}
		if !sealed(cache) {
			t.Errorf("an alias %s: mail for %s passes", name, test.address)
		}
	}
}

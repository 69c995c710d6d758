package keys

import (
	"context"
	"testing"
	"time"
)

// groupStore has a group of two, of whom the second enrols later.
type groupStore struct{ late string }

func (s *groupStore) RecipientKeys(_ context.Context, addresses []string) (rows []Row, err error) {
	for _, a := range addresses {
		if a != "team@example.org" {
			rows = append(rows, Row{Address: a})
			continue
		}
		rows = append(rows, Row{Address: a, Account: "ann@example.org", Known: true, Enabled: true, Key: "ANN"},
			Row{Address: a, Account: "bob@example.org", Known: true, Enabled: true, Key: s.late})
	}
	return rows, nil
}
func (*groupStore) Close() {}

// TestCacheGroup: that one member of a group has no key is remembered no longer
// than that nobody has one.
func TestCacheGroup(t *testing.T) {
	now := time.Now()
	store := &groupStore{}
	c := NewCache(store, CacheSettings{Size: 1 << 20, TTL: time.Hour, NoKeyTTL: 10 * time.Second, Now: func() time.Time { return now }})
	c.Follow()
	enrolled := func() (count int) {
		found, err := Lookup(context.Background(), c, Naming{}, []string{"team@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range found["team@example.org"].Accounts {
			if account.Enrolled() {
				count++
			}
		}
		return count
	}
	if got := enrolled(); got != 1 {
		t.Fatalf("%d members are enrolled", got)
	}
	store.late = "BOB"
	now = now.Add(11 * time.Second)
	if got := enrolled(); got != 2 {
		t.Errorf("%d members are enrolled for whoever asks the cache, after more than NoKeyTTL", got)
	}
}

package keys

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"
)

// poisoned is a store with one account whose options nobody can follow. It holds
// back its answers about that.
type poisoned struct {
	hold chan struct{}
}

func (p poisoned) RecipientKeys(_ context.Context, asked []string) (rows []Row, err error) {
	for _, name := range asked {
		row := Row{Address: name}
		if name == "bad@a.test" {
			<-p.hold
			row = Row{Address: name, Account: name, Known: true, Enabled: true, Key: "a key", Options: []byte(`{"key": {"aead": "eax"}}`)}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (poisoned) Close() {}

// TestCachePoisoned: mail for one account that nobody can tell how to seal waits, and
// that of the others in its domain, who ask for the same domain, does not.
func TestCachePoisoned(t *testing.T) {
	store := poisoned{make(chan struct{})}
	cache := NewCache(store, CacheSettings{Size: 1 << 20, TTL: time.Hour, NoKeyTTL: time.Hour})
	cache.Follow()
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := Lookup(t.Context(), cache, Naming{}, []string{"bad@a.test"}); err == nil {
			t.Error("the account's options were followed")
		}
	})
	for cache.Stats().Loads < 2 {
		runtime.Gosched()
	}
	all.Go(func() {
		if _, err := Lookup(t.Context(), cache, Naming{}, []string{"ann@a.test"}); err != nil {
			t.Errorf("another account of the domain: %v", err)
		}
	})
	for cache.Stats().Waits < 1 {
		runtime.Gosched()
	}
	close(store.hold)
	all.Wait()
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/postgres"
)

// watched is a store that tells of its changes.
type watched interface {
	Watch(ctx context.Context, follower keys.Follower, opts postgres.WatchOptions)
}

// cachedStore is what the daemon asks for keys: the store behind a cache, and
// whoever tells that of changes.
type cachedStore struct {
	keys.Store
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// remember puts a cache in front of a store, if the configuration has one. In
// SQLite the file itself tells of changes.
func remember(ctx context.Context, cfg CacheConfig, st store, log *slog.Logger) *cachedStore {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &cachedStore{Store: st, stop: stop}
	if cfg.Size == 0 {
		return c
	}
	cache := keys.NewCache(st, keys.CacheSettings{Size: int64(cfg.Size), TTL: time.Duration(cfg.TTL), NoKeyTTL: time.Duration(cfg.NoKeyTTL)})
	c.Store = cache
	if source, ok := st.(watched); ok {
		opts := postgres.WatchOptions{TTL: time.Duration(cfg.OwnTablesTTL), Event: logWatching(log)}
		c.ended.Go(func() { source.Watch(ctx, cache, opts) })
	}
	return c
}

// unwatch ends the watching.
func (c *cachedStore) unwatch() {
	c.stop()
	c.ended.Wait()
}

// logWatching logs when the cache begins to be told of changes and when it is
// not, each once however often it is tried.
func logWatching(log *slog.Logger) func(following bool, err error) {
	var said string
	return func(following bool, err error) {
		text := fmt.Sprint(following, err)
		switch {
		case text == said:
		case following:
			log.Info("the key store tells of changes, its answers are remembered")
		default:
			log.Warn("the key store does not tell of changes, its answers are not remembered, or for own_tables_ttl only", "reason", err)
		}
		said = text
	}
}

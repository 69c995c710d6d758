package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"sealmilter/keys"
	"sealmilter/testdata/report"
)

// fullCache fills a cache with keys and holds its own estimate, which is what
// its setting bounds, to the heap.
func fullCache(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	before, err := b.heapBefore(ctx, store)
	if err != nil {
		return nil, err
	}
	cache := keys.NewCache(store, cacheSettings(1<<40))
	cache.Follow()
	var held atomic.Int64
	if err := b.share(func(worker, workers int) error {
		for i := worker; i < b.accounts && int(held.Load()) < b.full; i += workers {
			answer, err := keys.Lookup(ctx, cache, naming, []string{address(i)})
			if err != nil {
				return err
			}
			for _, account := range answer[address(i)].Accounts {
				held.Add(int64(len(account.Keys)))
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	grown := liveHeap() - before
	stats := cache.Stats()
	runtime.KeepAlive(cache)
	return []report.Line{{What: fmt.Sprintf("heap of a full cache, %s parsed keys", report.Grouped(float64(held.Load()))), Kind: report.Bytes, Ours: grown,
		Beside: "its setting", Theirs: float64(stats.Bytes), Bar: 1.1}}, nil
}

// heapBefore is what the heap holds without the cache, but with connections and
// whatever else lookups need.
func (b *scale) heapBefore(ctx context.Context, store keys.Store) (float64, error) {
	err := b.share(func(worker, _ int) error {
		for i := range 50 {
			if err := found(ctx, store, address(50*worker+i)); err != nil {
				return err
			}
		}
		return nil
	})
	return liveHeap(), err
}

// share divides work between workers, as many as the daemon's pool has
// connections.
func (b *scale) share(work func(worker, workers int) error) error {
	failed := make([]error, 4)
	var workers sync.WaitGroup
	for w := range failed {
		workers.Go(func() { failed[w] = work(w, len(failed)) })
	}
	workers.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// zipf is how unevenly mail is spread over accounts: the most frequent one of a
// million has an eighth of it.
const zipf = 1.1

// smallCache asks a cache much more than it can hold, and looks at the heap ten
// times in between.
func smallCache(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	before, err := b.heapBefore(ctx, store)
	if err != nil {
		return nil, err
	}
	cache := keys.NewCache(store, cacheSettings(b.small))
	cache.Follow()
	const looks = 10
	var most float64
	var warm keys.CacheStats
	for look := range looks {
		if err := b.share(func(_, workers int) error {
			drawn := rand.NewZipf(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), zipf, 1, uint64(b.accounts-1))
			for range b.drawn / looks / workers {
				// Frequent accounts are not the first ones: they would share pages.
				i := int(drawn.Uint64() * 7919 % uint64(b.accounts))
				if err := found(ctx, cache, address(i)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
		most = max(most, liveHeap()-before)
		if look == 0 {
			warm = cache.Stats()
		}
	}
	stats := cache.Stats()
	runtime.KeepAlive(cache)
	hits := float64(stats.Hits - warm.Hits)
	asked := hits + float64(stats.Loads-warm.Loads+stats.Waits-warm.Waits)
	return []report.Line{
		{What: fmt.Sprintf("heap of a cache of %s, %s random lookups", report.Size(b.small), report.Grouped(float64(b.drawn))), Kind: report.Bytes, Ours: most,
			Beside: "its setting", Theirs: float64(b.small), Bar: 1.1},
		{What: fmt.Sprintf("names found in that cache, Zipf %.1f", zipf), Kind: report.Share, Ours: hits / asked},
		{What: "names held in that cache", Kind: report.Count, Ours: float64(stats.Entries)},
	}, nil
}

// strangers fills a cache with what whoever tries addresses makes it remember:
// that nobody is enrolled. Such answers are small, and what is around them is most
// of what they take.
func strangers(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	before, err := b.heapBefore(ctx, store)
	if err != nil {
		return nil, err
	}
	cache := keys.NewCache(store, cacheSettings(b.small))
	cache.Follow()
	const atOnce = 100
	tried := int(b.small / 150) // more than have room
	if err := b.share(func(worker, workers int) error {
		for first := worker * atOnce; first < tried; first += workers * atOnce {
			var all []string
			for i := range atOnce {
				all = append(all, nobody(first+i))
			}
			if _, err := keys.Lookup(ctx, cache, naming, all); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	grown := liveHeap() - before
	stats := cache.Stats()
	runtime.KeepAlive(cache)
	return []report.Line{
		{What: fmt.Sprintf("heap of a cache of %s, full of nobody", report.Size(b.small)), Kind: report.Bytes, Ours: grown,
			Beside: "its setting", Theirs: float64(b.small), Bar: 1.1},
		{What: "names held in that cache, of nobody", Kind: report.Count, Ours: float64(stats.Entries)},
	}, nil
}

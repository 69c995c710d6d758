package main

import (
	"context"
	"fmt"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/postgres"
	"sealmilter/testdata/report"
)

// effects waits for changes: somebody is known to have no key, a key is
// inserted, and lookups go on until they have it.
func effects(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	cache := keys.NewCache(store, cacheSettings(b.small))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	following := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		store.Watch(ctx, cache, postgres.WatchOptions{Event: func(follows bool, err error) {
			select {
			case following <- err:
			default: // only the first word is waited for
			}
		}})
	}()
	defer func() { stop(); <-ended }()
	if err := <-following; err != nil {
		return nil, err
	}
	var taken times
	for i := range b.changes {
		one, err := b.effect(ctx, cache, fmt.Sprintf("new%d@%s", i, domain(i)), b.pool.key(i))
		if err != nil {
			return nil, err
		}
		taken = append(taken, one.Seconds())
	}
	var lines []report.Line
	for _, part := range []float64{0.5, p99, 1} {
		l := report.Line{What: fmt.Sprintf("INSERT until a cached lookup has it, %s of %d", partName(part), b.changes), Kind: report.Time, Ours: taken.at(part)}
		if part == p99 {
			l.Beside, l.Theirs, l.Bar = "a second", 1, 1
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// effect is the time from before an INSERT until a lookup shows it. The lookups
// before are answered from memory, and leave the cores to others.
func (b *scale) effect(ctx context.Context, cache *keys.Cache, address, key string) (time.Duration, error) {
	has := func() (bool, error) {
		answer, err := keys.Lookup(ctx, cache, naming, []string{address})
		return err == nil && hasKey(answer[address]), err
	}
	if already, err := has(); err != nil || already {
		return 0, fmt.Errorf("before the INSERT: has %s a key: %v, error: %w", address, already, err)
	}
	began := time.Now()
	if _, err := b.admin.Exec(ctx, "INSERT INTO sealmilter.keys (address, key) VALUES ($1, $2)", address, key); err != nil {
		return 0, err
	}
	for time.Since(began) < time.Minute {
		if shown, err := has(); err != nil || shown {
			return time.Since(began), err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return 0, fmt.Errorf("a key of %s is not seen after a minute", address)
}

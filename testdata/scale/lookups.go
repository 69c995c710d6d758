package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/report"
)

// p99 is the part of lookups that the bars speak of.
const p99 = 0.99

// warmUp are the first of a turn, which are not counted: they prepare, and the
// server makes plans for the first five of them.
const warmUp = 50

// uncached looks addresses up without a cache, beside who selects one row.
func uncached(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	lookUp := func(of func(int) string, below int) func() (times, error) {
		return b.turn(func() error { return found(ctx, store, of(rand.IntN(below))) })
	}
	rounds, err := contest(b.rounds,
		contestant{"pgbench", b.pgbench},
		contestant{"pgx", b.turn(func() error { return b.selectOne(ctx) })},
		contestant{"query", b.turn(func() error {
			i := rand.IntN(b.accounts)
			_, err := store.RecipientKeys(ctx, []string{"@" + domain(i), address(i)})
			return err
		})},
		contestant{"account", lookUp(address, b.accounts)},
		contestant{"alias", lookUp(alias, b.accounts/aliasOne)},
		contestant{"nobody", lookUp(nobody, b.accounts)},
		contestant{"parse", b.turn(func() error { _, err := keys.Parse([]byte(b.pool.key(rand.IntN(b.accounts)))); return err })},
	)
	if err != nil {
		return nil, err
	}
	var lines []report.Line
	for i, what := range []string{
		"pgx: prepared point select",
		"query of one recipient, all its names, unparsed",
		"lookup without cache, parsed",
		"lookup without cache, an alias",
		"lookup without cache, nobody",
		"parsing alone",
	} {
		for _, part := range []float64{0.5, p99} {
			l := report.Line{What: what + ", " + partName(part), Kind: report.Time, Ours: across(rounds[i+1], part),
				Beside: "pgbench " + partName(part), Theirs: across(rounds[0], part)}
			if part == p99 && (i == 1 || i == 2) {
				l.Bar = 2
			}
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func partName(part float64) string { return map[float64]string{0.5: "p50", p99: "p99", 1: "max"}[part] }

func domain(i int) string { return fmt.Sprintf("d%d.example", i%domains) }

// turn is a contestant's.
func (b *scale) turn(do func() error) func() (times, error) {
	return func() (times, error) {
		taken, err := timed(warmUp+b.lookups, do)
		if err != nil {
			return nil, err
		}
		return taken[warmUp:], nil
	}
}

// found looks one address up. Whoever is called nobody has no key, and all
// others have.
func found(ctx context.Context, store keys.Store, address string) error {
	answer, err := keys.Lookup(ctx, store, naming, []string{address})
	if err != nil {
		return err
	}
	if has, should := hasKey(answer[address]), !strings.HasPrefix(address, "nobody"); has != should {
		return fmt.Errorf("that %s has a key is %v", address, has)
	}
	return nil
}

// hasKey says whether mail to somebody could be sealed. An account there may be
// without: that of the domain.
func hasKey(recipient *keys.Recipient) bool {
	return slices.ContainsFunc(recipient.Accounts, func(a *keys.Account) bool { return len(a.Keys) > 0 })
}

const onePoint = `SELECT address, enabled, method, cipher FROM sealmilter.accounts WHERE address = `

// selectOne is what pgbench does, by the driver that we use.
func (b *scale) selectOne(ctx context.Context) error {
	var one struct {
		address        string
		enabled        bool
		method, cipher *string
	}
	return b.admin.QueryRow(ctx, onePoint+"$1", address(rand.IntN(b.accounts))).Scan(&one.address, &one.enabled, &one.method, &one.cipher)
}

// pgbench runs PostgreSQL's own, with one client, and returns what each select
// took.
func (b *scale) pgbench() (times, error) {
	script := fmt.Sprintf("\\set i random(0, %d)\n\\set d :i %% %d\n%s'user' || :i || '@d' || :d || '.example';\n", b.accounts-1, domains, onePoint)
	if err := b.write("point.sql", script); err != nil {
		return nil, err
	}
	err := b.server.run("pgbench", "-h", b.server.dir, "-p", port, "-U", "postgres", "-n", "-M", "prepared", "-f", b.scratch("point.sql"),
		"-c", "1", "-t", strconv.Itoa(warmUp+b.lookups), "--log", "--log-prefix="+b.scratch("pgbench"), "scale")
	if err != nil {
		return nil, err
	}
	logs, err := filepath.Glob(b.scratch("pgbench.*"))
	if err != nil || len(logs) != 1 {
		return nil, fmt.Errorf("pgbench left %d logs", len(logs))
	}
	defer os.Remove(logs[0])
	return readLog(logs[0])
}

// readLog reads pgbench's log of transactions: the third field is the time in
// microseconds.
func readLog(name string) (taken times, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 3 {
			return nil, fmt.Errorf("pgbench's log has the line %q", scanner.Text())
		}
		micro, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return nil, fmt.Errorf("pgbench's log: %w", err)
		}
		taken = append(taken, micro/1e6)
	}
	if len(taken) <= warmUp {
		return nil, fmt.Errorf("pgbench's log has %d lines", len(taken))
	}
	return taken[warmUp:], nil
}

// cached looks the same addresses up in a cache and without it, in turns.
func cached(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	cache := keys.NewCache(store, cacheSettings(1<<30))
	cache.Follow()
	if err := b.remembered(ctx, cache); err != nil {
		return nil, err
	}
	rounds, err := contest(b.rounds,
		contestant{"uncached", b.turn(func() error { return found(ctx, store, address(rand.IntN(known))) })},
		contestant{"cached", b.turn(func() error { return found(ctx, cache, address(rand.IntN(known))) })},
	)
	if err != nil {
		return nil, err
	}
	beside := func(part, bar float64) report.Line {
		return report.Line{What: "lookup cached, " + partName(part), Kind: report.Time, Ours: across(rounds[1], part),
			Beside: "without cache " + partName(part), Theirs: across(rounds[0], part), Bar: bar}
	}
	return []report.Line{beside(0.5, 1.0/20), beside(p99, 0)}, nil
}

// known is how many accounts are in a cache that always has the answer.
const known = 1000

// remembered fills a cache with them.
func (b *scale) remembered(ctx context.Context, cache *keys.Cache) error {
	return b.share(func(worker, workers int) error {
		for i := worker; i < known; i += workers {
			if err := found(ctx, cache, address(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// cacheSettings are those of a cache in which time plays no part.
func cacheSettings(size int64) keys.CacheSettings {
	return keys.CacheSettings{Size: size, TTL: time.Hour, NoKeyTTL: time.Hour}
}

// throughput lets clients look up as fast as they can.
func throughput(ctx context.Context, b *scale) ([]report.Line, error) {
	store, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	cache := keys.NewCache(store, cacheSettings(1<<30))
	cache.Follow()
	if err := b.remembered(ctx, cache); err != nil {
		return nil, err
	}
	without, err := b.answered(ctx, store, b.accounts)
	if err != nil {
		return nil, err
	}
	with, err := b.answered(ctx, cache, known)
	if err != nil {
		return nil, err
	}
	return []report.Line{{What: fmt.Sprintf("lookups of %d clients, cached", b.clients), Kind: report.Rate, Ours: with, Beside: "without cache", Theirs: without}}, nil
}

// answered is how many lookups so many clients have answered in a second, of
// the first accounts.
func (b *scale) answered(ctx context.Context, store keys.Store, below int) (float64, error) {
	var done atomic.Int64
	failed := make([]error, b.clients)
	began := time.Now()
	var clients sync.WaitGroup
	for c := range failed {
		clients.Go(func() {
			for failed[c] == nil && time.Since(began) < b.clientFor {
				failed[c] = found(ctx, store, address(rand.IntN(below)))
				done.Add(1)
			}
		})
	}
	clients.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return float64(done.Load()) / time.Since(began).Seconds(), nil
}

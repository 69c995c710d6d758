package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// counting is a store that counts what it is asked for, name by name. Its rows
// can be exchanged while it is asked.
type counting struct {
	mu    sync.Mutex
	rows  map[string]Row
	asked map[string]int
	err   error
	hold  chan struct{} // where it is not nil, an answer that was read waits for it
	reads chan struct{} // told of each answer that was read
}

func newCounting(all ...Row) *counting {
	s := &counting{rows: make(map[string]Row), asked: make(map[string]int), reads: make(chan struct{}, 1000)}
	for _, row := range all {
		s.rows[row.Address] = row
	}
	return s
}

func (s *counting) RecipientKeys(ctx context.Context, addresses []string) ([]Row, error) {
	s.mu.Lock()
	var all []Row
	for _, address := range addresses {
		s.asked[address]++
		row, known := s.rows[strings.ToLower(address)]
		if !known {
			row = Row{}
		}
		row.Address = address
		all = append(all, row)
	}
	hold, err := s.hold, s.err
	s.mu.Unlock()
	select {
	case s.reads <- struct{}{}:
	default: // nobody listens
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrStore, ctx.Err())
		}
	}
	return all, err
}

func (s *counting) Close() {}

func (s *counting) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *counting) count(address string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[address]
}

// enrolled is a row of an account with a key.
func enrolled(address, account string, key *Key) Row {
	return Row{Address: address, Account: account, Known: true, Enabled: true, Key: key.Armored()}
}

const ann, bob = "ann@example.org", "bob@example.org"

// newCache makes a cache that somebody follows, over a store that knows Ann, and
// a clock that the test moves.
func newCache(t *testing.T, size int64) (*Cache, *counting, *time.Time, *Key) {
	t.Helper()
	key := parseOne(t, binary(t, newEntity(t, at(birth))))
	store := newCounting(enrolled(ann, ann, key))
	now := noon
	cache := NewCache(store, CacheSettings{Size: size, TTL: time.Hour, NoKeyTTL: 10 * time.Second, Now: func() time.Time { return now }})
	cache.Follow()
	return cache, store, &now, key
}

// has says whether an address has a key, by a lookup.
func has(t testing.TB, cache *Cache, address string) bool {
	t.Helper()
	found, err := Lookup(t.Context(), cache, Naming{}, []string{address})
	if err != nil {
		t.Fatal(err)
	}
	accounts := found[address].Accounts
	return len(accounts) > 0 && len(accounts[0].Keys) > 0
}

// TestCacheRemembers: what was asked once is answered from memory until its time
// is over, and the answer that there is no key for a shorter time.
func TestCacheRemembers(t *testing.T) {
	cache, store, now, _ := newCache(t, 1<<20)
	for _, step := range []struct {
		after    time.Duration
		ann, bob int
	}{{0, 1, 1}, {9 * time.Second, 1, 1}, {time.Second, 1, 2}, {59*time.Minute + 49*time.Second, 1, 3}, {time.Second, 2, 3}} {
		*now = now.Add(step.after)
		if !has(t, cache, ann) || has(t, cache, bob) {
			t.Fatal("the answer is another")
		}
		if store.count(ann) != step.ann || store.count(bob) != step.bob {
			t.Errorf("after %s more: asked for %s %d times and for %s %d times, want %d and %d", step.after, ann, store.count(ann), bob, store.count(bob), step.ann, step.bob)
		}
	}
}

// TestCacheForgets: each kind of change drops what it may have changed, and
// nothing else unless anything may have.
func TestCacheForgets(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*Cache)
		dropped []string
	}{
		{"an account", func(c *Cache) { c.Changed("ANN@example.org") }, []string{ann, "list@example.org", "Ann@example.org"}},
		{"nobody's", func(c *Cache) { c.Changed(bob) }, []string{bob}},
		{"an alias, whose name it is", func(c *Cache) { c.Changed("list@example.org") }, []string{"list@example.org"}},
		{"a domain", func(c *Cache) { c.Changed("@example.org") }, []string{ann, bob, "list@example.org", "Ann@example.org"}},
		{"anything", func(c *Cache) { c.Changed("") }, []string{ann, bob, "list@example.org", "Ann@example.org"}},
		{"lost and found", func(c *Cache) { c.Lose(); c.Follow() }, []string{ann, bob, "list@example.org", "Ann@example.org"}},
	} {
		cache, store, _, key := newCache(t, 1<<20)
		store.rows["list@example.org"] = enrolled("list@example.org", ann, key)
		all := []string{ann, bob, "list@example.org", "Ann@example.org"}
		ask := func() {
			for _, name := range all {
				if _, err := cache.accounts(t.Context(), []string{name}); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask()
		ask()
		test.change(cache)
		ask()
		for _, name := range all {
			want := 1
			for _, dropped := range test.dropped {
				if dropped == name {
					want = 2
				}
			}
			if got := store.count(name); got != want {
				t.Errorf("%s: asked for %s %d times, want %d", test.name, name, got, want)
			}
		}
	}
}

// TestCacheUnfollowed: who may miss a change asks each time.
func TestCacheUnfollowed(t *testing.T) {
	cache, store, _, key := newCache(t, 1<<20)
	has(t, cache, bob)
	cache.Lose()
	store.set(func() { store.rows[bob] = enrolled(bob, bob, key) })
	if !has(t, cache, bob) {
		t.Error("a key that was enrolled is not seen")
	}
	store.set(func() { delete(store.rows, bob) })
	if has(t, cache, bob) || cache.Stats().Entries != 0 {
		t.Errorf("an answer was remembered: %+v", cache.Stats())
	}
}

// TestCacheChangeUnderWay: an answer that the store gave before a change, and
// that comes after the cache has heard of it, is not remembered; nor does
// anybody who asks after the change get it.
func TestCacheChangeUnderWay(t *testing.T) {
	cache, store, _, key := newCache(t, 1<<20)
	hold := make(chan struct{})
	store.set(func() { store.hold = hold })
	early := make(chan bool)
	go func() { early <- has(t, cache, bob) }()
	<-store.reads
	store.set(func() { store.rows[bob], store.hold = enrolled(bob, bob, key), nil })
	cache.Changed(bob)
	if !has(t, cache, bob) {
		t.Error("who asks after the change gets the answer of before")
	}
	close(hold)
	if <-early {
		t.Error("the early question was answered with what came later")
	}
	if !has(t, cache, bob) {
		t.Error("the answer of before the change was remembered")
	}
}

// TestCacheOneLoad: however many ask for a name at once, the store is asked
// once, and all get its answer; where who asked goes away, one of the others asks
// for all of them.
func TestCacheOneLoad(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		cache, store, _, _ := newCache(t, 1<<20)
		hold := make(chan struct{})
		store.set(func() { store.hold = hold })
		first, leave := context.WithCancel(t.Context())
		var failed atomic.Int32
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := cache.accounts(first, []string{ann}); err != nil {
				failed.Add(1)
			}
		})
		<-store.reads
		for range 50 {
			all.Go(func() {
				found, err := cache.accounts(t.Context(), []string{ann})
				if err != nil || len(found[ann]) != 1 {
					t.Errorf("%d accounts, error %v", len(found[ann]), err)
				}
			})
		}
		for cache.Stats().Waits < 50 {
			runtime.Gosched()
		}
		if leaves {
			leave()
		} else {
			close(hold)
		}
		if leaves {
			<-store.reads
			close(hold)
		}
		all.Wait()
		leave()
		if want := map[bool]int{false: 1, true: 2}[leaves]; store.count(ann) != want || (failed.Load() == 1) != leaves {
			t.Errorf("the first leaves %t: asked %d times, want %d; it failed: %d", leaves, store.count(ann), want, failed.Load())
		}
	}
}

// TestCacheOneFailure: what a store that does not answer in time has cost one who
// asked, it does not cost those once more who waited for the same answer.
func TestCacheOneFailure(t *testing.T) {
	cache, store, _, _ := newCache(t, 1<<20)
	hold := make(chan struct{})
	store.set(func() { store.hold, store.err = hold, ErrStore })
	var failed atomic.Int32
	var all sync.WaitGroup
	for range 51 {
		all.Go(func() {
			if _, err := cache.accounts(t.Context(), []string{ann}); errors.Is(err, ErrStore) {
				failed.Add(1)
			}
		})
	}
	for cache.Stats().Waits < 50 {
		runtime.Gosched()
	}
	close(hold)
	all.Wait()
	if failed.Load() != 51 || store.count(ann) != 1 {
		t.Errorf("%d of 51 failed, and the store was asked %d times", failed.Load(), store.count(ann))
	}
}

// TestCacheErrors: neither a store that does not answer nor an answer that
// cannot be acted upon is remembered.
func TestCacheErrors(t *testing.T) {
	cache, store, _, key := newCache(t, 1<<20)
	bad := enrolled(bob, bob, key)
	bad.Cipher = "rot13"
	store.rows[bob] = bad
	store.err = ErrStore
	for range 2 {
		if _, err := Lookup(t.Context(), cache, Naming{}, []string{ann}); !errors.Is(err, ErrStore) {
			t.Errorf("error %v", err)
		}
	}
	store.err = nil
	for range 2 {
		if _, err := Lookup(t.Context(), cache, Naming{}, []string{bob}); !errors.Is(err, ErrStore) {
			t.Errorf("error %v", err)
		}
	}
	store.rows[bob] = enrolled(bob, bob, key)
	if !has(t, cache, ann) || !has(t, cache, bob) {
		t.Error("an error was remembered")
	}
}

// TestCacheBound: the cache never holds more than it may, and drops what was not
// used for the longest time.
func TestCacheBound(t *testing.T) {
	cache, store, _, key := newCache(t, 40_000)
	name := func(i int) string { return fmt.Sprintf("user%03d@example.org", i) }
	for i := range 100 {
		store.rows[name(i)] = enrolled(name(i), name(i), key)
	}
	for i := range 100 {
		has(t, cache, ann)
		has(t, cache, name(i))
		if stats := cache.Stats(); stats.Bytes > 40_000 || i > 30 && stats.Bytes < 30_000 {
			t.Fatalf("%d users: %+v", i+1, stats)
		}
	}
	if store.count(ann) != 1 {
		t.Errorf("who is asked for all the time was dropped %d times", store.count(ann)-1)
	}
	if has(t, cache, name(0)); store.count(name(0)) != 2 {
		t.Error("the oldest was kept")
	}
	small, store, _, _ := newCache(t, 100)
	has(t, small, ann)
	has(t, small, ann)
	if store.count(ann) != 2 || small.Stats().Bytes != 0 {
		t.Errorf("an answer larger than the cache: asked %d times, %+v", store.count(ann), small.Stats())
	}
}

// version is a store that knows whether it has changed.
type version struct {
	*counting
	now atomic.Int64
	err atomic.Pointer[error]
}

func (v *version) Version(context.Context) (int64, error) {
	if err := v.err.Load(); err != nil {
		return 0, *err
	}
	return v.now.Load(), nil
}

// TestCacheVersion: a store that knows its version needs nobody who follows it.
func TestCacheVersion(t *testing.T) {
	key := parseOne(t, binary(t, newEntity(t, at(birth))))
	store := &version{counting: newCounting(enrolled(ann, ann, key))}
	cache := NewCache(store, CacheSettings{Size: 1 << 20, TTL: time.Hour, NoKeyTTL: time.Hour})
	for step, change := range []func(){func() {}, func() {}, func() { store.now.Add(1) }, func() {}} {
		change()
		if has(t, cache, ann); store.count(ann) != 1+step/2 {
			t.Errorf("step %d: asked %d times", step, store.count(ann))
		}
	}
	gone := errors.New("gone")
	store.err.Store(&gone)
	if has(t, cache, ann); store.count(ann) != 3 {
		t.Error("a store that does not tell its version is answered for")
	}
}

// TestCacheConcurrently changes accounts while many ask. Nobody may be told what
// was no longer so when they began to ask; run with -race.
func TestCacheConcurrently(t *testing.T) {
	cache, store, _, key := newCache(t, 20_000)
	var told [8]atomic.Int64 // the number of each account's last change that the cache has heard of
	name := func(i int) string { return fmt.Sprintf("user%d@example.org", i) }
	number := func(i int) (n int64) {
		found, err := Lookup(t.Context(), cache, Naming{}, []string{name(i)})
		if err != nil {
			t.Error(err)
			return 1 << 62
		}
		for _, account := range found[name(i)].Accounts {
			fmt.Sscanf(string(account.Options), `{"n":%d}`, &n)
		}
		return n
	}
	stop := time.Now().Add(time.Second)
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; time.Now().Before(stop); i = (i + 1) % len(told) {
			n := told[i].Load() + 1
			row := enrolled(name(i), name(i), key)
			row.Options = fmt.Appendf(nil, `{"n":%d}`, n)
			store.set(func() { store.rows[name(i)] = row })
			cache.Changed(name(i))
			told[i].Store(n)
			time.Sleep(time.Millisecond)
		}
	})
	var asked atomic.Int64
	for g := range 4 {
		all.Go(func() {
			for i := g; time.Now().Before(stop); i = (i + 1) % len(told) {
				least := told[i].Load()
				if got := number(i); got < least {
					t.Errorf("%s: the answer is that of change %d, after change %d", name(i), got, least)
				}
				asked.Add(1)
			}
		})
	}
	all.Wait()
	if stats := cache.Stats(); asked.Load() < 100 || stats.Hits == 0 {
		t.Errorf("asked %d times: %+v", asked.Load(), stats)
	}
}

// TestFootprint holds the estimate of what an answer takes in memory to the heap.
func TestFootprint(t *testing.T) {
	texts := map[string]string{"nobody": ""}
	for name, config := range map[string]*packet.Config{
		"Curve25519": at(birth),
		"RSA-3072":   {Algorithm: packet.PubKeyAlgoRSA, RSABits: 3072, Time: at(birth).Time},
		"version 6":  {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, Time: at(birth).Time},
	} {
		texts[name] = parseOne(t, binary(t, newEntity(t, config))).Armored()
	}
	dir := certificates(t)
	for _, name := range []string{"rsa", "rsa3072", "p256"} {
		text, err := os.ReadFile(filepath.Join(dir, name+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	for name, text := range texts {
		count := 300
		if text == "" { // what the maps take is most of it, and grows in steps
			count = 20_000
		}
		cache := NewCache(newCounting(), CacheSettings{Size: 1 << 40, TTL: time.Hour, NoKeyTTL: time.Hour})
		before := liveHeap()
		for i := range count {
			address := fmt.Sprintf("user%06d@example.org", i)
			accounts, err := readAccounts([]Row{{Address: address, Account: address, Known: true, Enabled: true, Key: text}})
			if err != nil {
				t.Fatal(err)
			}
			cache.remember(address, accounts)
		}
		real, estimate := float64(liveHeap()-before), float64(cache.Stats().Bytes)
		if ratio := estimate / real; ratio < 0.95 || ratio > 1.3 {
			t.Errorf("%s: %.0f bytes are estimated for %.0f", name, estimate/float64(count), real/float64(count))
		}
		runtime.KeepAlive(cache)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestCacheFollowFor: where nobody tells of changes, an answer is used for the
// time that the site has named, and for no time where it has named none.
func TestCacheFollowFor(t *testing.T) {
	cache, store, now, _ := newCache(t, 1<<20)
	cache.FollowFor(time.Minute)
	for step, want := range []int{1, 1, 2} {
		if has(t, cache, ann); store.count(ann) != want {
			t.Errorf("step %d: asked %d times, want %d", step, store.count(ann), want)
		}
		*now = now.Add(40 * time.Second)
	}
	cache.FollowFor(0)
	has(t, cache, ann)
	if has(t, cache, ann); store.count(ann) != 4 {
		t.Errorf("without a time: asked %d times", store.count(ann))
	}
}

package keys

import (
	"container/list"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheSettings are the bounds of a Cache.
type CacheSettings struct {
	Size     int64         // bytes that parsed keys and the rest of the answers may take
	TTL      time.Duration // how long an answer is used
	NoKeyTTL time.Duration // how long the answer that there is no key is used
	Now      func() time.Time
}

// Cache is a Store that remembers the answers of another, parsed and verified,
// which takes longer than to ask for them. An answer is remembered while the
// cache is told of every change in the store behind it, see Follower. A Cache is
// safe for concurrent use.
//
// What cannot be acted upon is not remembered, and an answer that was under way
// when something changed is not either.
type Cache struct {
	store     Store
	versioned Versioned // the store, where it has versions
	settings  CacheSettings

	mu       sync.Mutex
	follows  bool
	ttl      time.Duration            // how long an answer is used
	version  int64                    // of the store, where it has versions
	entries  map[string]*list.Element // by the name asked, letter for letter
	order    *list.List               // of *cached; the one that was used last is in front
	mentions map[string]*mention      // the names whose answer changes with an address, by that in lower case
	flights  map[string]*flight       // questions under way, by name
	stats    CacheStats
}

// CacheStats counts what a cache has done, in names that were asked for.
type CacheStats struct {
	Hits    uint64 // answered from memory
	Waits   uint64 // answered by a question of somebody else that was under way
	Loads   uint64 // asked of the store
	Bytes   int64  // held now, estimated
	Entries int    // held now
}

// Follower is told of every change in a store: Follow is called when that
// begins, Changed for each change, and Lose where one may have been
// missed. Until the first Follow, and between Lose and the next, nothing is told.
type Follower interface {
	// Follow says that from now on every change is told of.
	Follow()
	// FollowFor says that changes are not told of, and that what was true so
	// long ago may still be answered. No time is Lose.
	FollowFor(ttl time.Duration)
	// Lose says that changes may be missed from now on.
	Lose()
	// Changed says that what the store has for an address is another: its
	// account, its keys or their options. An empty address stands for any, and
	// "@" in front of a domain for all that is in it.
	Changed(address string)
}

// Versioned is a store that knows whether anything in it has changed: then its
// version is another. It is asked before each answer from memory.
type Versioned interface {
	Version(ctx context.Context) (int64, error)
}

// cached is one answer.
type cached struct {
	name     string
	accounts []*Account
	size     int64
	until    time.Time
}

// mention is a set of names, of which most have but one. One address has as many
// spellings as its sender likes, so that no name is searched for among the others.
type mention struct {
	first string          // "" is none
	more  map[string]bool // nil where there never were any
}

func (m *mention) add(name string) {
	switch {
	case m.first == "":
		m.first = name
	case m.more == nil:
		m.more = map[string]bool{name: true}
	default:
		m.more[name] = true
	}
}

func (m *mention) remove(name string) (empty bool) {
	if m.first == name {
		m.first = ""
	}
	delete(m.more, name)
	return m.first == "" && len(m.more) == 0
}

func (m *mention) names() []string {
	names := slices.Collect(maps.Keys(m.more))
	if m.first != "" {
		names = append(names, m.first)
	}
	return names
}

// flight is a question to the store that others wait for too.
type flight struct {
	done     chan struct{}
	names    []string
	accounts map[string][]*Account
	err      error
	left     bool // the error is of who asked, or of their names, and says nothing of the store
}

// NewCache makes a cache of a store, which nobody follows yet.
func NewCache(store Store, settings CacheSettings) *Cache {
	if settings.Now == nil {
		settings.Now = time.Now
	}
	c := &Cache{store: store, settings: settings, ttl: settings.TTL, flights: make(map[string]*flight)}
	c.versioned, _ = store.(Versioned)
	c.forget()
	return c
}

// RecipientKeys implements Store. It asks the store: rows are not remembered.
func (c *Cache) RecipientKeys(ctx context.Context, addresses []string) ([]Row, error) {
	return c.store.RecipientKeys(ctx, addresses)
}

// Close closes the store.
func (c *Cache) Close() { c.store.Close() }

// Follow implements Follower. What was remembered is forgotten.
func (c *Cache) Follow() { c.follow(true, c.settings.TTL) }

// FollowFor implements Follower. What was remembered is forgotten.
func (c *Cache) FollowFor(ttl time.Duration) { c.follow(ttl > 0, ttl) }

// Lose implements Follower. All is forgotten.
func (c *Cache) Lose() { c.follow(false, 0) }

func (c *Cache) follow(follows bool, ttl time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.follows, c.ttl = follows, ttl
}

// Changed implements Follower.
func (c *Cache) Changed(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if address == "" || strings.HasPrefix(address, "@") {
		c.forget()
		return
	}
	clear(c.flights) // what they bring may be old; who waits for them asked before the change
	if mention := c.mentions[lowerASCII(address)]; mention != nil {
		for _, name := range mention.names() {
			c.drop(c.entries[name])
		}
	}
}

// Stats says what the cache holds and has done.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Entries = len(c.entries)
	return c.stats
}

// forget empties the cache.
func (c *Cache) forget() {
	c.entries, c.order, c.mentions = make(map[string]*list.Element), list.New(), make(map[string]*mention)
	clear(c.flights)
	c.stats.Bytes = 0
}

// accounts answers for names, with an entry for each. Names that are one mailbox'
// may change together, by one transaction, as where an account is renamed: that
// one has no key, or leads to another, is true beside another only as of one moment.
// So answers that say so are all from memory, which has heard of the same changes, or
// all from one question.
func (c *Cache) accounts(ctx context.Context, names []string) (map[string][]*Account, error) {
	if !c.check(ctx) {
		return accountsOf(ctx, c.store, names)
	}
	for range maxLeaders {
		found, again, err := c.together(ctx, names)
		if !again {
			return found, err
		}
	}
	return accountsOf(ctx, c.store, names)
}

// maxLeaders is how often somebody waits for a question of another that then
// brings nothing: those who waited put one anew, and not one each.
const maxLeaders = 3

// together answers from memory and from questions of all who ask now. It is to be
// tried again where somebody whose question this was has gone away before its
// answer, or could not read the answer, perhaps for another of their names. What
// the store has not answered to one it would not answer to another.
func (c *Cache) together(ctx context.Context, names []string) (found map[string][]*Account, again bool, err error) {
	found = make(map[string][]*Account, len(names))
	mine, asked := c.begin(names, found)
	if mine != nil {
		if err := c.load(ctx, mine); err != nil {
			return nil, false, err
		}
	}
	absent := make(map[*flight]bool)
	for name, of := range asked {
		select {
		case <-of.done:
		case <-ctx.Done():
			return nil, false, errors.Join(ErrStore, ctx.Err())
		}
		switch {
		case of.left:
			return nil, true, nil
		case of.err != nil:
			return nil, false, of.err
		}
		found[name] = of.accounts[name]
		if !isEnrolled(name, found[name]) {
			absent[of] = true
		}
	}
	if len(absent) > 1 {
		found, err = accountsOf(ctx, c.store, names)
	}
	return found, false, err
}

// isEnrolled says whether an answer seals beside any other: the name is an account's
// own, in this very spelling, with a key and switched on. An alias is none such,
// though all that it leads to have keys: it may lead on by names of another moment,
// or hide a key that the name has by now.
func isEnrolled(name string, accounts []*Account) bool {
	return len(accounts) == 1 && accounts[0].Address == name && accounts[0].Enabled && accounts[0].Enrolled()
}

// check says whether the cache may answer. Where the store has versions, all
// that was before the present one is forgotten.
func (c *Cache) check(ctx context.Context) bool {
	if c.versioned == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.follows
	}
	version, err := c.versioned.Version(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || version != c.version {
		c.forget()
		c.version = version
	}
	return err == nil
}

// begin takes what is remembered, and names the questions that the rest is of:
// those of others that are under way, and this caller's own, nil where there is
// none. Where anything has to be asked, what is remembered is asked again unless it
// is of an account with a key.
func (c *Cache) begin(names []string, found map[string][]*Account) (mine *flight, asked map[string]*flight) {
	own := &flight{done: make(chan struct{})}
	asked = make(map[string]*flight)
	now := c.settings.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		element := c.entries[name]
		if element != nil && !now.Before(element.Value.(*cached).until) {
			c.drop(element)
			element = nil
		}
		switch of := c.flights[name]; {
		case of != nil:
			asked[name] = of
		case element != nil:
			c.order.MoveToFront(element)
			found[name] = element.Value.(*cached).accounts
		default:
			asked[name] = own
		}
	}
	for name, accounts := range found {
		if len(asked) > 0 && !isEnrolled(name, accounts) {
			delete(found, name)
			asked[name] = own
		}
	}
	c.stats.Hits += uint64(len(found))
	for name, of := range asked {
		if of != own {
			c.stats.Waits++
			continue
		}
		c.stats.Loads++
		c.flights[name], own.names = own, append(own.names, name)
	}
	if len(own.names) == 0 {
		return nil, asked
	}
	slices.Sort(own.names)
	return own, asked
}

// load asks the store and remembers the answer for each name about which nothing
// has changed in the meantime.
func (c *Cache) load(ctx context.Context, mine *flight) error {
	mine.err, mine.left = errors.New("internal error: a lookup that did not end"), true
	defer func() { // a panic must not keep others waiting
		c.mu.Lock()
		defer c.mu.Unlock()
		close(mine.done)
		for _, name := range mine.names {
			if c.flights[name] != mine { // something has changed
				continue
			}
			delete(c.flights, name)
			if mine.err == nil && (c.follows || c.versioned != nil) {
				c.remember(name, mine.accounts[name])
			}
		}
	}()
	mine.accounts, mine.err = accountsOf(ctx, c.store, mine.names)
	mine.left = mine.err != nil && (ctx.Err() != nil || errors.Is(mine.err, errAnswer))
	return mine.err
}

// remember keeps an answer, and drops those that were not used for the longest
// time to make room for it.
func (c *Cache) remember(name string, accounts []*Account) {
	entry := &cached{name: name, accounts: accounts, size: entrySize(name, accounts), until: c.settings.Now().Add(c.ttl)}
	if len(accounts) == 0 || slices.ContainsFunc(accounts, func(a *Account) bool { return !a.Enrolled() }) {
		entry.until = c.settings.Now().Add(min(c.ttl, c.settings.NoKeyTTL))
	}
	c.drop(c.entries[name])
	if entry.size > c.settings.Size {
		return
	}
	for c.stats.Bytes+entry.size > c.settings.Size {
		c.drop(c.order.Back())
	}
	c.entries[name] = c.order.PushFront(entry)
	c.stats.Bytes += entry.size
	for address := range entry.changesWith() {
		if c.mentions[address] == nil {
			c.mentions[address] = new(mention)
		}
		c.mentions[address].add(name)
	}
}

// changesWith are the addresses of which a change changes the answer: the name
// and the accounts that it leads to.
func (e *cached) changesWith() map[string]bool {
	all := map[string]bool{lowerASCII(e.name): true}
	for _, account := range e.accounts {
		all[lowerASCII(account.Address)] = true
	}
	return all
}

// drop forgets one answer; nil is none.
func (c *Cache) drop(element *list.Element) {
	if element == nil {
		return
	}
	entry := c.order.Remove(element).(*cached)
	delete(c.entries, entry.name)
	c.stats.Bytes -= entry.size
	for address := range entry.changesWith() {
		if mention := c.mentions[address]; mention.remove(entry.name) {
			delete(c.mentions, address)
		}
	}
}

// lowerASCII folds an address as stores compare it.
func lowerASCII(address string) string {
	if !strings.ContainsFunc(address, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		return address
	}
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, address)
}

package postgres

import (
	"math"
	"slices"
	"strings"
	"sync"

	"sealmilter/keys"
)

// replayed is how far a standby has come in the primary's log; NULL of a server
// that is no standby. It is asked before the lookup and not within it: what a
// query sees was settled when it began.
const replayed = `SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
	THEN coalesce((pg_catalog.pg_last_wal_replay_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint, 0) END`

// maxChanges is how many changes are known one by one, as of a standby that is
// minutes behind a busy primary. Of older ones it is known that there were some.
const maxChanges = 4096

// lag knows what a standby that answers a lookup may not have yet. Any of
// several may answer the next one, and each is as far as it is, so that nobody
// waits for one of them: each answer is held against the changes that the
// primary has told of. One that is older than a change of what was asked is not
// remembered: the follower is told of a change while the question is under way.
// It is used only where the primary does not answer.
type lag struct {
	mu       sync.Mutex
	follower keys.Follower // nil while nobody is told of changes
	floor    int64         // who has not come as far may miss a change of any address
	changes  []lagChange   // the oldest first; those at the end may have no position yet
}

// lagChange is a change that the primary has told of.
type lagChange struct {
	address  string
	position int64 // in the primary's log, not before it
}

// unknownPosition is that of a change which the primary was not asked for yet:
// no standby has come as far.
const unknownPosition = math.MaxInt64

// begin takes all that was changed so far for one change.
func (l *lag) begin(follower keys.Follower, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follower, l.floor, l.changes = follower, position, nil
}

// end forgets everything: the follower has lost the store.
func (l *lag) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follower, l.changes = nil, nil
}

func (l *lag) watched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follower != nil
}

// note puts down a change, before the follower hears of it.
func (l *lag) note(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.changes) == maxChanges {
		half := l.changes[maxChanges/2-1]
		l.floor = half.position
		l.changes = append(l.changes[:0], l.changes[maxChanges/2:]...)
	}
	l.changes = append(l.changes, lagChange{address, unknownPosition})
}

// settle gives the last changes that were noted their position.
func (l *lag) settle(position int64, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.floor == unknownPosition {
		l.floor = position
	}
	for i := max(0, len(l.changes)-count); i < len(l.changes); i++ {
		l.changes[i].position = position
	}
}

// answered is told of each answer of a standby, before whoever asked has it, and
// says whether it is behind.
func (l *lag) answered(position int64, addresses []string, rows []keys.Row) bool {
	l.mu.Lock()
	follower := l.follower
	behind := follower != nil && l.behind(position, addresses, rows)
	l.mu.Unlock()
	if behind {
		// Any change keeps this answer from being remembered. That of a domain
		// would make the follower forget all, and of it nothing is known.
		some := slices.DeleteFunc(slices.Clone(addresses), func(name string) bool { return strings.HasPrefix(name, "@") })
		if len(some) == 0 {
			some = addresses
		}
		for _, address := range some {
			follower.Changed(address)
		}
	}
	return behind
}

// behind says whether an answer may miss a change of what it is about: the names
// asked, and the accounts that they lead to.
func (l *lag) behind(position int64, addresses []string, rows []keys.Row) bool {
	if position < l.floor {
		return true
	}
	about := make(map[string]bool, len(addresses)+len(rows))
	for _, address := range addresses {
		about[lowerASCII(address)] = true
	}
	for _, row := range rows {
		about[lowerASCII(row.Account)] = true
	}
	for i := len(l.changes) - 1; i >= 0 && l.changes[i].position > position; i-- {
		if address := l.changes[i].address; address == "" || strings.HasPrefix(address, "@") || about[address] {
			return true
		}
	}
	return false
}

// lowerASCII folds an address as the triggers do.
func lowerASCII(address string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, address)
}

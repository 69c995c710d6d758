package main

import (
	"fmt"
	"slices"
	"time"

	"sealmilter/keys"
)

// thresholds are how many days before the end of a key its owner is warned, the
// farthest first.
var thresholds = []int{30, 14, 7, 1}

// warnedExpired is the warning of a key that has expired.
const warnedExpired = "expired"

// warningKind is what the store calls the warning so many days before.
func warningKind(days int) string { return fmt.Sprintf("days-%d", days) }

// dueWarning is the warning that is due at the moment now, "" for none: only the
// nearest of those whose time has come. Who has not run for a month sends one, and
// not four at once.
func dueWarning(expires, now time.Time) string {
	if expires.IsZero() {
		return ""
	}
	left := expires.Sub(now)
	if left <= 0 {
		return warnedExpired
	}
	for _, days := range slices.Backward(thresholds) {
		if left <= time.Duration(days)*24*time.Hour {
			return warningKind(days)
		}
	}
	return ""
}

// isSent says whether a warning, or one that is nearer to the same end, has been
// sent: a clock that was set back has sent the later one first.
func isSent(kind string, expires time.Time, sent []keys.Warning) bool {
	kinds := []string{}
	for _, days := range thresholds {
		kinds = append(kinds, warningKind(days))
	}
	kinds = append(kinds, warnedExpired)
	at := slices.Index(kinds, kind)
	return slices.ContainsFunc(sent, func(w keys.Warning) bool {
		return w.Expires.Unix() == expires.Unix() && slices.Index(kinds, w.Kind) >= at
	})
}

// notice is what there is to say of one key: to its owner, or to the
// administrator alone.
type notice struct {
	row   enrolledRow
	key   *keys.Key // nil where it cannot be read
	kind  string    // of the warning to its owner, "" where there is none
	plain string    // to the administrator, "" where there is nothing
}

// judgeNotices says of the keys of one account which are to be warned of. A key
// that has a successor is not: its owner has done what the warning would ask
// for.
func judgeNotices(rows []enrolledRow, now time.Time) (notices []notice) {
	for _, row := range rows {
		if row.State != keys.KeyActive {
			continue
		}
		if row.problem != nil {
			notices = append(notices, notice{row: row, plain: "cannot be read: " + row.problem.Error()})
		}
		for _, key := range row.keys {
			n := notice{row: row, key: key}
			switch state := key.State(now); {
			case key.Options.Check(key.Method) != nil:
				n.plain = "cannot be used: " + key.Options.Check(key.Method).Error()
			case state == keys.Revoked:
				n.plain = "was revoked by its holder: mail is not sealed to it"
			case state == keys.Unusable:
				n.plain = "cannot be used: " + unsealable(key, now).Error()
			default:
				n.kind = dueWarning(key.Expires, now)
				if n.kind != "" && hasSuccessor(rows, key, now) {
					n.kind, n.plain = "", fmt.Sprintf("ends on %s and has a successor: nobody is warned; key retire takes it out of use", key.Expires.UTC().Format(time.DateOnly))
				}
			}
			if (n.kind != "" || n.plain != "") && !slices.ContainsFunc(notices, n.isSaid) {
				notices = append(notices, n)
			}
		}
	}
	return notices
}

// isSaid says whether another notice warns the same owner of the same end: an
// account may have two copies of one key, of which each would be warned of.
func (n notice) isSaid(other notice) bool {
	return n.kind != "" && n.kind == other.kind && n.key.Fingerprint == other.key.Fingerprint && n.key.Expires.Equal(other.key.Expires)
}

// hasSuccessor says whether the account has another active key of the same
// method that can be sealed to and ends later, or never.
func hasSuccessor(rows []enrolledRow, key *keys.Key, now time.Time) bool {
	for _, row := range rows {
		if row.State != keys.KeyActive {
			continue
		}
		for _, other := range row.keys {
			if other != key && other.Method == key.Method && other.State(now) == keys.Usable && other.Options.Check(other.Method) == nil &&
				(other.Expires.IsZero() || other.Expires.After(key.Expires)) {
				return true
			}
		}
	}
	return false
}

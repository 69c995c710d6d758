package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// How far one alias is followed, so that a table that somebody has filled does
// not keep the daemon busy. Beyond that there is no answer: half of a group is
// no group. Postfix gives up and defers at as many ways as well
// (virtual_alias_expansion_limit).
const (
	maxWays  = 1000
	maxSteps = 20 * maxWays // to find out which accounts are in a circle
)

var errTooFar = fmt.Errorf("an alias leads to more than %d addresses, or around in too large circles", maxWays)

// way is one row of aliases that mail to an address asked comes by.
type way struct {
	source, target string // in lower case
	spelled        string // the target as it is in the table
	account        bool   // the source is an account too
}

// followed finds the ways of all names at once. UNION drops a way that was
// gone before, which ends a circle. CROSS JOIN keeps the order of the tables,
// so that aliases are read by their index. Where the LIMIT cuts the search
// off, one of the names has more ways than it may have.
const followed = `WITH RECURSIVE way (asked, source, target) AS (
		SELECT asked.value, a.address, a.target FROM (SELECT DISTINCT value FROM json_each(?1)) AS asked
			CROSS JOIN aliases AS a ON a.address = asked.value
	UNION
		SELECT way.asked, a.address, a.target FROM way CROSS JOIN aliases AS a ON a.address = way.target
			WHERE way.target NOT LIKE '@%'
	LIMIT ?2)
	SELECT way.asked, lower(way.source), lower(way.target), way.target,
		EXISTS (SELECT 1 FROM accounts AS a WHERE a.address = way.source)
	FROM way`

// readWays reads the ways of each name that is an alias.
func readWays(ctx context.Context, tx *sql.Tx, names []string) (map[string][]way, error) {
	list, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, followed, string(list), len(names)*(maxWays+1))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ways := make(map[string][]way)
	for rows.Next() {
		var asked string
		var w way
		if err := rows.Scan(&asked, &w.source, &w.target, &w.spelled, &w.account); err != nil {
			return nil, err
		}
		ways[asked] = append(ways[asked], w)
	}
	return ways, rows.Err()
}

// ends are the targets that lead no further: no alias, or a whole domain
// (whose local part only the caller knows), or the alias itself, which MTAs
// then leave as it is. An account that its own alias leads back to, around
// some others, is one as well.
func ends(ways []way) ([]string, error) {
	if len(ways) > maxWays {
		return nil, errTooFar
	}
	w := web{onward: make(map[string][]string), steps: maxSteps}
	accounts := make(map[string]bool)
	for _, way := range ways {
		w.onward[way.source] = append(w.onward[way.source], way.target)
		accounts[way.source] = way.account
	}
	found := make(map[string]string) // the spelling, by the name
	for _, way := range ways {
		if w.onward[way.target] == nil || way.source == way.target || strings.HasPrefix(way.target, "@") ||
			accounts[way.target] && w.leadsBack(way.target) {
			if spelled, again := found[way.target]; !again || way.spelled < spelled {
				found[way.target] = way.spelled
			}
		}
	}
	if w.steps < 0 {
		return nil, errTooFar
	}
	return slices.Sorted(maps.Values(found)), nil
}

// web is all ways of one alias.
type web struct {
	onward map[string][]string
	steps  int // that may be gone yet
}

// leadsBack says whether a name comes to itself again.
func (w *web) leadsBack(name string) bool {
	been := make(map[string]bool)
	ahead := slices.Clone(w.onward[name])
	for len(ahead) > 0 && w.steps >= 0 {
		here := ahead[len(ahead)-1]
		ahead = ahead[:len(ahead)-1]
		if here == name {
			return true
		}
		if !been[here] {
			been[here] = true
			w.steps--
			ahead = append(ahead, w.onward[here]...)
		}
	}
	return false
}

package main

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// suggest says which known key was probably meant by an unknown one, or which
// there are in its table.
func suggest(key string, fields map[string]reflect.Type) string {
	known := slices.Sorted(maps.Keys(fields))
	if near := nearest(key, known); near != "" {
		return ", did you mean " + describeKey(near, fields) + "?"
	}
	table, _ := splitKey(key)
	var siblings []string
	for _, candidate := range known {
		if parent, leaf := splitKey(candidate); parent == table {
			siblings = append(siblings, leaf)
		}
	}
	switch {
	case table == "":
		return ", expected one of the tables " + strings.Join(siblings, ", ")
	case len(siblings) > 0:
		return ", expected one of " + strings.Join(siblings, ", ") + " under " + brackets(table, fields)
	}
	return ""
}

func describeKey(key string, fields map[string]reflect.Type) string {
	if fields[key].Kind() == reflect.Struct || isTableList(fields[key]) {
		return brackets(key, fields)
	}
	table, leaf := splitKey(key)
	return leaf + " under " + brackets(table, fields)
}

// brackets writes a table's name as its header is written.
func brackets(table string, fields map[string]reflect.Type) string {
	if isTableList(fields[table]) {
		return "[[" + table + "]]"
	}
	return "[" + table + "]"
}

// nearest returns the known key that is spelt most like key, or the one that
// has its last part when that stands in the wrong table.
func nearest(key string, known []string) string {
	best, least := "", max(2, len(key)/6)+1
	for _, candidate := range known {
		if distance := editDistance(key, candidate); distance < least {
			best, least = candidate, distance
		}
	}
	if best != "" {
		return best
	}
	_, leaf := splitKey(key)
	for _, candidate := range known {
		if _, other := splitKey(candidate); other == leaf {
			return candidate
		}
	}
	return ""
}

// splitKey cuts a dotted key before its last part.
func splitKey(key string) (table, leaf string) {
	dot := strings.LastIndexByte(key, '.')
	return key[:max(dot, 0)], key[dot+1:]
}

// editDistance counts the insertions, deletions and replacements of bytes that
// lead from a to b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

package main

import (
	"iter"

	"sealmilter/keys"
)

// perAccount reads what a store lists and hands on all rows of one account
// together. The store lists them in the order of their addresses, so that no
// more is held than the keys of one account. each is called for every row.
func perAccount(enrolled iter.Seq2[keys.Enrolled, error], each func()) iter.Seq2[[]enrolledRow, error] {
	return func(yield func([]enrolledRow, error) bool) {
		var rows []enrolledRow
		for e, err := range enrolled {
			if err != nil {
				yield(nil, err)
				return
			}
			each()
			if len(rows) > 0 && rows[0].Address != e.Address {
				if !yield(rows, nil) {
					return
				}
				rows = nil
			}
			rows = append(rows, readRow(e))
		}
		if len(rows) > 0 {
			yield(rows, nil)
		}
	}
}

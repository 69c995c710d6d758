package keys

import "iter"

// Pages lists what a store reads page by page, each page a query of its own: none
// stays open, and no connection is held, while the caller does something with an
// item, and a caller who stops early does not have the rest sent to nobody. read
// returns the items behind the last one, at first the zero one; a page of fewer than
// size ends the list.
func Pages[T any](size int, read func(last T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			page, err := read(last)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, last = range page {
				if !yield(last, nil) {
					return
				}
			}
			if len(page) < size {
				return
			}
		}
	}
}

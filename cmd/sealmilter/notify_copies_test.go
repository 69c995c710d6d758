package main

import (
	"testing"
	"time"

	"sealmilter/keys"
)

// TestTwoCopies: of a key that the account has in two rows its owner is warned
// once, and of two keys twice.
func TestTwoCopies(t *testing.T) {
	near, old := testKey(t, "near.asc").Key, testKey(t, "old.asc").Key
	row := func(id int64, state keys.KeyState, key *keys.Key) enrolledRow {
		return enrolledRow{Enrolled: keys.Enrolled{ID: id, Address: "near@example.org", State: state}, keys: []*keys.Key{key}}
	}
	again := *near
	for name, test := range map[string]struct {
		rows []enrolledRow
		want int
	}{
		"two copies":                 {[]enrolledRow{row(1, keys.KeyActive, near), row(2, keys.KeyActive, &again)}, 1},
		"one of them does not count": {[]enrolledRow{row(1, keys.KeyRetired, near), row(2, keys.KeyActive, &again)}, 1},
		"two keys":                   {[]enrolledRow{row(1, keys.KeyActive, near), row(2, keys.KeyActive, old)}, 2},
	} {
		got := judgeNotices(test.rows, time.Now())
		if len(got) != test.want {
			t.Errorf("%s: %d notices, want %d", name, len(got), test.want)
		}
	}
}

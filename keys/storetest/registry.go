package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// plainSQL: an administrator needs nothing but INSERT, UPDATE and DELETE.
func plainSQL(t *testing.T, s Store) {
	s.SQL(t, "INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n')")
	const key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n"
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", key))
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key) VALUES ('ANN@EXAMPLE.ORG', 'KEY 2'), ('Bob@Example.Org', 'KEY 3')`)
	expect(t, answer(t, s, "ann@example.org", "bob@example.org"),
		enrolled("ann@example.org", "ann@example.org", key),
		enrolled("ann@example.org", "ann@example.org", "KEY 2"),
		enrolled("bob@example.org", "Bob@example.org", "KEY 3"))
	s.SQL(t, `UPDATE sealmilter.accounts SET enabled = false WHERE address = 'ann@example.org'`)
	s.SQL(t, `DELETE FROM sealmilter.keys WHERE key = 'KEY 2'`)
	disabled := enrolled("ann@example.org", "ann@example.org", key)
	disabled.Enabled = false
	expect(t, answer(t, s, "ann@example.org"), disabled)
	// A key that moves to another address makes that account too.
	s.SQL(t, `UPDATE sealmilter.keys SET address = 'CAROL@Example.org' WHERE key = 'KEY 3'`)
	expect(t, answer(t, s, "carol@example.org"), enrolled("carol@example.org", "CAROL@example.org", "KEY 3"))
}

// constraints: nonsense is refused where it comes in, in words, and leaves
// nothing behind.
func constraints(t *testing.T, s Store) {
	for _, test := range []struct{ address, key, words string }{
		{"", "KEY", "without domain"},
		{"ann", "KEY", "without domain"},
		{"example.org", "KEY", "without domain"},
		{"ann@", "KEY", "without domain"},
		{"@", "KEY", "without domain"},
		{"@ann@example.org", "KEY", "without local part"},
		{"@example.org.", "KEY", "final dot"},
		{"@example. org", "KEY", "blank in domain"},
		{" ann@example.org", "KEY", "blanks around"},
		{"ann@example.org ", "KEY", "blank"},
		{"ann@example.org (Ann)", "KEY", "blank in domain"},
		{"ann@example.org\n", "KEY", "control character"},
		{"ann\t@example.org", "KEY", "control character"},
		{"ann\x7f@example.org", "KEY", "control character"},
		{"<ann@example.org>", "KEY", "angle brackets"},
		{"Ann <ann@example.org>", "KEY", "angle brackets"},
		{`"ann smith"@example.org`, "KEY", "in quotes"},
		{"ann@example.org.", "KEY", "final dot"},
		{"ann@example.org", "", "is empty"},
		{"ann@example.org", " \r\n\t", "is empty"},
		{"ann@example.org", strings.Repeat("x", 1<<20+1), "longer than 1 mib"},
	} {
		_, err := s.AddKey(context.Background(), keys.NewKey{Address: test.address, Key: test.key})
		if err == nil || errors.Is(err, keys.ErrStore) {
			t.Errorf("%q: %v, want a refusal", test.address, err)
			continue
		}
		// PostgreSQL names one of several constraints that fail, in the order
		// of their names.
		said := strings.ReplaceAll(err.Error(), "_", " ")
		if !strings.Contains(said, test.words) && !(strings.ContainsAny(test.address, " \n\t") && strings.Contains(said, "address with")) {
			t.Errorf("%q: %v, want %q in it", test.address, err, test.words)
		}
	}
	if all := listed(t, s, ""); len(all) != 0 {
		t.Errorf("%d keys were stored", len(all))
	}
	expect(t, answer(t, s, "ann@example.org"), unknown("ann@example.org"))
}

// sameKeyTwice: a key is in the store once for an address, so that it is out of
// use when it is removed. A new text comes in before an old one goes.
func sameKeyTwice(t *testing.T, s Store) {
	ctx := context.Background()
	first := add(t, s, "ann@example.org", "KEY 1")
	for _, address := range []string{"ann@example.org", "ANN@EXAMPLE.org"} {
		_, err := s.AddKey(ctx, keys.NewKey{Address: address, Key: "KEY 1"})
		if err == nil || errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "the key is enrolled already") {
			t.Errorf("%s: adding a key again: %v, want a refusal", address, err)
		}
	}
	add(t, s, "bob@example.org", "KEY 1") // another's key may be the same
	for _, near := range []string{"key 1", "KEY 1 ", "KEY 1\n"} {
		add(t, s, "ann@example.org", near)
	}
	second := add(t, s, "ann@example.org", "KEY 2")
	if err := s.RemoveKey(ctx, first); err != nil {
		t.Fatal(err)
	}
	add(t, s, "ann@example.org", "KEY 1")
	if err := s.RemoveKey(ctx, second); err != nil {
		t.Fatal(err)
	}
	if all := listed(t, s, "ann@example.org"); len(all) != 4 {
		t.Errorf("%d keys are listed, want 4: %+v", len(all), all)
	}
}

func renameAndDelete(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "KEY 1")
	add(t, s, "ann@example.org", "KEY 2")
	add(t, s, "bob@example.org", "KEY 3")
	s.SQL(t, `UPDATE sealmilter.accounts SET address = 'Anna@Example.NET' WHERE address = 'ann@example.org'`)
	expect(t, answer(t, s, "anna@example.net", "ann@example.org"),
		unknown("ann@example.org"),
		enrolled("anna@example.net", "Anna@example.net", "KEY 1"),
		enrolled("anna@example.net", "Anna@example.net", "KEY 2"))
	if all := listed(t, s, "ANNA@example.net"); len(all) != 2 || all[0].Address != "Anna@example.net" {
		t.Errorf("listed as %+v", all)
	}
	// An account takes its keys along: a new one of its name has none of them.
	s.SQL(t, `DELETE FROM sealmilter.accounts WHERE address = 'Anna@example.net'`)
	s.SQL(t, `INSERT INTO sealmilter.accounts (address) VALUES ('anna@example.net')`)
	expect(t, answer(t, s, "anna@example.net"), enrolled("anna@example.net", "anna@example.net", ""))
	expect(t, answer(t, s, "bob@example.org"), enrolled("bob@example.org", "bob@example.org", "KEY 3"))
}

func list(t *testing.T, s Store) {
	if all := listed(t, s, ""); len(all) != 0 {
		t.Errorf("an empty store lists %+v", all)
	}
	var ids []int64
	for _, address := range []string{"bob@example.org", "ann@example.org", "Zoe@example.org", "BOB@example.org"} {
		ids = append(ids, add(t, s, address, "KEY of "+address))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("the keys have the numbers %v", ids)
	}
	var got []string
	for _, key := range listed(t, s, "") {
		got = append(got, fmt.Sprintf("%d %s %s", key.ID, key.Address, key.Key))
		if age := time.Since(key.Added); age < -time.Minute || age > time.Minute {
			t.Errorf("key %d was added at %v", key.ID, key.Added)
		}
		if !key.Enabled || key.Method != "" || key.Cipher != keys.AES256 {
			t.Errorf("key %d: %+v", key.ID, key)
		}
	}
	want := []string{
		fmt.Sprintf("%d Zoe@example.org KEY of Zoe@example.org", ids[2]),
		fmt.Sprintf("%d ann@example.org KEY of ann@example.org", ids[1]),
		fmt.Sprintf("%d bob@example.org KEY of bob@example.org", ids[0]),
		fmt.Sprintf("%d bob@example.org KEY of BOB@example.org", ids[3]),
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed\n%q, want\n%q", got, want)
	}
	if one := listed(t, s, "Bob@Example.org"); len(one) != 2 || one[0].ID != ids[0] || one[1].ID != ids[3] {
		t.Errorf("bob's keys are %+v", one)
	}
	if none := listed(t, s, "carol@example.org"); len(none) != 0 {
		t.Errorf("carol's keys are %+v", none)
	}
}

// listMany: the list holds every key once, can be left early, and stands in
// the way of nobody meanwhile.
func listMany(t *testing.T, s Store) {
	const many = 250
	var values []string
	for i := range many {
		values = append(values, fmt.Sprintf("('user%d@example.org', 'KEY %d')", i%7, i))
	}
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key) VALUES `+strings.Join(values, ", "))
	all := listed(t, s, "")
	if len(all) != many {
		t.Errorf("%d keys listed of %d", len(all), many)
	}
	if !slices.IsSortedFunc(all, func(a, b keys.Enrolled) int {
		if c := strings.Compare(a.Address, b.Address); c != 0 {
			return c
		}
		return int(a.ID - b.ID)
	}) {
		t.Error("the list has another order than address and number")
	}
	for range 100 { // more than a pool has connections
		for range s.Keys(context.Background(), "") {
			break
		}
	}
	removed := 0
	for key, err := range s.Keys(context.Background(), "") {
		if err == nil {
			err = s.RemoveKey(context.Background(), key.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		removed++
	}
	if left := listed(t, s, ""); removed != many || len(left) != 0 {
		t.Errorf("%d keys removed while they were listed, %d are left", removed, len(left))
	}
}

func remove(t *testing.T, s Store) {
	ctx := context.Background()
	first := add(t, s, "ann@example.org", "KEY 1")
	second := add(t, s, "ann@example.org", "KEY 2")
	if err := s.RemoveKey(ctx, second); err != nil {
		t.Fatal(err)
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "KEY 1"))
	for _, id := range []int64{second, 0, -1, 1 << 40} {
		if err := s.RemoveKey(ctx, id); !errors.Is(err, keys.ErrNoSuchKey) || errors.Is(err, keys.ErrStore) {
			t.Errorf("removing key %d: %v, want ErrNoSuchKey", id, err)
		}
	}
	if third := add(t, s, "ann@example.org", "KEY 3"); third == second || third == first {
		t.Errorf("the number %d was given twice", third)
	}
}

package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sealmilter/keys"
)

// with is a row with options.
func with(row keys.Row, options string) keys.Row {
	row.Options = []byte(options)
	return row
}

// optionsOfKeys: each row has those of its own key.
func optionsOfKeys(t *testing.T, s Store) {
	addWith(t, s, "ann@example.org", "A1", keys.KeyOptions{AEAD: keys.GCM})
	addWith(t, s, "ann@example.org", "A2", keys.KeyOptions{OAEP: true, MLKEM: true})
	add(t, s, "ann@example.org", "A3")
	addWith(t, s, "@example.org", "D1", keys.KeyOptions{AEAD: keys.OCB})
	lead(t, s, "team@example.org -> ann@example.org", "team@example.org -> bob@example.org")
	anns := func(asked string) []keys.Row {
		return []keys.Row{
			with(enrolled(asked, "ann@example.org", "A1"), `{"key":{"aead":"gcm"}}`),
			with(enrolled(asked, "ann@example.org", "A2"), `{"key":{"ml_kem":true,"oaep":true}}`),
			enrolled(asked, "ann@example.org", "A3"),
		}
	}
	expect(t, answer(t, s, "ann@example.org"), anns("ann@example.org")...)
	expect(t, answer(t, s, "team@example.org"), append([]keys.Row{outside("team@example.org", "bob@example.org")}, anns("team@example.org")...)...)
	expect(t, answer(t, s, "@example.org"), with(enrolled("@example.org", "@example.org", "D1"), `{"key":{"aead":"ocb"}}`))
	var listedAs []keys.KeyOptions
	for _, key := range listed(t, s, "") {
		listedAs = append(listedAs, key.Options)
	}
	want := []keys.KeyOptions{{AEAD: keys.OCB}, {AEAD: keys.GCM}, {OAEP: true, MLKEM: true}, {}}
	if len(listedAs) != len(want) {
		t.Fatalf("%d keys are listed", len(listedAs))
	}
	for i := range want {
		if listedAs[i] != want[i] {
			t.Errorf("key %d is listed with %+v, want %+v", i, listedAs[i], want[i])
		}
	}
}

// optionsBesideOthers: the account's own options and those of its domain stay
// beside those of the key, and none of them is taken for one of the key.
func optionsBesideOthers(t *testing.T, s Store) {
	addWith(t, s, "ann@example.org", "A1", keys.KeyOptions{AEAD: keys.GCM})
	add(t, s, "ann@example.org", "A2")
	s.SQL(t, `UPDATE sealmilter.accounts SET options = '{"header_protection":"shy","key":{"ml_kem":true}}' WHERE address = 'ann@example.org'`)
	s.SQL(t, `INSERT INTO sealmilter.accounts (address, options) VALUES ('@example.org', '{"no_key":"defer","key":{"oaep":true}}')`)
	expect(t, answer(t, s, "ann@example.org"),
		with(enrolled("ann@example.org", "ann@example.org", "A1"), `{"header_protection":"shy","key":{"aead":"gcm"},"no_key":"defer"}`),
		with(enrolled("ann@example.org", "ann@example.org", "A2"), `{"header_protection":"shy","no_key":"defer"}`))
	s.SQL(t, `INSERT INTO sealmilter.accounts (address) VALUES ('bob@example.org')`)
	expect(t, answer(t, s, "bob@example.org"), with(enrolled("bob@example.org", "bob@example.org", ""), `{"no_key":"defer"}`))
}

// setOptionsOfKey: what is set takes the place of what was, and leaves the key
// and what others have written there alone.
func setOptionsOfKey(t *testing.T, s Store) {
	ctx := context.Background()
	first := addWith(t, s, "ann@example.org", "A1", keys.KeyOptions{AEAD: keys.GCM, MLKEM: true})
	second := addWith(t, s, "ann@example.org", "A2", keys.KeyOptions{AEAD: keys.OCB})
	if err := s.SetKeyOptions(ctx, first, keys.KeyOptions{OAEP: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, answer(t, s, "ann@example.org"),
		with(enrolled("ann@example.org", "ann@example.org", "A1"), `{"key":{"oaep":true}}`),
		with(enrolled("ann@example.org", "ann@example.org", "A2"), `{"key":{"aead":"ocb"}}`))
	s.SQL(t, `UPDATE sealmilter.keys SET options = '{"aead":"ocb","oaep":false,"theirs":{"a":null}}' WHERE key = 'A2'`)
	if err := s.SetKeyOptions(ctx, second, keys.KeyOptions{AEAD: keys.GCM}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetKeyOptions(ctx, first, keys.KeyOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "A1"),
		with(enrolled("ann@example.org", "ann@example.org", "A2"), `{"key":{"aead":"gcm","theirs":{"a":null}}}`))
	if err := s.RemoveKey(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{second, 0, -1, 1 << 40} {
		if err := s.SetKeyOptions(ctx, id, keys.KeyOptions{}); !errors.Is(err, keys.ErrNoSuchKey) || errors.Is(err, keys.ErrStore) {
			t.Errorf("the options of key %d: %v, want ErrNoSuchKey", id, err)
		}
	}
}

// keyOptionConstraints: the database itself refuses a choice that no lookup
// could act upon, and says in words what is wrong.
func keyOptionConstraints(t *testing.T, s Store) {
	ctx := context.Background()
	id := addWith(t, s, "ann@example.org", "KEY", keys.KeyOptions{AEAD: keys.GCM})
	refused := func(what string, err error, words string) {
		t.Helper()
		if err == nil || errors.Is(err, keys.ErrStore) || !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), words) {
			t.Errorf("%s: %v, want %q in it", what, err, words)
		}
	}
	const words = "aead neither gcm nor ocb"
	_, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY 2", Options: keys.KeyOptions{AEAD: "eax"}})
	refused("adding", err, words)
	refused("setting", s.SetKeyOptions(ctx, id, keys.KeyOptions{AEAD: "eax"}), words)
	for _, test := range []struct{ options, words string }{
		{`{"aead":"eax"}`, words},
		{`{"aead":"GCM"}`, words},
		{`{"aead":null}`, words},
		{`{"aead":["gcm"]}`, words},
		{`{"oaep":"true"}`, "oaep neither true nor false"},
		{`{"oaep":null}`, "oaep neither true nor false"},
		{`{"ml_kem":1}`, "ml kem neither true nor false"},
		{`[]`, "options not an object"},
		{`"aead"`, "options not an object"},
		{`null`, "options not an object"},
		{`{`, ""},
		{``, ""},
	} {
		refused(test.options, s.TrySQL(`UPDATE sealmilter.keys SET options = '`+test.options+`'`), test.words)
	}
	expect(t, answer(t, s, "ann@example.org"), with(enrolled("ann@example.org", "ann@example.org", "KEY"), `{"key":{"aead":"gcm"}}`))
	for _, good := range []string{`{"AEAD":"GCM","Oaep":5}`, `{}`, `{"aead":"ocb","oaep":false,"ml_kem":true}`, `{"anything":1}`} {
		if err := s.TrySQL(`UPDATE sealmilter.keys SET options = '` + good + `'`); err != nil {
			t.Errorf("%s: %v", good, err)
		}
		if all := listed(t, s, ""); len(all) != 1 || options(keys.Row{Options: all[0].Chosen}) != options(keys.Row{Options: []byte(good)}) {
			t.Errorf("%s: listed as %+v", good, all)
		}
	}
}

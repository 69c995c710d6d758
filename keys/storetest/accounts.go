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

// accountOfDomain: a domain is enrolled as a mailbox is, and asked for by its
// own name.
func accountOfDomain(t *testing.T, s Store) {
	add(t, s, "@Example.ORG", "DOMAIN 1")
	add(t, s, "@example.org", "DOMAIN 2")
	add(t, s, "ann@example.org", "ANN")
	expect(t, answer(t, s, "@example.org"),
		enrolled("@example.org", "@example.org", "DOMAIN 1"), enrolled("@example.org", "@example.org", "DOMAIN 2"))
	expect(t, answer(t, s, "@EXAMPLE.org", "ann@example.org", "bob@example.org"),
		enrolled("@EXAMPLE.org", "@example.org", "DOMAIN 1"), enrolled("@EXAMPLE.org", "@example.org", "DOMAIN 2"),
		enrolled("ann@example.org", "ann@example.org", "ANN"), unknown("bob@example.org"))
	if all := listed(t, s, "@example.ORG"); len(all) != 2 || all[0].Address != "@example.org" {
		t.Errorf("listed as %+v", all)
	}
	expect(t, answer(t, s, "@example.net", "@sub.example.org", "example.org"),
		unknown("@example.net"), unknown("@sub.example.org"), unknown("example.org"))
}

// choicesOfDomain: what a domain chose counts for every account in it, but for
// what the account chose itself. Method and cipher go with the keys.
func choicesOfDomain(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "ANN")
	add(t, s, "bob@Example.org", "BOB")
	add(t, s, "eve@sub.example.org", "EVE")
	lead(t, s, "team@example.net -> ann@example.org", "team@example.net -> eve@sub.example.org", "team@example.net -> x@example.org")
	s.SQL(t, `INSERT INTO sealmilter.accounts (address, method, cipher, options) VALUES
		('@example.org', 'smime', 'aes128', '{"no_key":"defer","split":{"a":1},"gone":1}')`)
	s.SQL(t, `UPDATE sealmilter.accounts SET options = '{"split":{"b":2},"gone":null,"own":true}' WHERE address = 'ann@example.org'`)
	with := func(row keys.Row, enabled bool, options string) keys.Row {
		row.Enabled, row.Options = enabled, []byte(options)
		return row
	}
	const anns, domains = `{"gone":null,"no_key":"defer","own":true,"split":{"b":2}}`, `{"no_key":"defer","split":{"a":1},"gone":1}`
	ann := with(enrolled("ann@example.org", "ann@example.org", "ANN"), true, anns)
	expect(t, answer(t, s, "ann@example.org"), ann)
	expect(t, answer(t, s, "bob@example.org"), with(enrolled("bob@example.org", "bob@example.org", "BOB"), true, domains))
	expect(t, answer(t, s, "eve@sub.example.org"), enrolled("eve@sub.example.org", "eve@sub.example.org", "EVE"))
	whole := keys.Row{Address: "@example.org", Account: "@example.org", Known: true, Enabled: true,
		Method: keys.SMIME, Cipher: keys.AES128, Options: []byte(domains)}
	expect(t, answer(t, s, "@example.org"), whole)
	ann.Address = "team@example.net"
	expect(t, answer(t, s, "team@example.net"), outside("team@example.net", "x@example.org"), ann,
		enrolled("team@example.net", "eve@sub.example.org", "EVE"))

	s.SQL(t, `UPDATE sealmilter.accounts SET enabled = false WHERE address = '@example.org'`)
	expect(t, answer(t, s, "bob@example.org"), with(enrolled("bob@example.org", "bob@example.org", "BOB"), false, domains))
	ann.Enabled = false
	expect(t, answer(t, s, "team@example.net"), outside("team@example.net", "x@example.org"), ann,
		enrolled("team@example.net", "eve@sub.example.org", "EVE"))
	expect(t, answer(t, s, "x@example.org"), unknown("x@example.org")) // it is the domain's row that says so
	s.SQL(t, `UPDATE sealmilter.accounts SET enabled = true WHERE address = '@example.org'`)
	s.SQL(t, `UPDATE sealmilter.accounts SET enabled = false WHERE address = 'bob@example.org'`)
	expect(t, answer(t, s, "bob@example.org"), with(enrolled("bob@example.org", "bob@example.org", "BOB"), false, domains))
}

func setAccounts(t *testing.T, s Store) {
	ctx := context.Background()
	for _, address := range []string{"ann@example.org", "", "@example.org"} {
		if _, err := s.Account(ctx, address); !errors.Is(err, keys.ErrNoSuchAccount) || errors.Is(err, keys.ErrStore) {
			t.Errorf("reading %q, which is not there: %v", address, err)
		}
	}
	set := func(c keys.Choices) {
		t.Helper()
		if err := s.SetAccount(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	is := func(asked string, want keys.Choices) {
		t.Helper()
		got, err := s.Account(ctx, asked)
		if age := time.Since(got.Created); err != nil || age < -time.Minute || age > time.Minute {
			t.Errorf("%s: made at %v, %v", asked, got.Created, err)
		}
		if options(keys.Row{Options: got.Options}) != options(keys.Row{Options: want.Options}) {
			t.Errorf("%s: the options are %s, want %s", asked, got.Options, want.Options)
		}
		got.Created, got.Options, want.Options = time.Time{}, nil, nil
		if got.Address != want.Address || got.Enabled != want.Enabled || got.Method != want.Method || got.Cipher != want.Cipher {
			t.Errorf("%s: got %+v, want %+v", asked, got, want)
		}
	}
	set(keys.Choices{Address: "Ann@Example.ORG", Enabled: true})
	is("ann@example.org", keys.Choices{Address: "Ann@example.org", Enabled: true, Cipher: keys.AES256})
	add(t, s, "ann@example.org", "ANN")
	full := keys.Choices{Address: "ann@example.org", Method: keys.SMIME, Cipher: keys.AES128, Options: []byte(`{"split":"defer"}`)}
	set(full)
	full.Address = "Ann@example.org" // whose spelling stays, and whose keys
	is("ANN@EXAMPLE.ORG", full)
	expect(t, answer(t, s, "ann@example.org"), keys.Row{Address: "ann@example.org", Account: "Ann@example.org", Known: true,
		Method: keys.SMIME, Cipher: keys.AES128, Key: "ANN", Options: full.Options})
	set(keys.Choices{Address: "ann@example.org", Enabled: true})
	is("ann@example.org", keys.Choices{Address: "Ann@example.org", Enabled: true, Cipher: keys.AES256})
	set(keys.Choices{Address: "@example.net", Options: []byte(`{"a":1}`)})
	is("@Example.NET", keys.Choices{Address: "@example.net", Cipher: keys.AES256, Options: []byte(`{"a":1}`)})
}

// accountsWithOptions: those are listed, in their order, and no others.
func accountsWithOptions(t *testing.T, s Store) {
	ctx := context.Background()
	var want []string
	for i := range 250 { // more than a page
		choices := keys.Choices{Address: fmt.Sprintf("u%03d@example.org", i), Enabled: true}
		if i%2 == 0 {
			choices.Options = []byte(`{"no_key": "defer"}`)
			want = append(want, choices.Address)
		}
		if err := s.SetAccount(ctx, choices); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for choices, err := range s.WithOptions(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if !choices.Enabled || choices.Cipher != keys.AES256 || choices.Created.IsZero() || options(keys.Row{Options: choices.Options}) != `{"no_key":"defer"}` {
			t.Errorf("got %+v", choices)
		}
		got = append(got, choices.Address)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d accounts are listed, want %d", len(got), len(want))
	}
}

func accountConstraints(t *testing.T, s Store) {
	for _, test := range []struct {
		choices keys.Choices
		words   string
	}{
		{keys.Choices{Address: "ann"}, "without domain"},
		{keys.Choices{Address: "@"}, "without domain"},
		{keys.Choices{Address: "ann@example.org", Method: "pgp"}, "method unknown"},
		{keys.Choices{Address: "ann@example.org", Cipher: "des"}, "cipher unknown"},
		{keys.Choices{Address: "ann@example.org", Options: []byte(`[]`)}, "options not an object"},
		{keys.Choices{Address: "ann@example.org", Options: []byte(`{`)}, ""},
	} {
		err := s.SetAccount(context.Background(), test.choices)
		if err == nil || errors.Is(err, keys.ErrStore) || !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), test.words) {
			t.Errorf("%+v: %v, want %q in it", test.choices, err, test.words)
		}
	}
	expect(t, answer(t, s, "ann@example.org"), unknown("ann@example.org"))
}

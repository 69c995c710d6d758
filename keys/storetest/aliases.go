package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sealmilter/keys"
)

// lead fills a store with aliases, each "address -> target".
func lead(t testing.TB, s keys.Aliases, ways ...string) {
	t.Helper()
	for _, way := range ways {
		address, target, _ := strings.Cut(way, " -> ")
		if err := s.AddAlias(context.Background(), address, target); err != nil {
			t.Fatalf("adding an alias: %v", err)
		}
	}
}

// aliasEnds: an alias is answered with the rows of all that it leads to, and
// with nobody on the way there.
func aliasEnds(t *testing.T, s Store) {
	for _, name := range []string{"ann", "bob", "dave", "erin"} {
		add(t, s, name+"@example.org", strings.ToUpper(name))
	}
	s.SQL(t, `INSERT INTO sealmilter.accounts (address) VALUES ('carol@example.org')`)
	lead(t, s,
		"info@example.org -> ann@example.org", "Help@Example.ORG -> ANN@EXAMPLE.org",
		"team@example.org -> ann@example.org", "team@example.org -> bob@example.org",
		"desk@example.org -> team@example.org", "desk@example.org -> carol@example.org", "desk@example.org -> info@example.org",
		"out@example.org -> Ann@elsewhere.example",
		"both@example.org -> out@example.org", "both@example.org -> ann@Elsewhere.example", "both@example.org -> bob@example.org",
		"dave@example.org -> dave@example.org", "dave@example.org -> dave@elsewhere.example",
		"erin@example.org -> ann@example.org", "old-erin@example.net -> erin@example.org",
		"list@example.org -> ann+list@example.org",
		"jörg@example.org -> ann@example.org")
	const ann, bob = "ann@example.org", "bob@example.org"
	for _, test := range []struct {
		asked string
		want  []keys.Row
	}{
		{"info@example.org", []keys.Row{enrolled("", ann, "ANN")}},
		{"INFO@Example.org", []keys.Row{enrolled("", ann, "ANN")}},
		{"help@example.org", []keys.Row{enrolled("", ann, "ANN")}},
		{"jörg@example.org", []keys.Row{enrolled("", ann, "ANN")}},
		{"JÖRG@example.org", []keys.Row{unknown("")}},
		{"team@example.org", []keys.Row{enrolled("", ann, "ANN"), enrolled("", bob, "BOB")}},
		{"desk@example.org", []keys.Row{enrolled("", "carol@example.org", ""), enrolled("", ann, "ANN"), enrolled("", bob, "BOB")}},
		{"out@example.org", []keys.Row{outside("", "Ann@elsewhere.example")}},
		{"both@example.org", []keys.Row{outside("", "Ann@elsewhere.example"), enrolled("", bob, "BOB")}}, // once, in one of its spellings
		{"dave@example.org", []keys.Row{outside("", "dave@elsewhere.example"), enrolled("", "dave@example.org", "DAVE")}},
		{"erin@example.org", []keys.Row{enrolled("", ann, "ANN")}},     // the alias decides
		{"old-erin@example.net", []keys.Row{enrolled("", ann, "ANN")}}, // and on the way as well
		{"list@example.org", []keys.Row{outside("", "ann+list@example.org")}},
		{"ann+x@example.org", []keys.Row{unknown("")}},
		{"info+x@example.org", []keys.Row{unknown("")}},
		{"info", []keys.Row{unknown("")}},
		{"", []keys.Row{unknown("")}},
	} {
		for i := range test.want {
			test.want[i].Address = test.asked
		}
		expect(t, answer(t, s, test.asked), test.want...)
	}
	// Several names, aliases and accounts and neither, are one question.
	expect(t, answer(t, s, "team@example.org", "out@example.org", "x@example.org", ann, "team@example.org"),
		enrolled(ann, ann, "ANN"), outside("out@example.org", "Ann@elsewhere.example"),
		enrolled("team@example.org", ann, "ANN"), enrolled("team@example.org", bob, "BOB"), unknown("x@example.org"))
}

// circles: aliases that lead back are followed once. An account among them
// gets the mail if its own alias is in the circle.
func circles(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "ANN")
	add(t, s, "sue@example.org", "SUE")
	add(t, s, "tom@example.org", "TOM")
	add(t, s, "uwe@example.org", "UWE")
	lead(t, s,
		"self@example.org -> Self@example.org",
		"c1@example.org -> c2@example.org", "c2@example.org -> C3@example.org", "c3@example.org -> c1@example.org",
		"tail@example.org -> c1@example.org",
		"way@example.org -> c1@example.org", "way@example.org -> ann@example.org",
		"sue@example.org -> s2@example.org", "s2@example.org -> sue@example.org", "s2@example.org -> c1@example.org",
		"tom@example.org -> uwe@example.org", "uwe@example.org -> TOM@example.org",
		"through@example.org -> u1@example.org", "u1@example.org -> c1@example.org")
	circle := func(asked string) keys.Row {
		return keys.Row{Address: asked, Account: asked, Options: []byte(`{"circle":true}`)}
	}
	for _, asked := range []string{"c1@example.org", "C2@Example.org", "c3@example.org", "tail@example.org", "through@example.org"} {
		expect(t, answer(t, s, asked), circle(asked))
	}
	expect(t, answer(t, s, "self@example.org"), outside("self@example.org", "Self@example.org"))
	expect(t, answer(t, s, "way@example.org"), enrolled("way@example.org", "ann@example.org", "ANN"))
	for _, asked := range []string{"s2@example.org", "sue@example.org"} {
		expect(t, answer(t, s, asked), enrolled(asked, "sue@example.org", "SUE"))
	}
	for _, asked := range []string{"tom@example.org", "uwe@example.org"} {
		expect(t, answer(t, s, asked), enrolled(asked, "tom@example.org", "TOM"), enrolled(asked, "uwe@example.org", "UWE"))
	}
	expect(t, answer(t, s, "c1@example.org", "way@example.org"),
		circle("c1@example.org"), enrolled("way@example.org", "ann@example.org", "ANN"))
	// An account that is on the way into a circle, not in it, is no end.
	lead(t, s, "ann@example.org -> c1@example.org")
	expect(t, answer(t, s, "way@example.org"), circle("way@example.org"))
}

// wholeDomains: "@example.org" is a name like any other, and as a target it is
// where following ends.
func wholeDomains(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "ANN")
	add(t, s, "bob@new.example", "BOB")
	add(t, s, "@keys.example", "DOMAIN")
	lead(t, s,
		"@catch.example -> ann@example.org",
		"@old.example -> @new.example",
		"@older.example -> @OLD.example",
		"@to-keys.example -> @keys.example",
		"@two.example -> @new.example", "@two.example -> ann@example.org",
		"@self.example -> @self.example",
		"@new.example -> info@example.org", "info@example.org -> ann@example.org")
	expect(t, answer(t, s, "@catch.example"), enrolled("@catch.example", "ann@example.org", "ANN"))
	expect(t, answer(t, s, "x@catch.example"), unknown("x@catch.example"))
	expect(t, answer(t, s, "@old.example"), outside("@old.example", "@new.example"))
	expect(t, answer(t, s, "@OLDER.example"), outside("@OLDER.example", "@old.example"))
	expect(t, answer(t, s, "@to-keys.example"), enrolled("@to-keys.example", "@keys.example", "DOMAIN"))
	expect(t, answer(t, s, "@two.example"), outside("@two.example", "@new.example"), enrolled("@two.example", "ann@example.org", "ANN"))
	expect(t, answer(t, s, "@self.example"), outside("@self.example", "@self.example"))
	expect(t, answer(t, s, "@new.example"), enrolled("@new.example", "ann@example.org", "ANN"))
	expect(t, answer(t, s, "bob@old.example", "bob@new.example"),
		enrolled("bob@new.example", "bob@new.example", "BOB"), unknown("bob@old.example"))
}

// aliasesWithoutBounds: a group as large as an MTA allows is answered whole. One
// without any bound is no answer, and no burden for other lookups.
func aliasesWithoutBounds(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "ANN")
	fill := func(alias string, from, to int) {
		var values []string
		for i := from; i < to; i++ {
			values = append(values, fmt.Sprintf("('%s', 'user%d@example.org')", alias, i))
		}
		s.SQL(t, `INSERT INTO sealmilter.aliases (address, target) VALUES `+strings.Join(values, ", "))
	}
	fill("all@example.org", 0, 1000)
	if rows := answer(t, s, "all@example.org"); len(rows) != 1000 || rows[0].Account != "user0@example.org" {
		t.Errorf("a group of 1000 has %d rows", len(rows))
	}
	fill("all@example.org", 1000, 1001)
	fill("more@example.org", 0, 5000)
	var chain, ring []string
	for i := range 1100 {
		chain = append(chain, fmt.Sprintf("('chain%d@example.org', 'chain%d@example.org')", i, i+1))
	}
	var round []string
	for i := range 300 {
		round = append(round, fmt.Sprintf("('round%d@example.org')", i))
		chain = append(chain, fmt.Sprintf("('round%d@example.org', 'round%d@example.org')", i, (i+1)%300))
	}
	for i := range 30 { // everybody leads to everybody
		for j := range 30 {
			ring = append(ring, fmt.Sprintf("('ring%d@example.org', 'ring%d@example.org')", i, j))
		}
	}
	s.SQL(t, `INSERT INTO sealmilter.accounts (address) VALUES `+strings.Join(round, ", "))
	s.SQL(t, `INSERT INTO sealmilter.aliases (address, target) VALUES `+strings.Join(slices.Concat(chain, ring), ", "))
	for _, alias := range []string{"all@example.org", "more@example.org", "chain0@example.org", "round0@example.org"} {
		rows, err := s.RecipientKeys(context.Background(), []string{alias, "ann@example.org"})
		if !errors.Is(err, keys.ErrStore) || !strings.Contains(err.Error(), "an alias leads to more than 1000 addresses") ||
			strings.Contains(err.Error(), "@") {
			t.Errorf("%s: %d rows, %v, want an error that wraps ErrStore", alias, len(rows), err)
		}
	}
	expect(t, answer(t, s, "chain500@example.org"), outside("chain500@example.org", "chain1100@example.org"))
	if rows := answer(t, s, "ring0@example.org"); len(rows) != 30 {
		t.Errorf("30 aliases that keep a copy and lead to all others: %d rows", len(rows))
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "ANN"))
}

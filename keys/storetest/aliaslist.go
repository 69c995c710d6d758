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

// aliasesOf is everything that Aliases yields, each as "address -> target".
func aliasesOf(t testing.TB, s keys.Aliases, address string) (all []string) {
	t.Helper()
	for alias, err := range s.Aliases(context.Background(), address) {
		if err != nil {
			t.Fatalf("listing aliases: %v", err)
		}
		all = append(all, alias.Address+" -> "+alias.Target)
	}
	return all
}

func addAndRemoveAliases(t *testing.T, s Store) {
	ctx := context.Background()
	add(t, s, "ann@example.org", "ANN")
	lead(t, s, "Team@Example.ORG -> Ann@EXAMPLE.org", "team@example.org -> bob@example.org",
		"TEAM@example.org -> ann@example.org", "team@example.org -> bob@example.org") // twice is once
	if got := aliasesOf(t, s, ""); !slices.Equal(got, []string{"Team@example.org -> Ann@example.org", "team@example.org -> bob@example.org"}) {
		t.Errorf("listed %q", got)
	}
	for _, test := range []struct {
		address, target string
		removed         int
	}{
		{"team@example.org", "carol@example.org", 0},
		{"nobody@example.org", "", 0},
		{"", "", 0},
		{"team@example.org", "BOB@example.org", 1},
		{"TEAM@example.org", "", 1},
		{"team@example.org", "", 0},
	} {
		if removed, err := s.RemoveAlias(ctx, test.address, test.target); err != nil || removed != test.removed {
			t.Errorf("removing %q -> %q: %d, %v", test.address, test.target, removed, err)
		}
	}
	expect(t, answer(t, s, "team@example.org", "ann@example.org"),
		enrolled("ann@example.org", "ann@example.org", "ANN"), unknown("team@example.org"))
	// By SQL all the same.
	s.SQL(t, `INSERT INTO sealmilter.aliases (address, target) VALUES ('Info@Example.Org', 'X@Example.Org')`)
	s.SQL(t, `UPDATE sealmilter.aliases SET target = 'Ann@EXAMPLE.ORG' WHERE address = 'Info@example.org'`)
	if got := aliasesOf(t, s, "INFO@example.org"); !slices.Equal(got, []string{"Info@example.org -> Ann@example.org"}) {
		t.Errorf("listed %q", got)
	}
	s.SQL(t, `UPDATE sealmilter.aliases SET address = 'Help@EXAMPLE.ORG' WHERE address = 'Info@example.org'`)
	if got := aliasesOf(t, s, ""); !slices.Equal(got, []string{"Help@example.org -> Ann@example.org"}) {
		t.Errorf("listed %q", got)
	}
	expect(t, answer(t, s, "help@example.org"), enrolled("help@example.org", "ann@example.org", "ANN"))
}

func listAliases(t *testing.T, s Store) {
	if got := aliasesOf(t, s, ""); got != nil {
		t.Errorf("an empty store lists %q", got)
	}
	const many = 250
	var want, values []string
	for i := range many {
		address, target := fmt.Sprintf("alias%d@example.org", i%7), fmt.Sprintf("user%d@example.org", i)
		want = append(want, address+" -> "+target)
		values = append(values, fmt.Sprintf("('%s', '%s')", address, target))
	}
	want = append(want, "Zoe@example.org -> ann@example.org")
	s.SQL(t, `INSERT INTO sealmilter.aliases (address, target) VALUES ('Zoe@example.org', 'ann@example.org'), `+strings.Join(values, ", "))
	slices.Sort(want)
	if got := aliasesOf(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("%d listed, want %d in the order of bytes", len(got), len(want))
	}
	if got := aliasesOf(t, s, "ALIAS3@example.org"); len(got) != 36 || got[0] != "alias3@example.org -> user101@example.org" {
		t.Errorf("of one alias: %q", got)
	}
	for range 100 { // more than a pool has connections
		for range s.Aliases(context.Background(), "") {
			break
		}
	}
	for alias, err := range s.Aliases(context.Background(), "") {
		if err == nil {
			_, err = s.RemoveAlias(context.Background(), alias.Address, alias.Target)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if left := aliasesOf(t, s, ""); left != nil {
		t.Errorf("%d are left that were removed while they were listed", len(left))
	}
}

// aliasConstraints: what is refused of an account's address is refused of both
// ends of an alias, in words that tell which.
func aliasConstraints(t *testing.T, s Store) {
	for _, test := range []struct{ address, words string }{
		{"", "without domain"},
		{"ann", "without domain"},
		{"ann@", "without domain"},
		{"@", "without domain"},
		{"@relay.example:ann@example.org", "without local part"},
		{" ann@example.org", "with blanks around"},
		{"ann@exa mple.org", "with blank in domain"},
		{"ann\t@example.org", "with control character"},
		{"<ann@example.org>", "in angle brackets"},
		{`"ann smith"@example.org`, "in quotes"},
		{"ann@example.org.", "with final dot"},
	} {
		for what, err := range map[string]error{
			"address": s.AddAlias(context.Background(), test.address, "bob@example.org"),
			"target":  s.AddAlias(context.Background(), "bob@example.org", test.address),
		} {
			if err == nil || errors.Is(err, keys.ErrStore) || !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), what+" "+test.words) {
				t.Errorf("%s %q: %v, want %q in it", what, test.address, err, what+" "+test.words)
			}
		}
	}
	// One mailbox has no local part to keep.
	err := s.AddAlias(context.Background(), "ann@example.org", "@example.net")
	if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), "target without local part") {
		t.Errorf("a mailbox leads to a whole domain: %v", err)
	}
	if got := aliasesOf(t, s, ""); got != nil {
		t.Errorf("stored %q", got)
	}
}

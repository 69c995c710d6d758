package keys

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// names is a store by name: what each leads to, "+" in front of an account that
// is enrolled, which has a key then, "-" where it has none. Any other name is
// an end that nobody is enrolled under.
type names map[string]string

func (n names) RecipientKeys(_ context.Context, asked []string) (rows []Row, err error) {
	for _, name := range asked {
		ends := n[strings.ToLower(name)]
		if ends == "" {
			rows = append(rows, Row{Address: name})
		}
		for _, end := range strings.Fields(ends) {
			row := Row{Address: name, Account: strings.TrimLeft(end, "+-"), Known: end[0] == '+' || end[0] == '-', Enabled: true}
			if end[0] == '+' {
				row.Key = "a key"
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (names) Close() {}

// TestResolve: whom an address means, where more than the store's own names has
// to do with it.
func TestResolve(t *testing.T) {
	plus := Naming{Delimiter: "+"}
	for _, test := range []struct {
		name    string
		store   names
		naming  Naming
		address string
		want    string // the accounts, "+" in front of those with a key; or "?"
	}{
		{"itself", names{"ann@a.test": "+ann@a.test"}, plus, "ann@a.test", "+ann@a.test"},
		{"without its extension", names{"ann@a.test": "+ann@a.test"}, plus, "ann+x+y@a.test", "+ann@a.test"},
		{"with its extension", names{"ann@a.test": "+ann@a.test", "ann+x@a.test": "+ann+x@a.test"}, plus, "ann+x@a.test", "+ann+x@a.test"},
		{"no delimiter", names{"ann@a.test": "+ann@a.test"}, Naming{}, "ann+x@a.test", ""},
		{"its domain's keys", names{"ann@a.test": "-ann@a.test", "@a.test": "+@a.test"}, plus, "ann@a.test", "+ann@a.test"},
		{"the domain", names{"@a.test": "+@a.test"}, plus, "ann@a.test", "+@a.test"},
		{"a catch-all", names{"@a.test": "all@a.test", "all@a.test": "+all@a.test"}, plus, "ann@a.test", "+all@a.test"},
		{"a catch-all's own target", names{"@a.test": "all@a.test"}, plus, "all@a.test", "all@a.test"},
		{"a catch-all to nobody", names{"@a.test": "all@a.test"}, plus, "ann@a.test", "all@a.test"},
		{"another domain", names{"@a.test": "@b.test", "ann@b.test": "+ann@b.test"}, plus, "ann+x@a.test", "+ann@b.test"},
		{"two domains that are each other", names{"@a.test": "@b.test", "@b.test": "@a.test"}, plus, "ann@a.test", "?"},
		{"an alias to an extension", names{"info@a.test": "ann+info@a.test", "ann@a.test": "+ann@a.test"}, plus, "info@a.test", "+ann@a.test"},
		{"an alias to an extension of itself", names{"ann@a.test": "ann+x@a.test"}, plus, "ann@a.test", "?"},
		{"the extension of such", names{"ann@a.test": "ann+x@a.test"}, plus, "ann+y@a.test", "?"},
		{"two aliases to extensions of each other", names{"a@a.test": "b+x@a.test", "b@a.test": "a+y@a.test"}, plus, "a@a.test", "?"},
		{"a group of which one is in a circle", names{"all@a.test": "+ann@a.test b+x@a.test", "b@a.test": "b+y@a.test"}, plus, "all@a.test", "?"},
		{"a group behind a catch-all to nobody", names{"team@a.test": "abc@a.test bob@old.test", "@a.test": "abc@a.test", "@old.test": "@new.test", "bob@new.test": "+bob@new.test"}, plus, "team@a.test", "abc@a.test +bob@new.test"},
		{"two extensions of one", names{"team@a.test": "ann+x@a.test ann+y@a.test", "ann@a.test": "+ann@a.test"}, plus, "team@a.test", "+ann@a.test"},
		{"one end by two ways", names{"team@a.test": "x+1@a.test y+1@a.test", "x@a.test": "z+1@a.test", "y@a.test": "z+1@a.test", "z@a.test": "+z@a.test"}, plus, "team@a.test", "+z@a.test"},
		{"a bare name", names{"postmaster@a.test": "+postmaster@a.test"}, Naming{Domain: "a.test"}, "Postmaster", "+postmaster@a.test"},
		{"a sharp s", names{"strasse@a.test": "+strasse@a.test"}, plus, "straße@a.test", "+strasse@a.test"},
		{"a long s", names{"boss@a.test": "+boss@a.test"}, plus, "boſs@a.test", "+boss@a.test"},
		{"a long s, where case counts", names{"boss@a.test": "+boss@a.test"}, Naming{CaseSensitive: true}, "boſs@a.test", ""},
		{"another case, where case counts", names{"ann@a.test": "+ann@a.test"}, Naming{CaseSensitive: true}, "Ann@a.test", ""},
		{"a U-label entered as an A-label", names{"ann@xn--bcher-kva.test": "+ann@xn--bcher-kva.test"}, plus, "ann@BÜCHER.test", "+ann@xn--bcher-kva.test"},
		{"an A-label entered as a U-label", names{"ann@bücher.test": "+ann@bücher.test"}, plus, "ann@XN--BCHER-KVA.test", "+ann@bücher.test"},
		{"a spelling without a key beside one with", names{"ann@bücher.test": "-ann@bücher.test", "ann@xn--bcher-kva.test": "+ann@xn--bcher-kva.test"}, plus, "ann@bücher.test", "+ann@xn--bcher-kva.test"},
		{"a spelling with the domain's key beside one with its own", names{"ann@bücher.test": "-ann@bücher.test", "@bücher.test": "+@bücher.test", "ann@xn--bcher-kva.test": "+ann@xn--bcher-kva.test"}, plus, "ann@bücher.test", "+ann@xn--bcher-kva.test"},
		{"two spellings with keys", names{"ann@bücher.test": "+ann@bücher.test", "ann@xn--bcher-kva.test": "+ann@xn--bcher-kva.test"}, plus, "ann@xn--bcher-kva.test", "+ann@bücher.test"},
		{"a folded spelling without a key", names{"straße@a.test": "-straße@a.test", "strasse@a.test": "+strasse@a.test"}, plus, "straße@a.test", "+strasse@a.test"},
		{"an alias beside a spelling with a key", names{"ann@bücher.test": "bob@b.test", "ann@xn--bcher-kva.test": "+ann@xn--bcher-kva.test"}, plus, "ann@bücher.test", "bob@b.test"},
		{"a spelling without a key beside an alias", names{"ann@bücher.test": "-ann@bücher.test", "ann@xn--bcher-kva.test": "bob@b.test", "bob@b.test": "+bob@b.test"}, plus, "ann@bücher.test", "ann@bücher.test"},
		{"a spelling with a key beside a circle", names{"ann@bücher.test": "+ann@bücher.test", "ann@xn--bcher-kva.test": "b@a.test", "b@a.test": "ann@xn--bcher-kva.test"}, plus, "ann@bücher.test", "+ann@bücher.test"},
		{"two spellings without keys", names{"ann@bücher.test": "-ann@bücher.test", "ann@xn--bcher-kva.test": "-ann@xn--bcher-kva.test"}, plus, "ann@bücher.test", "ann@bücher.test"},
		{"what only looks like a comment", names{"@old.test": "@new.test", "ann@new.test": "+ann@new.test", "ann(x)@new.test": "+ann(x)@new.test"}, plus, `"ann(x)"@old.test`, "+ann(x)@new.test"},
	} {
		found, err := Lookup(context.Background(), test.store, test.naming, []string{test.address})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []string
		for _, a := range found[test.address].Accounts {
			word := a.Address
			if a.Enrolled() {
				word = "+" + word
			}
			got = append(got, word)
		}
		slices.SortFunc(got, func(a, b string) int { return strings.Compare(strings.TrimLeft(a, "+"), strings.TrimLeft(b, "+")) })
		if found[test.address].Unresolved != nil {
			got = []string{"?"}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", test.name, strings.Join(got, " "), test.want)
		}
	}
}

// TestResolveNames: the names by which rules know a recipient.
func TestResolveNames(t *testing.T) {
	store := names{"carol@a.test": "+carol@a.test", "carol+x@a.test": "+carol+x@a.test"}
	for address, want := range map[string]string{
		"dave+y@a.test": "dave+y@a.test dave@a.test", "carol+y@a.test": "carol+y@a.test carol@a.test",
		"carol+x@a.test": "carol+x@a.test", "postmaster": "postmaster@a.test",
	} {
		found, err := Lookup(context.Background(), store, Naming{Delimiter: "+", Domain: "a.test"}, []string{address})
		if err != nil || strings.Join(found[address].Names, " ") != want {
			t.Errorf("%s: %q, error %v, want %q", address, found[address].Names, err, want)
		}
	}
}

// endless is a store in which every alias leads to a further one.
type endless struct{ names }

func (endless) RecipientKeys(_ context.Context, asked []string) (rows []Row, err error) {
	for _, name := range asked {
		rows = append(rows, Row{Address: name})
		if !strings.HasPrefix(name, "@") {
			rows[len(rows)-1].Account = "x" + name
		}
	}
	return rows, nil
}

func TestResolveEnds(t *testing.T) {
	_, err := Lookup(context.Background(), endless{}, Naming{}, []string{"x@a.test"})
	if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "on and on") {
		t.Errorf("error %v", err)
	}
}

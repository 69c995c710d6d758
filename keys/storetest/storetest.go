// Package storetest holds what every key store must do, as one suite that
// each store's tests run. It asks a store only what the daemon and the
// administrator ask of it: lookups, the commands for keys, accounts and
// aliases, and plain SQL.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sealmilter/keys"
)

// Store is a store under test.
type Store interface {
	keys.Store
	keys.Registry
	keys.Lifecycle
	keys.Findings
	keys.Journal
	keys.Accounts
	keys.Aliases
	// SQL runs statements as an administrator would, past the store's own
	// code. They name the tables as sealmilter.accounts and sealmilter.keys;
	// a store that has no schemas leaves the first word out.
	SQL(t testing.TB, statements string)
	// TrySQL runs one statement, which may be refused.
	TrySQL(statement string) error
}

// Run runs the suite. Open returns an empty store, closed by the test.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s Store)
	}{
		{"nobody enrolled", nobodyEnrolled},
		{"no address", noAddress},
		{"keys come back", keysComeBack},
		{"several addresses", severalAddresses},
		{"asked twice", askedTwice},
		{"case", matchesAnyCase},
		{"many addresses", manyAddresses},
		{"keys byte for byte", keysByteForByte},
		{"strange addresses", strangeAddresses},
		{"no text", noText},
		{"answer too long", answerTooLong},
		{"choices", choices},
		{"plain SQL", plainSQL},
		{"constraints", constraints},
		{"the same key twice", sameKeyTwice},
		{"rename and delete", renameAndDelete},
		{"list", list},
		{"list many", listMany},
		{"remove", remove},
		{"options of keys", optionsOfKeys},
		{"options of a key beside others", optionsBesideOthers},
		{"set options of a key", setOptionsOfKey},
		{"key option constraints", keyOptionConstraints},
		{"states of keys", statesOfKeys},
		{"states by SQL", statesBySQL},
		{"rotate", rotate},
		{"challenge", challenge},
		{"note keys", noteKeys},
		{"warnings", warnings},
		{"events", events},
		{"events of SQL", eventsOfSQL},
		{"events only grow", eventsOnlyGrow},
		{"alias ends", aliasEnds},
		{"circles", circles},
		{"whole domains", wholeDomains},
		{"aliases without bounds", aliasesWithoutBounds},
		{"add and remove aliases", addAndRemoveAliases},
		{"list aliases", listAliases},
		{"alias constraints", aliasConstraints},
		{"account of a domain", accountOfDomain},
		{"choices of a domain", choicesOfDomain},
		{"set accounts", setAccounts},
		{"accounts with options", accountsWithOptions},
		{"account constraints", accountConstraints},
		{"cancelled", cancelled},
		{"lookups during writes", lookupsDuringWrites},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(s.Close)
			test.run(t, s)
		})
	}
}

// answer is a lookup's rows in an order that can be compared.
func answer(t testing.TB, s keys.Store, addresses ...string) []keys.Row {
	t.Helper()
	rows, err := s.RecipientKeys(context.Background(), addresses)
	if err != nil {
		t.Fatalf("looking up %q: %v", addresses, err)
	}
	slices.SortFunc(rows, func(a, b keys.Row) int {
		return strings.Compare(a.Address+"\x00"+a.Key+"\x00"+a.Account, b.Address+"\x00"+b.Key+"\x00"+b.Account)
	})
	return rows
}

// enrolled is the row of an account that made no choices.
func enrolled(asked, account, key string) keys.Row {
	return keys.Row{Address: asked, Account: account, Known: true, Enabled: true, Cipher: keys.AES256, Key: key}
}

// unknown is the row of an address that nobody is enrolled under.
func unknown(asked string) keys.Row { return keys.Row{Address: asked} }

// outside is the row of an alias' end that nobody is enrolled under.
func outside(asked, end string) keys.Row { return keys.Row{Address: asked, Account: end} }

// expect compares rows and says where they differ, without printing a key of
// 256 KiB. Options that are an empty object are no options.
func expect(t testing.TB, got []keys.Row, want ...keys.Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d: %s", len(got), len(want), shorten(fmt.Sprintf("%+v", got)))
	}
	for i := range got {
		if a, b := show(got[i]), show(want[i]); a != b {
			t.Errorf("row %d:\n got %s\nwant %s", i, shorten(a), shorten(b))
		}
	}
}

func show(row keys.Row) string {
	return fmt.Sprintf("%q account %q known %v enabled %v method %q cipher %q options %q key %q",
		row.Address, row.Account, row.Known, row.Enabled, row.Method, row.Cipher, options(row), row.Key)
}

// options are a row's options in one spelling: a database may store JSON with
// its names in another order.
func options(row keys.Row) string {
	if len(row.Options) == 0 {
		return "{}"
	}
	var value any
	if err := json.Unmarshal(row.Options, &value); err != nil {
		return fmt.Sprintf("no JSON: %q", row.Options)
	}
	same, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(same)
}

func shorten(s string) string {
	const most = 400
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func add(t testing.TB, s keys.Registry, address, key string) int64 {
	t.Helper()
	return addWith(t, s, address, key, keys.KeyOptions{})
}

func addWith(t testing.TB, s keys.Registry, address, key string, options keys.KeyOptions) int64 {
	t.Helper()
	id, err := s.AddKey(context.Background(), keys.NewKey{Address: address, Key: key, Options: options})
	if err != nil {
		t.Fatalf("adding a key: %v", err)
	}
	return id
}

// listed is everything that Keys yields.
func listed(t testing.TB, s keys.Registry, address string) []keys.Enrolled {
	t.Helper()
	var all []keys.Enrolled
	for key, err := range s.Keys(context.Background(), address) {
		if err != nil {
			t.Fatalf("listing keys: %v", err)
		}
		all = append(all, key)
	}
	return all
}

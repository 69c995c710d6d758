package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// answering is a store that gives an answer, and notes what it was asked.
type answering struct {
	rows  []Row
	err   error
	asked []string
}

func (s *answering) RecipientKeys(_ context.Context, addresses []string) ([]Row, error) {
	s.asked = append(s.asked, addresses...)
	rows := s.rows
	for _, address := range addresses {
		if strings.HasPrefix(address, "@") { // no domain has an entry
			rows = append(rows, Row{Address: address})
		}
	}
	return rows, s.err
}

func (s *answering) Close() {}

// TestLookup: what rows become.
func TestLookup(t *testing.T) {
	key, newer := armorBlock(binary(t, newEntity(t, at(birth)))), armorBlock(binary(t, newEntity(t, at(birth))))
	expiring := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: at(birth).Time, KeyLifetimeSecs: 86400})
	expired := armorBlock(binary(t, expiring))
	prolonged := func() string {
		recertify(t, expiring, birth.Add(day), expires(200*day))
		rebind(t, &expiring.Subkeys[0], birth.Add(day), expires(200*day))
		return armorBlock(binary(t, expiring))
	}()
	withdrawn := newEntity(t, at(birth))
	before := armorBlock(binary(t, withdrawn))
	if err := withdrawn.Revoke(packet.KeyCompromised, "", at(birth)); err != nil {
		t.Fatal(err)
	}
	revoked := armorBlock(binary(t, withdrawn))
	row := func(account string, keys ...string) (rows []Row) {
		for _, k := range keys {
			rows = append(rows, Row{Address: "ann@example.org", Account: account, Known: true, Enabled: true, Key: k})
		}
		return rows
	}
	for _, test := range []struct {
		name string
		rows []Row
		want string // of each account: its address, keys, unread, state, keys to seal to
	}{
		{"nobody", row("", ""), ""},
		{"an account without a key", row("ann@example.org", ""), "ann@example.org 0 0 unusable 0"},
		{"a key", row("ann@example.org", key), "ann@example.org 1 0 usable 1"},
		{"a key without an account", row("", key), "ann@example.org 1 0 usable 1"},
		{"two rows", row("ann@example.org", key, newer), "ann@example.org 2 0 usable 2"},
		{"two keys in a row", row("ann@example.org", key+newer), "ann@example.org 2 0 usable 2"},
		{"a row without a key beside one", row("ann@example.org", "", key), "ann@example.org 1 0 usable 1"},
		{"two accounts", append(row("ann@example.org", key), row("bob@example.org", newer, expired)...), "ann@example.org 1 0 usable 1, bob@example.org 2 0 usable 1"},
		{"one of two accounts without a key", append(row("ann@example.org", key), row("bob@example.org", "")...), "ann@example.org 1 0 usable 1, bob@example.org 0 0 unusable 0"},
		{"unreadable", row("ann@example.org", "x"), "ann@example.org 0 1 unusable 0"},
		{"unreadable beside a good one", row("ann@example.org", "x", key), "ann@example.org 1 1 usable 1"},
		{"blank", row("ann@example.org", " "), "ann@example.org 0 1 unusable 0"},
		{"expired", row("ann@example.org", expired), "ann@example.org 1 0 expired 1"},
		{"expired beside a good one", row("ann@example.org", expired, key), "ann@example.org 2 0 usable 1"},
		{"expired, and prolonged", row("ann@example.org", expired, prolonged), "ann@example.org 2 0 usable 1"},
		{"revoked", row("ann@example.org", revoked), "ann@example.org 1 0 revoked 0"},
		{"revoked beside a good one", row("ann@example.org", revoked, key), "ann@example.org 2 0 usable 1"},
		{"revoked, and enrolled before that", row("ann@example.org", before, revoked), "ann@example.org 2 0 revoked 0"},
		{"revoked, and enrolled after that", row("ann@example.org", revoked, before), "ann@example.org 2 0 revoked 0"},
		{"revoked beside an expired one", row("ann@example.org", revoked, expired), "ann@example.org 2 0 expired 1"},
		{"a row that nobody asked for", append(row("ann@example.org", key), Row{Address: "eve@example.org", Account: "eve@example.org", Key: newer}), "ann@example.org 1 0 usable 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := Lookup(context.Background(), &answering{rows: test.rows}, Naming{}, []string{"ann@example.org"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range found["ann@example.org"].Accounts {
				got = append(got, fmt.Sprintf("%s %d %d %s %d", a.Address, len(a.Keys), len(a.Unread), a.State(noon), sealedTo(a)))
				if a.Enrolled() != (len(a.Keys)+len(a.Unread) > 0) || a.Cipher != AES256 || !a.Enabled {
					t.Errorf("enrolled %v, cipher %s, enabled %v", a.Enrolled(), a.Cipher, a.Enabled)
				}
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), test.want)
			}
		})
	}
}

// TestLookupFails: an answer that is none is an error, and names no address.
func TestLookupFails(t *testing.T) {
	row := Row{Address: "ann@example.org", Account: "ann@example.org", Known: true, Enabled: true}
	with := func(change func(*Row)) []Row {
		changed := row
		change(&changed)
		return []Row{row, changed}
	}
	for _, test := range []struct {
		name  string
		store *answering
		want  string
	}{
		{"the store's error", &answering{rows: []Row{row}, err: fmt.Errorf("%w: connection refused", ErrStore)}, "connection refused"},
		{"no row", &answering{}, "no row for one of the addresses"},
		{"another's row", &answering{rows: []Row{{Address: "bob@example.org"}}}, "no row for one of the addresses"},
		{"a row for another spelling", &answering{rows: []Row{{Address: "Ann@example.org"}}}, "no row for one of the addresses"},
		{"unknown cipher", &answering{rows: with(func(r *Row) { r.Cipher = "des" })}, `cipher "des" is neither aes256 nor aes128`},
		{"unknown method", &answering{rows: with(func(r *Row) { r.Method = "rot13" })}, `method "rot13" is neither openpgp nor smime`},
		{"two ciphers", &answering{rows: with(func(r *Row) { r.Cipher = AES128 })}, "differ in enabled, method, cipher or options"},
		{"two methods", &answering{rows: with(func(r *Row) { r.Method = SMIME })}, "differ in enabled, method, cipher or options"},
		{"on and off", &answering{rows: with(func(r *Row) { r.Enabled = false })}, "differ in enabled, method, cipher or options"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := Lookup(context.Background(), test.store, Naming{}, []string{"ann@example.org"})
			if err == nil || found != nil {
				t.Fatalf("%v, no error", found)
			}
			if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "@") {
				t.Errorf("error %q, want one that wraps ErrStore, says %q and names no address", err, test.want)
			}
		})
	}
}

// TestLookupAsks: spellings of one address are one question, and an address
// that cannot be read is none.
func TestLookupAsks(t *testing.T) {
	key := armorBlock(binary(t, newEntity(t, at(birth))))
	store := &answering{rows: []Row{
		{Address: "ann@example.org", Account: "ann@example.org", Known: true, Enabled: true, Key: key},
		{Address: "bob@example.org"},
	}}
	spellings := []string{"ann@example.org", `"ann"@Example.org`, "ann@example.org", "bob@example.org", "ann (x) @example.org"}
	found, err := Lookup(context.Background(), store, Naming{}, spellings)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"@example.org", "ann@example.org", "bob@example.org"}; !slices.Equal(store.asked, want) {
		t.Errorf("asked for %q, want %q", store.asked, want)
	}
	for _, spelling := range spellings {
		r := found[spelling]
		if r == nil || r.Address != spelling || (len(r.Accounts) == 1) == strings.HasPrefix(spelling, "bob") {
			t.Errorf("%q: %+v", spelling, r)
		}
	}
	store.asked = nil
	if _, err := Lookup(context.Background(), store, Naming{}, []string{"ann@example.org", "Ann <ann@example.org"}); err == nil || strings.Contains(err.Error(), "@") || store.asked != nil {
		t.Errorf("error %v, asked for %q; want an error that names no address, and nothing asked", err, store.asked)
	}
	if found, err := Lookup(context.Background(), &answering{}, Naming{}, nil); err != nil || len(found) != 0 {
		t.Errorf("nobody asked for: %v, %v", found, err)
	}
	unread := found["ann@example.org"].Accounts[0]
	if err := unread.read("ann@example.org", nil); err != nil {
		t.Error(err)
	}
	if len(unread.Unread) != 1 || strings.Contains(unread.Unread[0].Error(), "@") {
		t.Errorf("an unreadable key: %v", unread.Unread)
	}
}

// sealedTo is the number of keys that a message for the account is sealed to.
func sealedTo(a *Account) int {
	_, to, _ := SealTo([]*Account{a}, noon)
	return len(to)
}

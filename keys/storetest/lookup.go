package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealmilter/keys"
)

func nobodyEnrolled(t *testing.T, s Store) {
	expect(t, answer(t, s, "ann@example.org"), unknown("ann@example.org"))
	add(t, s, "ann@example.org", "KEY")
	expect(t, answer(t, s, "bob@example.org"), unknown("bob@example.org"))
	// Nothing that looks like ann's address is ann's.
	for _, near := range []string{"ann", "ann@", "@example.org", "example.org", "", "ann@example.or_", "ann@example.org.",
		" ann@example.org", "ann@example.org ", "%@example.org", "ann@example.org%"} {
		expect(t, answer(t, s, near), unknown(near))
	}
}

func noAddress(t *testing.T, s Store) {
	for _, none := range [][]string{nil, {}} {
		if rows, err := s.RecipientKeys(context.Background(), none); err != nil || len(rows) != 0 {
			t.Errorf("asked for nothing: %v, %v", rows, err)
		}
	}
}

func keysComeBack(t *testing.T, s Store) {
	s.SQL(t, `INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org')`)
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", ""))
	add(t, s, "ann@example.org", "KEY 1")
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "KEY 1"))
	add(t, s, "ann@example.org", "KEY 2")
	add(t, s, "ann@example.org", "KEY 3")
	expect(t, answer(t, s, "ann@example.org"),
		enrolled("ann@example.org", "ann@example.org", "KEY 1"),
		enrolled("ann@example.org", "ann@example.org", "KEY 2"),
		enrolled("ann@example.org", "ann@example.org", "KEY 3"))
}

func severalAddresses(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "A1")
	add(t, s, "ann@example.org", "A2")
	add(t, s, "bob@example.org", "B1")
	expect(t, answer(t, s, "bob@example.org", "carol@example.org", "ann@example.org"),
		enrolled("ann@example.org", "ann@example.org", "A1"),
		enrolled("ann@example.org", "ann@example.org", "A2"),
		enrolled("bob@example.org", "bob@example.org", "B1"),
		unknown("carol@example.org"))
}

func askedTwice(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "A1")
	expect(t, answer(t, s, "bob@example.org", "ann@example.org", "bob@example.org", "ann@example.org", "ANN@example.org"),
		enrolled("ANN@example.org", "ann@example.org", "A1"),
		enrolled("ann@example.org", "ann@example.org", "A1"),
		unknown("bob@example.org"))
}

func matchesAnyCase(t *testing.T, s Store) {
	add(t, s, "Ann.Smith@Example.ORG", "A1")
	const account = "Ann.Smith@example.org" // the domain is stored in lower case
	for _, asked := range []string{"ann.smith@example.org", "ANN.SMITH@EXAMPLE.ORG", "Ann.Smith@Example.ORG"} {
		expect(t, answer(t, s, asked), enrolled(asked, account, "A1"))
	}
	// A key for another spelling is one more key of the same account.
	add(t, s, "ANN.smith@EXAMPLE.org", "A2")
	expect(t, answer(t, s, "ann.smith@example.org"),
		enrolled("ann.smith@example.org", account, "A1"), enrolled("ann.smith@example.org", account, "A2"))
	// The letter I is the one that a Turkish locale folds otherwise.
	add(t, s, "INFO@example.org", "I")
	expect(t, answer(t, s, "info@example.org"), enrolled("info@example.org", "INFO@example.org", "I"))
	// Other than ASCII letters, only the same ones match.
	add(t, s, "jörg@example.org", "J")
	expect(t, answer(t, s, "JöRG@example.org"), enrolled("JöRG@example.org", "jörg@example.org", "J"))
	expect(t, answer(t, s, "JÖRG@example.org"), unknown("JÖRG@example.org"))
}

func manyAddresses(t *testing.T, s Store) {
	var asked, values []string
	var want []keys.Row
	for i := range 500 {
		address, key := fmt.Sprintf("user%03d@example.org", i), fmt.Sprintf("KEY %d", i)
		asked = append(asked, address)
		if i%2 == 1 {
			want = append(want, unknown(address))
			continue
		}
		values = append(values, fmt.Sprintf("('%s', '%s')", address, key))
		want = append(want, enrolled(address, address, key))
	}
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key) VALUES `+strings.Join(values, ", "))
	slices.Reverse(asked)
	expect(t, answer(t, s, asked...), want...)
}

func keysByteForByte(t *testing.T, s Store) {
	for name, key := range map[string]string{
		"armor-lf":   "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n",
		"armor-crlf": "-----BEGIN PGP PUBLIC KEY BLOCK-----\r\n\r\nmQINBF\r\n=abcd\r\n-----END PGP PUBLIC KEY BLOCK-----\r\n",
		"blanks":     " \t KEY \r\n\n ",
		"quotes":     `it's "quoted" \ \' \\ \n $1 ? :a @b %s {} -- /* ; DROP TABLE keys;`,
		"utf-8":      "Comment: Jörg 鍵 🔑",
		"256-kib":    strings.Repeat("mQINBF+/\r\n", 256<<10/10),
		"1-mib":      strings.Repeat("x", 1<<20),
	} {
		address := name + "@example.org"
		add(t, s, address, key)
		expect(t, answer(t, s, address), enrolled(address, address, key))
		if all := listed(t, s, address); len(all) != 1 || all[0].Key != key {
			t.Errorf("%s: the key is not listed as it was added", name)
		}
	}
}

func strangeAddresses(t *testing.T, s Store) {
	addresses := []string{
		"o'brien@example.org", `back\slash@example.org`, `two""quotes@example.org`, "semi;colon@example.org",
		"per%cent@example.org", "under_score@example.org", "brace{},comma@example.org", "{ann,bob}@example.org",
		"$1@example.org", "?1@example.org", ":a@example.org", "--@example.org", "/*@example.org", "NULL@example.org",
		"'; DROP TABLE keys; --@example.org", "ann smith@example.org", "a@b@example.org", "用户@例子.广告", "🔑@example.org",
		"ann@[192.0.2.1]", "&amp;\u2028@example.org", strings.Repeat("l", 64) + "@" + strings.Repeat("d.", 120) + "example.org",
	}
	var want []keys.Row
	for _, address := range addresses {
		add(t, s, address, "KEY "+address)
		want = append(want, enrolled(address, address, "KEY "+address))
	}
	slices.SortFunc(want, func(a, b keys.Row) int { return strings.Compare(a.Address, b.Address) })
	expect(t, answer(t, s, addresses...), want...)
	for _, address := range addresses {
		expect(t, answer(t, s, "x"+address), unknown("x"+address))
	}
}

// noText: an address that the database cannot hold is a failed lookup, not
// one that nobody is enrolled under.
func noText(t *testing.T, s Store) {
	for _, address := range []string{"ann\xff@example.org", "ann\x00@example.org"} {
		if rows, err := s.RecipientKeys(context.Background(), []string{address}); !errors.Is(err, keys.ErrStore) {
			t.Errorf("%q: %v, %v, want an error that wraps ErrStore", address, rows, err)
		}
	}
}

func answerTooLong(t *testing.T, s Store) {
	key := strings.Repeat("x", 1<<20-2)
	for i := range 65 {
		add(t, s, "ann@example.org", key+fmt.Sprintf("%02d", i))
	}
	if rows, err := s.RecipientKeys(context.Background(), []string{"ann@example.org"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("%d rows, %v, want an error that wraps ErrStore", len(rows), err)
	}
	expect(t, answer(t, s, "bob@example.org"), unknown("bob@example.org"))
}

func choices(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "KEY")
	s.SQL(t, `UPDATE sealmilter.accounts SET method = 'smime', cipher = 'aes128', enabled = false,
		options = '{"split":"defer","days":[7,30]}' WHERE address = 'ann@example.org'`)
	expect(t, answer(t, s, "ann@example.org"), keys.Row{Address: "ann@example.org", Account: "ann@example.org", Known: true,
		Method: keys.SMIME, Cipher: keys.AES128, Key: "KEY", Options: []byte(`{"split":"defer","days":[7,30]}`)})
	one := listed(t, s, "")[0]
	if one.Enabled || one.Method != keys.SMIME || one.Cipher != keys.AES128 {
		t.Errorf("listed as %+v", one)
	}
	s.SQL(t, `UPDATE sealmilter.accounts SET method = 'openpgp', cipher = 'aes256', enabled = true, options = '{}'`)
	want := enrolled("ann@example.org", "ann@example.org", "KEY")
	want.Method = keys.OpenPGP
	expect(t, answer(t, s, "ann@example.org"), want)
	// The choices stay when the last key goes.
	if err := s.RemoveKey(context.Background(), one.ID); err != nil {
		t.Fatal(err)
	}
	want.Key = ""
	expect(t, answer(t, s, "ann@example.org"), want)
}

func cancelled(t *testing.T, s Store) {
	add(t, s, "ann@example.org", "KEY")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rows, err := s.RecipientKeys(ctx, []string{"ann@example.org"})
	if !errors.Is(err, keys.ErrStore) || len(rows) != 0 {
		t.Errorf("lookup: %v, %v, want an error that wraps ErrStore", rows, err)
	}
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "KEY"}); !errors.Is(err, keys.ErrStore) {
		t.Errorf("AddKey: %v, want an error that wraps ErrStore", err)
	}
	if err := s.RemoveKey(ctx, 1); !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("RemoveKey: %v, want an error that wraps ErrStore", err)
	}
	if err := s.SetKeyOptions(ctx, 1, keys.KeyOptions{}); !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("SetKeyOptions: %v, want an error that wraps ErrStore", err)
	}
	for _, err := range s.Keys(ctx, "") {
		if !errors.Is(err, keys.ErrStore) {
			t.Errorf("Keys: %v, want an error that wraps ErrStore", err)
		}
	}
	for _, err := range s.Aliases(ctx, "") {
		if !errors.Is(err, keys.ErrStore) {
			t.Errorf("Aliases: %v, want an error that wraps ErrStore", err)
		}
	}
	_, removing := s.RemoveAlias(ctx, "info@example.org", "")
	_, reading := s.Account(ctx, "ann@example.org")
	for what, err := range map[string]error{"AddAlias": s.AddAlias(ctx, "info@example.org", "ann@example.org"), "RemoveAlias": removing,
		"SetAccount": s.SetAccount(ctx, keys.Choices{Address: "ann@example.org"}), "Account": reading} {
		if !errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrNoSuchAccount) {
			t.Errorf("%s: %v, want an error that wraps ErrStore", what, err)
		}
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "KEY"))
}

// lookupsDuringWrites: while two writers add keys and remove them, every
// lookup answers, with what was there before and nothing of another's.
func lookupsDuringWrites(t *testing.T, s Store) {
	add(t, s, "steady@example.org", "STEADY")
	ctx := context.Background()
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for w := range 2 {
		writers.Go(func() {
			for i := range 40 {
				address := fmt.Sprintf("writer%d@example.org", w)
				id, err := s.AddKey(ctx, keys.NewKey{Address: address, Key: fmt.Sprintf("KEY %d.%d", w, i)})
				if err == nil && i%4 > 0 {
					err = s.RemoveKey(ctx, id)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					readOnce(t, s)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if rows := answer(t, s, "writer0@example.org"); len(rows) != 10 {
		t.Errorf("%d keys are left of a writer's, want 10", len(rows))
	}
}

func readOnce(t *testing.T, s Store) {
	rows, err := s.RecipientKeys(context.Background(), []string{"steady@example.org", "writer0@example.org", "writer1@example.org"})
	if err != nil {
		t.Error(err)
		return
	}
	steady := 0
	for _, row := range rows {
		want := map[string]string{"steady@example.org": "STEADY", "writer0@example.org": "KEY 0", "writer1@example.org": "KEY 1"}[row.Address]
		if !strings.HasPrefix(row.Key, want) && (row.Key != "" || want == "STEADY") {
			t.Errorf("%q was answered with %q", row.Address, row.Key)
		}
		if want == "STEADY" {
			steady++
		}
	}
	if steady != 1 {
		t.Errorf("%d rows of a steady account", steady)
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"sealmilter/keys"
	"sealmilter/keys/postgres"
	"sealmilter/testdata/report"
)

// scale is what all measurements share.
type scale struct {
	settings
	server *server
	pool   *pool
	admin  *pgx.Conn // a superuser's
}

const domains = 1000

// One account in severalOne has two keys, and there is one alias for aliasOne
// accounts.
const (
	severalOne = 20
	aliasOne   = 10
)

// naming is how the MTA reads addresses, as Debian's Postfix does.
var naming = keys.Naming{Delimiter: "+"}

func address(i int) string { return fmt.Sprintf("user%d@d%d.example", i, i%domains) }
func alias(i int) string   { return fmt.Sprintf("alias%d@d%d.example", i, i%domains) }
func nobody(i int) string  { return fmt.Sprintf("nobody%d@d%d.example", i, i%domains) }

// newScale starts the server and makes the schema.
func newScale(ctx context.Context, s settings) (_ *scale, err error) {
	b := &scale{settings: s}
	if b.pool, err = newPool(s.sizes); err != nil {
		return nil, err
	}
	if b.server, err = startServer(s.accounts); err != nil {
		return nil, err
	}
	if _, _, err = postgres.Migrate(ctx, b.server.url("postgres")); err == nil {
		b.admin, err = b.server.connect(ctx)
	}
	if err == nil { // what roles.sql gives the daemon, as far as it is needed here
		_, err = b.admin.Exec(ctx, `CREATE ROLE sealmilter LOGIN; GRANT USAGE ON SCHEMA sealmilter TO sealmilter;
			GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) TO sealmilter`)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *scale) close() {
	if b.admin != nil {
		b.admin.Close(context.Background())
	}
	b.server.close()
}

// open is the store as the daemon opens it.
func (b *scale) open(ctx context.Context) (*postgres.Store, error) {
	return postgres.Open(ctx, b.server.url("sealmilter"), postgres.Options{})
}

// imports fills the tables.
func imports(ctx context.Context, b *scale) ([]report.Line, error) {
	byTrigger, accountsFirst, err := b.loadAccounts(ctx)
	if err != nil {
		return nil, err
	}
	led, err := b.copyIn(ctx, "aliases", []string{"address", "target"}, b.accounts/aliasOne, func(i int) []any {
		return []any{alias(i), address(i * aliasOne)}
	})
	if err != nil {
		return nil, err
	}
	// Some domains have choices, and all the lookups in them read those.
	const choose = `INSERT INTO sealmilter.accounts (address, options)
		SELECT '@d' || d || '.example', '{"no_key": "pass"}' FROM generate_series(0, 999, 10) AS d`
	for _, sql := range []string{choose, "VACUUM ANALYZE", "CHECKPOINT"} { // what a server does by itself, in its time
		if _, err := b.admin.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	single, err := b.oneByOneIn(ctx)
	if err != nil {
		return nil, err
	}
	var size float64
	if err := b.admin.QueryRow(ctx, "SELECT pg_database_size('scale')").Scan(&size); err != nil {
		return nil, err
	}
	const beside = "validated, stored one by one"
	return []report.Line{
		{What: "import: keys by COPY, accounts made by the trigger", Kind: report.Rate, Ours: byTrigger, Beside: beside, Theirs: single},
		{What: "import: accounts by COPY, then their keys", Kind: report.Rate, Ours: accountsFirst, Beside: beside, Theirs: single},
		{What: "import: aliases by COPY", Kind: report.Rate, Ours: led},
		{What: "size of the database", Kind: report.Bytes, Ours: size},
		{What: "size of the database, an account", Kind: report.Bytes, Ours: size / float64(b.accounts)},
	}, nil
}

// loadAccounts loads accounts and keys, and returns how many keys went in each
// second: half of the accounts are made by the trigger of the keys, one by one;
// the others are there before their keys, as an import should have it.
func (b *scale) loadAccounts(ctx context.Context) (byTrigger, accountsFirst float64, err error) {
	half := b.accounts / 2
	began := time.Now()
	made, err := b.copyKeys(ctx, 0, half)
	if err != nil {
		return 0, 0, err
	}
	byTrigger = float64(made) / time.Since(began).Seconds()
	began = time.Now()
	first := func(i int) []any { return []any{address(half + i)} }
	if _, err := b.copyIn(ctx, "accounts", []string{"address"}, b.accounts-half, first); err != nil {
		return 0, 0, err
	}
	made, err = b.copyKeys(ctx, half, b.accounts)
	return byTrigger, float64(made) / time.Since(began).Seconds(), err
}

// copyKeys loads the keys of the accounts from one to before another, and
// returns how many those are.
func (b *scale) copyKeys(ctx context.Context, from, to int) (int64, error) {
	i, second := from, false
	made, err := b.admin.CopyFrom(ctx, pgx.Identifier{"sealmilter", "keys"}, []string{"address", "key"}, pgx.CopyFromFunc(func() ([]any, error) {
		switch {
		case second: // of the other kind
			second = false
			i++
			return []any{address(i - 1), b.pool.key(i)}, nil
		case i == to:
			return nil, nil
		}
		row := []any{address(i), b.pool.key(i)}
		if second = i%severalOne == 0; !second {
			i++
		}
		return row, nil
	}))
	if err != nil {
		return 0, fmt.Errorf("loading keys: %w", err)
	}
	return made, nil
}

// copyIn loads rows by COPY and returns how many went in each second.
func (b *scale) copyIn(ctx context.Context, table string, columns []string, rows int, row func(i int) []any) (float64, error) {
	began := time.Now()
	_, err := b.admin.CopyFrom(ctx, pgx.Identifier{"sealmilter", table}, columns,
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return row(i), nil }))
	if err != nil {
		return 0, fmt.Errorf("loading %s: %w", table, err)
	}
	return float64(rows) / time.Since(began).Seconds(), nil
}

// oneByOneIn enrols keys as key import does, but for the trial sealing: each is
// validated, and goes in by a transaction of its own.
func (b *scale) oneByOneIn(ctx context.Context) (float64, error) {
	store, err := postgres.Open(ctx, b.server.url("postgres"), postgres.Options{Actor: "scale"})
	if err != nil {
		return 0, err
	}
	defer store.Close()
	rules := keys.Rules{Now: time.Now(), Allow: keys.Administrator, Seal: func(*keys.Key) error { return nil }}
	began := time.Now()
	for i := range b.oneByOne {
		accepted, _, err := keys.Validate([]byte(b.pool.key(i)), rules)
		if err != nil {
			return 0, err
		}
		one := keys.NewKey{Address: address(b.accounts + i), Key: accepted[0].Armored(), Fingerprint: accepted[0].Fingerprint}
		if _, err := store.AddKey(ctx, one); err != nil {
			return 0, err
		}
	}
	return float64(b.oneByOne) / time.Since(began).Seconds(), nil
}

// scratch is a file beside the server's data.
func (b *scale) scratch(name string) string { return filepath.Join(b.server.dir, name) }

func (b *scale) write(name, text string) error {
	return os.WriteFile(b.scratch(name), []byte(text), 0o644)
}

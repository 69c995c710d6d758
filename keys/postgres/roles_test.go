package postgres

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// testRoles: what each role may do, and what not. Statements run in turn, each
// in a transaction that is taken back.
func testRoles(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	server.SQL(t, database, contrib(t, "roles.sql")) // a second time changes nothing
	server.SQL(t, database, `DROP ROLE IF EXISTS ann_admin; CREATE ROLE ann_admin LOGIN; GRANT sealmilter_admin TO ann_admin;
		INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'A'), ('bob@example.org', 'B'), ('@example.org', 'D');
		INSERT INTO sealmilter.keys (address, key, state) VALUES ('ann@example.org', 'P', 'pending');
		INSERT INTO sealmilter.aliases (address, target) VALUES ('info@example.org', 'ann@example.org')`)
	number := func(key string) string {
		return server.SQL(t, database, `SELECT id FROM sealmilter.keys WHERE key = '`+key+`'`)
	}
	a, b, d, p := number("A"), number("B"), number("D"), number("P")
	both := []string{
		`UPDATE sealmilter.events SET who = 'nobody'`,
		`DELETE FROM sealmilter.events`,
		`TRUNCATE sealmilter.events`,
		`INSERT INTO sealmilter.events (action) VALUES ('key added')`,
		`SELECT sealmilter.forget_events(now())`,
		`SELECT set_config('sealmilter.forgetting', pg_current_xact_id()::text, true); DELETE FROM sealmilter.events`,
		`TRUNCATE sealmilter.accounts CASCADE`,
		`ALTER TABLE sealmilter.keys DISABLE TRIGGER ALL`,
		`DROP TRIGGER inserted ON sealmilter.keys`,
		`SET session_replication_role = replica`,
		`SET ROLE sealmilter_owner`,
		`CREATE TABLE sealmilter.mine (a int)`,
		`SELECT sealmilter.copies_begin('me', ARRAY[sha256('x')], '1 minute')`,
		`SELECT sealmilter.tell('{x}')`,
	}
	calls := []string{
		`SELECT * FROM sealmilter.portal_keys('ann@example.org')`,
		`SELECT sealmilter.portal_propose('ann@example.org', 'NEW', NULL)`,
		`SELECT sealmilter.portal_challenge('ann@example.org', ` + p + `, sha256('n'), now() + '1 hour')`,
		`SELECT sealmilter.portal_confirm('ann@example.org', ` + p + `, sha256('n'))`,
		`SELECT sealmilter.portal_retire('ann@example.org', ` + a + `)`,
		`SELECT sealmilter.portal_remove('Ann@Example.org', ` + a + `)`,
		`SELECT sealmilter.portal_enabled('ann@example.org', false)`,
		`SELECT sealmilter.portal_choices('ann@example.org', 'openpgp', 'aes128')`,
	}
	writes := []string{
		`SELECT key FROM sealmilter.keys`,
		`INSERT INTO sealmilter.keys (address, key) VALUES ('carol@example.org', 'C')`,
		`UPDATE sealmilter.keys SET state = 'retired', options = '{"aead": "gcm"}'`,
		`DELETE FROM sealmilter.accounts WHERE address = 'ann@example.org'`,
		`UPDATE sealmilter.accounts SET address = 'anna@example.org' WHERE address = 'ann@example.org'`,
		`INSERT INTO sealmilter.accounts (address, enabled) VALUES ('carol@example.org', false)`,
		`INSERT INTO sealmilter.aliases (address, target) VALUES ('x@example.org', 'ann@example.org')`,
		`DELETE FROM sealmilter.aliases`,
		`SELECT who, action FROM sealmilter.events`,
		`SELECT * FROM sealmilter.rotate_key('ann@example.org', 'NEWER')`,
		`SELECT sealmilter.challenge_key(` + p + `, sha256('n'), now() + '1 hour')`,
		`SELECT sealmilter.confirm_key(` + p + `, sha256('n'))`,
		`INSERT INTO sealmilter.warnings (key_id, kind, expires) VALUES (` + a + `, 'x', now())`,
	}
	lookup := `SELECT * FROM sealmilter.recipient_keys('{ann@example.org}')`
	for _, test := range []struct {
		role            string
		allowed, denied [][]string
	}{
		{"sealmilter", [][]string{{lookup, both[12]}}, [][]string{both[:12], both[13:], calls, writes}},
		{"sealmilter_portal", [][]string{calls}, [][]string{both, writes, {lookup}}},
		{"ann_admin", [][]string{writes, {lookup}}, [][]string{both, calls}},
	} {
		s := opened(t, server.URL(test.role, database)+"&default_query_exec_mode=simple_protocol", Options{})
		try := func(statement string) error {
			tx, err := s.pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(ctx)
			_, err = tx.Exec(ctx, statement)
			return err
		}
		for _, statements := range test.allowed {
			for _, statement := range statements {
				if err := try(statement); err != nil {
					t.Errorf("%s was refused: %s: %v", test.role, statement, err)
				}
			}
		}
		for _, statements := range test.denied {
			for _, statement := range statements {
				if err := try(statement); err == nil || !strings.Contains(err.Error(), "SQLSTATE 42501") {
					t.Errorf("%s was not refused: %s: %v", test.role, statement, err)
				}
			}
		}
	}
	// What is another's, or a domain's, is not the page's.
	portal := opened(t, server.URL("sealmilter_portal", database), Options{})
	for _, statement := range []string{
		`SELECT sealmilter.portal_retire('ann@example.org', ` + b + `)`,
		`SELECT sealmilter.portal_remove('ann@example.org', ` + b + `)`,
		`SELECT sealmilter.portal_remove('ann@example.org', ` + d + `)`,
		`SELECT sealmilter.portal_remove('@example.org', ` + d + `)`,
		`SELECT sealmilter.portal_propose('@example.org', 'NEW', NULL)`,
		`SELECT sealmilter.portal_propose('ann', 'NEW', NULL)`,
		`SELECT sealmilter.portal_enabled('@example.org', false)`,
		`SELECT sealmilter.portal_enabled('nobody@example.org', false)`,
		`SELECT sealmilter.portal_choices('@example.org', NULL, NULL)`,
		`SELECT sealmilter.portal_choices('ann@example.org', 'rot13', NULL)`,
		`SELECT sealmilter.portal_challenge('ann@example.org', ` + b + `, sha256('n'), now() + '1 hour')`,
		`SELECT sealmilter.portal_confirm('ann@example.org', ` + b + `, sha256('n'))`,
		`SELECT sealmilter.portal_retire('ann@example.org', ` + p + `)`,
	} {
		if _, err := portal.pool.Exec(ctx, statement); err == nil {
			t.Errorf("the page was not refused: %s", statement)
		}
	}
	// Whoever's row comes first.
	alone := migrated(t, server)
	server.SQL(t, alone, `INSERT INTO sealmilter.keys (address, key) VALUES ('bob@example.org', 'B'); INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org')`)
	if _, err := opened(t, server.URL("sealmilter_portal", alone), Options{}).pool.Exec(ctx, `SELECT sealmilter.portal_remove('ann@example.org', 1)`); err == nil {
		t.Error("ann may remove the only key, which is bob's")
	}
	if left := server.SQL(t, database, `SELECT string_agg(key || ' ' || state, ',' ORDER BY id) FROM sealmilter.keys`); left != "A active,B active,D active,P pending" {
		t.Errorf("the keys are %s", left)
	}
	if rows := server.SQL(t, database, `SELECT count(*) FROM sealmilter.portal_keys('@example.org')`); rows != "0" {
		t.Errorf("the page sees %s keys of a domain", rows)
	}
}

// testPortal: a user's key from its proposal to its end, by the page's functions.
func testPortal(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	portal := opened(t, server.URL("sealmilter_portal", database), Options{})
	s := daemon(t, server, database)
	var ids []int64
	for i := range 6 {
		var id int64
		err := portal.pool.QueryRow(ctx, `SELECT sealmilter.portal_propose('Ann@Example.org', $1, 'AB')`, fmt.Sprint("KEY ", i)).Scan(&id)
		if (err == nil) != (i < 5) || err != nil && !strings.Contains(err.Error(), "too many keys are waiting") {
			t.Fatalf("key %d: %v", i, err)
		}
		ids = append(ids, id)
	}
	expect(t, ask(t, s, "ann@example.org"), "ann@example.org|Ann@example.org|true|")
	hash := sha256.Sum256([]byte("nonce"))
	call := func(sql string, args ...any) string {
		t.Helper()
		var said *string
		if err := portal.pool.QueryRow(ctx, sql, args...).Scan(&said); err != nil {
			t.Fatal(err)
		}
		return text(said)
	}
	for i := range 2 {
		if said := call(`SELECT sealmilter.portal_challenge('ann@example.org', $1, $2, $3)`, ids[i], hash[:], time.Now().Add(time.Hour)); said != "challenged" {
			t.Errorf("challenged: %q", said)
		}
		if said := call(`SELECT sealmilter.portal_confirm('ann@example.org', $1, $2)`, ids[i], make([]byte, 32)); said != "wrong" {
			t.Errorf("a wrong answer: %q", said)
		}
		if said := call(`SELECT sealmilter.portal_confirm('ann@example.org', $1, $2, true)`, ids[i], hash[:]); said != "confirmed" {
			t.Errorf("the answer: %q", said)
		}
	}
	rows, err := s.RecipientKeys(ctx, []string{"ann@example.org"})
	if err != nil || len(rows) != 2 {
		t.Fatalf("%+v, %v", rows, err)
	}
	admin := opened(t, server.URL("postgres", database), Options{})
	var states []string
	for key, err := range admin.Keys(ctx, "ann@example.org") {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, string(key.State))
	}
	expect(t, states, "retired", "active", "pending", "pending", "pending")
	for event, err := range admin.Events(ctx, "ann@example.org") {
		if err != nil || event.Who != "sealmilter_portal" {
			t.Errorf("event %+v, %v", event, err)
		}
	}
}

// testActor: events have the name that the store was opened for, and beside it
// the role that gave it.
func testActor(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	database := migrated(t, server)
	named := opened(t, server.URL("postgres", database), Options{Actor: "ann"})
	unnamed := opened(t, server.URL("postgres", database), Options{})
	for i, s := range []*Store{named, unnamed, named} {
		if _, err := s.AddKey(ctx, keys.NewKey{Address: fmt.Sprintf("u%d@example.org", i), Key: "KEY"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.pool.Exec(ctx, `INSERT INTO sealmilter.aliases (address, target) VALUES ($1, 'x@example.org')`, fmt.Sprintf("a%d@example.org", i)); err != nil {
			t.Fatal(err)
		}
	}
	who := make(map[string]string)
	for event, err := range named.Events(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		who[event.Address] = event.Who + " " + string(event.Detail)
	}
	for address, want := range map[string]string{"u0@example.org": "ann ", "u1@example.org": "postgres ", "u2@example.org": "ann ", "a0@example.org": "postgres "} {
		if !strings.HasPrefix(who[address], want) || strings.Contains(who[address], `"role": "postgres"`) != (want == "ann ") {
			t.Errorf("%s was by %q, want %q", address, who[address], want)
		}
	}
}

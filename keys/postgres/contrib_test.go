package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sealmilter/keys"
	"sealmilter/keys/storetest"
	"sealmilter/testdata/bed"
)

// tables are those of PostfixAdmin that mail is routed by, with the columns
// that matter and some that must stay out of reach.
const tables = `
	CREATE TABLE domain (domain varchar(255) PRIMARY KEY);
	CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL DEFAULT 'hash',
		name varchar(255) NOT NULL DEFAULT '', domain varchar(255) NOT NULL REFERENCES domain, active boolean NOT NULL DEFAULT true);
	CREATE TABLE alias (address varchar(255) PRIMARY KEY, goto text NOT NULL,
		domain varchar(255) NOT NULL REFERENCES domain, active boolean NOT NULL DEFAULT true);
	CREATE TABLE alias_domain (alias_domain varchar(255) PRIMARY KEY REFERENCES domain,
		target_domain varchar(255) NOT NULL REFERENCES domain, active boolean NOT NULL DEFAULT true);`

// rows: every mailbox has an alias of its own, as PostfixAdmin makes it, but
// for plain's.
const rows = `
	INSERT INTO domain VALUES ('example.org'), ('example.net'), ('old.example'), ('parked.example'), ('catch.example');
	INSERT INTO mailbox (username, domain, active) SELECT n || '@example.org', 'example.org', n <> 'gone'
		FROM unnest(ARRAY['ann', 'bob', 'carol', 'gone', 'both', 'plain', 'away', 'loner', 'swap1']) AS n;
	INSERT INTO alias (address, goto, domain) SELECT username, username, domain FROM mailbox
		WHERE username NOT IN ('plain@example.org', 'both@example.org', 'away@example.org', 'swap1@example.org');
	INSERT INTO alias (address, goto, domain, active) VALUES
		('both@example.org', E'both@example.org,\r\n both@elsewhere.example', 'example.org', true),
		('away@example.org', 'Away@elsewhere.example', 'example.org', true),
		('info@example.org', 'ann@example.org', 'example.org', true),
		('team@example.org', 'ann@example.org,bob@example.org', 'example.org', true),
		('desk@example.org', 'team@example.org, carol@example.org', 'example.org', true),
		('out@example.org', 'ann@elsewhere.example', 'example.org', true),
		('mixed@example.org', 'ann@example.org,ann@elsewhere.example', 'example.org', true),
		('loop1@example.org', 'loop2@example.org', 'example.org', true),
		('loop2@example.org', 'loop1@example.org', 'example.org', true),
		('swap1@example.org', 'swap2@example.org', 'example.org', true),
		('swap2@example.org', 'swap1@example.org', 'example.org', true),
		('off@example.org', 'ann@example.org', 'example.org', false),
		('empty@example.org', '', 'example.org', true),
		('@catch.example', 'ann@example.org', 'catch.example', true),
		('bob@catch.example', 'bob@example.org', 'catch.example', true),
		('@parked.example', '@example.org', 'parked.example', true);
	INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES
		('old.example', 'example.org', true), ('example.net', 'example.org', false);
	INSERT INTO openpgp_key (username, key) VALUES ('ann@example.org', 'ANN 1'), ('ann@example.org', 'ANN 2'),
		('bob@example.org', 'BOB'), ('gone@example.org', 'GONE'), ('both@example.org', 'BOTH'), ('plain@example.org', 'PLAIN'),
		('away@example.org', 'AWAY'), ('swap1@example.org', 'SWAP');`

// postfixadmin makes a database of a site with PostfixAdmin.
func postfixadmin(t *testing.T, server *bed.Postgres) string {
	t.Helper()
	database := newDatabase(t, server)
	server.SQL(t, database, tables)
	for range 2 { // a second time changes nothing
		server.SQL(t, database, contrib(t, "postfixadmin.sql")+contrib(t, "copies.sql")+contrib(t, "roles.sql"))
	}
	return database
}

func testPostfixadmin(t *testing.T, server *bed.Postgres) {
	database := postfixadmin(t, server)
	server.SQL(t, database, rows)
	s := daemon(t, server, database)
	for _, test := range []struct {
		asked string
		want  []string
	}{
		{"ann@example.org", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2"}},
		{"Ann@Example.ORG", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2"}},
		{"carol@example.org", []string{"carol@example.org|true|"}},
		{"gone@example.org", []string{"gone@example.org|true|GONE"}},
		{"plain@example.org", []string{"plain@example.org|true|PLAIN"}},
		{"info@example.org", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2"}},
		{"team@example.org", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2", "bob@example.org|true|BOB"}},
		{"desk@example.org", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2", "bob@example.org|true|BOB", "carol@example.org|true|"}},
		{"out@example.org", []string{"ann@elsewhere.example|false|"}},
		{"mixed@example.org", []string{"ann@elsewhere.example|false|", "ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2"}},
		{"both@example.org", []string{"both@elsewhere.example|false|", "both@example.org|true|BOTH"}},
		{"away@example.org", []string{"away@elsewhere.example|false|"}}, // her mailbox gets nothing
		{"off@example.org", []string{"|false|"}},
		{"empty@example.org", []string{"|false|"}},
		{"loop1@example.org", []string{"loop1@example.org|false|"}},
		{"swap1@example.org", []string{"swap1@example.org|true|SWAP"}},
		{"swap2@example.org", []string{"swap1@example.org|true|SWAP"}},
		{"nobody@example.org", []string{"|false|"}},
		{"ann@elsewhere.example", []string{"|false|"}},
		{"bob@old.example", []string{"|false|"}}, // the daemon asks for the domain itself
		{"@old.example", []string{"@example.org|false|"}},
		{"@OLD.example", []string{"@example.org|false|"}},
		{"@example.net", []string{"|false|"}},
		{"bob@example.net", []string{"|false|"}},
		{"bob@catch.example", []string{"bob@example.org|true|BOB"}},
		{"anything@catch.example", []string{"|false|"}},
		{"@catch.example", []string{"ann@example.org|true|ANN 1", "ann@example.org|true|ANN 2"}},
		{"bob@parked.example", []string{"|false|"}},
		{"@parked.example", []string{"@example.org|false|"}},
		{"", []string{"|false|"}},
		{"ann", []string{"|false|"}},
		{"@example.org", []string{"|false|"}},
		{`o'brien"\%@example.org`, []string{"|false|"}},
	} {
		var want []string
		for _, line := range test.want {
			want = append(want, test.asked+"|"+line)
		}
		expect(t, ask(t, s, test.asked), want...)
	}
	expect(t, ask(t, s, "info@example.org", "bob@example.org", "info@example.org", "x@example.org", "INFO@example.org"),
		"INFO@example.org|ann@example.org|true|ANN 1", "INFO@example.org|ann@example.org|true|ANN 2",
		"bob@example.org|bob@example.org|true|BOB",
		"info@example.org|ann@example.org|true|ANN 1", "info@example.org|ann@example.org|true|ANN 2",
		"x@example.org||false|")
	if warnings, err := s.Check(context.Background()); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	server.SQL(t, database, `UPDATE openpgp_key SET options = '{"aead": "gcm"}' WHERE key = 'ANN 2'`)
	found, err := s.RecipientKeys(context.Background(), []string{"info@example.org"})
	slices.SortFunc(found, func(a, b keys.Row) int { return strings.Compare(a.Key, b.Key) })
	if err != nil || len(found) != 2 || len(found[0].Options) != 0 || string(found[1].Options) != `{"key": {"aead": "gcm"}}` {
		t.Errorf("a key with options: %+v, %v", found, err)
	}
	// A key goes with its mailbox, and follows it to another name.
	server.SQL(t, database, `UPDATE mailbox SET username = 'robert@example.org' WHERE username = 'bob@example.org';
		DELETE FROM alias WHERE address = 'bob@example.org'; DELETE FROM mailbox WHERE username = 'gone@example.org'`)
	expect(t, ask(t, s, "robert@example.org", "bob@example.org", "gone@example.org"),
		"bob@example.org||false|", "gone@example.org|gone@example.org|false|", "robert@example.org|robert@example.org|true|BOB")
	confined(t, server, s, database)
}

// testReadme: what README.md says in SQL can be typed, and does what it says.
func testReadme(t *testing.T, server *bed.Postgres) {
	var blocks []string
	for _, part := range strings.Split(contrib(t, "README.md"), "```sql\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 5 {
		t.Fatalf("README.md has %d blocks of SQL", len(blocks))
	}
	ctx := context.Background()
	own := migrated(t, server)
	s := daemon(t, server, own)
	server.SQL(t, own, blocks[0]+blocks[1]+blocks[2])
	expect(t, ask(t, s, "team@example.org", "info@example.org", "bob@example.org", "@shop.example", "@old.example", "x@old.example"),
		"@old.example|@example.org|false|-----BEGIN PGP PUBLIC KEY BLOCK----- …", "@shop.example|ann@example.org|false|",
		"bob@example.org|bob@elsewhere.example|false|", "bob@example.org|bob@example.org|false|",
		"info@example.org|ann@example.org|false|", "team@example.org|ann@example.org|false|", "x@old.example||false|")

	site := newDatabase(t, server)
	server.SQL(t, site, `CREATE TABLE people (mail text, pgp_key text); CREATE ROLE people_reader; GRANT SELECT ON people TO people_reader;
		INSERT INTO people VALUES ('Ann@example.org', 'ANN'), ('bob@example.org', NULL);`+blocks[4]+contrib(t, "copies.sql")+contrib(t, "roles.sql"))
	s = daemon(t, server, site)
	expect(t, ask(t, s, "ann@example.org", "bob@example.org", "x@example.org"),
		"ann@example.org|Ann@example.org|true|ANN", "bob@example.org|bob@example.org|true|", "x@example.org||false|")
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}

	const withOptions = "jsonb_build_object('key', p.pgp_options)"
	if !strings.Contains(contrib(t, "README.md"), withOptions) {
		t.Errorf("README.md has no %s", withOptions)
	}
	_, function, _ := strings.Cut(blocks[4], "CREATE FUNCTION")
	function, _, _ = strings.Cut(function, "ALTER FUNCTION")
	server.SQL(t, site, `ALTER TABLE people ADD pgp_options jsonb; UPDATE people SET pgp_options = '{"aead": "gcm"}' WHERE pgp_key IS NOT NULL;
		CREATE OR REPLACE FUNCTION`+strings.Replace(function, "NULL::jsonb", withOptions, 1))
	rows, err := s.RecipientKeys(ctx, []string{"ann@example.org"})
	if err != nil || len(rows) != 1 || string(rows[0].Options) != `{"key": {"aead": "gcm"}}` {
		t.Errorf("a key with options: %+v, %v", rows, err)
	}
}

// testAddresses: who is meant is the same in sealmilter's own tables and in
// PostfixAdmin's.
func testAddresses(t *testing.T, server *bed.Postgres) {
	t.Run("own tables", func(t *testing.T) {
		storetest.Addresses(t, func(t *testing.T, d storetest.Directory) keys.Store {
			s := newConforming(t, server)
			storetest.Fill(t, s, d)
			return s.daemon
		})
	})
	t.Run("PostfixAdmin", func(t *testing.T) {
		storetest.Addresses(t, func(t *testing.T, d storetest.Directory) keys.Store {
			database := postfixadmin(t, server)
			fillPostfixadmin(t, opened(t, server.URL("postgres", database), Options{}), d)
			return daemon(t, server, database)
		})
	})
}

// fillPostfixadmin enters a Directory as PostfixAdmin would: every mailbox
// that is no other alias is one of itself.
func fillPostfixadmin(t *testing.T, s *Store, d storetest.Directory) {
	t.Helper()
	run := func(statement string, args ...any) {
		t.Helper()
		if _, err := s.pool.Exec(context.Background(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	run(`INSERT INTO domain SELECT * FROM unnest($1::text[])`, d.Domains())
	const domain = `substring(m FROM '[^@]*$')`
	run(`INSERT INTO mailbox (username, domain) SELECT m, `+domain+` FROM unnest($1::text[]) AS m`, slices.Concat(d.Enrolled, d.Bare))
	for _, mailbox := range d.Enrolled {
		run(`INSERT INTO openpgp_key (username, key) VALUES ($1, $2)`, mailbox, storetest.KeyOf(mailbox))
	}
	for _, alias := range d.Aliases {
		run(`INSERT INTO alias (address, goto, domain) SELECT m, $2, `+domain+` FROM (VALUES ($1::text)) AS one (m)
			ON CONFLICT (address) DO UPDATE SET goto = alias.goto || ',' || excluded.goto`, alias.Address, alias.Target)
	}
	run(`INSERT INTO alias (address, goto, domain) SELECT username, username, domain FROM mailbox ON CONFLICT DO NOTHING`)
	for _, alias := range d.AliasDomains {
		run(`INSERT INTO alias_domain VALUES (substr($1, 2), substr($2, 2))`, alias.Address, alias.Target)
	}
}

// confined: the daemon's role reads none of the site's tables, and the owner
// of the function no password.
func confined(t *testing.T, server *bed.Postgres, s *Store, database string) {
	t.Helper()
	for _, statement := range []string{`SELECT username FROM public.mailbox`, `SELECT goto FROM public.alias`,
		`SELECT key FROM public.openpgp_key`, `INSERT INTO public.openpgp_key (username, key) VALUES ('ann@example.org', 'FORGED')`} {
		if _, err := s.pool.Exec(context.Background(), statement); err == nil || !strings.Contains(err.Error(), "SQLSTATE 42501") {
			t.Errorf("the daemon's role was not refused: %s: %v", statement, err)
		}
	}
	if may := server.SQL(t, database, `SELECT has_column_privilege('sealmilter_owner', 'public.mailbox', 'password', 'SELECT'),
		has_table_privilege('sealmilter_owner', 'public.openpgp_key', 'INSERT, UPDATE, DELETE')`); may != "f|f" {
		t.Errorf("the owner may read passwords or write keys: %s", may)
	}
	if owners := server.SQL(t, database, owners); owners != "sealmilter_owner" {
		t.Errorf("the owners are %q", owners)
	}
}

// testPostfixadminExplain: with some thousand mailboxes the function reads
// the indexes of PostfixAdmin's own tables.
func testPostfixadminExplain(t *testing.T, server *bed.Postgres) {
	database := postfixadmin(t, server)
	server.SQL(t, database, `INSERT INTO domain VALUES ('example.org');
		INSERT INTO mailbox (username, domain) SELECT 'user' || i || '@example.org', 'example.org' FROM generate_series(1, 20000) AS i;
		INSERT INTO alias (address, goto, domain) SELECT username, username, domain FROM mailbox;
		UPDATE alias SET goto = 'user7000@example.org, user7001@example.org' WHERE address = 'user5@example.org';
		INSERT INTO openpgp_key (username, key) SELECT username, repeat('x', 3000) FROM mailbox;
		ANALYZE`)
	plan := planOf(t, server, database)
	indexScans(t, strings.ReplaceAll(plan, "Seq Scan on alias_domain", ""), "with statistics", "alias_pkey", "mailbox_pkey", "key_is_enrolled_already")
}

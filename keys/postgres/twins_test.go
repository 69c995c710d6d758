package postgres

import (
	"context"
	"crypto/sha256"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// everything is what the tables hold, but for times.
const everything = `SELECT 'account', address, enabled, method, cipher, options::text, '', '' FROM sealmilter.accounts
	UNION ALL SELECT 'key', address, state <> 'pending', id::text, key, options::text, state, challenge_tries::text FROM sealmilter.keys
	UNION ALL SELECT 'alias', address, true, target, '', '', '', '' FROM sealmilter.aliases ORDER BY 1, 2, 4`

// testTwins: what README.md has for each command does what the command does: the
// commands are these methods of the store, and what they do not do themselves.
func testTwins(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	block := strings.Split(contrib(t, "README.md"), "```sql\n")[4]
	block, _, _ = strings.Cut(block, "```")
	bySQL, byMethod := migrated(t, server), migrated(t, server)
	server.SQL(t, bySQL, `DROP ROLE IF EXISTS twin; CREATE ROLE twin LOGIN; GRANT sealmilter_admin TO twin`)
	typed := opened(t, server.URL("twin", bySQL)+"&default_query_exec_mode=simple_protocol", Options{})
	s := opened(t, server.URL("twin", byMethod), Options{})
	hash := sha256.Sum256([]byte("the nonce"))
	only := func(_ any, err error) error { return err }
	const armor = "-----BEGIN PGP PUBLIC KEY BLOCK----- "
	commands := map[string]func() error{
		"key add": func() error { return only(s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: armor + "1"})) },
		"key set": func() error { return s.SetKeyOptions(ctx, 1, keys.KeyOptions{AEAD: keys.GCM}) },
		"key rotate": func() error {
			_, _, err := s.Rotate(ctx, keys.NewKey{Address: "ann@example.org", Key: armor + "2"})
			return err
		},
		"key retire": func() error { return s.SetKeyState(ctx, 2, keys.KeyRetired) },
		"key revoke": func() error { return s.SetKeyState(ctx, 1, keys.KeyRevoked) },
		"key challenge": func() error {
			if _, err := s.AddKey(ctx, keys.NewKey{Address: "bob@example.org", Key: armor + "3", State: keys.KeyPending}); err != nil {
				return err
			}
			return s.Challenge(ctx, 3, hash[:], time.Now().Add(24*time.Hour))
		},
		"key confirm": func() error { return s.Confirm(ctx, 3, hash[:], false) },
		"key remove":  func() error { return s.RemoveKey(ctx, 2) },
		"account set": func() error {
			return s.SetAccount(ctx, keys.Choices{Address: "ann@example.org", Method: keys.OpenPGP, Cipher: keys.AES128, Options: []byte(`{"no_key": "defer"}`)})
		},
		"alias add":    func() error { return s.AddAlias(ctx, "info@example.org", "ann@example.org") },
		"alias remove": func() error { return only(s.RemoveAlias(ctx, "info@example.org", "")) },
	}
	reads := 0
	for _, part := range strings.Split("\n"+block, "\n-- ")[1:] {
		title, statements, _ := strings.Cut(part, "\n")
		before := server.SQL(t, bySQL, everything)
		if _, err := typed.pool.Exec(ctx, statements); err != nil {
			t.Fatalf("%s: %v", title, err)
		}
		words := strings.Fields(strings.ReplaceAll(title, ":", ""))
		name := words[0] + " " + words[1]
		command := commands[name]
		if command == nil {
			if reads++; server.SQL(t, bySQL, everything) != before {
				t.Errorf("%s changes something", title)
			}
			continue
		}
		delete(commands, name)
		if err := command(); err != nil {
			t.Fatalf("%s: %v", title, err)
		}
		if one, other := server.SQL(t, bySQL, everything), server.SQL(t, byMethod, everything); one != other || one == before {
			t.Errorf("%s: by SQL\n%s\nby the command\n%s", title, one, other)
		}
	}
	if len(commands) != 0 || reads != 4 {
		t.Errorf("without a twin: %d commands; %d twins only read", len(commands), reads)
	}
	const done = `SELECT string_agg(action || coalesce(' ' || key_id, ''), E'\n' ORDER BY id) FROM sealmilter.events`
	if one, other := server.SQL(t, bySQL, done), server.SQL(t, byMethod, done); one != other {
		t.Errorf("the events are, by SQL\n%s\nby the commands\n%s", one, other)
	}
}

// testBackup: what README.md says of it brings all back, by the commands that it
// names.
func testBackup(t *testing.T, server *bed.Postgres) {
	ctx := context.Background()
	readme := contrib(t, "README.md")
	database := migrated(t, server)
	admin := opened(t, server.URL("postgres", database), Options{Actor: "ann"})
	for i, address := range []string{"ann@example.org", "bob@example.org", "@example.org"} {
		id, err := admin.AddKey(ctx, keys.NewKey{Address: address, Key: "KEY " + address, Fingerprint: "AB"})
		if err == nil && i == 1 {
			err = admin.SetKeyState(ctx, id, keys.KeyRetired)
		}
		if err == nil {
			_, err = admin.NoteWarning(ctx, id, keys.Warning{Kind: "30 days", Expires: time.Now()})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	server.SQL(t, database, `SELECT sealmilter.copies_begin('me', ARRAY[sha256('x')], '1 minute'); DROP ROLE IF EXISTS helper; CREATE ROLE helper; GRANT sealmilter_admin TO helper`)
	const all = everything + `; SELECT * FROM sealmilter.events ORDER BY id; SELECT * FROM sealmilter.warnings ORDER BY key_id;
		SELECT proname, proacl, proconfig, prosecdef, proowner FROM pg_proc WHERE pronamespace = 'sealmilter'::regnamespace ORDER BY proname;
		SELECT tgname, tgrelid::regclass, tgenabled FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'sealmilter.%' AND NOT tgisinternal ORDER BY tgrelid::regclass::text, tgname;
		SELECT relname, relacl, relowner FROM pg_class WHERE relnamespace = 'sealmilter'::regnamespace ORDER BY relname`
	before := server.SQL(t, database, all)
	bin := filepath.Dir(resolved(t, bed.Need(t, "initdb", "/usr/lib/postgresql/*/bin")))
	run := func(program, want string, args ...string) string {
		t.Helper()
		if !strings.Contains(readme, want) {
			t.Errorf("README.md has no %q", want)
		}
		out, err := exec.Command(filepath.Join(bin, program), append([]string{"-h", server.Dir, "-p", strconv.Itoa(server.Port), "-U", "postgres"}, args...)...).Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		return string(out)
	}
	dump := run("pg_dump", "pg_dump -n sealmilter mail", "-n", "sealmilter", database)
	roles := run("pg_dumpall", "pg_dumpall --roles-only --no-role-passwords", "--roles-only", "--no-role-passwords")
	for _, role := range []string{"sealmilter", "sealmilter_portal", "sealmilter_admin", "sealmilter_owner"} {
		if !strings.Contains(roles, "CREATE ROLE "+role+";") {
			t.Errorf("no role %s in the dump", role)
		}
	}
	server.SQL(t, database, `DROP SCHEMA sealmilter CASCADE`)
	server.SQL(t, database, dump)
	if after := server.SQL(t, database, all); after != before {
		for line := range strings.Lines(after) {
			if !strings.Contains(before, strings.TrimSpace(line)) {
				t.Errorf("restored: %s", line)
			}
		}
		for line := range strings.Lines(before) {
			if !strings.Contains(after, strings.TrimSpace(line)) {
				t.Errorf("before: %s", line)
			}
		}
		t.Error("what was restored is not what was there")
	}
	s := daemon(t, server, database)
	expect(t, ask(t, s, "ann@example.org", "bob@example.org"),
		"ann@example.org|ann@example.org|true|KEY ann@example.org", "bob@example.org|bob@example.org|true|retired")
	if warnings, err := s.Check(ctx); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	if _, err := admin.pool.Exec(ctx, `DELETE FROM sealmilter.events`); err == nil {
		t.Error("restored events can be deleted")
	}
	if id, err := admin.AddKey(ctx, keys.NewKey{Address: "carol@example.org", Key: "KEY"}); err != nil || id != 4 {
		t.Errorf("the next key is %d, %v", id, err)
	}
	if from, to, err := Migrate(ctx, server.URL("postgres", database)); err != nil || from != to {
		t.Errorf("Migrate: from %d to %d, %v", from, to, err)
	}
	f := &follower{}
	watched(t, s, f, 0)
	f.take(t, "follow", 5*time.Second)
	server.SQL(t, database, `DELETE FROM sealmilter.keys WHERE id = 1`)
	f.take(t, "changed ann@example.org", time.Second)

	// Into a cluster that has none of the roles yet.
	other := bed.StartPostgres(t)
	other.CreateDatabase(t, "mail")
	for line := range strings.Lines(roles) {
		if strings.Contains(line, "sealmilter") && !strings.Contains(line, "GRANT ") {
			other.SQL(t, "mail", line)
		}
	}
	other.SQL(t, "mail", dump)
	expect(t, ask(t, daemon(t, other, "mail"), "ann@example.org"), "ann@example.org|ann@example.org|true|KEY ann@example.org")
}

package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sealmilter/keys"
)

// The migrations, oldest first.
var versions = []string{"migrations/00001_accounts_and_keys.sql", "migrations/00002_aliases_and_domains.sql",
	"migrations/00003_key_options.sql", "migrations/00004_lifecycle.sql"}

func script(t *testing.T, version int) string {
	t.Helper()
	text, err := migrations.ReadFile(versions[version-1])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goDown takes a file from a version to the one before, as goose would.
func goDown(t *testing.T, s store, version int) {
	t.Helper()
	_, down, found := strings.Cut(script(t, version), "-- +goose Down")
	if !found {
		t.Fatal("no way back")
	}
	s.SQL(t, down)
}

// TestUpgrade: what was enrolled stays enrolled, a daemon that has the file
// open reads on, and the way back is a way back.
func TestUpgrade(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(folder(t), "keys.db")
	if _, err := makeFile(path, fileMode); err != nil {
		t.Fatal(err)
	}
	first := fstest.MapFS{versions[0]: {Data: []byte(script(t, 1))}}
	if from, to, err := apply(ctx, path, first); err != nil || from != 0 || to != 1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	opened, err := Open(ctx, path, Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	s := store{opened}
	s.SQL(t, `INSERT INTO keys (address, key) VALUES ('Ann@example.org', 'ANN')`)
	if _, err := s.Check(ctx); !errors.Is(err, ErrNoSchema) {
		t.Errorf("Check in version 1: %v", err)
	}
	for range 2 {
		if from, to, err := Migrate(ctx, path); err != nil || from != 1 || to != int64(len(versions)) {
			t.Fatalf("from %d to %d, %v", from, to, err)
		}
		if err := s.AddAlias(ctx, "info@example.org", "ann@example.org"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddKey(ctx, keys.NewKey{Address: "@Example.org", Key: "DOMAIN"}); err != nil {
			t.Fatal(err)
		}
		for address, want := range map[string]string{"ann@example.org": "ANN", "info@example.org": "ANN", "@example.org": "DOMAIN"} {
			if got := keyOf(t, s.Store, address); got != want {
				t.Errorf("the key of %s is %q", address, got)
			}
		}
		if out, err := shell(t, s, `PRAGMA integrity_check; UPDATE accounts SET address = 'Anna@Example.org' WHERE address = 'ann@example.org';
			UPDATE accounts SET address = 'Ann@Example.org' WHERE address = 'anna@example.org'; SELECT address FROM keys ORDER BY id;`); err != nil ||
			out != "ok\nAnn@example.org\n@example.org\n" {
			t.Errorf("the shell said %q, %v", out, err)
		}
		if err := s.SetKeyOptions(ctx, 1, keys.KeyOptions{AEAD: keys.OCB}); err != nil {
			t.Fatal(err)
		}
		if out, err := shell(t, s, `SELECT options FROM keys ORDER BY id; UPDATE keys SET options = '{"aead":"eax"}';`); err == nil ||
			!strings.Contains(out, "{\"aead\":\"ocb\"}\n{}\n") || !strings.Contains(out, "aead_neither_gcm_nor_ocb") {
			t.Errorf("the shell said %q, %v", out, err)
		}
		goDown(t, s, 4)
		if _, err := s.Check(ctx); !errors.Is(err, ErrNoSchema) {
			t.Errorf("Check in version 3: %v", err)
		}
		goDown(t, s, 3)
		if _, err := s.Check(ctx); !errors.Is(err, ErrNoSchema) {
			t.Errorf("Check in version 2: %v", err)
		}
		goDown(t, s, 2)
		s.SQL(t, `DELETE FROM schema_version WHERE version_id >= 2`)
		if out, err := shell(t, s, `PRAGMA integrity_check; SELECT address FROM keys;`); err != nil || out != "ok\nAnn@example.org\n" {
			t.Errorf("the shell said %q, %v", out, err)
		}
		if _, err := s.write.Exec(`INSERT INTO keys (address, key) VALUES ('@example.org', 'DOMAIN')`); err == nil || !strings.Contains(err.Error(), "without_local_part") {
			t.Errorf("a domain in version 1: %v", err)
		}
	}
}

// TestDown: the way back is written, and leads to where it began.
func TestDown(t *testing.T) {
	s := newStore(t, Options{})
	for version := len(versions); version > 0; version-- {
		goDown(t, s, version)
	}
	if out, err := shell(t, s, `SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' AND name <> 'schema_version';`); err != nil || out != "" {
		t.Errorf("left: %s, %v", out, err)
	}
}

// TestUpgradeStates: keys that were there are active and are since they were
// added, and the way back brings into use nothing that was not.
func TestUpgradeStates(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, Options{})
	goDown(t, s, 4)
	s.SQL(t, `DELETE FROM schema_version WHERE version_id = 4; INSERT INTO keys (address, key, added) VALUES ('ann@example.org', 'ANN', '2024-01-02 03:04:05')`)
	if from, to, err := Migrate(ctx, s.path); err != nil || from != 3 || to != 4 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	for key, err := range s.Keys(ctx, "") {
		if err != nil || key.State != keys.KeyActive || !key.StateSince.Equal(key.Added) || key.Added.Year() != 2024 {
			t.Errorf("%+v, %v", key, err)
		}
	}
	for _, key := range []keys.NewKey{{Address: "ann@example.org", Key: "OLD", State: keys.KeyRetired}, {Address: "ann@example.org", Key: "NEW", State: keys.KeyPending},
		{Address: "bob@example.org", Key: "BOB", State: keys.KeyRetired}, {Address: "carol@example.org", Key: "CAROL", State: keys.KeyRevoked}} {
		if _, err := s.AddKey(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	goDown(t, s, 4)
	if out, err := shell(t, s, `PRAGMA integrity_check; SELECT key FROM keys ORDER BY id;`); err != nil || out != "ok\nANN\nBOB\nrevoked, number 5\n" {
		t.Errorf("the shell said %q, %v", out, err)
	}
}

// TestActor: events have the name that the store was opened for, and what the
// shell does has none.
func TestActor(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, Options{Actor: "ann"})
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "A"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann", Key: "A"}); err == nil {
		t.Fatal("an address that is none")
	}
	if out, err := shell(t, s, `DELETE FROM accounts; SELECT count(*) FROM actor;`); err != nil || out != "0\n" {
		t.Fatalf("the shell said %q, %v", out, err)
	}
	var who []string
	for event, err := range s.Events(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		who = append(who, event.Who+" "+event.Action)
	}
	slices.Sort(who)
	if got := strings.Join(who, ","); got != " account removed, key removed,ann account added,ann key added" {
		t.Errorf("by %q", got)
	}
}

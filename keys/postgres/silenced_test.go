package postgres

import (
	"context"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// TestWatchSilenced: triggers that do not run tell nobody.
func TestWatchSilenced(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	s := daemon(t, server, database)
	cache, f, events := remembering(t, s)
	server.SQL(t, database, `ALTER TABLE sealmilter.keys DISABLE TRIGGER ALL`)
	time.Sleep(2 * time.Second)
	if isEnrolledHere(t, cache, "ann@example.org") {
		t.Fatal("enrolled?")
	}
	server.SQL(t, database, `INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org')`)
	time.Sleep(200 * time.Millisecond)
	isEnrolledHere(t, cache, "ann@example.org")
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'ANN')`)
	time.Sleep(2 * time.Second)
	if !isEnrolledHere(t, cache, "ann@example.org") {
		t.Errorf("a key whose enrolment nobody told of is not seen; the operator was told %q", events())
	}
	server.SQL(t, database, `ALTER TABLE sealmilter.keys ENABLE TRIGGER ALL; ALTER TABLE sealmilter.keys ENABLE ALWAYS TRIGGER replicated`)
	f.take(t, "follow", 3*time.Second)
	// As pg_restore --data-only --disable-triggers does it.
	isEnrolledHere(t, cache, "bob@example.org")
	server.SQL(t, database, `BEGIN; ALTER TABLE sealmilter.accounts DISABLE TRIGGER ALL; ALTER TABLE sealmilter.keys DISABLE TRIGGER ALL;
		INSERT INTO sealmilter.accounts (address) VALUES ('bob@example.org'); INSERT INTO sealmilter.keys (address, key) VALUES ('bob@example.org', 'BOB');
		ALTER TABLE sealmilter.keys ENABLE TRIGGER ALL; ALTER TABLE sealmilter.accounts ENABLE TRIGGER ALL; COMMIT`)
	time.Sleep(2 * time.Second)
	if !isEnrolledHere(t, cache, "bob@example.org") {
		t.Errorf("a key that was restored is not seen; the operator was told %q", events())
	}
}

func isEnrolledHere(t *testing.T, cache *keys.Cache, address string) bool {
	t.Helper()
	found, err := keys.Lookup(context.Background(), cache, keys.Naming{}, []string{address})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found[address].Accounts {
		if a.Enrolled() {
			return true
		}
	}
	return false
}

// TestWatchReenabled: a dump that was restored without triggers leaves those that
// were to run always to run as others do, so that a session that writes as another
// server's changes are tells nobody.
func TestWatchReenabled(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	s := daemon(t, server, database)
	cache, f, events := remembering(t, s)
	server.SQL(t, database, `ALTER TABLE sealmilter.keys DISABLE TRIGGER ALL; ALTER TABLE sealmilter.keys ENABLE TRIGGER ALL;
		INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org')`)
	time.Sleep(2 * time.Second)
	if isEnrolledHere(t, cache, "ann@example.org") {
		t.Fatal("enrolled?")
	}
	server.SQL(t, database, `SET session_replication_role = replica; INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'ANN')`)
	time.Sleep(2 * time.Second)
	if !isEnrolledHere(t, cache, "ann@example.org") {
		t.Errorf("a key whose enrolment nobody told of is not seen; the operator was told %q", events())
	}
	server.SQL(t, database, `ALTER TABLE sealmilter.keys ENABLE ALWAYS TRIGGER replicated`)
	f.take(t, "follow", 5*time.Second)
}

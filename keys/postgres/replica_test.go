package postgres

import (
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestWatchReplica: what is written as another server's changes are, with
// session_replication_role = replica, is told of as well.
func TestWatchReplica(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	s := daemon(t, server, database)
	cache, _, events := remembering(t, s)
	if isEnrolledHere(t, cache, "ann@example.org") {
		t.Fatal("enrolled?")
	}
	server.SQL(t, database, `SET session_replication_role = replica;
		INSERT INTO sealmilter.accounts (address) VALUES ('ann@example.org');
		INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'ANN')`)
	time.Sleep(2 * time.Second)
	if !isEnrolledHere(t, cache, "ann@example.org") {
		t.Errorf("a key that came in as another server's change is not seen; the operator was told %q", events())
	}
}

// TestWatchSubscriber: a server that has the tables by logical replication can be
// written to, and no trigger runs there for what comes in.
func TestWatchSubscriber(t *testing.T) {
	publisher, subscriber := bed.StartPostgres(t), bed.StartPostgres(t)
	publisher.SQL(t, "postgres", `ALTER SYSTEM SET wal_level = logical`)
	publisher.Stop(t)
	publisher.Start(t)
	from, to := migrated(t, publisher), migrated(t, subscriber)
	publisher.SQL(t, from, `CREATE PUBLICATION mail FOR TABLE sealmilter.accounts, sealmilter.keys, sealmilter.aliases`)
	s := daemon(t, subscriber, to)
	cache, _, events := remembering(t, s)
	subscriber.SQL(t, to, `CREATE SUBSCRIPTION mail CONNECTION '`+publisher.URL("postgres", from)+`' PUBLICATION mail`)
	time.Sleep(3 * time.Second)
	if isEnrolledHere(t, cache, "ann@example.org") {
		t.Fatal("enrolled?")
	}
	publisher.SQL(t, from, `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'ANN')`)
	for deadline := time.Now().Add(10 * time.Second); subscriber.SQL(t, to, `SELECT count(*) FROM sealmilter.keys`) != "1"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is replicated")
		}
	}
	time.Sleep(2 * time.Second)
	if !isEnrolledHere(t, cache, "ann@example.org") {
		t.Errorf("a key that came in by logical replication is not seen; the operator was told %q", events())
	}
}

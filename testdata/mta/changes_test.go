package mta_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// What becomes of a message that is not sealed. One that is, is named by the
// keys that it is sealed to.
const (
	passed   = "passed"
	deferred = "deferred"
)

var short = client.ParseMessage([]byte("From: sender@example.net\nSubject: hello\nContent-Type: text/plain\n\nSome words.\n"))

// fate sends a message to one recipient and says what became of it.
func fate(session *client.Session, to string, m client.Message) (string, error) {
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(to)}, m)
	if err != nil {
		return "", err
	}
	return fateOf(result)
}

func fateOf(result client.Result) (string, error) {
	switch {
	case result.Queued == nil && result.Final.Code < 500:
		return deferred, nil
	case result.Queued == nil:
		return "", fmt.Errorf("the answer is %s", result.Final)
	case !result.Queued.Replaced:
		return passed, nil
	}
	return sealedTo(result.Queued.Body)
}

// written is a daemon whose store is written to by somebody else, in SQL.
type written struct {
	daemon  *bed.Daemon
	domain  string // of its own, where others have written to the store before
	schema  string // in front of the names of tables
	shell   func() *bed.Shell
	servers []*bed.Postgres // none: SQLite. The first is the one that is written to
}

const writtenConfig = `
[milter]
listen = "unix:$DIR/sock"
[store]
url = %q
timeout = "2s"
[spool]
directory = "$DIR/spool"
`

// newServers are a primary that logs what it is asked, and its standby.
func newServers(t *testing.T) (primary, standby *bed.Postgres) {
	t.Helper()
	primary = newReaders(t).db
	primary.SQL(t, database, "ALTER SYSTEM SET log_statement = 'all'")
	primary.SQL(t, database, "SELECT pg_reload_conf()")
	standby = primary.StartStandby(t)
	standby.CatchUp(t, primary)
	return primary, standby
}

// countLookups says how often a server was asked for keys so far.
func countLookups(t *testing.T, server *bed.Postgres) int {
	t.Helper()
	return strings.Count(readFile(t, filepath.Join(server.Dir, "log")), "FROM sealmilter.recipient_keys(")
}

// writtenPostgres asks the primary, or the standby where the URL names that.
func writtenPostgres(t *testing.T, url string, servers ...*bed.Postgres) *written {
	t.Helper()
	w := &written{domain: numberOf(newToken()) + ".test", schema: "sealmilter.", servers: servers}
	w.shell = func() *bed.Shell { return servers[0].Shell(t, database) }
	w.daemon = bed.StartDaemon(t, fmt.Sprintf(writtenConfig, url))
	waitFor(t, "the daemon to hear of changes", func() bool { return strings.Contains(w.daemon.Log(), follows) })
	return w
}

func writtenSQLite(t *testing.T) *written {
	t.Helper()
	file := filepath.Join(memoryDir(t), "keys.db")
	w := &written{domain: "bed.test", shell: func() *bed.Shell { return bed.SQLiteShell(t, file) }}
	runProgram(t, "migrate", "--store", "sqlite:"+file)
	w.daemon = bed.StartDaemon(t, fmt.Sprintf(writtenConfig, "sqlite:"+file))
	return w
}

// memoryDir is a folder of which nothing has to reach a disk, as nothing has to
// of the test bed's PostgreSQL either.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bed")
	if err != nil {
		return bed.Dir(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *written) dial(t *testing.T) *client.Session {
	t.Helper()
	s, err := client.Dial("unix", filepath.Join(w.daemon.Dir, "sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// number is what a message sealed to a key names.
func number(key *openpgp.Entity) string { return key.Subkeys[0].PublicKey.KeyIdString() }

// TestChangeToEffect
//
//	an administrator's SQL ──▶ PostgreSQL, or SQLite ◀── sealmilter ◀──milter── this test as the MTA
//
// Of somebody of whom it is remembered that there is no key, one is inserted.
// How long does it take until a message is sealed? It is measured from before
// the statement is sent, which is more than from its COMMIT.
func TestChangeToEffect(t *testing.T) {
	primary, standby := newServers(t)
	both := bothServers(primary, standby, true)
	t.Run("PostgreSQL", func(t *testing.T) {
		writtenPostgres(t, primary.URL("sealmilter", database), primary).takesEffect(t, 100, 1, time.Second)
	})
	t.Run("a standby answers", func(t *testing.T) {
		writtenPostgres(t, both, primary, standby).takesEffect(t, 100, 1, time.Second)
	})
	t.Run("SQLite", func(t *testing.T) { writtenSQLite(t).takesEffect(t, 100, 1, time.Second) })
	// What the standby does not have yet, the primary is asked for.
	standby.Delay(t, 3*time.Second)
	t.Run("a standby that is behind", func(t *testing.T) {
		writtenPostgres(t, both, primary, standby).takesEffect(t, 100, 4, time.Second)
	})
	t.Run("a standby that is preferred", func(t *testing.T) {
		writtenPostgres(t, both+"&target_session_attrs=prefer-standby", primary, standby).takesEffect(t, 100, 4, time.Second)
	})
}

// takesEffect enrols so many people, and some of them at once.
func (w *written) takesEffect(t *testing.T, people, together int, limit time.Duration) {
	t.Helper()
	took := make([]time.Duration, people)
	var running sync.WaitGroup
	for n := range together {
		session, shell := w.dial(t), w.shell()
		running.Go(func() {
			for i := n; i < people; i += together {
				address := fmt.Sprintf("new%d@%s", i, w.domain)
				key := newKey(t, address, time.Hour, 0)
				for range 2 {
					if got, err := fate(session, address, short); got != passed || err != nil {
						t.Errorf("before there is a key a message is %s, error %v", got, err)
						return
					}
				}
				begun := time.Now()
				said, err := shell.Do(fmt.Sprintf("INSERT INTO %skeys (address, key) VALUES ('%s', '%s');", w.schema, address, public(t, key)))
				if said != "" || err != nil {
					t.Errorf("inserting a key: %s, error %v", said, err)
					return
				}
				for got := passed; got != number(key); took[i] = time.Since(begun) {
					if got, err = fate(session, address, short); err != nil || got == deferred || time.Since(begun) > 20*time.Second {
						t.Errorf("%v after the key was inserted a message is %s, error %v", time.Since(begun), got, err)
						return
					}
				}
			}
		})
	}
	running.Wait()
	slices.Sort(took)
	p99 := took[people*99/100-1]
	t.Logf("from INSERT to the first sealed message, %d times: median %v, p99 %v, longest %v", people, took[people/2], p99, took[people-1])
	if p99 >= limit {
		t.Errorf("p99 is %v, at most %v is allowed", p99, limit)
	}
}

// TestChangesUnderLoad
//
//	4 administrators' SQL, 10,000 changes a minute ──▶ PostgreSQL, or SQLite ◀── sealmilter ◀──milter── 8 MTAs, 200 messages a second
//
// Keys come and go, change their state and are rotated, accounts are switched
// off and on and removed, and aliases lead elsewhere, one by one and in bulk.
// Each message must meet what was true within it, or at most a second before.
func TestChangesUnderLoad(t *testing.T) {
	length := 3 * time.Second
	if long == 1 {
		length = time.Minute
	}
	primary, standby := newServers(t)
	t.Run("PostgreSQL", func(t *testing.T) {
		writtenPostgres(t, primary.URL("sealmilter", database), primary).underLoad(t, length)
	})
	t.Run("a standby answers", func(t *testing.T) {
		writtenPostgres(t, bothServers(primary, standby, true), primary, standby).underLoad(t, length)
	})
	t.Run("SQLite", func(t *testing.T) { writtenSQLite(t).underLoad(t, length) })
}

func (w *written) underLoad(t *testing.T, length time.Duration) {
	t.Helper()
	const clients, perSecond, perMinute = 8, 200, 10_000
	writers := make([]*writer, 4)
	for n := range writers {
		writers[n] = newWriter(t, w, n)
	}
	people := all(writers)
	seen := &sightings{keys: make(map[string]*openpgp.Entity)}
	for _, p := range people {
		for _, key := range p.pair {
			seen.keys[number(key)] = key
		}
	}
	lookups := 0
	for _, server := range w.servers {
		lookups -= countLookups(t, server)
	}
	var running sync.WaitGroup
	begun := time.Now()
	end := begun.Add(length)
	for _, each := range writers {
		running.Go(func() { each.write(t, end, 1.02*perMinute/60/float64(len(writers))) })
	}
	for n := range clients {
		session := w.dial(t)
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(begun.UnixNano()), uint64(100+n)))
			for i := 0; time.Now().Before(end); i++ {
				due := begun.Add(time.Duration(float64(i) / (1.02 * perSecond / clients) * float64(time.Second)))
				time.Sleep(time.Until(due))
				seen.send(t, session, people[random.IntN(len(people))], i%20 == 0)
			}
		})
	}
	running.Wait()
	took := time.Since(begun)
	changes := 0
	for _, each := range writers {
		changes += each.count
	}
	aMinute, aSecond := float64(changes)/took.Minutes(), float64(len(seen.list))/took.Seconds()
	for _, server := range w.servers {
		lookups += countLookups(t, server)
	}
	if len(w.servers) > 0 {
		t.Logf("%d messages took %d lookups", len(seen.list), lookups)
	}
	t.Logf("%.0f changes a minute and %.0f messages a second for %v: %s", aMinute, aSecond, took.Round(time.Second), seen.judge(t))
	if long == 1 && (aMinute < perMinute || aSecond < perSecond) {
		t.Error("that is too few")
	}
	w.settles(t, people)
}

// settles: a second later all is as it was written last.
func (w *written) settles(t *testing.T, people []*person) {
	t.Helper()
	time.Sleep(time.Second)
	session := w.dial(t)
	for _, p := range people {
		last := p.history[len(p.history)-1]
		if got, err := fate(session, p.address, short); err != nil || got != last.fate {
			t.Errorf("in the end a message to %s is %s, not %s, error %v", p.address, got, last.fate, err)
		}
	}
	if len(w.servers) > 0 {
		if used := w.servers[0].SQL(t, database, "SELECT pg_notification_queue_usage()"); used != "0" {
			t.Errorf("%s of the server's queue of notifications is in use", used)
		}
	}
	for _, bad := range []string{"panic", "internal error", lost, "the key store did not answer"} {
		if strings.Contains(w.daemon.Log(), bad) {
			t.Errorf("the log has %q", bad)
		}
	}
}

// sealedTo are the numbers of the keys that an OpenPGP message names, in their
// order.
func sealedTo(body []byte) (string, error) {
	_, rest, found := strings.Cut(string(body), "-----BEGIN PGP MESSAGE-----")
	if !found {
		return "", fmt.Errorf("no OpenPGP message in %.300q", body)
	}
	block, err := armor.Decode(strings.NewReader("-----BEGIN PGP MESSAGE-----" + rest))
	if err != nil {
		return "", err
	}
	var numbers []string
	for packets := packet.NewReader(block.Body); ; {
		next, err := packets.Next()
		key, is := next.(*packet.EncryptedKey)
		if err != nil || !is {
			slices.Sort(numbers)
			return strings.Join(numbers, " "), nil
		}
		numbers = append(numbers, fmt.Sprintf("%016X", key.KeyId))
	}
}

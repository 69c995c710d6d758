package postgres

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// follower notes what it is told.
type follower struct {
	mu    sync.Mutex
	calls []string
	at    []time.Time
}

func (f *follower) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at = append(f.calls, call), append(f.at, time.Now())
}

func (f *follower) Follow()                     { f.note("follow") }
func (f *follower) FollowFor(ttl time.Duration) { f.note("follow for " + ttl.String()) }
func (f *follower) Lose()                       { f.note("lose") }
func (f *follower) Changed(address string)      { f.note("changed " + address) }

// take waits for a call, and forgets it and what was before it.
func (f *follower) take(t testing.TB, call string, within time.Duration) (before []string, at time.Time) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		for i := range f.calls {
			if f.calls[i] == call {
				before, at = f.calls[:i:i], f.at[i]
				f.calls, f.at = f.calls[i+1:], f.at[i+1:]
				f.mu.Unlock()
				return before, at
			}
		}
		calls := fmt.Sprint(f.calls)
		f.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("no %q within %v, but %s", call, within, calls)
		}
	}
}

// forget forgets all calls so far. Lookups that a standby has answered too early
// are among them.
func (f *follower) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at = nil, nil
}

// remembering gives a store a memory in which time plays no part, and waits until
// it follows. events is what the operator was told.
func remembering(t *testing.T, s *Store) (cache *keys.Cache, f *both, events func() []string) {
	t.Helper()
	cache = keys.NewCache(s, keys.CacheSettings{Size: 1 << 20, TTL: time.Hour, NoKeyTTL: time.Hour})
	f = &both{Cache: cache}
	events = watched(t, s, f, 0)
	f.take(t, "follow", 5*time.Second)
	return cache, f, events
}

// watched watches a store until the end of the test, and then makes sure that
// nothing of it is left.
func watched(t *testing.T, s *Store, f keys.Follower, ttl time.Duration) (events func() []string) {
	t.Helper()
	var mu sync.Mutex
	var told []string
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan bool)
	go func() {
		defer close(done)
		s.Watch(ctx, f, WatchOptions{TTL: ttl, Event: func(following bool, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%v %v", following, err))
		}})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Watch does not end with its context")
		}
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; !strings.Contains(string(stacks), "postgres.(*watch)") {
				break
			}
			if time.Now().After(end) {
				t.Errorf("goroutines are left:\n%s", stacks)
				break
			}
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), told...)
	}
}

// testWatchChanges: each change is told of within a second, by the addresses
// that it is about; what a lookup does not see is not.
func testWatchChanges(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	f := &follower{}
	events := watched(t, daemon(t, server, database), f, 0)
	f.take(t, "follow", 5*time.Second)
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("('u%d@example.org', 'KEY')", i)
	}
	for _, test := range []struct {
		sql  string
		want string // nothing: the change is not told of
	}{
		{`INSERT INTO sealmilter.keys (address, key) VALUES ('Ann@Example.org', 'A')`, "ann@example.org"},
		{`INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'A2')`, "ann@example.org"},
		{`UPDATE sealmilter.keys SET options = '{"aead": "gcm"}' WHERE key = 'A'`, "ann@example.org"},
		{`UPDATE sealmilter.keys SET state = 'retired' WHERE key = 'A'`, "ann@example.org"},
		{`UPDATE sealmilter.keys SET fingerprint = 'AB', problem = 'x', checked = now(), challenge_tries = 1`, ""},
		{`UPDATE sealmilter.keys SET key = key`, ""},
		{`UPDATE sealmilter.accounts SET enabled = false`, "ann@example.org"},
		{`UPDATE sealmilter.accounts SET enabled = false`, ""},
		{`UPDATE sealmilter.accounts SET address = 'anna@example.org'`, "ann@example.org anna@example.org"},
		{`DELETE FROM sealmilter.keys WHERE key = 'A2'`, "anna@example.org"},
		{`DELETE FROM sealmilter.accounts`, "anna@example.org"},
		{`DELETE FROM sealmilter.accounts`, ""},
		{`INSERT INTO sealmilter.accounts (address, options) VALUES ('@Example.org', '{"no_key": "defer"}')`, "@example.org"},
		{`INSERT INTO sealmilter.aliases (address, target) VALUES ('info@example.org', 'ann@example.org')`, " "},
		{`UPDATE sealmilter.aliases SET target = target`, ""},
		{`DELETE FROM sealmilter.aliases`, " "},
		{`INSERT INTO sealmilter.keys (address, key) VALUES ` + strings.Join(many, ", "), " "},
		{`INSERT INTO sealmilter.keys (address, key) VALUES ('` + strings.Repeat("x", 9000) + `@example.org', 'KEY')`, " "},
		{`BEGIN; INSERT INTO sealmilter.keys (address, key) VALUES ('z@example.org', 'Z'); ROLLBACK`, ""},
		{`SELECT sealmilter.copies_begin('me', ARRAY[sha256('x')], '1 minute')`, ""},
		{`TRUNCATE sealmilter.accounts CASCADE`, " "},
	} {
		server.SQL(t, database, test.sql)
		done := time.Now()
		server.SQL(t, database, `SELECT pg_notify('sealmilter_changes', 'end')`)
		calls, at := f.take(t, "changed end", 2*time.Second)
		if at.Sub(done) > time.Second {
			t.Errorf("told %v after the change: %s", at.Sub(done), test.sql)
		}
		var want []string
		if test.want == " " {
			want = []string{"changed "}
		} else {
			for _, address := range strings.Fields(test.want) {
				want = append(want, "changed "+address)
			}
		}
		seen := make(map[string]bool)
		for _, call := range calls {
			seen[call] = true
		}
		for _, call := range want {
			if !seen[call] {
				t.Errorf("%.80s: told %q, want %q", test.sql, calls, want)
			}
		}
		if len(seen) != len(want) {
			t.Errorf("%.80s: told %q, want %q", test.sql, calls, want)
		}
	}
	if told := events(); len(told) != 1 || told[0] != "true <nil>" {
		t.Errorf("the operator was told %q", told)
	}
}

// testWatchOwnFunction: a function of the site's own is noticed while it is put
// there, and ours when it is back.
func testWatchOwnFunction(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	ours := server.SQL(t, database, `SELECT prosrc FROM pg_proc WHERE oid = 'sealmilter.recipient_keys(text[])'::regprocedure`)
	stored := server.SQL(t, database, `SELECT encode(sha256(convert_to(prosrc, 'UTF8')), 'hex') FROM pg_proc WHERE oid = 'sealmilter.recipient_keys(text[])'::regprocedure`)
	if stored != lookupFunction {
		t.Fatalf("the function of the last migration is %s, and lookupFunction %s", stored, lookupFunction)
	}
	f := &follower{}
	events := watched(t, daemon(t, server, database), f, 7*time.Second)
	f.take(t, "follow", 5*time.Second)
	server.SQL(t, database, siteFunction("text", `SELECT u, u, true, NULL::text, NULL::text, 'SITE KEY', NULL::jsonb FROM unnest(addresses) AS u`))
	f.take(t, "follow for 7s", 3*time.Second)
	server.SQL(t, database, `SELECT pg_notify('sealmilter_changes', 'x')`)
	// However much there is to tell, the function is looked at.
	stop := make(chan bool)
	noisy := opened(t, server.URL("postgres", database), Options{})
	go func() {
		defer close(stop)
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			noisy.pool.Exec(context.Background(), `SELECT pg_notify('sealmilter_changes', 'noise')`)
		}
	}()
	body, _, _ := strings.Cut(ours, "\x00")
	server.SQL(t, database, `CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
		RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
		LANGUAGE plpgsql AS $$`+"\n"+body+"\n"+`$$`)
	f.take(t, "follow", 3*time.Second)
	<-stop
	if told := events(); len(told) != 3 || !strings.Contains(told[1], "is the site's own") || told[2] != "true <nil>" {
		t.Errorf("the operator was told %q", told)
	}
}

// TestWatchBroken: whatever breaks the connection, the follower has lost the
// store until there is another, and then hears of changes again.
func TestWatchBroken(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	f := &follower{}
	events := watched(t, daemon(t, server, database), f, 0)
	f.take(t, "follow", 5*time.Second)
	const listener = `SELECT pid FROM pg_stat_activity WHERE usename = 'sealmilter'`
	hears := func(when string) {
		t.Helper()
		server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', '`+when+`')`)
		f.take(t, "changed ann@example.org", time.Second)
	}
	hears("at first")

	server.SQL(t, database, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sealmilter'`)
	f.take(t, "lose", time.Second)
	f.take(t, "follow", 3*time.Second)
	hears("terminated")

	server.Stop(t)
	f.take(t, "lose", time.Second)
	time.Sleep(time.Second)
	server.Start(t)
	f.take(t, "follow", 10*time.Second)
	hears("restarted")

	// A server that hangs says nothing, and neither does its connection.
	pid, err := strconv.Atoi(server.SQL(t, database, listener))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, lost := f.take(t, "lose", 6*time.Second)
	if took := lost.Sub(began); took > 3500*time.Millisecond {
		t.Errorf("a hung server was noticed after %v", took)
	}
	f.take(t, "follow", 10*time.Second)
	hears("stopped")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	for _, told := range events() {
		if strings.HasPrefix(told, "false") && !strings.Contains(told, "changes") && !strings.Contains(told, "no answer") && !strings.Contains(told, "answers") {
			t.Errorf("the operator was told %q", told)
		}
	}
}

// testWatchPooler: a session that is not the server's own, as a pooler has them
// that gives each its own number, is no place to listen.
func testWatchPooler(t *testing.T, server *bed.Postgres) {
	database := migrated(t, server)
	pooler, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pooler.Close()
	go func() {
		for {
			client, err := pooler.Accept()
			if err != nil {
				return
			}
			go otherNumber(client, server.Port)
		}
	}()
	f := &follower{}
	events := watched(t, opened(t, fmt.Sprintf("postgres://sealmilter@%s/%s?sslmode=disable", pooler.Addr(), database), Options{}), f, 0)
	for end := time.Now().Add(5 * time.Second); !strings.Contains(strings.Join(events(), "\n"), "pooler"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the operator was told %q", events())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.Contains(fmt.Sprint(f.calls), "follow") {
		t.Errorf("the follower was told %q", f.calls)
	}
}

// otherNumber passes a session on with another number in BackendKeyData.
func otherNumber(client net.Conn, port int) {
	defer client.Close()
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer server.Close()
	go io.Copy(server, client)
	in := bufio.NewReader(server)
	for {
		header := make([]byte, 5)
		if _, err := io.ReadFull(in, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if header[0] == 'K' {
			body[3]++
		}
		if _, err := client.Write(append(header, body...)); err != nil {
			return
		}
	}
}

// standbyOf makes a standby that replays what happens after a delay.
func standbyOf(t *testing.T, server *bed.Postgres, delay string) (port int) {
	t.Helper()
	base := bed.Dir(t)
	port = bed.FreePort(t)
	bin := filepath.Dir(resolved(t, bed.Need(t, "initdb", "/usr/lib/postgresql/*/bin")))
	run := func(program string, args ...string) {
		t.Helper()
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(filepath.Join(bin, program), args...)
		if os.Getuid() == 0 {
			cmd = exec.Command("runuser", append([]string{"-u", "postgres", "--", filepath.Join(bin, program)}, args...)...)
		}
		cmd.Dir, cmd.Stdout, cmd.Stderr = base, out, out
		if err := cmd.Run(); err != nil {
			said, _ := os.ReadFile(out.Name())
			t.Fatalf("%s: %v\n%s", program, err, said)
		}
	}
	if os.Getuid() == 0 {
		if out, err := exec.Command("chown", "postgres", base).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
	data := filepath.Join(base, "standby")
	run("pg_basebackup", "-h", server.Dir, "-p", strconv.Itoa(server.Port), "-U", "postgres", "-D", data, "-R", "-c", "fast")
	more := fmt.Sprintf("port=%d\nunix_socket_directories='%s'\nrecovery_min_apply_delay='%s'\n", port, base, delay)
	f, err := os.OpenFile(filepath.Join(data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(more); err != nil {
		t.Fatal(err)
	}
	f.Close()
	run("pg_ctl", "-D", data, "-l", filepath.Join(base, "log"), "-w", "start")
	t.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop") })
	return port
}

func resolved(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWatchStandby: lookups go to a standby two seconds behind. What it answers is
// used and remembered, unless something that it has not got yet is about it.
func TestWatchStandby(t *testing.T) {
	ctx := context.Background()
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	server.SQL(t, database, `INSERT INTO sealmilter.keys (address, key) VALUES ('bob@example.org', 'BOB'), ('ann@example.org', 'ANN')`)
	port := standbyOf(t, server, "2s")
	s := opened(t, fmt.Sprintf("postgres://sealmilter@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable", port, server.Port, database), Options{})
	cache, f, _ := remembering(t, s)
	remembers := func(address string) bool {
		t.Helper()
		for range 2 {
			if _, err := keys.Lookup(ctx, cache, keys.Naming{}, []string{address}); err != nil {
				t.Fatal(err)
			}
		}
		before := cache.Stats().Loads
		if _, err := keys.Lookup(ctx, cache, keys.Naming{}, []string{address}); err != nil {
			t.Fatal(err)
		}
		return cache.Stats().Loads == before
	}
	settled := func(address string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !remembers(address); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is never remembered", address)
			}
		}
	}
	isRetired := func(address string) bool {
		t.Helper()
		found, err := keys.Lookup(ctx, cache, keys.Naming{}, []string{address})
		if err != nil {
			t.Fatal(err)
		}
		return len(found[address].Accounts[0].Unread) == 0 // what is retired is not even parsed
	}
	settled("ann@example.org")
	settled("bob@example.org")
	for round, state := range []string{"retired", "active", "retired"} {
		f.forget()
		server.SQL(t, database, `UPDATE sealmilter.keys SET state = '`+state+`' WHERE address = 'ann@example.org'`)
		f.take(t, "changed ann@example.org", time.Second)
		var ofStandby string
		if err := s.pool.QueryRow(ctx, `SELECT coalesce(options #>> '{key,state}', 'active') FROM sealmilter.recipient_keys('{ann@example.org}')`).Scan(&ofStandby); err != nil || ofStandby == state {
			t.Errorf("round %d: the standby says %s, error %v: this test shows nothing", round, ofStandby, err)
		}
		for began := time.Now(); time.Since(began) < time.Second; time.Sleep(50 * time.Millisecond) {
			if isRetired("ann@example.org") != (state == "retired") {
				t.Fatalf("round %d: the standby's answer from before the change is used", round)
			}
		}
		if !remembers("bob@example.org") {
			t.Errorf("round %d: what nobody has changed is not remembered", round)
		}
		settled("ann@example.org")
		if isRetired("ann@example.org") != (state == "retired") {
			t.Fatalf("round %d: an answer from before the change is remembered", round)
		}
	}
	// A change of an alias may be about anybody.
	server.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES ('carol@example.org', 'ann@example.org')`)
	f.take(t, "changed ", time.Second)
	if remembers("bob@example.org") {
		t.Error("an answer from before a change of aliases is remembered")
	}
	settled("carol@example.org")
	if !isRetired("carol@example.org") {
		t.Error("an answer from before the alias is remembered")
	}
	settled("bob@example.org")

	// Without the primary nobody is told, and lookups go on.
	server.Stop(t)
	f.take(t, "lose", 2*time.Second)
	if remembers("bob@example.org"); cache.Stats().Entries != 0 {
		t.Error("answers are remembered while nobody tells of changes")
	}
}

// both notes what it is told and passes it on.
type both struct {
	*keys.Cache
	follower
}

func (b *both) Follow()                     { b.Cache.Follow(); b.follower.Follow() }
func (b *both) FollowFor(ttl time.Duration) { b.Cache.FollowFor(ttl); b.follower.FollowFor(ttl) }
func (b *both) Lose()                       { b.Cache.Lose(); b.follower.Lose() }
func (b *both) Changed(address string)      { b.Cache.Changed(address); b.follower.Changed(address) }

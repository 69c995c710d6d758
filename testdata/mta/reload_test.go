package mta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// reloading is a daemon whose configuration the test rewrites. Two SQLite
// files hold the same key.
type reloading struct {
	alone
	stores []string // URLs
	secret []byte   // the reader's key
}

const reloadable = `
[milter]
listen = "unix:$DIR/sock"
mode = "0660"
group = "postfix"
[store]
url = %q
timeout = %q
[spool]
directory = "$DIR/spool"
memory = %q
[log]
level = %q
format = %q
addresses = true
`

func newReloading(t *testing.T) *reloading {
	t.Helper()
	r := &reloading{alone: alone{gpg: bed.NewGnuPG(t)}}
	dir := bed.Dir(t)
	key := filepath.Join(dir, "ann.asc")
	if err := os.WriteFile(key, r.gpg.Generate(t, "Ann <"+ann+">", "default"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first.db", "second.db"} {
		store := "sqlite:" + filepath.Join(dir, name)
		runProgram(t, "migrate", "--store", store)
		runProgram(t, "key", "add", "--store", store, ann, key)
		r.stores = append(r.stores, store)
	}
	r.secret = r.gpg.ExportSecret(t, ann)
	r.daemon = bed.StartDaemon(t, fmt.Sprintf(reloadable, r.stores[0], "5s", "1MiB", "info", "text"))
	return r
}

// configure writes the configuration in the place of the old one, in one step
// as an editor does.
func (r *reloading) configure(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(r.daemon.Dir, "sealmilter.toml")
	if err := os.WriteFile(file+".new", []byte(strings.ReplaceAll(text, "$DIR", r.daemon.Dir)), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Error(err)
	}
}

func (r *reloading) hangup(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(r.daemon.PID(), syscall.SIGHUP); err != nil {
		t.Error(err)
	}
}

// reload sends SIGHUP and waits for what the log must say then.
func (r *reloading) reload(t *testing.T, text string) {
	t.Helper()
	before := strings.Count(r.daemon.Log(), text)
	r.hangup(t)
	waitFor(t, fmt.Sprintf("%q in the log", text), func() bool { return strings.Count(r.daemon.Log(), text) > before })
}

// tumult is what the daemon is told while mail goes through it: every second
// time something else, and now and then what it must not take.
func (r *reloading) tumult(t *testing.T, i int) {
	t.Helper()
	pick := func(values ...string) string { return values[i/2%len(values)] }
	good := fmt.Sprintf(reloadable, r.stores[i/2%2], pick("5s", "6s", "7s"), pick("1MiB", "4KiB", "64KiB"), pick("info", "debug"), pick("text", "json", "text"))
	switch {
	case i%10 == 5:
		good += "levl = \"info\"\n"
	case i%10 == 9:
		good = strings.Replace(good, "first.db", "none.db", 1)
		good = strings.Replace(good, "second.db", "none.db", 1)
	case i%2 == 1:
		return // nothing is changed
	}
	r.configure(t, good)
}

// TestReloads
//
//	this test as the MTA, 8 connections ──milter──▶ sealmilter, SIGHUP every 100 ms ──▶ two SQLite files in turn
//	   ║
//	   ╚════▶ opened with the key
//
// 1,000 messages pass while the configuration changes and is broken and mended
// under them. None is lost, none is refused, and no connection is closed.
func TestReloads(t *testing.T) {
	const connections, messages = 8, 125
	r := newReloading(t)
	sessions := make([]*client.Session, connections)
	for i := range sessions {
		sessions[i] = r.dial(t)
		toAnn(t, sessions[i], numberedMessage(i, -1)) // what is opened once is open now
	}
	open := r.descriptors(t)

	ctx, mailed := context.WithCancel(t.Context())
	reloads := 0
	var reloader sync.WaitGroup
	reloader.Go(func() {
		for ; ctx.Err() == nil; reloads++ {
			r.tumult(t, reloads)
			r.hangup(t)
			time.Sleep(100 * time.Millisecond)
		}
	})
	var running sync.WaitGroup
	var opened atomic.Int64
	for i, session := range sessions {
		running.Go(func() {
			for n := range messages {
				if err := r.mail(session, numberedMessage(i, n)); err != nil {
					t.Errorf("connection %d, message %d: %v", i, n, err)
					return
				}
				opened.Add(1)
				time.Sleep(30 * time.Millisecond) // long enough for some tens of reloads
			}
		})
	}
	running.Wait()
	mailed()
	reloader.Wait()

	// The last word is the configuration of the beginning.
	r.configure(t, fmt.Sprintf(reloadable, r.stores[0], "5s", "1MiB", "info", "text"))
	r.hangup(t)
	waitFor(t, "the descriptors of the beginning", func() bool { return slices.Equal(r.descriptors(t), open) })
	log := r.daemon.Log()
	done, refused := strings.Count(log, `reloaded`), strings.Count(log, "the new configuration is not used")
	t.Logf("%d of %d messages came back byte for byte over %d reloads, of which %d were taken and %d refused", opened.Load(), connections*messages, reloads, done, refused)
	if opened.Load() != connections*messages || reloads < 20 || done < 10 || refused < 3 {
		t.Error("that is too few")
	}
	for _, bad := range []string{"deferred", "panic", "connection broken", "DATA RACE"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log has %q", bad)
		}
	}
}

// numberedMessage is one of some length between a line and 200 kB.
func numberedMessage(connection, n int) client.Message {
	body := strings.Repeat(fmt.Sprintf("line of message %d on connection %d\r\n", n, connection), 1+(n+1)*(n+1)%5000)
	return client.ParseMessage([]byte(fmt.Sprintf("From: sender@example.net\nSubject: %d %d\nContent-Type: text/plain\n\n", connection, n) + body))
}

// mail sends a message, which must come back byte for byte.
func (r *reloading) mail(s *client.Session, m client.Message) error {
	result, err := s.Send(client.Envelope{From: "sender@example.net", To: client.To(ann)}, m)
	switch {
	case err != nil:
		return err
	case result.Queued == nil || !result.Queued.Replaced:
		return fmt.Errorf("not sealed, the answer is %q", result.Final)
	}
	got, err := r.open(result.Queued.Bytes())
	if err == nil && !bytes.Equal(got, m.Shown()) {
		err = errors.New("it does not come back byte for byte")
	}
	return err
}

// open opens a message. The key is read each time: go-crypto notes in it what
// it has verified, and several connections would do so at once.
func (r *reloading) open(sealed []byte) ([]byte, error) {
	key, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(r.secret))
	if err != nil {
		return nil, err
	}
	return envelope.Open(sealed, &envelope.Secret{OpenPGP: key})
}

// descriptors is what the daemon has open, sorted: each file by its name as
// often as it is open, and how many sockets. The connections that a SQLite
// store keeps open differ by how many messages came at once: each store counts
// once.
func (r *reloading) descriptors(t *testing.T) []string {
	t.Helper()
	var open []string
	for _, name := range bed.ListDescriptors(t, r.daemon.PID()) {
		kind, _, _ := strings.Cut(name, ":[")
		if strings.HasSuffix(kind, ".db") && slices.Contains(open, kind) {
			continue
		}
		open = append(open, kind)
	}
	slices.Sort(open)
	return open
}

// TestReloadMeanwhile
//
//	this test as the MTA, in the middle of a message ──milter──▶ sealmilter, two reloads ──▶ a store that is no longer in use
//
// The message that began first asks the store that it began with, although a
// reload that left the store alone lies between it and the one that changed
// it; and that store is closed when the message has ended.
func TestReloadMeanwhile(t *testing.T) {
	r := newReloading(t)
	wire, err := client.DialWire("unix", filepath.Join(r.daemon.Dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	say := func(frame client.Frame, want byte) {
		t.Helper()
		if err := wire.Send(frame); err != nil {
			t.Fatal(err)
		}
		if answer, err := wire.Receive(10 * time.Second); err != nil || answer.Code != want {
			t.Fatalf("%c is answered %c %q, error %v", frame.Code, answer.Code, answer.Data, err)
		}
	}
	rcpt := client.Frame{Code: 'R', Data: []byte("<" + ann + ">\x00")}
	holds := func(store int) bool {
		return slices.Contains(bed.ListDescriptors(t, r.daemon.PID()), strings.TrimPrefix(r.stores[store], "sqlite:"))
	}
	say(client.Frame{Code: 'O', Data: []byte{0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff}}, 'O')
	say(client.Frame{Code: 'M', Data: []byte("<sender@example.net>\x00")}, 'c')
	r.configure(t, fmt.Sprintf(reloadable, r.stores[0], "5s", "2MiB", "info", "text"))
	r.reload(t, "reloaded")
	r.configure(t, fmt.Sprintf(reloadable, r.stores[1], "5s", "2MiB", "info", "text"))
	r.reload(t, "reloaded")
	time.Sleep(100 * time.Millisecond) // in which it could be closed too early
	say(rcpt, 'c')
	if !holds(0) {
		t.Error("the first store is not open")
	}
	wire.Send(client.Frame{Code: 'A'})
	say(client.Frame{Code: 'M', Data: []byte("<sender@example.net>\x00")}, 'c')
	say(rcpt, 'c')
	waitFor(t, "the first store to be closed", func() bool { return !holds(0) && holds(1) })
}

// TestReloadLog
//
//	an administrator's SIGHUP ──▶ sealmilter ──▶ SQLite, PostgreSQL (stopped)
//
// What the log says about each kind of change, and what is in force then.
func TestReloadLog(t *testing.T) {
	r := newReloading(t)
	db := bed.StartPostgres(t)
	db.CreateDatabase(t, "mail")
	plain := fmt.Sprintf(reloadable, r.stores[0], "5s", "1MiB", "info", "text")
	change := func(old, new string) string {
		t.Helper()
		if !strings.Contains(plain, old) {
			t.Fatalf("there is no %s to change", old)
		}
		return strings.Replace(plain, old, new, 1)
	}
	postgres := change(fmt.Sprintf("%q", r.stores[0]), fmt.Sprintf("%q", db.URL("postgres", "mail")))
	kept := `level=ERROR msg="the new configuration is not used, the old one stays in force" error="`
	session := r.dial(t)
	n := 0
	step := func(config string, want ...string) {
		t.Helper()
		before := len(r.daemon.Log())
		r.configure(t, config)
		r.reload(t, want[0])
		for _, text := range want {
			if !strings.Contains(r.daemon.Log()[before:], text) {
				t.Errorf("the log has no %q but\n%s", text, r.daemon.Log()[before:])
			}
		}
		n++
		if err := r.mail(session, numberedMessage(0, n)); err != nil {
			t.Error(err)
		}
	}
	step(plain, `msg=reloaded changed=[] `)
	step(change(`"1MiB"`, `"1Mib"`), kept+r.daemon.Dir+`/sealmilter.toml:11:10: spool.memory: \"1Mib\" is no size`)
	step(change(`[spool]`, `[spol]`), kept+r.daemon.Dir+`/sealmilter.toml:9:2: there is no table [spol], did you mean [spool]?"`)
	step(change("first.db", "none.db"), kept, "run sealmilter migrate")
	step(postgres, kept, "run sealmilter migrate") // the server is there, its tables are not
	step(change(`"0660"`, `"0600"`), `msg=reloaded changed=[] `,
		`level=WARN msg="these settings change at a restart only, the old ones stay in force" settings=[milter.mode]`)
	step(change(`listen = "unix:$DIR/sock"`, "max_connections = 7"), `msg=reloaded changed=[] `,
		`settings="[milter.listen milter.max_connections]"`)
	step(change(`"info"`, `"debug"`)+"[storage.encryption]\nenable = true\n", `msg=reloaded changed=[log.level] `)
	step(change(`"text"`, `"json"`), `"msg":"reloaded","changed":["log.level","log.format"],"config":{"milter":{`)
	step(plain, `msg=reloaded changed=[log.format] `)

	// Into PostgreSQL and back. The server stops while the daemon uses it.
	runProgram(t, "migrate", "--store", db.URL("postgres", "mail"))
	db.SQL(t, "mail", fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", ann, r.gpg.Run(t, nil, "--armor", "--export", ann)))
	step(postgres, `msg=reloaded changed=[store.url] `)
	db.Stop(t)
	r.configure(t, strings.Replace(postgres, `"info"`, `"debug"`, 1))
	r.reload(t, `level=ERROR msg="the key store is away, the connections to it stay as they were"`)
	waitFor(t, "the rest of the configuration", func() bool { return strings.Contains(r.daemon.Log(), `msg=reloaded changed=[log.level] `) })
	r.configure(t, strings.Replace(postgres, "/mail", "/other", 1))
	r.reload(t, kept+"the new key store is away: PostgreSQL ")
	db.Start(t)
	step(postgres, `msg=reloaded changed=[log.level] `)
	step(plain, `msg=reloaded changed=[store.url] `)
	os.Remove(filepath.Join(r.daemon.Dir, "sealmilter.toml"))
	r.reload(t, kept+"reading the configuration: open ")
	if err := r.mail(session, numberedMessage(0, 0)); err != nil {
		t.Error(err)
	}
}

// TestReloadPostfix
//
//	SMTP clients ──▶ Postfix ──milter──▶ sealmilter, SIGHUP every 100 ms ──▶ two SQLite files in turn
//	                    ║
//	                    ╚════▶ maildir ════▶ opened with the key
func TestReloadPostfix(t *testing.T) {
	const clients, messages = 4, 25
	r := newReloading(t)
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{ann},
		Milters:   []string{"unix:" + r.daemon.Dir + "/sock"},
		Main:      []string{"local_header_rewrite_clients ="},
	})
	ctx, mailed := context.WithCancel(t.Context())
	var reloader, running sync.WaitGroup
	reloader.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			r.tumult(t, i)
			r.hangup(t)
			time.Sleep(100 * time.Millisecond)
		}
	})
	var sent sync.Map
	for i := range clients {
		running.Go(func() {
			for n := range messages {
				raw := fmt.Appendf(nil, "From: sender@example.net\r\nSubject: %d %d\r\nContent-Type: text/plain\r\n\r\nhello\r\n", i, n)
				if replies := bed.SendMail(t, postfix.Addr(), "sender@example.net", []string{ann}, raw); !bed.Sent(replies) {
					t.Errorf("the answers are %v", replies)
				}
				sent.Store(string(client.PostfixParser().Parse(raw).Shown()), true)
			}
		})
	}
	running.Wait()
	mailed()
	reloader.Wait()
	for _, file := range postfix.WaitDelivered(t, ann, clients*messages, 30*time.Second) {
		got, err := r.open([]byte(readFile(t, file)))
		if err != nil {
			t.Fatal(err)
		}
		if _, was := sent.LoadAndDelete(string(got)); !was {
			t.Errorf("nobody has sent, or it came twice:\n%s", got)
		}
	}
}

// Package mta_test sends mail through real servers: Postfix, PostgreSQL,
// sealmilter as a process of its own, virtual(8) for delivery, and gpg as the
// reader. Each test opens with its topology. An arrow is a connection,
// ════▶ one on which the message is sealed.
package mta_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

func TestMain(m *testing.M) {
	code := m.Run()
	bed.RemoveProgram()
	os.Exit(code)
}

const (
	ann = "ann@bed.test" // has an RSA-3072 key
	bea = "bea@bed.test" // has a Curve25519 key
	bob = "bob@bed.test" // has none
)

// site is everything behind one Postfix. Ann's and Bea's keys come from gpg
// and are put into PostgreSQL by SQL alone; the daemon's role may only call
// the one function.
type site struct {
	db      *bed.Postgres
	daemon  *bed.Daemon
	postfix *bed.Postfix
	gpg     *bed.GnuPG
}

const database = "mail"

// settled changes the key store while the daemon runs, which follows within a
// second; it looks that often, too, whether the function is still ours.
func settled(t *testing.T, db *bed.Postgres, sql string) {
	t.Helper()
	db.SQL(t, database, sql)
	time.Sleep(2 * time.Second)
}

// milterAt says where the daemon listens, as its configuration has it, for
// Postfix's user to reach it. Postfix writes such an address the same way.
func newSite(t *testing.T, listen string) *site {
	t.Helper()
	s := &site{gpg: bed.NewGnuPG(t), db: bed.StartPostgres(t)}
	s.db.CreateDatabase(t, database)
	s.migrate(t)
	s.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	for address, algorithm := range map[string]string{ann: "rsa3072", bea: "default"} {
		armored := s.gpg.Generate(t, "Somebody <"+address+">", algorithm)
		s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, armored))
	}
	s.daemon = bed.StartDaemon(t, s.config(listen))
	listen = strings.ReplaceAll(listen, "$DIR", s.daemon.Dir)
	s.postfix = bed.StartPostfix(t, bed.PostfixOptions{
		Addresses:       []string{ann, bea, bob},
		Milters:         []string{listen},
		NonSMTPDMilters: []string{listen},
		// As for a client from elsewhere: Postfix adds and rewrites nothing.
		Main: []string{"local_header_rewrite_clients ="},
	})
	return s
}

func (s *site) config(listen string) string {
	return fmt.Sprintf(`
[milter]
listen = %q
mode = "0660"
group = "postfix"
[store]
url = %q
timeout = "2s"
[spool]
directory = "$DIR/spool"
memory = "64KiB"
[log]
level = "debug"
addresses = true
`, listen, s.db.URL("sealmilter", database))
}

func (s *site) migrate(t *testing.T) {
	t.Helper()
	runProgram(t, "migrate", "--store", s.db.URL("postgres", database))
}

// send sends a message over SMTP and returns the answers, one line each.
func (s *site) send(t *testing.T, raw []byte, to ...string) []bed.Reply {
	t.Helper()
	return bed.SendMail(t, s.postfix.Addr(), "sender@example.net", to, raw)
}

// sent sends a message that must be accepted whole.
func (s *site) sent(t *testing.T, raw []byte, to ...string) {
	t.Helper()
	for _, reply := range s.send(t, raw, to...) {
		if !reply.OK() {
			t.Fatal(reply)
		}
	}
}

// delivered waits for the n-th message of an address and returns it.
func (s *site) delivered(t *testing.T, address string, n int) []byte {
	t.Helper()
	files := s.postfix.WaitDelivered(t, address, n, 20*time.Second)
	return []byte(readFile(t, files[n-1]))
}

// opens checks that gpg opens a message as the bytes that Postfix had shown.
func (s *site) opens(t *testing.T, sealed, raw []byte) {
	t.Helper()
	got := envelope.Original(s.gpg.Decrypt(t, sealed))
	if want := client.PostfixParser().Parse(raw).Shown(); !bytes.Equal(got, want) {
		t.Errorf("opened it is\n%.2000q\nwant\n%.2000q", got, want)
	}
}

// untouched checks that a delivered message is the one that was sent, with
// nothing but trace fields in front.
func untouched(t *testing.T, delivered, raw []byte) {
	t.Helper()
	shown := client.PostfixParser().Parse(raw)
	want := bytes.ReplaceAll(shown.Shown(), []byte("\r\n"), []byte("\n"))
	if !bytes.Contains(raw, []byte("\r\n\r\n")) && len(shown.Body) == 0 {
		want = bytes.TrimSuffix(want, []byte("\n")) // Postfix adds no empty line behind a header that ends the message
	}
	trace, found := bytes.CutSuffix(delivered, want)
	if !found {
		t.Fatalf("delivered was\n%.2000s\nwhich does not end in what was sent:\n%.2000s", delivered, want)
	}
	for line := range strings.Lines(string(trace)) {
		name, _, _ := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
		case name == "Return-Path", name == "X-Original-To", name == "Delivered-To", name == "Received":
		default:
			t.Errorf("the line %q was added", line)
		}
	}
}

func message(t *testing.T, name string) []byte {
	t.Helper()
	return []byte(readFile(t, filepath.Join("../messages", name)))
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

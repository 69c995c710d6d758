package mta_test

import (
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// splitOptions say how a site with re-injection is set up.
type splitOptions struct {
	addresses  []string // mailboxes; ann, bea, carl and bob if there is none
	recipients string   // lines under [recipients]
	reinject   string   // lines under [reinject], for those of address and secret
	main       []string // lines of main.cf
	master     []string // services of master.cf
	dovecot    bool     // mailboxes are Dovecot's, and Postfix delivers by LMTP
}

// splitSite is a Postfix whose filter hands copies back to it, set up by
// filter-first.*, reinject.* and submitted.* of contrib/postfix, of which only
// the ports are changed. Ann and Bea have OpenPGP keys, Carl has a certificate, Bob has none.
type splitSite struct {
	*site
	carl    bed.Identity
	dovecot *bed.Dovecot
	port    int // where copies are taken
	local   int // where mail from sendmail(1) is taken
	milter  int // where the daemon listens
	got     map[string]int
}

// newSplitSite starts PostgreSQL, the daemon, Postfix, and Dovecot where it is
// asked for.
func newSplitSite(t *testing.T, opts splitOptions) *splitSite {
	t.Helper()
	s := &splitSite{
		site: &site{gpg: bed.NewGnuPG(t), db: bed.StartPostgres(t)}, carl: bed.NewIdentity(t, carl, "EC ec_paramgen_curve:P-256"),
		port: bed.FreePort(t), local: bed.FreePort(t), milter: bed.FreePort(t), got: make(map[string]int),
	}
	s.db.CreateDatabase(t, database)
	s.migrate(t)
	s.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	s.enrol(t, ann, string(s.gpg.Generate(t, "Ann <"+ann+">", "default")))
	s.enrol(t, bea, string(s.gpg.Generate(t, "Bea <"+bea+">", "default")))
	s.enrol(t, carl, readFile(t, s.carl.Certificate))
	s.daemon = bed.StartDaemon(t, s.splitConfig(t, opts))
	if len(opts.addresses) == 0 {
		opts.addresses = []string{ann, bea, carl, bob}
	}
	main := []string{s.shipped(t, "filter-first.main.cf"), s.shipped(t, "reinject.main.cf")}
	if opts.dovecot {
		s.dovecot = bed.StartDovecot(t, opts.addresses...)
		main = append(main, "virtual_transport = "+s.dovecot.Transport())
	}
	s.postfix = bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: opts.addresses,
		Main:      append(main, opts.main...),
		Master:    append([]string{s.shipped(t, "filter-first.master.cf"), s.shipped(t, "reinject.master.cf"), s.shipped(t, "submitted.master.cf")}, opts.master...),
	})
	return s
}

// shipped is a file of contrib/postfix for the ports of this site.
func (s *splitSite) shipped(t *testing.T, name string) string {
	t.Helper()
	fill := strings.NewReplacer("8890", fmt.Sprint(s.milter), "10026", fmt.Sprint(s.port), "10027", fmt.Sprint(s.local))
	return fill.Replace(readFile(t, filepath.Join("../../contrib/postfix", name)))
}

// splitConfig is the daemon's configuration. Lines of the test's own under
// [reinject] take the place of those of the same key.
func (s *splitSite) splitConfig(t *testing.T, opts splitOptions) string {
	t.Helper()
	secret := filepath.Join(bed.Dir(t), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("secret of the tests ", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("address = \"127.0.0.1:%d\"\nsecret = %q\ntimeout = \"10s\"\n", s.port, secret)
	for line := range strings.Lines(opts.reinject) {
		key, _, _ := strings.Cut(line, " ")
		kept := slices.DeleteFunc(strings.SplitAfter(lines, "\n"), func(other string) bool { return strings.HasPrefix(other, key+" ") })
		lines = strings.Join(kept, "") + strings.TrimSuffix(line, "\n") + "\n"
	}
	return s.config(fmt.Sprintf("inet:127.0.0.1:%d", s.milter)) + "[recipients]\n" + opts.recipients + "\n[reinject]\n" + lines
}

// enrol puts a key into the store.
func (s *splitSite) enrol(t *testing.T, address, key string) {
	t.Helper()
	s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, key))
}

// files are the messages that a mailbox has got.
func (s *splitSite) files(address string) []string {
	if s.dovecot == nil {
		return s.postfix.Maildir(address)
	}
	found, _ := filepath.Glob(filepath.Join(s.dovecot.Dir, "mail", address, "Maildir/new/*"))
	return found
}

// arrives waits until these mailboxes have got one message more each and the
// queue is empty; no other may have got anything. It returns the messages.
func (s *splitSite) arrives(t *testing.T, boxes []string, to ...string) map[string][]byte {
	t.Helper()
	for _, address := range to {
		s.got[address]++
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.postfix.QueueEmpty() && !slices.ContainsFunc(to, func(a string) bool { return len(s.files(a)) < s.got[a] }) {
			break
		}
	}
	if !s.postfix.QueueEmpty() {
		t.Fatalf("something is left in the queue:\n%s", s.postfix.Log())
	}
	messages := make(map[string][]byte)
	for _, address := range boxes {
		files := s.files(address)
		if len(files) != s.got[address] {
			t.Fatalf("%s has got %d messages, not %d\n%s", address, len(files), s.got[address], s.postfix.Log())
		}
		if slices.Contains(to, address) {
			messages[address] = []byte(readFile(t, lastWritten(t, files)))
		}
	}
	return messages
}

// lastWritten is the file that was written last.
func lastWritten(t *testing.T, files []string) string {
	t.Helper()
	return slices.MaxFunc(files, func(a, b string) int {
		first, err := os.Stat(a)
		second, err2 := os.Stat(b)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return first.ModTime().Compare(second.ModTime())
	})
}

// transact sends one message by MAIL and RCPT with arguments as a test writes
// them, "<ann@bed.test> NOTIFY=SUCCESS", from an address of this machine. It
// goes on with those recipients that were accepted, and returns the answers: to
// MAIL, to each RCPT, to DATA and to the end of it, as far as it came.
func (s *splitSite) transact(t *testing.T, client, from string, rcpts []string, raw []byte) (replies []bed.Reply) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	conn, err := dialer.Dial("tcp", s.postfix.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := textproto.NewConn(conn)
	say := func(name, format string, args ...any) bool {
		if name != "greeting" {
			c.PrintfLine(format, args...)
		}
		code, said, err := c.ReadResponse(0)
		if code == 0 {
			t.Fatalf("%s: %v (so far: %v)", name, err, replies)
		}
		replies = append(replies, bed.Reply{Command: name, Code: code, Text: fmt.Sprintf("%d %s", code, said)})
		return code < 400
	}
	say("greeting", "")
	say("EHLO", "EHLO client.bed.test")
	replies = nil
	if !say("MAIL", "MAIL FROM:%s", from) {
		return replies
	}
	accepted := false
	for _, rcpt := range rcpts {
		accepted = say("RCPT "+rcpt, "RCPT TO:%s", rcpt) || accepted
	}
	if accepted && say("DATA", "DATA") {
		w := c.DotWriter()
		w.Write(raw)
		w.Close()
		say(".", "")
	}
	return replies
}

package mta_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// splitSendmailOptions say how a site with Sendmail and re-injection is set up.
type splitSendmailOptions struct {
	users    []string // mailboxes at Dovecot; all else is refused there
	domains  []string // of the users; bed.test if there is none
	aliases  string   // of Sendmail's
	virtual  string   // a virtusertable
	local    bool     // Dovecot is the local mailer, whose users have bare names
	blind    bool     // without {sealmilter_deletes}
	filtered bool     // the second listener has the filter by mistake
	policy   string   // lines under [policy]
	names    string   // lines under [recipients]
	milter   string   // lines under [milter]
	lines    []string // of sendmail.mc
}

// splitSendmail is a Sendmail whose filter hands copies back to it, set up by
// contrib/sendmail, of which only the sockets are changed, and a Dovecot behind
// it. A recording filter in front of sealmilter says what Sendmail shows. The
// copies go through a gate that can be shut.
type splitSendmail struct {
	sendmailSite
	store *bed.Dovecot
	gate  *gate
	port  int // where copies are taken
}

func newSplitSendmail(t *testing.T, opts splitSendmailOptions) *splitSendmail {
	t.Helper()
	s := &splitSendmail{port: bed.FreePort(t)}
	s.recorder, s.cyd = startRecorder(t), bed.NewIdentity(t, cyd, "RSA rsa_keygen_bits:2048")
	s.gpg, s.db = bed.NewGnuPG(t), bed.StartPostgres(t)
	s.db.CreateDatabase(t, database)
	s.migrate(t)
	s.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	for _, address := range []string{ann, bea} {
		s.enrol(t, address, string(s.gpg.Generate(t, "Somebody <"+address+">", "default")))
	}
	s.enrol(t, cyd, readFile(t, s.cyd.Certificate))
	s.gate = newGate(t, fmt.Sprintf("127.0.0.1:%d", s.port))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon = bed.StartDaemon(t, strings.Replace(s.config("unix:$DIR/sock"), "[store]", opts.milter+"\n[store]", 1)+fmt.Sprintf(
		"[recipients]\ndomain = \"bed.test\"\n%s\n[reinject]\naddress = %q\nsecret = %q\n[policy]\n%s\n", opts.names, s.gate.addr, secret, opts.policy))
	s.store = bed.StartDovecot(t, opts.users...)
	s.sendmail = bed.StartSendmail(t, s.sendmailOptions(t, opts))
	return s
}

// sendmailOptions are Sendmail's, which relays for nobody but loopback.
func (s *splitSendmail) sendmailOptions(t *testing.T, opts splitSendmailOptions) bed.SendmailOptions {
	t.Helper()
	if len(opts.domains) == 0 {
		opts.domains = []string{"bed.test"}
	}
	all := bed.SendmailOptions{
		Domains: opts.domains, Aliases: opts.aliases, Virtual: opts.virtual,
		Filters: append([]string{s.recorder.line(), shippedFilter(t, s.daemon), "undefine(`_PROMISCUOUS_RELAY_')dnl"}, opts.lines...),
	}
	all.Filters = append(all.Filters, s.shippedReinject(t, opts))
	if opts.local {
		all.Local = fmt.Sprintf("127.0.0.1:%d", s.store.LMTP)
		return all
	}
	for _, domain := range opts.domains {
		all.Table += domain + " dovecot:[127.0.0.1]\n"
	}
	all.Mailers = []string{shipped(t, "dovecot.m4", "FILE /run/dovecot/lmtp", "FILE "+s.store.Dir+"/run/lmtp")}
	return all
}

// shippedReinject are the lines that we ship for the second listener, on another
// port, and without what an administrator has left out.
func (s *splitSendmail) shippedReinject(t *testing.T, opts splitSendmailOptions) string {
	t.Helper()
	text := shipped(t, "reinject.m4", "Port=10026,", fmt.Sprintf("Port=%d,", s.port))
	if opts.blind {
		text = without(t, text, "D{sealmilter_deletes}yes")
	}
	if opts.filtered {
		text = without(t, text, ", InputMailFilters=")
	}
	return text
}

func without(t *testing.T, text, part string) string {
	t.Helper()
	if strings.Count(text, part) != 1 {
		t.Fatalf("the shipped lines do not have %q once", part)
	}
	return strings.Replace(text, part, "", 1)
}

func (s *splitSendmail) enrol(t *testing.T, address, key string) {
	t.Helper()
	s.db.SQL(t, database, fmt.Sprintf("INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');", address, key))
}

// inbox are the messages of a user, the oldest first.
func (s *splitSendmail) inbox(t *testing.T, user string) (messages [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.store.Dir, "mail", user, "Maildir", "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int {
		if newest(t, []string{a, b}) == a {
			return 1
		}
		return -1
	})
	for _, file := range files {
		messages = append(messages, []byte(readFile(t, file)))
	}
	return messages
}

// settles waits until all that Sendmail has taken is delivered, and checks how
// many messages each user has.
func (s *splitSendmail) settles(t *testing.T, what string, want map[string]int) {
	t.Helper()
	count := func() map[string]int {
		got := make(map[string]int)
		for user := range want {
			got[user] = len(s.inbox(t, user))
		}
		return got
	}
	short := func() bool {
		got := count()
		for user, n := range want {
			if got[user] < n {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(30 * time.Second); (short() || len(s.sendmail.Queue()) > 0) && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	for user, got := range count() {
		if got != want[user] {
			t.Errorf("%s: %s has %d messages, want %d", what, user, got, want[user])
		}
	}
	if queue := s.sendmail.Queue(); len(queue) > 0 {
		t.Errorf("%s: %q are left in the queue", what, queue)
	}
}

// isSealed checks that a message is the one that Sendmail showed last, sealed,
// for Ann, Bea or Cyd.
func (s *splitSendmail) isSealed(t *testing.T, what string, message []byte) {
	t.Helper()
	if contentType := field(message, "Content-Type"); strings.Contains(contentType, "multipart/encrypted") {
		s.opens(t, what, message)
	} else if strings.Contains(contentType, "pkcs7-mime") {
		s.isShown(t, what, s.cyd.OpenSSL(t, bed.DER(t, message)))
	} else {
		t.Errorf("%s: it is not sealed:\n%.1000s", what, message)
	}
}

// field is a header field's value, "" where there is none.
func field(message []byte, name string) string {
	for _, f := range client.ParseMessage(message).Header {
		if strings.EqualFold(f.Name, name) {
			return strings.TrimSpace(f.Value)
		}
	}
	return ""
}

// gate is a way to a server that can be shut, and that can break off behind a
// message that the server has accepted.
type gate struct {
	addr, target string

	mutex    sync.Mutex
	listener net.Listener
	accepted int // messages
	cutAfter int // so many of them, 0 for never
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	g := &gate{addr: fmt.Sprintf("127.0.0.1:%d", bed.FreePort(t)), target: target}
	g.open(t, 0)
	t.Cleanup(g.shut)
	return g
}

// open lets connections through, and cuts the one on which the n-th message from
// now on is accepted, when the client has heard so.
func (g *gate) open(t *testing.T, n int) {
	t.Helper()
	g.shut()
	listener, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.listener, g.accepted, g.cutAfter = listener, 0, n
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.pass(conn)
		}
	}()
}

// shut makes the server one that nobody can connect to.
func (g *gate) shut() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.listener != nil {
		g.listener.Close()
	}
}

func (g *gate) pass(conn net.Conn) {
	defer conn.Close()
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer server.Close()
		bufio.NewReader(conn).WriteTo(server)
	}()
	for replies := bufio.NewReader(server); ; {
		line, err := replies.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := conn.Write([]byte(line)); err != nil || strings.Contains(line, "Message accepted for delivery") && g.isCut() {
			return
		}
	}
}

func (g *gate) isCut() bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.accepted++
	return g.accepted == g.cutAfter
}

// messages is how many the server has accepted through the gate since it was
// opened.
func (g *gate) messages() int {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.accepted
}

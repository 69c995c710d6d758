package mta_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-smtp"

	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// crossing is what the connections of a test pass through: it counts the
// pieces that cross in either direction and holds the one that a test waits
// for, and all behind it, until the test lets them go. What a program writes
// in one go crosses in one piece where it is short.
type crossing struct {
	mu      sync.Mutex
	count   int
	at      int           // the piece to hold; 0: none
	reached chan struct{} // gets a value when it is there
	resume  chan bool     // whether it is lost
}

// watch counts anew, and holds the piece at.
func (c *crossing) watch(at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count, c.at = 0, at
	c.reached, c.resume = make(chan struct{}, 1), make(chan bool, 1)
}

func (c *crossing) piece() (lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count++; c.count != c.at {
		return false
	}
	c.reached <- struct{}{}
	return <-c.resume
}

// relay is one way through a crossing.
type relay struct {
	*crossing
	port   int
	target string

	state sync.Mutex
	down  bool
	conns map[*net.TCPConn]bool
}

// relay listens on a port of its own, and hands every connection on.
func (c *crossing) relay(t *testing.T, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{crossing: c, port: ln.Addr().(*net.TCPAddr).Port, target: target, conns: make(map[*net.TCPConn]bool)}
	t.Cleanup(func() { ln.Close(); r.cut() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(conn.(*net.TCPConn))
		}
	}()
	return r
}

func (r *relay) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

func (r *relay) serve(from *net.TCPConn) {
	to, err := net.DialTimeout("tcp", r.target, 5*time.Second)
	if err != nil || !r.add(from, to.(*net.TCPConn)) {
		from.SetLinger(0)
		from.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.pass(from, to.(*net.TCPConn)) })
	both.Go(func() { r.pass(to.(*net.TCPConn), from) })
	both.Wait()
	r.state.Lock()
	defer r.state.Unlock()
	delete(r.conns, from)
	delete(r.conns, to.(*net.TCPConn))
}

func (r *relay) add(conns ...*net.TCPConn) bool {
	r.state.Lock()
	defer r.state.Unlock()
	for _, c := range conns {
		if r.down {
			c.Close()
		} else {
			r.conns[c] = true
		}
	}
	return !r.down
}

// pass hands on what comes, and the end too.
func (r *relay) pass(from, to *net.TCPConn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n == 0 || r.piece() {
			return
		}
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

// cut breaks all connections off, as the end of a process does whose kernel
// lives on, and takes no new ones until mend is called.
func (r *relay) cut() {
	r.state.Lock()
	defer r.state.Unlock()
	r.down = true
	for c := range r.conns {
		c.SetLinger(0)
		c.Close()
	}
}

func (r *relay) mend() {
	r.state.Lock()
	defer r.state.Unlock()
	r.down = false
}

// outlet is a re-injection listener that keeps what it has accepted.
type outlet struct {
	addr string

	mu    sync.Mutex
	open  int // sessions
	taken []handed
}

// handed is a message that was accepted for one recipient.
type handed struct {
	to   string
	text []byte
}

func newOutlet(t *testing.T) *outlet {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &outlet{addr: ln.Addr().String()}
	server := smtp.NewServer(o)
	server.EnableDSN = true
	server.ErrorLog = quiet{}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return o
}

// quiet is for a server whose clients break off.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func (o *outlet) NewSession(*smtp.Conn) (smtp.Session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open++
	return &outletSession{outlet: o}, nil
}

// got is what was accepted of the message that a text stands in the header of.
// Nothing is under way any more when it returns.
func (o *outlet) got(t *testing.T, id string) (found []handed) {
	t.Helper()
	waitFor(t, "the listener's sessions to end", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.open == 0
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.taken {
		if header, _, _ := bytes.Cut(h.text, []byte("\r\n\r\n")); bytes.Contains(header, []byte(id)) {
			found = append(found, h)
		}
	}
	return found
}

func (o *outlet) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken = nil
}

type outletSession struct {
	*outlet
	to []string
}

func (s *outletSession) Mail(string, *smtp.MailOptions) error {
	s.to = nil
	return nil
}

func (s *outletSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *outletSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.to {
		s.taken = append(s.taken, handed{to, text})
	}
	return nil
}

func (s *outletSession) Reset() {}

func (s *outletSession) Logout() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	return nil
}

// readers are people with keys of their own, enrolled in PostgreSQL.
type readers struct {
	db   *bed.Postgres
	keys map[string]*openpgp.Entity
}

func newReaders(t *testing.T, addresses ...string) *readers {
	t.Helper()
	r := &readers{db: bed.StartPostgres(t), keys: make(map[string]*openpgp.Entity)}
	r.db.CreateDatabase(t, database)
	runProgram(t, "migrate", "--store", r.db.URL("postgres", database))
	r.db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))
	var sql strings.Builder
	for _, address := range addresses {
		r.keys[address] = newKey(t, address, time.Hour, 0)
		fmt.Fprintf(&sql, "INSERT INTO sealmilter.keys (address, key) VALUES ('%s', '%s');\n", address, public(t, r.keys[address]))
	}
	r.db.SQL(t, database, sql.String())
	return r
}

// reinjectingConfig is that of a daemon that hands copies on to target.
func reinjectingConfig(t *testing.T, listen, store, target string) string {
	t.Helper()
	secret := filepath.Join(bed.Dir(t), "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret"), 6), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
[milter]
listen = %q
[store]
url = %q
timeout = "2s"
[reinject]
address = %q
secret = %q
timeout = "5s"
[spool]
directory = "$DIR/spool"
[log]
addresses = true
`, listen, store, target, secret)
}

// opensAs checks that a sealed message is the one that was sent, that its
// recipient can open it, and that nothing of it stands there in the clear.
func (r *readers) opensAs(t *testing.T, sealed []byte, to, token string, want []byte) {
	t.Helper()
	holdsNone(t, "what "+to+" has got", sealed, token)
	got, err := envelope.Open(sealed, &envelope.Secret{OpenPGP: openpgp.EntityList{r.keys[to]}})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s opens %.300q, error %v", to, got, err)
	}
}

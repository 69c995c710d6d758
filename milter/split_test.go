package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-smtp"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/milter/reinject"
)

// taken is a message that the other service has accepted.
type taken struct {
	from string
	to   []string
	text []byte
}

// service is the MTA's other service. It refuses what refuse tells it to.
type service struct {
	mu     sync.Mutex
	taken  []taken
	refuse func(to string) error
}

func (s *service) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &serviceSession{service: s}, nil
}

func (s *service) got() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

type serviceSession struct {
	*service
	message taken
}

func (s *serviceSession) Mail(from string, _ *smtp.MailOptions) error {
	s.message = taken{from: from}
	return nil
}

func (s *serviceSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.message.to = append(s.message.to, to)
	if s.refuse != nil {
		return s.refuse(to)
	}
	return nil
}

func (s *serviceSession) Data(r io.Reader) (err error) {
	if s.message.text, err = io.ReadAll(r); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.service.taken = append(s.service.taken, s.message)
	}
	return err
}

func (s *serviceSession) Reset()        {}
func (s *serviceSession) Logout() error { return nil }

// memory is a memory of copies in flight that does not outlive the test.
type memory struct {
	mu     sync.Mutex
	owner  map[string]string
	sent   map[string]bool
	refuse error // of Sent
	away   int   // how often End fails
}

func newMemory() *memory { return &memory{owner: make(map[string]string), sent: make(map[string]bool)} }

func (m *memory) Begin(_ context.Context, owner string, copies [][]byte, _ time.Duration) (sent []bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range copies {
		if m.owner[string(c)] != "" {
			return nil, errors.New("somebody else sends it")
		}
	}
	for _, c := range copies {
		m.owner[string(c)] = owner
		sent = append(sent, m.sent[string(c)])
	}
	return sent, nil
}

func (m *memory) Sent(_ context.Context, _ string, c []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	m.sent[string(c)] = true
	return nil
}

func (m *memory) End(_ context.Context, owner string, copies [][]byte, forget bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away > 0 {
		m.away--
		return keys.ErrStore
	}
	for _, c := range copies {
		if m.owner[string(c)] != owner {
			continue
		}
		delete(m.owner, string(c))
		if forget {
			delete(m.sent, string(c))
		}
	}
	return nil
}

// splitter is a filter that re-injects.
type splitter struct {
	*filter
	service *service
	memory  *memory
}

func newSplitter(t *testing.T, change func(*Config)) *splitter {
	t.Helper()
	s := &splitter{service: &service{}, memory: newMemory()}
	server := smtp.NewServer(s.service)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	s.filter = newFilter(t, func(c *Config) {
		c.Split = SplitReinject
		c.Reinjection = &Reinjection{
			Target: reinject.Target{Address: ln.Addr().String(), Timeout: 5 * time.Second},
			Copies: s.memory,
			Secret: bytes.Repeat([]byte("s"), 32),
		}
		if change != nil {
			change(c)
		}
	})
	return s
}

// trusting is an MTA of which it is known that it deletes recipients.
var trusting = client.Options{
	Macros:    []string{"{" + macroDeletes + "}", "yes"},
	EndMacros: []string{"v", "Postfix 3.7.11, " + macroDeletes + "=yes"},
}

// readersOf names those of the people who can open a message.
func readersOf(message []byte, people map[string]*openpgp.Entity) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(people)) {
		if _, err := envelope.Open(message, &envelope.Secret{OpenPGP: openpgp.EntityList{people[name]}}); err == nil {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// TestSplit sends one message to people of every kind.
func TestSplit(t *testing.T) {
	s := newSplitter(t, nil)
	people := make(map[string]*openpgp.Entity)
	for _, name := range []string{"ann", "bea", "cid", "dan", "eve"} {
		people[name] = s.enrol(t, name+"@example.org")
	}
	m := client.ParseMessage([]byte("From: sender@example.net\nTo: Ann <ann@example.org>,\n BEA@example.org\nCc: bob@example.org, \"x\" <cid@example.org>\n" +
		"Subject: hello\nX-Sealmilter-Copy: forged\n\nhello\n"))
	to := client.To("ann@example.org", "bob@example.org", "dan@example.org", "bea@example.org", "cid@example.org", "eve@example.org", "zoe@example.org", "ann@example.org")
	result, err := s.dial(t, trusting).Send(client.Envelope{From: "sender@example.net", To: to}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || result.Queued.Replaced || !slices.Equal(result.Queued.Recipients, []string{"bob@example.org", "zoe@example.org"}) {
		t.Fatalf("left in the transaction: %+v, the answer is %q", result.Queued, result.Final)
	}
	var got []string
	for _, c := range s.service.got() {
		slices.Sort(c.to)
		got = append(got, fmt.Sprintf("%s: %s", strings.Join(c.to, " "), readersOf(c.text, people)))
		header, _, _ := strings.Cut(string(c.text), "\r\n\r\n")
		if !strings.HasPrefix(header, "Received: from client.example.net ([192.0.2.1] [192.0.2.1])\r\n\tby mx.example.org (sealmilter) with ESMTP id 4F2C91A0B7;\r\n\t") ||
			strings.Contains(header, "forged") || c.from != "sender@example.net" {
			t.Errorf("from %s, the header is\n%s", c.from, header)
		}
		if opened, err := envelope.Open(c.text, &envelope.Secret{OpenPGP: openpgp.EntityList{people[strings.Fields(readersOf(c.text, people))[0]]}}); err != nil || !bytes.Equal(opened, m.Shown()) {
			t.Errorf("opened it is %q, error %v", opened, err)
		}
	}
	slices.Sort(got)
	want := []string{
		"ann@example.org bea@example.org cid@example.org: ann bea cid",
		"dan@example.org: dan",
		"eve@example.org: eve",
	}
	if !slices.Equal(got, want) {
		t.Errorf("re-injected were\n%q, want\n%q", got, want)
	}
}

// TestSeparate: who shares a copy, and which copy stays.
func TestSeparate(t *testing.T) {
	for separate, want := range map[Separate][]string{
		SeparateUndisclosed: {"stays ann bea", "cid"},
		SeparateAlways:      {"stays ann", "bea", "cid"},
		SeparateNever:       {"stays ann bea cid"},
	} {
		s := newSplitter(t, func(c *Config) { c.Separate = separate })
		people := make(map[string]*openpgp.Entity)
		for _, name := range []string{"ann", "bea", "cid"} {
			people[name] = s.enrol(t, name+"@example.org")
		}
		m := client.ParseMessage([]byte("To: ann@example.org, bea@example.org\n\nhello\n"))
		result, err := s.dial(t, trusting).Send(client.Envelope{From: "a@b.c", To: client.To("ann@example.org", "bea@example.org", "cid@example.org")}, m)
		if err != nil || result.Queued == nil || !result.Queued.Replaced {
			t.Fatalf("%+v, error %v", result, err)
		}
		got := []string{"stays " + readersOf(result.Queued.Bytes(), people)}
		if kept := strings.ReplaceAll(strings.Join(result.Queued.Recipients, " "), "@example.org", ""); "stays "+kept != got[0] {
			t.Errorf("kept are %q, the readers %q", kept, got[0])
		}
		for _, c := range s.service.got() {
			got = append(got, readersOf(c.text, people))
		}
		slices.Sort(got[1:])
		if !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", separate, got, want)
		}
	}
}

// TestUndeleted: where it is not known that the MTA deletes recipients, nobody
// shares a transaction who would have to leave it.
func TestUndeleted(t *testing.T) {
	for _, macros := range [][]string{nil, {"{" + macroDeletes + "}", "no"}} {
		s := newSplitter(t, nil)
		s.enrol(t, "ann@example.org")
		s.enrol(t, "bea@example.org")
		for to, want := range map[string]string{
			"ann bob": "250 452", "bob ann": "250 452", "bob zoe ann": "250 250 452", "ann bea": "250 452", "bob zoe": "250 250",
		} {
			var addresses, got []string
			for _, name := range strings.Fields(to) {
				addresses = append(addresses, name+"@example.org")
			}
			result, err := s.dial(t, client.Options{Macros: macros}).Send(client.Envelope{From: "a@b.c", To: client.To(addresses...)}, textMessage("hello"))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range result.Recipients {
				got = append(got, r.String()[:3])
			}
			if strings.Join(got, " ") != want {
				t.Errorf("to %s the answers are %q, want %q", to, got, want)
			}
		}
	}
}

// TestCleanup: what smtpd says of deleting recipients counts only where cleanup,
// which does it, says the same at the end of the message.
func TestCleanup(t *testing.T) {
	for _, end := range [][]string{nil, {"v", "Postfix 3.7.11"}, {"v", "Postfix 3.7.11, " + macroDeletes + "=no"}, {"{" + macroDeletes + "}", "yes"}} {
		s := newSplitter(t, nil)
		s.enrol(t, "ann@example.org")
		s.enrol(t, "bea@example.org")
		session := s.dial(t, client.Options{Macros: trusting.Macros, EndMacros: end})
		for to, want := range map[string]string{"ann bob": "451", "ann bea": "451"} {
			first, second, _ := strings.Cut(to, " ")
			result, err := session.Send(client.Envelope{From: "a@b.c", To: client.To(first+"@example.org", second+"@example.org")}, textMessage("hello"))
			if err != nil || !strings.HasPrefix(result.Final.String(), want) || (result.Queued == nil) != (want != "") {
				t.Errorf("%q, to %s: %+v, error %v", end, to, result, err)
			}
		}
		if n := len(s.service.got()); n != 0 {
			t.Errorf("%q: %d copies were re-injected", end, n)
		}
	}
}

// TestOddSpellings: an address that Postfix may read otherwise when it is told to
// delete it shares no transaction with another copy.
func TestOddSpellings(t *testing.T) {
	s := newSplitter(t, nil)
	s.enrol(t, "ann@example.org")
	s.enrol(t, "jörg@example.org")
	for address, want := range map[string]string{
		"ann@example.org": "250", "ANN@example.org": "250", "ann+x@example.org": "250", "jörg@example.org": "250",
		"@a.test,@b.test:ann@example.org": "452", `"ann"@example.org`: "452", "ann(x)@example.org": "452", " ann@example.org": "452",
		"ann@example.org.": "452", `a\nn@example.org`: "452", `"ann@example.org"@example.org`: "452",
	} {
		result, err := s.dial(t, trusting).Send(client.Envelope{From: "a@b.c", To: client.To("bob@example.org", address)}, textMessage("hello"))
		if err != nil || result.Recipients[1].String()[:3] != want {
			t.Errorf("%s: %+v, error %v", address, result, err)
		}
	}
}

// TestRetry: a copy that was refused keeps the whole message with its sender;
// the retry sends nobody a second one, and an equal message later is another.
func TestRetry(t *testing.T) {
	s := newSplitter(t, nil)
	for _, name := range []string{"ann", "bea", "cid"} {
		s.enrol(t, name+"@example.org")
	}
	count := func() string {
		n := make(map[string]int)
		for _, c := range s.service.got() {
			for _, to := range c.to {
				n[to[:3]]++
			}
		}
		return fmt.Sprint(n)
	}
	send := func(session *client.Session) client.Result {
		t.Helper()
		result, err := session.Send(client.Envelope{From: "a@b.c", To: client.To("ann@example.org", "bea@example.org", "cid@example.org")}, textMessage("hello"))
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	s.service.refuse = func(to string) error {
		if to == "cid@example.org" {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "not now"}
		}
		return nil
	}
	session := s.dial(t, trusting)
	for range 3 {
		result := send(session)
		s.deferred(t, result.Final, "re-injecting copy 2 of 2")
		if len(result.Edits) > 0 || result.Queued != nil {
			t.Errorf("it was edited: %v", result.Edits)
		}
		if got := count(); got != "map[bea:1]" {
			t.Errorf("re-injected were %s", got)
		}
	}
	s.service.refuse = nil
	if result := send(session); result.Queued == nil || count() != "map[bea:1 cid:1]" {
		t.Errorf("after the retry %s, the answer is %q", count(), result.Final)
	}
	for i := range 3 { // equal ones, each a message of its own
		if result := send(session); result.Queued == nil || count() != fmt.Sprintf("map[bea:%d cid:%[1]d]", i+2) {
			t.Errorf("message %d: %s, the answer is %q", i+2, count(), result.Final)
		}
	}
	s.memory.refuse = errors.New("disk full")
	s.deferred(t, send(session).Final, "disk full")
	if !strings.Contains(s.log.String(), "a copy may come twice") {
		t.Error("the log does not say that a copy may come twice")
	}
}

// TestNoMemory: what cannot be remembered is not sent.
func TestNoMemory(t *testing.T) {
	s := newSplitter(t, nil)
	for _, name := range []string{"ann", "bea"} {
		s.enrol(t, name+"@example.org")
	}
	s.memory.owner = map[string]string{}
	held := &holding{memory: s.memory}
	s.change(func(c *Config) {
		by := *c.Reinjection
		by.Copies = held
		c.Reinjection = &by
	})
	result := sendOn(t, s.dial(t, trusting), textMessage("hello"), "ann@example.org", "bea@example.org")
	s.deferred(t, result.Final, "remembering the copies in flight: "+keys.ErrStore.Error())
	if len(s.service.got()) > 0 {
		t.Error("a copy was sent that could not be remembered")
	}
}

// holding is a memory that is away.
type holding struct{ *memory }

func (holding) Begin(context.Context, string, [][]byte, time.Duration) ([]bool, error) {
	return nil, keys.ErrStore
}

// TestLoop: a copy that comes back to the filter is an error, and a guard is no
// reason to let anything pass.
func TestLoop(t *testing.T) {
	s := newSplitter(t, func(c *Config) {
		always := true
		c.Policy.Settings.Always = &always
	})
	ann := s.enrol(t, "ann@example.org")
	s.enrol(t, "bea@example.org")
	if result := sendOn(t, s.dial(t, trusting), textMessage("hello"), "ann@example.org", "bea@example.org"); result.Queued == nil {
		t.Fatal(result.Final)
	}
	came := client.ParseMessage(s.service.got()[0].text)
	result := s.send(t, came, "bea@example.org")
	s.deferred(t, result.Final, "a loop: the message is a copy that was re-injected from here")
	for _, forged := range []string{" forged", " 0-0-0", " " + strings.Repeat("f", 100)} {
		m := textMessage("hello")
		m.Header = append(m.Header, client.Field{Name: guardField, Value: forged})
		opens(t, s.send(t, m, "ann@example.org"), ann, m)
	}
}

// TestOneMailboxTwice: Sendmail takes two RCPT commands that it resolves to one
// mailbox for one recipient, and deletes both with one.
func TestOneMailboxTwice(t *testing.T) {
	s := newSplitter(t, nil)
	s.enrol(t, "ann@example.org")
	s.enrol(t, "bea@example.org")
	w := s.raw(t, client.AllProtocol)
	w.send('D', append([]string{"C"}, trusting.Macros...)...)
	w.send('M', "<a@b.c>")
	w.want('c')
	w.rcpt("bea@example.org", "bea@example.org", 'c')
	w.rcpt("ann@example.org", "ann@example.org", 'c')
	w.rcpt("ann%example.org@mx.example.org", "ann@example.org", 'c')
	w.send('L', "Subject", " hello")
	w.send('N')
	w.want('c')
	w.send('E')
	var deleted []string
	for {
		frame := w.receive()
		if frame.Code == byte('-') {
			deleted = append(deleted, strings.Trim(string(frame.Data), "<>\x00"))
		}
		if frame.Code == 'a' {
			break
		}
		if frame.Code == codeReply {
			t.Fatalf("%q", frame.Data)
		}
	}
	if want := []string{"ann@example.org", "ann%example.org@mx.example.org"}; !slices.Equal(deleted, want) {
		t.Errorf("deleted were %q, want %q", deleted, want)
	}
	if got := s.service.got(); len(got) != 1 || len(got[0].to) != 1 {
		t.Errorf("re-injected were %+v", got)
	}
}

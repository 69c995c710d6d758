package bed

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// PostfixOptions say how a Postfix is set up.
type PostfixOptions struct {
	// Addresses are delivered into maildirs by virtual(8); their domains are
	// the ones that this Postfix is the destination for. b@bed.test if there
	// is none.
	Addresses []string

	// Milters and NonSMTPDMilters are filters as main.cf names them, such as
	// "inet:127.0.0.1:8890" or "{ unix:/path, command_timeout=3s }".
	Milters         []string
	NonSMTPDMilters []string

	DefaultAction string   // milter_default_action; tempfail if empty
	Main          []string // further lines of main.cf; a later one of the same name wins
	Master        []string // further services of master.cf; a later one of the same name wins
}

// Postfix is a private Postfix on 127.0.0.1 that takes mail by SMTP and by
// sendmail(1) and delivers it into maildirs.
type Postfix struct {
	Dir  string // its folder; etc, queue, log and mail are in it
	Port int    // of its SMTP server

	postfix  string // the program
	sendmail string
}

// StartPostfix starts a Postfix in a folder of its own. It is stopped at the
// end of the test. Its log is shown where the test failed.
func StartPostfix(t testing.TB, opts PostfixOptions) *Postfix {
	t.Helper()
	NeedRoot(t)
	p := &Postfix{
		Dir:      Dir(t),
		Port:     FreePort(t),
		postfix:  Need(t, "postfix", "/usr/sbin"),
		sendmail: Need(t, "sendmail", "/usr/sbin"),
	}
	for _, dir := range []string{"etc", "queue", "data", "log", "mail"} {
		if err := os.Mkdir(filepath.Join(p.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	user := credential(t, "postfix")
	for _, dir := range []string{"data", "mail"} {
		if err := os.Chown(filepath.Join(p.Dir, dir), int(user.Uid), int(user.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if len(opts.Addresses) == 0 {
		opts.Addresses = []string{"b@bed.test"}
	}
	p.write(t, "etc/main.cf", p.mainCF(opts, user.Uid, user.Gid))
	p.write(t, "etc/master.cf", p.masterCF(opts))
	p.write(t, "etc/mailboxes", mailboxes(opts.Addresses))
	t.Cleanup(func() {
		p.Stop(t)
		if t.Failed() {
			t.Logf("Postfix:\n%s", p.Log())
		}
	})
	p.Start(t)
	return p
}

// Start starts Postfix again after Stop, on the same port.
func (p *Postfix) Start(t testing.TB) {
	t.Helper()
	p.run(t, "start") // returns when master(8) has opened its sockets
}

// Stop stops Postfix and waits until all of its processes are gone. Stopping a
// stopped Postfix does nothing.
func (p *Postfix) Stop(t testing.TB) {
	t.Helper()
	if pid, _ := os.ReadFile(filepath.Join(p.Dir, "queue/pid/master.pid")); len(pid) == 0 {
		return
	}
	if exec.Command(p.postfix, "-c", p.etc(), "status").Run() != nil {
		return
	}
	p.run(t, "stop")
}

// SetMain puts lines into main.cf in the place of those of the same name. It
// holds from the next Start on.
func (p *Postfix) SetMain(t testing.TB, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.etc(), "main.cf"))
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "etc/main.cf", merge(append([]string{string(text)}, lines...), parameterName))
}

// AddMaster puts services into master.cf in the place of those of the same name.
// They are there from the next Start on.
func (p *Postfix) AddMaster(t testing.TB, services ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.etc(), "master.cf"))
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "etc/master.cf", merge(append([]string{string(text)}, services...), serviceName))
}

// Addr is where the SMTP server listens.
func (p *Postfix) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.Port) }

// Log is all that Postfix has logged.
func (p *Postfix) Log() string {
	text, err := os.ReadFile(filepath.Join(p.Dir, "log/mail.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Maildir names the files that were delivered to an address, in the order in
// which they came.
func (p *Postfix) Maildir(addr string) []string {
	var files []string
	for _, sub := range []string{"new", "cur"} {
		found, _ := filepath.Glob(filepath.Join(p.Dir, "mail", mailbox(addr), sub, "*"))
		files = append(files, found...)
	}
	slices.SortStableFunc(files, func(a, b string) int { return modified(a).Compare(modified(b)) })
	return files
}

// WaitDelivered waits until n messages have come to an address, and returns
// their files. More than n is an error too.
func (p *Postfix) WaitDelivered(t testing.TB, addr string, n int, timeout time.Duration) []string {
	t.Helper()
	p.waitFor(t, fmt.Sprintf("message %d for %s", n, addr), timeout, func() bool { return len(p.Maildir(addr)) >= n })
	files := p.Maildir(addr)
	if len(files) > n {
		t.Fatalf("%s has got %d messages, not %d\n%s", addr, len(files), n, p.Log())
	}
	return files
}

// WaitLog waits until a text is in the log.
func (p *Postfix) WaitLog(t testing.TB, text string, timeout time.Duration) {
	t.Helper()
	p.waitFor(t, fmt.Sprintf("%q in the log", text), timeout, func() bool { return strings.Contains(p.Log(), text) })
}

// QueueEmpty says whether no message is in the queue, deferred ones included.
func (p *Postfix) QueueEmpty() bool {
	return p.queuesEmpty("maildrop", "incoming", "active", "deferred", "hold")
}

func (p *Postfix) queuesEmpty(queues ...string) bool {
	empty := true
	for _, queue := range queues {
		filepath.WalkDir(filepath.Join(p.Dir, "queue", queue), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				empty = false
			}
			return nil
		})
	}
	return empty
}

// Flush has everything in the queue tried again now. A message of which one
// recipient is still tried is none that could be: it would wait for minutes.
func (p *Postfix) Flush(t testing.TB) {
	t.Helper()
	p.waitFor(t, "nothing to be under way", 10*time.Second, func() bool { return p.queuesEmpty("maildrop", "incoming", "active") })
	p.run(t, "flush")
}

// Sendmail submits a message by sendmail(1), which meets the filters in
// NonSMTPDMilters once pickup(8) has taken it.
func (p *Postfix) Sendmail(t testing.TB, args []string, message string) {
	t.Helper()
	cmd := exec.Command(p.sendmail, append([]string{"-C", p.etc()}, args...)...)
	cmd.Stdin = strings.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v\n%s", err, out)
	}
}

func (p *Postfix) etc() string { return filepath.Join(p.Dir, "etc") }

func (p *Postfix) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *Postfix) run(t testing.TB, command string) {
	t.Helper()
	// master inherits the output: to a pipe it would hold the test up for ever.
	out, err := os.Create(filepath.Join(p.Dir, "log", command))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(p.postfix, "-c", p.etc(), command)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		t.Fatalf("postfix %s: %v\n%s\n%s", command, err, said, p.Log())
	}
}

func (p *Postfix) waitFor(t testing.TB, what string, timeout time.Duration, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s\n%s", timeout, what, p.Log())
		}
	}
}

// mailbox is an address's folder below mail.
func mailbox(addr string) string { return strings.ToLower(addr) + "/" }

// mailboxes is the table of addresses, in small letters: virtual(8) looks them
// up so, whatever the case in the envelope.
func mailboxes(addrs []string) string {
	var table strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&table, "%s %s\n", strings.ToLower(a), mailbox(a))
	}
	return table.String()
}

func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

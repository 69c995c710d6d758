package bed

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// sendmailRoot is where Debian's packages of Sendmail are unpacked: installed,
// they would take Postfix away. install.sh reads the folder's name here.
const sendmailRoot = "/var/cache/sealmilter/sendmail"

// SendmailOptions say how a Sendmail is set up. Mail that neither Local nor a
// line of Mailers claims goes to Relay.
type SendmailOptions struct {
	// Relay is the host:port of an SMTP server, to which the recipients go as
	// whole addresses.
	Relay string

	// Local is the host:port of an LMTP server for the mail of local users, who
	// go to it by their bare names.
	Local string

	Domains []string // that Local and Virtual are for; bed.test if there is none

	Aliases string // an aliases file
	Virtual string // a virtusertable
	Table   string // a mailertable

	Filters []string // lines of sendmail.mc: INPUT_MAIL_FILTER, and what is set beside it
	Mailers []string // lines of sendmail.mc that stand behind its own mailers
}

// Sendmail is a private Sendmail 8 on 127.0.0.1 that takes mail by SMTP.
type Sendmail struct {
	Dir  string // its folder; queue is in it
	Port int    // of its SMTP server

	cmd  *exec.Cmd
	gone chan error
	log  syslog
}

// StartSendmail starts a Sendmail in a folder of its own. It is stopped at the
// end of the test. Its log is shown where the test failed.
func StartSendmail(t testing.TB, opts SendmailOptions) *Sendmail {
	t.Helper()
	NeedRoot(t)
	needSendmail(t)
	s := &Sendmail{Dir: Dir(t), Port: FreePort(t)}
	for dir, mode := range map[string]os.FileMode{"queue": 0o700, "dev": 0o755} {
		if err := os.Mkdir(filepath.Join(s.Dir, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range s.files(opts) {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"hosts", "nsswitch.conf"} { // for whoever Sendmail becomes
		if err := os.Chmod(filepath.Join(s.Dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cf := run(t, nil, nil, Need(t, "m4"), "-D_CF_DIR_="+sendmailRoot+"/usr/share/sendmail/cf/",
		sendmailRoot+"/usr/share/sendmail/cf/m4/cf.m4", filepath.Join(s.Dir, "sendmail.mc"))
	if err := os.WriteFile(filepath.Join(s.Dir, "sendmail.cf"), cf, 0o600); err != nil {
		t.Fatal(err)
	}
	s.log.listen(t, filepath.Join(s.Dir, "dev/log"))
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() {
			t.Logf("Sendmail:\n%s", s.Log())
		}
	})
	s.Start(t)
	return s
}

// Start starts Sendmail again after Stop, on the same port.
func (s *Sendmail) Start(t testing.TB) {
	t.Helper()
	// It is the first process of a namespace, which ends with it: Sendmail's
	// children leave its process group when they deliver.
	s.cmd = exec.Command("sh", "-euc", sendmailScript)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	s.cmd.Env = append(os.Environ(), "I="+s.Dir, "LIBEXEC="+sendmailRoot+"/usr/libexec/sendmail")
	said, err := os.Create(filepath.Join(s.Dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	s.cmd.Stdout, s.cmd.Stderr = said, said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.gone = make(chan error, 1)
	go func(cmd *exec.Cmd, gone chan error) { gone <- cmd.Wait() }(s.cmd, s.gone)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			io.WriteString(conn, "QUIT\r\n")
			io.Copy(io.Discard, conn)
			conn.Close()
			return
		}
		select {
		case err := <-s.gone:
			s.cmd = nil
			t.Fatalf("Sendmail did not start: %v\n%s", err, s.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("Sendmail does not listen\n%s", s.Log())
		}
	}
}

// Stop kills Sendmail and all of its processes: its queue is made to survive
// that. Stopping a stopped Sendmail does nothing.
func (s *Sendmail) Stop(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.gone
	s.cmd = nil
}

// Addr is where the SMTP server listens.
func (s *Sendmail) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// Log is all that Sendmail has said and logged.
func (s *Sendmail) Log() string {
	said, _ := os.ReadFile(filepath.Join(s.Dir, "said"))
	return string(said) + s.log.text()
}

// Queue names the messages that are in the queue.
func (s *Sendmail) Queue() []string {
	files, _ := filepath.Glob(filepath.Join(s.Dir, "queue", "qf*"))
	return files
}

// needSendmail skips a test where the packages are not unpacked.
func needSendmail(t testing.TB) {
	t.Helper()
	for _, file := range []string{"usr/libexec/sendmail/sendmail", "usr/share/sendmail/cf/m4/cf.m4"} {
		if _, err := os.Stat(filepath.Join(sendmailRoot, file)); err != nil {
			Skip(t, "Sendmail is not in "+sendmailRoot+", where testdata/bed/install.sh puts it")
		}
	}
}

// syslog is the other end of /dev/log: Sendmail logs nowhere else.
type syslog struct {
	mutex sync.Mutex
	lines strings.Builder
}

// listen collects what comes until the end of the test.
func (l *syslog) listen(t testing.TB, path string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		datagram := make([]byte, 64<<10)
		for {
			n, err := conn.Read(datagram)
			if err != nil {
				return
			}
			_, line, _ := strings.Cut(strings.TrimRight(string(datagram[:n]), "\x00\n"), ">") // the priority
			l.mutex.Lock()
			l.lines.WriteString(line + "\n")
			l.mutex.Unlock()
		}
	}()
}

func (l *syslog) text() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.lines.String()
}

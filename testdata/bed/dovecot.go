package bed

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dovecotPassword is every user's.
const dovecotPassword = "secret"

// Dovecot is a private mail store on 127.0.0.1 that takes mail by LMTP and
// shows it by IMAP.
type Dovecot struct {
	Dir   string   // its folder; the mail is in Dir/mail/USER/Maildir
	Users []string // addresses; each is its own login
	IMAP  int      // port
	LMTP  int      // port

	owner *syscall.Credential // whom the mail belongs to
	cmd   *exec.Cmd
	gone  chan error
}

// StartDovecot starts a Dovecot 2.3 with mailboxes for these addresses. It is
// stopped at the end of the test. Its log is shown where the test failed.
func StartDovecot(t testing.TB, users ...string) *Dovecot {
	t.Helper()
	NeedRoot(t)
	program := Need(t, "dovecot", "/usr/sbin")
	for _, part := range []string{"imap", "lmtp"} {
		Need(t, part, "/usr/lib/dovecot", "/usr/libexec/dovecot")
	}
	d := &Dovecot{Dir: Dir(t), Users: users, IMAP: FreePort(t), LMTP: FreePort(t), gone: make(chan error, 1)}
	owner := credential(t, "mail") // Dovecot refuses to keep mail as root
	d.owner = owner
	d.makeFolder(t, filepath.Join(d.Dir, "mail"))
	var passwords strings.Builder
	for _, user := range users {
		fmt.Fprintf(&passwords, "%s:{PLAIN}%s:::::\n", user, dovecotPassword)
	}
	for name, text := range map[string]string{"passwd": passwords.String(), "dovecot.conf": d.conf(owner)} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.cmd = exec.Command(program, "-F", "-c", filepath.Join(d.Dir, "dovecot.conf"))
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.gone <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("Dovecot:\n%s", d.Log())
		}
	})
	d.waitListening(t, d.IMAP)
	d.waitListening(t, d.LMTP)
	return d
}

// Transport is where Postfix delivers to, as virtual_transport has it.
func (d *Dovecot) Transport() string { return "lmtp:inet:127.0.0.1:" + strconv.Itoa(d.LMTP) }

// Put lays a message, with LF line ends, into a user's INBOX as the n-th.
func (d *Dovecot) Put(t testing.TB, user string, n int, message []byte) {
	t.Helper()
	home := filepath.Join(d.Dir, "mail", user)
	maildir := filepath.Join(home, "Maildir")
	for _, folder := range []string{home, maildir, filepath.Join(maildir, "cur"), filepath.Join(maildir, "new"), filepath.Join(maildir, "tmp")} {
		d.makeFolder(t, folder)
	}
	// Dovecot orders what is new by the time in the name.
	file := filepath.Join(maildir, "new", fmt.Sprintf("%d.M0P1.bed", 1_700_000_000+n))
	if err := os.WriteFile(file, message, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, int(d.owner.Uid), int(d.owner.Gid)); err != nil {
		t.Fatal(err)
	}
}

// makeFolder makes a folder, unless it is there, that belongs to the mail's
// owner.
func (d *Dovecot) makeFolder(t testing.TB, folder string) {
	t.Helper()
	if err := os.Mkdir(folder, 0o755); errors.Is(err, os.ErrExist) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(folder, int(d.owner.Uid), int(d.owner.Gid)); err != nil {
		t.Fatal(err)
	}
}

// WaitDelivered waits until n messages are in a user's INBOX, and returns their
// files.
func (d *Dovecot) WaitDelivered(t testing.TB, user string, n int, timeout time.Duration) []string {
	t.Helper()
	maildir := filepath.Join(d.Dir, "mail", user, "Maildir")
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(maildir, "new", "*"))
		seen, _ := filepath.Glob(filepath.Join(maildir, "cur", "*"))
		if files = append(seen, files...); len(files) >= n {
			return files
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for message %d of %s\n%s", timeout, n, user, d.Log())
		}
	}
}

// Log is all that Dovecot has logged.
func (d *Dovecot) Log() string {
	log, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
	return string(log)
}

// conf is the configuration, of Dovecot 2.3: 2.4 names most of it otherwise.
func (d *Dovecot) conf(owner *syscall.Credential) string {
	text := `
base_dir = $DIR/run
state_dir = $DIR/state
log_path = $DIR/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
passdb {
  driver = passwd-file
  args = $DIR/passwd
}
userdb {
  driver = static
  args = uid=$UID gid=$GID home=$DIR/mail/%u
}
service imap-login {
  inet_listener imap {
    port = $IMAP
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = $LMTP
  }
}
# Its socket is else for Dovecot's own users alone, and mail is another's.
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`
	return strings.NewReplacer("$DIR", d.Dir, "$IMAP", strconv.Itoa(d.IMAP), "$LMTP", strconv.Itoa(d.LMTP),
		"$UID", fmt.Sprint(owner.Uid), "$GID", fmt.Sprint(owner.Gid)).Replace(text)
}

// waitListening waits until a port answers, or Dovecot has ended instead.
func (d *Dovecot) waitListening(t testing.TB, port int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-d.gone:
			d.gone <- err
			t.Fatalf("dovecot did not start: %v\n%s", err, d.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("dovecot does not listen:\n%s", d.Log())
		}
	}
}

// stop ends the master, which ends its own processes.
func (d *Dovecot) stop(t testing.TB) {
	t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.gone:
	case <-time.After(20 * time.Second):
		d.cmd.Process.Kill()
		<-d.gone
		t.Error("dovecot did not end at SIGTERM")
	}
}

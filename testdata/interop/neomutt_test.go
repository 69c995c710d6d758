package interop_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// The subject and what must stand in the text of the message that is sealed.
const subject = "Saturday: tomatoes, bärlauch and ¿who brings the coffee?"

var texts = []string{"the seedlings have made it through the cold nights.", "José", "The kitty holds € 12.50."}

// looks is the result of a mail program that shows this to somebody.
func looks(shownSubject, shownText string) result {
	if shownSubject != subject {
		return cannot("it shows the subject %q", shownSubject)
	}
	for _, part := range texts {
		if !strings.Contains(shownText, part) {
			return cannot("it shows the text %.80q, without %q", shownText, part)
		}
	}
	return result{opened: true}
}

// muttrc shows the subject and the plain text, and asks nobody anything.
const muttrc = `set mbox_type=Maildir crypt_use_gpgme=yes charset=utf-8 send_charset=utf-8
set header_cache="" wait_key=no help=no markers=no smart_wrap=no wrap=0 pager_index_lines=0 crypt_protected_headers_read=yes
unset mark_old
ignore *
unignore subject
unhdr_order *
hdr_order Subject
alternative_order text/plain text/html
`

// readNeomutt opens each message in a neomutt of its own, in a terminal that
// tmux plays, and reads the screen. neomutt leaves the opening to GPGME, which
// asks gpg and gpgsm.
func readNeomutt(t *testing.T, all []*sealed) (results []result) {
	neomutt, tmux := bed.Need(t, "neomutt"), bed.Need(t, "tmux")
	gpg := bed.NewGnuPG(t)
	refused := importGnuPG(t, gpg, all)
	gpgsm, refusedCertificates := gpgsmHome(t, all)
	dir := bed.Dir(t)
	server := []string{"-S", filepath.Join(dir, "tmux"), "-f", os.DevNull, "-u"}
	t.Cleanup(func() { exec.Command(tmux, append(server, "kill-server")...).Run() })
	// The server ends with its last session.
	if out, err := exec.Command(tmux, append(server, "new-session", "-d", "sleep 3600")...).CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v\n%s", err, out)
	}
	rc := filepath.Join(dir, "muttrc")
	if err := os.WriteFile(rc, []byte(muttrc), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, s := range all {
		home, word := gpg.Home, refused[s.owner.name]
		if s.form.Method == keys.SMIME {
			home, word = gpgsm, refusedCertificates[s.owner.name]
		}
		if word != "" {
			results = append(results, cannot("importing the key: %s", word))
			continue
		}
		maildir := filepath.Join(dir, fmt.Sprint("mail", i))
		for _, part := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(maildir, part), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(maildir, "new", "1700000000.M1.bed"), s.mail, 0o600); err != nil {
			t.Fatal(err)
		}
		session := fmt.Sprint("reader", i)
		command := fmt.Sprintf("env LANG=C.UTF-8 LC_ALL=C.UTF-8 HOME=%s GNUPGHOME=%s %s -n -F %s -f %s -e 'set folder=%s' -e 'push <display-message>'; sleep 5", dir, home, neomutt, rc, maildir, maildir)
		if out, err := exec.Command(tmux, append(server, "new-session", "-d", "-s", session, "-x", "160", "-y", "60", command)...).CombinedOutput(); err != nil {
			t.Fatalf("tmux: %v\n%s", err, out)
		}
		results = append(results, screen(t, tmux, append(server, "capture-pane", "-p", "-t", session)))
		exec.Command(tmux, append(server, "kill-session", "-t", session)...).Run()
	}
	return results
}

// screen waits until the message is there, or nothing more comes.
func screen(t *testing.T, tmux string, capture []string) (r result) {
	t.Helper()
	last, since := "", time.Now()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(tmux, capture...).Output()
		if err != nil {
			return cannot("the terminal is gone: %v", err)
		}
		text := strings.TrimSpace(string(out))
		// A protected header is shown where the message that was opened begins,
		// below the one outside.
		var shownSubject string
		for line := range strings.Lines(text) {
			if value, is := strings.CutPrefix(line, "Subject:"); is {
				shownSubject = strings.TrimSpace(value)
			}
		}
		if r = looks(shownSubject, text); r.opened {
			return r
		}
		if text != last {
			last, since = text, time.Now()
		}
		if text != "" && time.Since(since) > 3*time.Second {
			break
		}
	}
	return cannot("%s: it shows %q", r.word, strings.Join(strings.Fields(last), " "))
}

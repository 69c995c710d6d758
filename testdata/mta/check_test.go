package mta_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// checked is a Postfix's configuration that "sealmilter check --postfix" reads.
// Nothing of it is started.
type checked struct {
	dir    string // main.cf and master.cf are in etc; the queue would be in queue
	store  string
	config string // the text of sealmilter.toml, "" for none
}

func newChecked(t *testing.T) *checked {
	t.Helper()
	bed.Need(t, "postconf", "/usr/sbin")
	c := &checked{dir: bed.Dir(t)}
	for _, folder := range []string{"etc", "queue/sealmilter", "run"} {
		if err := os.MkdirAll(filepath.Join(c.dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.store = "sqlite:" + filepath.Join(c.dir, "keys.db")
	runProgram(t, "migrate", "--store", c.store)
	return c
}

// The configuration of a site where all is well. $DIR is its folder and $PORT
// where sealmilter listens.
const (
	goodMain = `compatibility_level = 3.6
queue_directory = $DIR/queue
mail_owner = postfix
smtpd_milters = inet:127.0.0.1:12301, inet:127.0.0.1:$PORT
non_smtpd_milters = inet:127.0.0.1:$PORT
internal_mail_filter_classes = bounce
message_size_limit = 10240000
recipient_delimiter = +
alias_maps =
`
	goodMaster = `smtp inet n - y - - smtpd
pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
  -o message_size_limit=20000000
`
)

// run checks one configuration and returns the lines about Postfix, of which
// the folder and the port are written as above, and the exit code.
func (c *checked) run(t *testing.T, main, master, listen string, port int) (lines string, code int) {
	t.Helper()
	fill := strings.NewReplacer("$DIR", c.dir, "$PORT", fmt.Sprint(port))
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		file := filepath.Join(c.dir, "etc", name)
		if err := os.WriteFile(file, []byte(fill.Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
		// Postfix waits until a file of this second is a second old.
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"check", "--postfix", filepath.Join(c.dir, "etc"), "--store", c.store, "--listen", fill.Replace(listen)}
	if c.config != "" {
		file := filepath.Join(c.dir, "sealmilter.toml")
		if err := os.WriteFile(file, []byte(fill.Replace(c.config)), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	cmd := exec.Command(bed.Program(t), args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	back := strings.NewReplacer(c.dir, "$DIR", fmt.Sprint(port), "$PORT")
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " postfix: ") {
			lines += back.Replace(line)
		}
	}
	return lines, cmd.ProcessState.ExitCode()
}

// change replaces text that must be there.
func change(t *testing.T, text, old, new string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("there is no %q in\n%s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// good is what is said of the site where all is well.
const good = `ok       postfix: Postfix VERSION, configured in $DIR/etc
ok       postfix: inet:127.0.0.1:$PORT answers
ok       postfix: smtp/inet: has sealmilter (inet:127.0.0.1:$PORT) as its last milter
ok       postfix: smtp/inet: filter first: sealmilter sees addresses as the sender wrote them, and aliases are expanded behind it
ok       postfix: cleanup/unix: has sealmilter (inet:127.0.0.1:$PORT) as its last milter
ok       postfix: message_size_limit: smtpd takes up to 10240000 bytes, cleanup has room for it sealed
`

var postfixVersion = regexp.MustCompile(`Postfix [0-9.]+,`)

// TestCheckPostfix
//
//	sealmilter check --postfix ──▶ postconf ──▶ main.cf and master.cf, with one mistake each
func TestCheckPostfix(t *testing.T) {
	c := newChecked(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	const listen = "inet:127.0.0.1:$PORT"
	if lines, code := c.run(t, goodMain, goodMaster, listen, port); postfixVersion.ReplaceAllString(lines, "Postfix VERSION,") != good || code != 0 {
		t.Errorf("all is well, and the exit code %d:\n%s", code, lines)
	}
	const reinject = "127.0.0.1:10025 inet n - n - - smtpd\n"
	ours := "smtpd_milters = inet:127.0.0.1:12301, inet:127.0.0.1:$PORT"
	tests := []struct {
		name         string
		main, master []string // old text, new text
		word, want   string   // the first line that is not ok, "" where all are
		code         int
	}{
		{"host name", []string{ours, "smtpd_milters = inet:localhost:$PORT"}, nil, "", "", 0},
		{"braces", []string{ours, "smtpd_milters = { inet:127.0.0.1:$PORT, default_action=tempfail, command_timeout=1m }"}, nil, "", "", 0},
		{"expanded", []string{ours, "filter = inet:127.0.0.1:$PORT\nsmtpd_milters = $filter"}, nil, "", "", 0},
		{"accept", []string{"mail_owner", "milter_default_action = accept\nmail_owner"}, nil,
			"problem", "smtp/inet: milter_default_action = accept: while sealmilter is away mail is stored unsealed", 78},
		{"accept for this milter", []string{ours, "smtpd_milters = { inet:127.0.0.1:$PORT, default_action=accept }"}, nil,
			"problem", "smtp/inet: default_action in the braces of inet:127.0.0.1:$PORT = accept: while", 78},
		{"accept for another milter", []string{"inet:127.0.0.1:12301", "{ inet:127.0.0.1:12301, default_action=accept }"}, nil, "", "", 0},
		{"accept, but not for this milter", []string{ours, "milter_default_action = accept\nsmtpd_milters = { inet:127.0.0.1:$PORT, default_action=tempfail }"}, nil,
			"problem", "cleanup/unix: milter_default_action = accept", 78},
		{"accept for a service", nil, []string{"smtpd\n", "smtpd -o milter_default_action=accept\n"},
			"problem", "smtp/inet: milter_default_action = accept", 78},
		{"quarantine", []string{"mail_owner", "milter_default_action = quarantine\nmail_owner"}, nil,
			"problem", "smtp/inet: milter_default_action = quarantine: while sealmilter is away mail is kept unsealed in the hold queue", 78},
		{"reject", []string{"mail_owner", "milter_default_action = reject\nmail_owner"}, nil,
			"warning", "smtp/inet: milter_default_action = reject: while sealmilter is away mail is refused for good", 0},
		{"misspelt", []string{"mail_owner", "milter_default_action = temp\nmail_owner"}, nil,
			"problem", "smtp/inet: milter_default_action = temp is not an action that is known", 78},
		{"protocol", []string{"mail_owner", "milter_protocol = 2\nmail_owner"}, nil, "warning", "smtp/inet: milter_protocol = 2: below 6 ", 0},
		{"protocol for this milter", []string{ours, "smtpd_milters = { inet:127.0.0.1:$PORT, { protocol = 4 } }"}, nil,
			"warning", "smtp/inet: protocol in the braces of inet:127.0.0.1:$PORT = 4: below 6 ", 0},
		{"command timeout", []string{"mail_owner", "milter_command_timeout = 5s\nmail_owner"}, nil, "warning", "smtp/inet: milter_command_timeout = 5s is short: ", 0},
		{"content timeout", []string{ours, "smtpd_milters = { inet:127.0.0.1:$PORT, content_timeout=5 }"}, nil,
			"warning", "smtp/inet: content_timeout in the braces of inet:127.0.0.1:$PORT = 5 is short: ", 0},
		{"not in smtpd_milters", []string{ours, "smtpd_milters = inet:127.0.0.1:12301"}, nil,
			"problem", "smtp/inet: sealmilter is not in smtpd_milters: mail that comes in there is stored unsealed; put inet:127.0.0.1:$PORT at the end", 78},
		{"not in non_smtpd_milters", []string{"non_smtpd_milters = inet:127.0.0.1:$PORT", "non_smtpd_milters ="}, nil,
			"warning", "cleanup/unix: sealmilter is not in non_smtpd_milters: mail from sendmail(1) on this machine is stored unsealed; put inet:127.0.0.1:$PORT at the end", 0},
		{"not on one service", nil, []string{"pickup", "submission inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:12301\npickup"},
			"warning", "submission/inet: -o smtpd_milters leaves sealmilter out", 0},
		{"re-injection", nil, []string{"pickup", reinject + " -o smtpd_milters=\npickup"}, "", "", 0},
		{"re-injection by override", nil, []string{"pickup", reinject + " -o receive_override_options=no_address_mappings,no_milters\npickup"}, "", "", 0},
		{"override for the world", nil, []string{"smtpd\n", "smtpd -o receive_override_options=no_milters\n"},
			"warning", "smtp/inet: receive_override_options=no_milters leaves sealmilter out", 78}, // and no service is left
		{"override in main.cf", []string{"mail_owner", "receive_override_options = no_milters\nmail_owner"}, nil,
			"problem", "smtp/inet: receive_override_options=no_milters in main.cf switches off every milter", 78},
		{"override for pickup", nil, []string{"1 pickup\n", "1 pickup -o receive_override_options=no_milters\n"},
			"warning", "pickup/unix: receive_override_options=no_milters leaves sealmilter out", 0},
		{"behind postscreen", nil, []string{"smtp inet n - y - - smtpd", "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd"}, "", "", 0},
		{"order", []string{ours, ours + ", unix:opendkim/sock, inet:127.0.0.1:12302"}, nil,
			"warning", "smtp/inet: the milters behind sealmilter see sealed mail: unix:opendkim/sock, inet:127.0.0.1:12302; put sealmilter last", 0},
		{"proxy filter", nil, []string{"smtpd\n", "smtpd -o smtpd_proxy_filter=127.0.0.1:10024\n"},
			"problem", "smtp/inet: with smtpd_proxy_filter = 127.0.0.1:10024 a milter never sees the message", 78},
		{"proxy filter as it should be", nil, []string{"smtpd\n", "smtpd -o smtpd_proxy_filter=127.0.0.1:10024 -o smtpd_milters=\n" + reinject}, "", "", 0},
		{"proxy filter with nothing behind it", nil, []string{"smtpd\n", "smtpd -o smtpd_proxy_filter=127.0.0.1:10024 -o smtpd_milters=\nsubmission inet n - n - - smtpd\n" + reinject + " -o smtpd_milters=\n"},
			"problem", "no smtpd behind the filter has sealmilter: what the filter hands back is stored unsealed", 78},
		{"content filter", []string{"mail_owner", "content_filter = scan:127.0.0.1:10024\nmail_owner"}, nil,
			"warning", "smtp/inet: the filter behind content_filter = scan:127.0.0.1:10024 sees sealed mail", 0},
		{"milter maps", []string{"mail_owner", "smtpd_milter_maps = cidr:/etc/no-milters\nmail_owner"}, nil, "warning", "smtpd_milter_maps = cidr:/etc/no-milters gives some clients other milters", 0},
		{"sizes equal", nil, []string{"  -o message_size_limit=20000000\n", ""},
			"warning", "message_size_limit: smtpd takes up to 10240000 bytes, and cleanup/unix no more than 10240000 bytes: messages above 7127000 bytes are refused for good when they are sealed, which makes them larger; set -o message_size_limit=14598144 on cleanup/unix in master.cf", 0},
		{"size as was said", nil, []string{"20000000", "14598144"}, "", "", 0},
		{"any size at smtpd", nil, []string{"smtpd\n", "smtpd -o message_size_limit=0\n"}, "warning", "message_size_limit: smtpd takes any size, cleanup/unix no more than 20000000 bytes", 0},
		{"any size", []string{"10240000", "0"}, []string{"20000000", "0"}, "", "", 0},
		{"another cleanup", nil, []string{"smtpd\n", "smtpd -o cleanup_service_name=second\nsecond unix n - y - 0 cleanup\n"},
			"warning", "message_size_limit: smtpd takes up to 10240000 bytes, and second/unix no more than 10240000 bytes", 0},
		{"original recipient", []string{"mail_owner", "enable_original_recipient = no\nmail_owner"}, nil, "warning", "enable_original_recipient = no: ", 0},
		{"bounces", []string{"internal_mail_filter_classes = bounce", "internal_mail_filter_classes = notify"}, nil, "warning", "Postfix's own bounces, which may quote a message, meet no milter", 0},
		{"no smtpd", nil, []string{"smtp inet n - y - - smtpd\n", ""}, "warning", "no service takes mail by SMTP", 0},
		{"no such user", []string{"mail_owner = postfix", "mail_owner = nobody-at-all"}, nil, "problem", `mail_owner is "nobody-at-all": `, 78},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			main, master := goodMain, goodMaster
			if test.main != nil {
				main = change(t, main, test.main[0], test.main[1])
			}
			if test.master != nil {
				master = change(t, master, test.master[0], test.master[1])
			}
			lines, code := c.run(t, main, master, listen, port)
			if first := firstFault(lines); test.want == "" && first != "" || !strings.HasPrefix(first, test.want) && test.want != "" ||
				test.want != "" && !strings.Contains(lines, fmt.Sprintf("%-8s postfix: %s", test.word, test.want)) || code != test.code {
				t.Errorf("want %s %q, exit code %d; got %d and\n%s", test.word, test.want, test.code, code, lines)
			}
		})
	}
}

// firstFault is the first line that is not ok, behind "postfix: ".
func firstFault(lines string) string {
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, "ok ") {
			_, text, _ := strings.Cut(line, "postfix: ")
			return text
		}
	}
	return ""
}

// TestCheckSocket
//
//	sealmilter check --postfix ──▶ postconf, and a unix socket as Postfix's user would find it
func TestCheckSocket(t *testing.T) {
	bed.NeedRoot(t)
	c := newChecked(t)
	inQueue, elsewhere := filepath.Join(c.dir, "queue/sealmilter/s"), filepath.Join(c.dir, "run/s")
	for _, path := range []string{inQueue, elsewhere} {
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
	tests := []struct {
		name, listen, endpoint string
		chroot                 string
		folder, mode           os.FileMode
		want                   string
		code                   int
	}{
		{"below the queue", "unix:$DIR/queue/sealmilter/s", "unix:sealmilter/s", "y", 0o755, 0o666, "", 0},
		{"below the queue, no chroot", "unix:$DIR/queue/sealmilter/s", "unix:sealmilter/s", "n", 0o755, 0o666, "", 0},
		{"absolute below the queue", "unix:$DIR/queue/sealmilter/s", "unix:$DIR/queue/sealmilter/s", "y", 0o755, 0o666,
			"smtp/inet: unix:$DIR/queue/sealmilter/s leads to $DIR/queue$DIR/queue/sealmilter/s, where sealmilter does not listen (the service runs in a chroot): mail is deferred; write unix:sealmilter/s", 78},
		{"absolute, no chroot", "unix:$DIR/run/s", "unix:$DIR/run/s", "n", 0o755, 0o666, "", 0},
		{"out of the chroot", "unix:$DIR/run/s", "unix:$DIR/run/s", "y", 0o755, 0o666,
			"smtp/inet: unix:$DIR/run/s leads to $DIR/queue$DIR/run/s (the service runs in a chroot), which is not where sealmilter listens: mail is deferred; let sealmilter listen at unix:$DIR/queue/sealmilter/sealmilter.sock", 78},
		{"the chroot's path without a chroot", "unix:$DIR/queue/sealmilter/s", "unix:/sealmilter/s", "n", 0o755, 0o666,
			"smtp/inet: unix:/sealmilter/s leads to /sealmilter/s, where sealmilter does not listen: mail is deferred; write unix:sealmilter/s", 78},
		{"socket closed", "unix:$DIR/queue/sealmilter/s", "unix:sealmilter/s", "y", 0o755, 0o600,
			"unix:$DIR/queue/sealmilter/s: the user postfix may not write to $DIR/queue/sealmilter/s (Srw-------): mail is deferred; see group and mode", 78},
		{"folder closed", "unix:$DIR/queue/sealmilter/s", "unix:sealmilter/s", "y", 0o700, 0o666,
			"unix:$DIR/queue/sealmilter/s: the user postfix may not enter $DIR/queue/sealmilter (drwx------): ", 78},
		{"not there", "unix:$DIR/queue/sealmilter/none", "unix:sealmilter/none", "y", 0o755, 0o666, "unix:$DIR/queue/sealmilter/none is not there: mail is deferred until sealmilter runs", 0},
		{"systemd's", "systemd:", "unix:sealmilter/s", "y", 0o755, 0o666, "listen names the sockets of systemd and not where they are", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []string{inQueue, elsewhere} {
				os.Chmod(path, test.mode)
			}
			os.Chmod(filepath.Dir(inQueue), test.folder)
			main := strings.ReplaceAll(change(t, goodMain, "inet:127.0.0.1:12301, ", ""), "inet:127.0.0.1:$PORT", test.endpoint)
			lines, code := c.run(t, main, strings.ReplaceAll(goodMaster, " y ", " "+test.chroot+" "), test.listen, 1)
			if first := firstFault(lines); !strings.HasPrefix(first, test.want) || test.want == "" && first != "" || code != test.code {
				t.Errorf("want %q and exit code %d, got %d and\n%s", test.want, test.code, code, lines)
			}
		})
	}
}

// TestCheckPostfixAbsent: a folder without a configuration, and an argument
// that belongs to --postfix alone.
func TestCheckPostfixAbsent(t *testing.T) {
	c := newChecked(t)
	for code, args := range map[int][]string{78: {"--postfix", c.dir + "/none"}, 2: {c.dir}} {
		cmd := exec.Command(bed.Program(t), append([]string{"check", "--store", c.store}, args...)...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(string(out), c.dir) {
			t.Errorf("%q: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestCheckSizes
//
//	SMTP client, at smtpd's limit ──▶ Postfix ──milter──▶ sealmilter
//	                                     ║
//	                                     ╚════▶ cleanup, with the limit that check proposes, and with less ════▶ maildir
//
// The limit that check proposes is enough for the largest message that smtpd
// takes, whatever its lines look like.
func TestCheckSizes(t *testing.T) {
	const taken, proposed = 1_000_000, 1_000_000/100*140 + 256<<10
	r := newReloading(t)
	main := []string{"local_header_rewrite_clients =", fmt.Sprintf("message_size_limit = %d", taken), "virtual_mailbox_limit = 0"}
	for limit, fits := range map[int]bool{proposed: true, taken: false} {
		postfix := bed.StartPostfix(t, bed.PostfixOptions{
			Addresses: []string{ann},
			Milters:   []string{"unix:" + r.daemon.Dir + "/sock"},
			Main:      append(main, "cleanup_service_name = roomy"),
			Master:    []string{fmt.Sprintf("roomy unix n - n - 0 cleanup -o message_size_limit=%d", limit)},
		})
		lines, _ := exec.Command(bed.Program(t), "check", "--store", r.stores[0], "--listen", "unix:"+r.daemon.Dir+"/sock",
			"--postfix", filepath.Join(postfix.Dir, "etc")).Output()
		if says := strings.Contains(string(lines), fmt.Sprintf("set -o message_size_limit=%d on roomy/unix", proposed)); says == fits {
			t.Errorf("check says\n%s", lines)
		}
		header := "From: sender@example.net\r\nSubject: large\r\nContent-Type: text/plain\r\n\r\n"
		for _, line := range []string{"\r\n", "x\r\n", strings.Repeat("x", 76) + "\r\n", strings.Repeat("x", 998) + "\r\n"} {
			raw := header + strings.Repeat(line, (taken-len(header)-1000)/len(line)) // Postfix adds its Received field
			replies := bed.SendMail(t, postfix.Addr(), "sender@example.net", []string{ann}, []byte(raw))
			if bed.Sent(replies) != fits {
				t.Errorf("limit %d, lines of %d bytes: %v", limit, len(line), replies)
			}
		}
	}
}

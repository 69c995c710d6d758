package mta_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// alone is a daemon with a SQLite store that holds a key of gpg's, and the
// test itself as its MTA.
type alone struct {
	daemon *bed.Daemon
	gpg    *bed.GnuPG
}

func newAlone(t *testing.T) *alone {
	t.Helper()
	gpg := bed.NewGnuPG(t)
	key := filepath.Join(bed.Dir(t), "ann.asc")
	if err := os.WriteFile(key, gpg.Generate(t, "Ann <"+ann+">", "default"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAloneWith(t, key, "aes256")
	a.gpg = gpg
	return a
}

// newAloneWith is a daemon with another key for Ann, and the cipher that she
// wants.
func newAloneWith(t *testing.T, key, cipher string) *alone {
	t.Helper()
	a := &alone{}
	file := filepath.Join(bed.Dir(t), "keys.db")
	store := "sqlite:" + file
	runProgram(t, "migrate", "--store", store)
	runProgram(t, "key", "add", "--store", store, ann, key)
	sql := "UPDATE accounts SET cipher = '" + cipher + "';"
	if out, err := exec.Command(bed.Need(t, "sqlite3"), file, sql).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	a.daemon = bed.StartDaemon(t, fmt.Sprintf(`
[milter]
listen = "unix:$DIR/sock"
[store]
url = %q
[spool]
directory = "$DIR/spool"
[log]
level = "debug"
addresses = true
`, store))
	return a
}

func (a *alone) dial(t *testing.T) *client.Session {
	t.Helper()
	s, err := client.Dial("unix", filepath.Join(a.daemon.Dir, "sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// toAnn sends a message and returns what the MTA would keep of it.
func toAnn(t *testing.T, s *client.Session, m client.Message) []byte {
	t.Helper()
	result, err := s.Send(client.Envelope{From: "sender@example.net", To: client.To(ann)}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || !result.Queued.Replaced {
		t.Fatalf("not sealed, the answer is %q", result.Final)
	}
	return result.Queued.Bytes()
}

// TestCorpus
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ SQLite
//	   ║
//	   ╚════▶ gpg
//
// Every message of the corpus, and our own, comes back byte for byte.
func TestCorpus(t *testing.T) {
	files := corpus(t)
	a := newAlone(t)
	s := a.dial(t)
	for _, file := range files {
		m := client.ParseMessage([]byte(readFile(t, file)))
		if got := envelope.Original(a.gpg.Decrypt(t, toAnn(t, s, m))); !bytes.Equal(got, m.Shown()) {
			t.Errorf("%s: opened it is\n%.1000q\nwant\n%.1000q", file, got, m.Shown())
		}
	}
	t.Logf("%d messages came back byte for byte", len(files))
}

// corpus are our own messages and those of the folder that SEALMILTER_CORPUS
// names.
func corpus(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../messages/*.eml")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d messages of our own, error %v", len(files), err)
	}
	folder := os.Getenv("SEALMILTER_CORPUS")
	if folder == "" {
		t.Log("SEALMILTER_CORPUS is not set: our own messages alone are sent")
		return files
	}
	own := len(files)
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && filepath.Ext(path) == ".eml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == own {
		t.Fatalf("SEALMILTER_CORPUS=%s holds %d messages, error %v", folder, len(files)-own, err)
	}
	return files
}

// TestMemory
//
//	this test as the MTA, with 100 MiB ──milter──▶ sealmilter ──▶ SQLite
func TestMemory(t *testing.T) {
	t.Run("OpenPGP", func(t *testing.T) {
		a := newAlone(t)
		stayWithin(t, a, func(sealed []byte) []byte { return envelope.Original(a.gpg.Decrypt(t, sealed)) })
	})
	t.Run("S/MIME", func(t *testing.T) {
		owner := bed.NewIdentity(t, ann, "RSA rsa_keygen_bits:2048")
		a := newAloneWith(t, owner.Certificate, "aes256")
		stayWithin(t, a, func(sealed []byte) []byte { return owner.OpenSSL(t, bed.DER(t, sealed)) })
	})
}

// stayWithin sends a large message and holds what the daemon takes for it.
func stayWithin(t *testing.T, a *alone, open func([]byte) []byte) {
	t.Helper()
	s := a.dial(t)
	small := client.ParseMessage([]byte("Subject: small\nContent-Type: text/plain\n\nsmall\n"))
	toAnn(t, s, small)
	pid := a.daemon.PID()
	idle := bed.RSS(t, pid)
	bed.ResetPeakRSS(t, pid)

	large := small
	large.Body = bytes.Repeat([]byte(strings.Repeat("0123456789", 7)+"\r\n"), 100<<20/72)
	cpu := bed.CPU(t, pid)
	sealed := toAnn(t, s, large)
	growth := bed.PeakRSS(t, pid) - idle
	const limit = 24 << 20
	if growth > limit {
		t.Errorf("a message of 100 MiB takes %d bytes over idle (%d), at most %d are allowed", growth, idle, limit)
	}
	t.Logf("a message of 100 MiB takes %.1f MiB over idle (%.1f MiB), and %.1f ms of CPU a MiB", float64(growth)/(1<<20),
		float64(idle)/(1<<20), float64((bed.CPU(t, pid)-cpu).Milliseconds())/100)
	if got := open(sealed); !bytes.Equal(got, large.Shown()) {
		t.Error("it does not come back byte for byte")
	}
}

// TestSpool
//
//	this test as the MTA, which stops in the middle ──milter──▶ sealmilter ──▶ spool file
//
// The file has no name and holds none of the plaintext, and it is gone when
// the message was aborted.
func TestSpool(t *testing.T) {
	a := newAlone(t)
	token := newToken()
	wire, err := client.DialWire("unix", filepath.Join(a.daemon.Dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	body := []byte(strings.Repeat(token+"\r\n", 1000))
	frames := []client.Frame{
		{Code: 'O', Data: []byte{0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff}},
		{Code: 'M', Data: []byte("<sender@example.net>\x00")},
		{Code: 'R', Data: []byte("<" + ann + ">\x00")},
		{Code: 'N'},
	}
	for _, frame := range frames {
		wire.Send(frame)
		if answer, err := wire.Receive(10 * time.Second); err != nil || answer.Code == 'y' {
			t.Fatalf("%c is answered %c %q, error %v", frame.Code, answer.Code, answer.Data, err)
		}
	}
	for range 40 {
		wire.Send(client.Frame{Code: 'B', Data: body})
	}
	var held []byte
	waitFor(t, "the spool file to fill", func() bool {
		for _, path := range spoolFiles(t, a.daemon) {
			held, _ = os.ReadFile(path)
		}
		return len(held) > 1<<20
	})
	holdsNone(t, "the spool file", held, token)
	if left, _ := os.ReadDir(filepath.Join(a.daemon.Dir, "spool")); len(left) > 0 {
		t.Errorf("the spool folder holds %v", left)
	}
	wire.Send(client.Frame{Code: 'A'})
	waitFor(t, "the spool file to go", func() bool { return len(spoolFiles(t, a.daemon)) == 0 })
}

// spoolFiles are the daemon's open files that lie in its spool folder or lay
// there once, as paths below /proc that can be read.
func spoolFiles(t *testing.T, d *bed.Daemon) (paths []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", d.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if target, _ := os.Readlink(path); strings.HasPrefix(target, filepath.Join(d.Dir, "spool")) {
			paths = append(paths, path)
		}
	}
	return paths
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// TestStopping
//
//	this test as the MTA, in the middle of a message ──milter──▶ sealmilter, at SIGTERM
func TestStopping(t *testing.T) {
	a := newAlone(t)
	s, err := client.Dial("unix", filepath.Join(a.daemon.Dir, "sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := make(chan error, 1)
	m := client.ParseMessage([]byte("Subject: long\nContent-Type: text/plain\n\n" + strings.Repeat("line\n", 4_000_000)))
	go func() {
		// The error, if any, is that the connection ends behind the message.
		result, err := s.Send(client.Envelope{To: client.To(ann)}, m)
		if result.Queued == nil || !result.Queued.Replaced {
			sent <- fmt.Errorf("the message was answered %q, error %v", result.Final, err)
		}
		close(sent)
	}()
	waitFor(t, "the message to be under way", func() bool { return len(spoolFiles(t, a.daemon)) > 0 })
	a.daemon.Stop(t) // which must end with 0
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(a.daemon.Dir, "sock")); err == nil {
		t.Error("the socket was left behind")
	}
}

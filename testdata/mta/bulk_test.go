package mta_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/reinject"
	"sealmilter/testdata/bed"
)

// bulk is a daemon with many readers, whose copies go to a sink.
type bulk struct {
	*readers
	daemon *bed.Daemon
	sink   *sink
	to     []string
}

func newBulk(t *testing.T, people int) *bulk {
	t.Helper()
	b := &bulk{sink: newSink(t)}
	for n := range people {
		b.to = append(b.to, fmt.Sprintf("reader%d@bed.test", n))
	}
	b.readers = newReaders(t, b.to...)
	b.daemon = bed.StartDaemon(t, reinjectingConfig(t, "unix:$DIR/sock", b.db.URL("sealmilter", database), b.sink.addr))
	return b
}

func (b *bulk) dial(t *testing.T) *client.Session {
	t.Helper()
	s, err := client.Dial("unix", filepath.Join(b.daemon.Dir, "sock"), client.Options{EndTimeout: 240 * time.Second, Macros: []string{"{sealmilter_deletes}", "yes"}, EndMacros: []string{"v", "Postfix 3.7.11, sealmilter_deletes=yes"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// large is a message of some size that names nobody.
func large(size int) client.Message {
	m := client.ParseMessage([]byte("From: sender@example.net\nSubject: large\nContent-Type: text/plain\n\n"))
	m.Body = bytes.Repeat([]byte(strings.Repeat("0123456789", 7)+"\r\n"), size/72)
	return m
}

// sink speaks as much SMTP as is needed to take messages and forget them.
type sink struct {
	addr  string
	taken atomic.Int64
}

func newSink(t *testing.T) *sink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &sink{addr: ln.Addr().String()}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 256<<10)
	io.WriteString(conn, "220 sink\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch strings.ToUpper(line[:4]) {
		case "EHLO":
			io.WriteString(conn, "250-sink\r\n250-SIZE\r\n250 8BITMIME\r\n")
		case "DATA":
			io.WriteString(conn, "354 go on\r\n")
			if s.data(in) != nil {
				return
			}
			io.WriteString(conn, "250 taken\r\n")
		case "QUIT":
			io.WriteString(conn, "221 bye\r\n")
			return
		default:
			io.WriteString(conn, "250 ok\r\n")
		}
	}
}

// data reads to the end of the data, behind which the client waits.
func (s *sink) data(in *bufio.Reader) error {
	var end []byte
	for !bytes.HasSuffix(end, []byte("\r\n.\r\n")) {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		piece, _ := in.Peek(in.Buffered())
		end = append(end, piece[max(0, len(piece)-5):]...)
		end = end[max(0, len(end)-5):]
		in.Discard(len(piece))
	}
	s.taken.Add(1)
	return nil
}

// TestBulk
//
//	this test as the MTA, 50 MB to 100 undisclosed ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                                                               ║
//	                                                               ╚════▶ a sink
//
// The message is encrypted once, its spool and the daemon's memory stay small,
// and it takes hardly longer than it takes to send as many files that lie
// ready.
func TestBulk(t *testing.T) {
	const people, size = 100, 50_000_000
	rounds := 1
	if os.Getenv("SEALMILTER_SOAK") == "1" {
		rounds = 5
	}
	b := newBulk(t, people)
	b.encryptsOnce(t, large(size))
	session := b.dial(t)
	toOne(t, session, b.to, large(1000))
	pid := b.daemon.PID()
	idle := bed.RSS(t, pid)
	bed.ResetPeakRSS(t, pid)

	var ours, files []time.Duration
	m := large(size)
	dir := b.prepare(t, people-1, m)
	for range rounds {
		cpu, begun := bed.CPU(t, pid), time.Now()
		stop := make(chan struct{})
		spool := watchSpool(t, b.daemon, stop)
		taken := b.sink.taken.Load()
		toOne(t, session, b.to, m)
		if n := b.sink.taken.Load() - taken; n != people-1 {
			t.Errorf("%d copies came, want %d", n, people-1)
		}
		ours = append(ours, time.Since(begun))
		close(stop)
		if most := <-spool; most > 55_000_000 {
			t.Errorf("the spool has taken %d bytes, at most 55 MB are allowed", most)
		} else {
			t.Logf("spool %.1f MB, CPU of the daemon %v", float64(most)/1e6, bed.CPU(t, pid)-cpu)
		}
		begun = time.Now()
		b.sendFiles(t, dir, people-1)
		files = append(files, time.Since(begun))
	}
	growth := bed.PeakRSS(t, pid) - idle
	if growth > 32<<20 {
		t.Errorf("it takes %d bytes over idle (%d), at most 32 MiB are allowed", growth, idle)
	}
	ratio := float64(median(ours)) / float64(median(files))
	t.Logf("50 MB to %d undisclosed: %v, sending %d prepared files: %v (medians of %d), factor %.2f; memory %.1f MiB over idle (%.1f MiB)",
		people, median(ours).Round(time.Millisecond), people-1, median(files).Round(time.Millisecond), rounds, ratio, float64(growth)/(1<<20), float64(idle)/(1<<20))
	// One round on a busy machine says little: there the bar is for what would be
	// wrong by a factor, such as a body that is encoded anew for each copy.
	most := 2.5
	if rounds > 1 {
		most = 1.5
	}
	if ratio > most {
		t.Errorf("at most %.1f times as long is allowed", most)
	}
}

// encryptsOnce compares the processor time until the end of the body for one
// recipient, and for all.
func (b *bulk) encryptsOnce(t *testing.T, m client.Message) {
	t.Helper()
	session := b.dial(t)
	spent := func(to []string) time.Duration {
		before := bed.CPU(t, b.daemon.PID())
		result, err := session.Abort(client.Envelope{From: "sender@example.net", To: client.To(to...)}, m, client.Point{Stage: client.Body})
		if err != nil || !result.Aborted {
			t.Fatalf("%+v, error %v", result, err)
		}
		return bed.CPU(t, b.daemon.PID()) - before
	}
	spent(b.to)
	one, all := spent(b.to[:1]), spent(b.to)
	t.Logf("CPU to the end of the body: %v for one recipient, %v for %d", one, all, len(b.to))
	if all > 2*one+100*time.Millisecond {
		t.Error("it was not encrypted once")
	}
}

// toOne sends a message to undisclosed recipients, of whom one stays.
func toOne(t *testing.T, s *client.Session, to []string, m client.Message) {
	t.Helper()
	result, err := s.Send(client.Envelope{From: "sender@example.net", To: client.To(to...)}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || !result.Queued.Replaced || len(result.Queued.Recipients) != 1 {
		t.Fatalf("the answer is %q", result.Final)
	}
}

// watchSpool gives the most that the spool has taken, once stop is closed.
func watchSpool(t *testing.T, d *bed.Daemon, stop <-chan struct{}) <-chan int64 {
	most := make(chan int64, 1)
	go func() {
		var largest int64
		for {
			var now int64
			for _, path := range spoolFiles(t, d) {
				if info, err := os.Stat(path); err == nil {
					now += info.Size()
				}
			}
			largest = max(largest, now)
			select {
			case <-stop:
				most <- largest
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return most
}

// prepare writes the files of as many sealed messages.
func (b *bulk) prepare(t *testing.T, files int, m client.Message) (dir string) {
	t.Helper()
	dir = bed.Dir(t)
	body := bytes.Repeat([]byte(strings.Repeat("Ab3/", 16)+"\r\n"), len(m.Body)/48)
	if err := os.WriteFile(filepath.Join(dir, "0"), append([]byte("Subject: prepared\r\n\r\n"), body...), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < files; n++ {
		// All of them are in the page cache, as the spool is.
		if err := os.Link(filepath.Join(dir, "0"), filepath.Join(dir, fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sendFiles sends them one after the other over one connection.
func (b *bulk) sendFiles(t *testing.T, dir string, files int) {
	t.Helper()
	s, err := reinject.Target{Address: b.sink.addr}.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range files {
		if err := sendFile(t.Context(), s, filepath.Join(dir, fmt.Sprint(n)), b.to[n]); err != nil {
			t.Fatal(err)
		}
	}
}

func sendFile(ctx context.Context, s *reinject.Session, name, to string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = s.Send(ctx, reinject.Message{
		To:   []reinject.Recipient{{Address: to}},
		Size: info.Size(),
		Write: func(w io.Writer) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{file}, make([]byte, 64<<10))
			return err
		},
	})
	return err
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

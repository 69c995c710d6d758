package reinject

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted is a server that answers from a script and notes what it was told.
type scripted struct {
	addr string
	done chan struct{} // closed when the test ends

	mu    sync.Mutex
	lines []string // commands
	data  string   // of all messages, as it came, the dot at its end included
}

// hangUp ends a connection, silence waits for the client to do so, and stuck
// does not even read, until the test ends.
const (
	hangUp  = "HANG UP"
	silence = "SILENCE"
	stuck   = "STUCK"
)

// usual is the script of a server that takes everything. An answer goes to each
// command that begins with its key; "" is the greeting, "." the end of the
// data. Of several answers, one after another, the last one stays.
func usual(changes map[string][]string) map[string][]string {
	script := map[string][]string{
		"":     {"220 hello\r\n"},
		"EHLO": {"250-hello\r\n250-SIZE\r\n250-DSN\r\n250-XFORWARD NAME ADDR\r\n250 8BITMIME\r\n"},
		"LHLO": {"250-hello\r\n250 DSN\r\n"},
		"DATA": {"354 go\r\n"},
		"QUIT": {"221 bye\r\n"},
		".":    {"250 2.0.0 taken\r\n"},
	}
	for key, answers := range changes {
		script[key] = answers
	}
	return script
}

// startScripted serves a script on loopback, each connection from its start.
func startScripted(t testing.TB, script map[string][]string) *scripted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{addr: ln.Addr().String(), done: make(chan struct{})}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { s.serve(conn, script) })
		}
	})
	t.Cleanup(func() { ln.Close(); close(s.done); connections.Wait() })
	return s
}

func (s *scripted) serve(conn net.Conn, script map[string][]string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	count := make(map[string]int)
	in := bufio.NewReader(conn)
	for key := ""; ; {
		answer := "250 ok\r\n"
		if answers := script[key]; len(answers) > 0 {
			answer = answers[min(count[key], len(answers)-1)]
			count[key]++
		}
		if answer == silence {
			io.Copy(io.Discard, in)
			return
		}
		if said, is := strings.CutSuffix(answer, stuck); is {
			io.WriteString(conn, said)
			<-s.done
			return
		}
		said, last := strings.CutSuffix(answer, hangUp)
		io.WriteString(conn, said)
		if last {
			return
		}
		if strings.HasPrefix(answer, "354") {
			if !s.readData(in) {
				return
			}
			key = "."
			continue
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		s.mu.Lock()
		s.lines = append(s.lines, strings.TrimSuffix(line, "\r\n"))
		s.mu.Unlock()
		key, _, _ = strings.Cut(strings.TrimSpace(line), " ")
	}
}

// readData reads a message up to the dot, and says whether that came.
func (s *scripted) readData(in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		s.mu.Lock()
		s.data += line
		s.mu.Unlock()
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			return true
		}
	}
}

func (s *scripted) told() (lines []string, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...), s.data
}

// sink takes messages as fast as it can and keeps none.
func sink(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go swallow(conn)
		}
	}()
	return ln
}

// swallow serves a connection; before EHLO the word RAW makes all that follows
// data.
func swallow(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "220 hello\r\n")
	in := bufio.NewReaderSize(conn, 1<<20)
	buf := make([]byte, 1<<20)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasPrefix(line, "DATA") && !strings.HasPrefix(line, "RAW") {
			io.WriteString(conn, "250 ok\r\n")
			continue
		}
		io.WriteString(conn, "354 go\r\n")
		const end = "\r\n.\r\n" // which may come in two reads
		for have := 0; !bytes.HasSuffix(buf[:have], []byte(end)); {
			kept := copy(buf, buf[max(have-len(end), 0):have])
			n, err := in.Read(buf[kept:])
			if err != nil {
				return
			}
			have = kept + n
		}
		io.WriteString(conn, "250 ok\r\n")
	}
}

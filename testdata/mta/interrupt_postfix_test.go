package mta_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestInterruptedPostfix
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                 ║    ▲                 ║
//	                 ║    ╚═════════════════╝ sealed copies, by SMTP
//	                 ╚════▶ maildirs
//
// At moments drawn by chance the daemon, PostgreSQL or the smtpd that takes the
// copies is killed; the client tries again until Postfix has taken the message.
func TestInterruptedPostfix(t *testing.T) {
	s := newSplitSite(t, splitOptions{main: []string{"service_throttle_time = 1s"}})
	kills := []func(){
		func() { s.daemon.Kill(t); s.daemon.Start(t) },
		func() { s.db.Stop(t); s.db.Start(t) },
		func() { s.killCopies(t) },
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	s.interrupted(t, 0, func() {}, 0)
	begun := time.Now()
	s.interrupted(t, 1, func() {}, 0)
	usual := time.Since(begun)
	var total tally
	for n := range 15 + 150*long {
		doubles, unnoted := s.interrupted(t, n+2, kills[n%len(kills)], time.Duration(random.Int64N(int64(usual))))
		total.messages++
		total.doubles += doubles
		total.unnoted += unnoted
	}
	t.Logf("%d messages, moments within %v, seed %d: %d doubles, where %d copies were accepted and not yet noted",
		total.messages, usual, seed, total.doubles, total.unnoted)
}

// interrupted sends one message and has something happen after a delay.
func (s *splitSite) interrupted(t *testing.T, n int, happen func(), delay time.Duration) (doubles, unnoted int) {
	t.Helper()
	token, to := newToken(), []string{ann, bob, bea, carl}
	m := &load{token: token, to: to, raw: fmt.Appendf(nil, "From: sender@example.net\r\nX-Number: %d.\r\nContent-Type: text/plain\r\n\r\n%s\r\n", n, strings.Repeat(token+"\r\n", 2000))}
	answered := make(chan []bed.Reply, 1)
	go func() { answered <- bed.SendMail(t, s.postfix.Addr(), "sender@example.net", to, m.raw) }()
	time.Sleep(delay)
	happen()
	left := stillToSend(to, <-answered)
	if len(left) == len(to) {
		waitDelivered(t, s.postfix)
		noted, _ := strconv.Atoi(s.db.SQL(t, database, "SELECT count(*) FROM sealmilter.copies WHERE sent"))
		for _, address := range to {
			unnoted += len(s.files(address))
		}
		unnoted -= noted
	}
	for tries := 0; len(left) > 0; tries++ {
		if tries == 3 { // time passes, until the claim of the one that was killed is over
			s.db.SQL(t, database, "UPDATE sealmilter.copies SET until = now() WHERE owner IS NOT NULL")
		}
		if tries == 100 {
			t.Fatalf("message %d is not accepted:\n%s", n, s.daemon.Log())
		}
		left = stillToSend(left, bed.SendMail(t, s.postfix.Addr(), "sender@example.net", left, m.raw))
		time.Sleep(20 * time.Millisecond)
	}
	waitDelivered(t, s.postfix)
	for _, address := range to {
		files := s.files(address)
		if len(files) == 0 {
			t.Errorf("message %d: LOST for %s", n, address)
		}
		doubles += max(len(files)-1, 0)
		for _, file := range files {
			text := []byte(readFile(t, file))
			if address == bob {
				untouched(t, text, m.raw)
			} else {
				holdsNone(t, "what "+address+" has got", text, token)
			}
			os.Remove(file)
		}
	}
	if doubles > unnoted {
		t.Errorf("message %d: %d copies came twice, of which %d were accepted and not yet noted", n, doubles, unnoted)
	}
	s.db.SQL(t, database, "DELETE FROM sealmilter.copies")
	return doubles, unnoted
}

// stillToSend are the recipients who stay with the sender after these replies.
func stillToSend(to []string, replies []bed.Reply) (left []string) {
	if !bed.Sent(replies) {
		return to
	}
	for _, r := range replies {
		if address, is := strings.CutPrefix(r.Command, "RCPT "); is && !r.OK() {
			left = append(left, address)
		}
	}
	return left
}

// killCopies kills the smtpd processes that take copies.
func (s *splitSite) killCopies(t *testing.T) {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		text, _ := os.ReadFile(line)
		if strings.HasPrefix(string(text), "smtpd\x00-n\x00127.0.0.1:"+strconv.Itoa(s.port)+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

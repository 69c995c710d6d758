package mta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// load is a message that was sent under load.
type load struct {
	token string
	raw   []byte
	to    []string
}

// TestSplitLoad
//
//	8 SMTP clients ──▶ Postfix ──milter──▶ sealmilter ──▶ PostgreSQL: keys, copies in flight
//	                    ║    ▲                 ║
//	                    ║    ╚═════════════════╝ sealed copies, by SMTP
//	                    ╚════▶ maildirs ════▶ our own code, and gpg for some
//
// Messages of 4 KB to 5 MB, of which a fifth go to people with a key and
// without: each reaches everybody once, sealed where it is due.
func TestSplitLoad(t *testing.T) {
	const clients, round = 8, 600
	rounds := 1
	if long == 1 {
		rounds = 17 // 10,200 messages
	}
	s := newSplitSite(t, splitOptions{})
	secret := map[string][]byte{ann: s.gpg.ExportSecret(t, ann), bea: s.gpg.ExportSecret(t, bea)}
	sent, delivered, deferred, size := 0, 0, 0, 0
	begun := time.Now()
	for n := range rounds {
		var mu sync.Mutex
		batch := make(map[string]*load)
		var running sync.WaitGroup
		for c := range clients {
			running.Go(func() {
				random := rand.New(rand.NewPCG(uint64(n), uint64(c)))
				for range round / clients {
					m := newLoad(random)
					again := submit(t, s.postfix, m)
					mu.Lock()
					batch[m.token] = m
					deferred += again
					size += len(m.raw)
					mu.Unlock()
				}
			})
		}
		running.Wait()
		waitDelivered(t, s.postfix)
		sent += len(batch)
		delivered += s.collect(t, batch, secret)
		if t.Failed() {
			break
		}
	}
	took := time.Since(begun)
	t.Logf("%d messages, %d MB, with %d attempts that were deferred, became %d deliveries, each of them accounted for, in %v: %.0f messages a second with the looking",
		sent, size/1e6, deferred, delivered, took.Round(time.Second), float64(sent)/took.Seconds())
}

// newLoad draws a message. Three of four are small.
func newLoad(random *rand.Rand) *load {
	size := 4_000 + random.IntN(20_000)
	switch random.IntN(40) {
	case 0:
		size = 1_000_000 + random.IntN(4_000_000)
	case 1, 2, 3, 4, 5, 6, 7, 8, 9:
		size = 20_000 + random.IntN(280_000)
	}
	m := &load{token: newToken()}
	switch random.IntN(10) {
	case 0:
		m.to = []string{ann, bob}
	case 1:
		m.to = []string{bob, bea, ann}
	case 2, 3:
		m.to = []string{bob}
	case 4, 5:
		m.to = []string{ann, bea} // undisclosed: two copies
	case 6, 7:
		m.to = []string{ann}
	default:
		m.to = []string{bea}
	}
	line := m.token + " is the token of this message.\r\n"
	m.raw = []byte("From: sender@example.net\r\nSubject: load\r\nX-Token: " + numberOf(m.token) + "\r\nContent-Type: text/plain\r\n\r\n" +
		strings.Repeat(line, size/len(line)))
	return m
}

// numberOf is what tells a message from others without its token.
func numberOf(token string) string { return token[len(token)-16:] }

// submit sends a message as a queue does, until everybody is accepted, and says
// how often it was deferred.
func submit(t *testing.T, p *bed.Postfix, m *load) (deferred int) {
	left := m.to
	for tries := 0; len(left) > 0; tries++ {
		if tries == 20 {
			t.Errorf("not accepted in %d attempts", tries)
			return deferred
		}
		replies := bed.SendMail(t, p.Addr(), "sender@example.net", left, m.raw)
		if !bed.Sent(replies) {
			deferred++
			continue
		}
		var refused []string
		for _, to := range left {
			for _, r := range replies {
				if r.Command == "RCPT "+to && !r.OK() {
					refused = append(refused, to)
				}
			}
		}
		if left = refused; len(left) > 0 {
			deferred++
		}
	}
	return deferred
}

// waitDelivered waits until nothing is in the queue any more.
func waitDelivered(t *testing.T, p *bed.Postfix) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !p.QueueEmpty(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the queue is not empty:\n%s", p.Log())
		}
	}
}

// collect looks at all that was delivered, and removes it. Of what came sealed
// gpg opens one in 100, our own code the others.
func (s *splitSite) collect(t *testing.T, batch map[string]*load, secret map[string][]byte) (delivered int) {
	t.Helper()
	byNumber := make(map[string]*load)
	came := make(map[string]map[string]int)
	for token, m := range batch {
		byNumber[numberOf(token)] = m
		came[token] = make(map[string]int)
	}
	for _, address := range []string{ann, bea, bob, carl} {
		key, _ := openpgp.ReadArmoredKeyRing(bytes.NewReader(secret[address]))
		for _, file := range s.postfix.Maildir(address) {
			text := []byte(readFile(t, file))
			_, rest, _ := strings.Cut(string(text[:min(len(text), 8<<10)]), "\nX-Token: ")
			m := byNumber[rest[:min(len(rest), 16)]]
			if m == nil {
				t.Fatalf("nobody has sent what %s has got:\n%.2000s", address, text)
			}
			delivered++
			came[m.token][address]++
			if address == bob {
				untouched(t, text, m.raw)
			} else {
				s.opensLoad(t, text, key, m, delivered%100 == 0)
			}
			os.Remove(file)
		}
	}
	for token, m := range batch {
		want := make(map[string]int)
		for _, to := range m.to {
			want[to] = 1
		}
		if got := came[token]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("a message of %d bytes to %v came to %v", len(m.raw), m.to, got)
		}
	}
	return delivered
}

// opensLoad checks that a message was sealed and is the one that was sent.
func (s *splitSite) opensLoad(t *testing.T, sealed []byte, key openpgp.EntityList, m *load, withGPG bool) {
	t.Helper()
	if bytes.Contains(sealed, []byte(m.token)) {
		t.Errorf("a message to %v came in the clear", m.to)
		return
	}
	if withGPG {
		s.opens(t, sealed, m.raw)
		return
	}
	got, err := envelope.Open(sealed, &envelope.Secret{OpenPGP: key})
	if want := client.PostfixParser().Parse(m.raw).Shown(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a message to %v opens as %.200q, error %v", m.to, got, err)
	}
}

package milter

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/client"
)

// TestLoad runs 16 connections with 200 messages each, of sizes from a few
// bytes to 200 kB, some of them aborted or passed. Each message opens with
// its recipient's key, byte for byte, and with nobody else's; in the end no
// goroutine and no descriptor is left.
func TestLoad(t *testing.T) {
	const connections, messages = 16, 200
	warm, err := net.Listen("tcp", "127.0.0.1:0") // the first socket opens descriptors that the runtime keeps
	if err != nil {
		t.Fatal(err)
	}
	warm.Close()
	goroutines, open := runtime.NumGoroutine(), descriptors(t)
	f := newFilter(t, nil)
	readers := make([]*openpgp.Entity, connections)
	for i := range readers {
		readers[i] = f.enrol(t, address(i))
	}
	var running sync.WaitGroup
	for i := range connections {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			s, err := client.Dial(f.network, f.addr, client.Options{Sendmail: i%2 == 1})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for n := range messages {
				if err := playOne(s, random, readers, fmt.Sprintf("token-%d-%d", i, n)); err != nil {
					t.Errorf("connection %d, message %d: %v", i, n, err)
					return
				}
			}
		})
	}
	running.Wait()
	if err := f.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	f.store.Close()
	eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines && descriptors(t) <= open })
}

func address(i int) string { return fmt.Sprintf("reader%d@example.org", i) }

// sizes of bodies, in bytes: the more often one stands here, the more often
// it is drawn.
var sizes = []int{10, 10, 500, 500, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000, 20_000, 20_000, 20_000, 60_000, 66_000, 66_000, 66_000, 200_000}

// playOne sends one message to a reader drawn by chance, or aborts it, or
// sends one that nobody has a key for.
func playOne(s *client.Session, random *rand.Rand, readers []*openpgp.Entity, token string) error {
	size := sizes[random.IntN(len(sizes))]
	m, to := numbered(token, size), random.IntN(len(readers))
	envelope := client.Envelope{From: "sender@example.net", To: client.To(address(to))}
	switch random.IntN(8) {
	case 0:
		at := client.Mail + client.Stage(random.IntN(int(client.EndOfMessage-client.Mail)))
		_, err := s.Abort(envelope, m, client.Point{Stage: at})
		return err
	case 1:
		envelope.To = client.To("nobody@example.org")
		result, err := s.Send(envelope, m)
		if err == nil && (result.Queued == nil || len(result.Edits) > 0) {
			err = fmt.Errorf("a message for nobody was answered %q with %d edits", result.Final, len(result.Edits))
		}
		return err
	}
	result, err := s.Send(envelope, m)
	if err != nil {
		return err
	}
	if err := openedBy(result, readers[to], m); err != nil {
		return err
	}
	if err := openedBy(result, readers[(to+1)%len(readers)], m); err == nil {
		return fmt.Errorf("the message for reader %d was opened by another", to)
	}
	return nil
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

package milter

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/keys/sqlite"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

const maxConnections = 20

// filter is a running server with a real store.
type filter struct {
	*Server
	config  Config
	network string
	addr    string
	store   *sqlite.Store
	log     *logged
}

// newFilter starts a server on loopback. change may alter its configuration.
func newFilter(t testing.TB, change func(*Config)) *filter {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	log := &logged{}
	config := Config{
		Store:        store,
		Policy:       policy.Default(),
		Spool:        envelope.Spool{Dir: t.TempDir(), Memory: 64 << 10},
		Log:          slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		LogAddresses: true,
	}
	if change != nil {
		change(&config)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &filter{NewServer(config, maxConnections), config, "tcp", ln.Addr().String(), store, log}
	served := make(chan error, 1)
	go func() { served <- f.Serve(ln, "inet:test") }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return f
}

// change alters the configuration for the messages that come from now on.
func (f *filter) change(alter func(*Config)) {
	config := f.config
	alter(&config)
	f.Reconfigure(config)
}

// useStore puts another store in the place of the real one.
func (f *filter) useStore(other keys.Store) {
	f.change(func(c *Config) { c.Store = other })
}

// logged gathers what the server logs.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// enrol makes a key pair for an address and puts the public key into the store.
func (f *filter) enrol(t testing.TB, address string) *openpgp.Entity {
	t.Helper()
	entity, public := newEntity(t, address)
	if _, err := f.store.AddKey(context.Background(), keys.NewKey{Address: address, Key: public}); err != nil {
		t.Fatal(err)
	}
	return entity
}

func newEntity(t testing.TB, address string) (entity *openpgp.Entity, public string) {
	t.Helper()
	entity, err := openpgp.NewEntity("", "", address, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	// What go-crypto finds out of a key it keeps, which is a race where several
	// tests open with one key at the same time.
	entity.DecryptionKeys(entity.Subkeys[0].PublicKey.KeyId, time.Now(), nil)
	return entity, armored(t, entity)
}

func armored(t testing.TB, entity *openpgp.Entity) string {
	t.Helper()
	var binary bytes.Buffer
	if err := entity.Serialize(&binary); err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(binary.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return parsed[0].Armored()
}

// revokedKey is a key that its holder has withdrawn.
func revokedKey(t testing.TB, address string, at time.Time) string {
	t.Helper()
	then := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return at }}
	entity, err := openpgp.NewEntity("", "", address, then)
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.Revoke(packet.KeyRetired, "", then); err != nil {
		t.Fatal(err)
	}
	return armored(t, entity)
}

// dial opens a session as an MTA.
func (f *filter) dial(t testing.TB, opts client.Options) *client.Session {
	t.Helper()
	s, err := client.Dial(f.network, f.addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the session: %v", err)
		}
	})
	return s
}

// send plays one transaction in a session of its own.
func (f *filter) send(t testing.TB, m client.Message, to ...string) client.Result {
	t.Helper()
	return sendOn(t, f.dial(t, client.Options{}), m, to...)
}

func sendOn(t testing.TB, s *client.Session, m client.Message, to ...string) client.Result {
	t.Helper()
	result, err := s.Send(client.Envelope{From: "sender@example.net", To: client.To(to...)}, m)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// opens checks that the result is a sealed message which its reader opens as
// the very bytes that the filter was shown.
func opens(t testing.TB, result client.Result, with *openpgp.Entity, m client.Message) {
	t.Helper()
	if err := openedBy(result, with, m); err != nil {
		t.Fatal(err)
	}
}

func openedBy(result client.Result, with *openpgp.Entity, m client.Message) error {
	if result.Queued == nil {
		return fmt.Errorf("nothing was queued, the answer is %q", result.Final)
	}
	got, err := envelope.Open(result.Queued.Bytes(), &envelope.Secret{OpenPGP: openpgp.EntityList{with}})
	if err != nil {
		return err
	}
	if !bytes.Equal(got, m.Shown()) {
		return fmt.Errorf("opened it is\n%.2000q\nwant\n%.2000q", got, m.Shown())
	}
	return nil
}

// untouched checks that the message was let pass without one edit.
func untouched(t testing.TB, result client.Result) {
	t.Helper()
	if result.Queued == nil || len(result.Edits) != 0 {
		t.Fatalf("want it untouched; the answer is %q, edits %v", result.Final, result.Edits)
	}
}

// deferred checks that the message stays with its sender and that the log has
// the reason.
func (f *filter) deferred(t testing.TB, reply client.Reply, reason string) {
	t.Helper()
	if want := replyDefer; reply.String() != want {
		t.Errorf("the answer is %q, want %q", reply, want)
	}
	if !strings.Contains(f.log.String(), reason) {
		t.Errorf("the log does not say %q:\n%s", reason, f.log)
	}
}

func textMessage(text string) client.Message {
	return client.ParseMessage([]byte("Subject: " + text + "\nContent-Type: text/plain\n\n" + text + "\n"))
}

// numbered makes a message of about size bytes that holds a token.
func numbered(token string, size int) client.Message {
	line := fmt.Sprintf("%s and some text that fills the line of a message\r\n", token)
	m := textMessage(token)
	m.Body = bytes.Repeat([]byte(line), size/len(line)+1)
	return m
}

package milter

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"sealmilter/milter/envelope"
	"sealmilter/milter/reinject"
)

// Reinjection is how copies leave that cannot stay in their transaction.
//
// All of them are accepted by the target before the first edit of the original
// goes out; an error before that keeps the whole message with its sender, who
// tries again. What was accepted by then is remembered, so that nobody gets it
// twice, and is forgotten when the MTA has gone on. Between two queues nothing
// is exactly once (RFC 1047): what breaks off between the target's acceptance
// and our note of it is sent again.
type Reinjection struct {
	Target reinject.Target
	Copies Copies
	Secret []byte // the same on all hosts that share Copies; at least 32 bytes
}

// Copies remembers the copies of transactions that have not ended. See package
// keys for the errors.
type Copies interface {
	// Begin claims the copies of a transaction, and says which of them were sent
	// already by an attempt that did not finish.
	Begin(ctx context.Context, owner string, copies [][]byte, lease time.Duration) (sent []bool, err error)
	// Sent notes that a copy was accepted.
	Sent(ctx context.Context, owner string, copy []byte) error
	// End ends the claim, and forgets the copies or keeps those that were sent.
	End(ctx context.Context, owner string, copies [][]byte, forget bool) error
}

// claim is what a transaction has in the memory of copies.
type claim struct {
	by     Reinjection
	owner  string
	copies [][]byte
	config *settings // that Copies belongs to
	done   bool      // the verdict was to accept the message
}

// lease is how long a claim lives without its owner: longer than the end of a
// message may take.
const lease = 5 * time.Minute

// reinject hands every copy that leaves to the target, but those that an
// earlier attempt has sent.
func (s *session) reinject(ctx context.Context, p plan) error {
	m := s.message
	by := *m.settings.Reinjection
	var copies [][]byte
	groups := p.leave
	if by.Target.LMTP { // where each recipient is accepted or refused for itself
		groups = singly(groups)
	}
	for _, g := range groups {
		copies = append(copies, m.identity(by.Secret, g))
	}
	owner, err := random()
	if err != nil {
		return err
	}
	sent, err := by.Copies.Begin(ctx, owner, copies, lease)
	if err != nil {
		return fmt.Errorf("remembering the copies in flight: %w", err)
	}
	s.claim = &claim{by: by, owner: owner, copies: copies, config: s.server.share(m.settings)}
	connection, err := by.Target.Dial(ctx)
	if err != nil {
		return fmt.Errorf("re-injecting: %w", err)
	}
	defer connection.Close()
	for i, g := range groups {
		if sent[i] {
			s.logSentBefore(g)
			continue
		}
		if err := s.send(ctx, connection, g); err != nil {
			return fmt.Errorf("re-injecting copy %d of %d: %w", i+1, len(groups), err)
		}
		if err := by.Copies.Sent(ctx, owner, copies[i]); err != nil {
			s.logMayDouble(g, err)
			return fmt.Errorf("remembering the copies in flight: %w", err)
		}
	}
	return nil
}

// singly makes a group of each recipient.
func singly(groups []group) (all []group) {
	for _, g := range groups {
		for _, r := range g.recipients {
			one := g
			one.recipients = []*recipient{r}
			all = append(all, one)
		}
	}
	return all
}

// send hands over one copy.
func (s *session) send(ctx context.Context, connection *reinject.Session, g group) error {
	m := s.message
	header, err := s.copyHeader(g)
	if err != nil {
		return err
	}
	message := reinject.Message{
		From:     withoutBrackets(m.from[0]),
		FromArgs: m.from[1:],
		Client:   s.hop(),
		Size:     int64(len(header)) + g.sealed.Size(len("\r\n")),
		Write: func(w io.Writer) error {
			if _, err := io.WriteString(w, header); err != nil {
				return err
			}
			return g.sealed.WriteBody(w, "\r\n")
		},
	}
	for _, r := range g.recipients {
		message.To = append(message.To, reinject.Recipient{Address: r.address, Args: r.args})
	}
	_, err = connection.Send(ctx, message)
	if errors.Is(err, reinject.ErrUnknown) {
		s.logMayDouble(g, err)
	}
	if err == nil {
		s.logReinjected(g)
	}
	return s.withoutAddresses(err)
}

// withoutAddresses keeps what the target said of a recipient out of a log that
// names none.
func (s *session) withoutAddresses(err error) error {
	var refused *reinject.Refused
	if !errors.As(err, &refused) || s.config().LogAddresses {
		return err
	}
	return fmt.Errorf("the server refused %s: %d %s", refused.Command, refused.Code, refused.Enhanced)
}

// copyHeader is the header of a copy: a trace field for the hop that the target
// cannot know of, the guard against loops, and what stays of the original.
func (s *session) copyHeader(g group) (string, error) {
	m := s.message
	guard, err := newGuard(m.settings.Reinjection.Secret, time.Now())
	if err != nil {
		return "", err
	}
	fields := []envelope.Field{{Name: guardField, Value: " " + guard}}
	if received := s.received(time.Now()); received != "" {
		fields = slices.Insert(fields, 0, envelope.Field{Name: "Received", Value: " " + received})
	}
	stay, added := g.sealed.OuterHeader(m.header)
	for i, f := range m.header {
		if stay[i] {
			fields = append(fields, f)
		}
	}
	var header strings.Builder
	for _, f := range append(fields, added...) {
		header.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", "\r\n") + "\r\n")
	}
	return header.String() + "\r\n", nil
}

// received is a trace field (RFC 5321, section 4.4) for the client: the MTA's
// own is not shown to a milter, and so stands in the original only. It is empty
// for local submission, which the target's own field describes.
func (s *session) received(now time.Time) string {
	hop := s.hop()
	if hop.Local || !hop.Addr.IsValid() {
		return ""
	}
	address := hop.Addr.String()
	if hop.Addr.Is6() {
		address = "IPv6:" + address
	}
	return fmt.Sprintf("from %s (%s [%s])\n\tby %s (sealmilter) with %s id %s;\n\t%s",
		traceable(hop.Helo), traceable(hop.Name), address, traceable(s.conn.macro("j")), hop.Protocol, traceable(hop.QueueID), now.Format(time.RFC1123Z))
}

// traceable is what a client said, as far as it can stand in a trace field.
func traceable(said string) string {
	clean := strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7F || strings.ContainsRune("()<>\\;", r) {
			return -1
		}
		return r
	}, said)
	if clean == "" {
		return "unknown"
	}
	return clean
}

// hop is the client, as the MTA told of it.
func (s *session) hop() reinject.Client {
	protocol := "ESMTP"
	if s.conn.macro("tls_version") != "" {
		protocol += "S"
	}
	if s.message.facts.Authenticated {
		protocol += "A"
	}
	return reinject.Client{
		Name: s.clientName, Addr: s.client, Port: s.clientPort, Helo: s.helo,
		Protocol: protocol, QueueID: s.conn.macro("i"), Local: s.message.local,
	}
}

// identity tells one copy from all others: the same client hands in the same
// message, byte for byte, from the same sender for the same recipients.
func (m *message) identity(secret []byte, g group) []byte {
	var addresses []string
	for _, r := range g.recipients {
		addresses = append(addresses, r.address)
	}
	slices.Sort(addresses)
	mac := hmac.New(sha256.New, secret)
	for _, part := range append([]string{m.facts.Client.String(), m.from[0]}, addresses...) {
		fmt.Fprintf(mac, "%d:%s,", len(part), part)
	}
	mac.Write(m.digest.Sum(nil))
	return mac.Sum(nil)
}

// newDigest begins the digest of header and body, keyed like the identities
// that are made of it.
func newDigest(secret []byte) hash.Hash { return hmac.New(sha256.New, secret) }

// random names the owner of a claim.
func random() (string, error) {
	octets := make([]byte, 16)
	if _, err := rand.Read(octets); err != nil {
		return "", fmt.Errorf("naming a claim: %w", err)
	}
	return hex.EncodeToString(octets), nil
}

// endClaim gives up what the last message has in the memory of copies. gone
// says that the MTA has gone on to another: then a message that is equal to the
// last one is a message of its own. Where the connection broke instead, the
// sender will try again.
func (s *session) endClaim(gone bool) {
	c := s.claim
	if c == nil {
		return
	}
	s.claim = nil
	defer s.server.release(c.config)
	ctx, cancel := context.WithTimeout(context.Background(), s.conn.timeouts.lookup)
	defer cancel()
	if err := c.by.Copies.End(ctx, c.owner, c.copies, gone && c.done); err != nil {
		s.logClaim(err)
	}
}

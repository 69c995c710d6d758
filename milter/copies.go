package milter

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

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
	of     map[string][]byte // the copies by the mailboxes that they are for
	done   bool              // the verdict was to accept the message

	ending  sync.Once
	idle    *time.Timer     // ends the claim where the MTA says nothing more, nil before the verdict
	release func()          // of what Copies belongs to
	log     func(err error) // what went wrong in the end
}

const (
	// defaultLease is how long a claim lives without its owner: longer than the
	// end of a message may take.
	defaultLease = 5 * time.Minute
	// settled is how long a connection stays alive and silent behind a verdict
	// before the MTA counts as gone on. Sendmail need not say anything.
	settled = 30 * time.Second
)

// The end of a claim is told to the memory until it takes it: what stays behind
// would be taken for an attempt that failed.
const (
	endAttempts = 10
	endPause    = 5 * time.Second
)

// claimCopies claims the copies of all recipients and notes who has had theirs
// by an earlier attempt. A copy is known by its mailbox and not by its group: in
// a second attempt other recipients may share it, and another group may stay.
func (s *session) claimCopies(ctx context.Context) error {
	m := s.message
	by := *m.settings.Reinjection
	var copies [][]byte
	of := make(map[string][]byte)
	mailboxes := m.mailboxes()
	for _, same := range mailboxes {
		identity := m.identity(same[0])
		copies = append(copies, identity)
		of[same[0].mailbox(m.settings.Naming)] = identity
	}
	owner, err := random()
	if err != nil {
		return err
	}
	lease := by.Lease
	if lease == 0 {
		lease = defaultLease
	}
	shared, log := s.server.share(m.settings), m.settings.Log
	// From here on the claim may be there, although no answer says so.
	s.claim = &claim{
		by: by, owner: owner, copies: copies, of: of,
		release: func() { s.server.release(shared) },
		log:     func(err error) { log.Warn("copies in flight are not forgotten yet", "reason", err) },
	}
	sent, err := by.Copies.Begin(ctx, owner, copies, lease)
	if err != nil {
		return fmt.Errorf("remembering the copies in flight: %w", err)
	}
	m.sent = make(map[string]bool)
	for i, same := range mailboxes {
		if sent[i] {
			m.sent[same[0].mailbox(m.settings.Naming)] = true
			s.logSentBefore(same)
		}
	}
	return nil
}

// noteSent notes that a copy was accepted, in whatever time is left. It is called
// for several at the same time.
func (s *session) noteSent(ctx context.Context, g group) error {
	for _, r := range g.recipients {
		identity := s.claim.of[r.mailbox(s.message.settings.Naming)]
		if err := s.claim.by.Copies.Sent(context.WithoutCancel(ctx), s.claim.owner, identity); err != nil {
			s.logMayDouble(g, err)
			return fmt.Errorf("remembering the copies in flight: %w", err)
		}
	}
	return nil
}

// identity tells one recipient's copy from all others: the same sender hands in
// the same message, byte for byte, for the same mailbox. Where it has no
// Message-ID, as devices send, the client counts too: two of them may say the
// same.
func (m *message) identity(r *recipient) []byte {
	mac := keyed(m.settings.Reinjection.Secret, "copy")
	client := m.facts.Client.String()
	if m.hasField("Message-ID") {
		client = ""
	}
	for _, part := range []string{client, m.from[0], r.mailbox(m.settings.Naming)} {
		fmt.Fprintf(mac, "%d:%s,", len(part), part)
	}
	mac.Write(m.digest.Sum(nil))
	return mac.Sum(nil)
}

// beginDigest begins the digest of header and body. What stands above the first
// Received field was put there on this machine, by filters that may write
// something else in another attempt.
func (m *message) beginDigest() {
	m.digest = keyed(m.settings.Reinjection.Secret, "message")
	for _, f := range received(m.header) {
		fmt.Fprintf(m.digest, "%s:%s\r\n", f.Name, f.Value)
	}
	m.digest.Write([]byte("\r\n"))
}

// received is a header from its first trace field on, or all of it where it has
// none.
func received(header []envelope.Field) []envelope.Field {
	for i, f := range header {
		if strings.EqualFold(f.Name, "Received") {
			return header[i:]
		}
	}
	return header
}

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
	if c := s.claim; c != nil {
		s.claim = nil
		c.end(gone && c.done, s.conn.timeouts.lookup)
	}
}

// settle ends the claim of an accepted message after a while, if nothing that
// the MTA says has done so before.
func (c *claim) settle(patience time.Duration) {
	c.done = true
	c.idle = time.AfterFunc(settled, func() { c.finish(true, patience) })
}

func (c *claim) end(forget bool, patience time.Duration) {
	if c.idle != nil {
		c.idle.Stop()
	}
	c.finish(forget, patience)
}

// finish ends the claim, once. What fails is tried again behind the caller's
// back.
func (c *claim) finish(forget bool, patience time.Duration) {
	c.ending.Do(func() {
		err := c.tryEnd(forget, patience)
		if err == nil {
			c.release()
			return
		}
		c.log(err)
		go func() {
			defer c.release()
			for range endAttempts {
				time.Sleep(endPause)
				if c.tryEnd(forget, patience) == nil {
					return
				}
			}
		}()
	})
}

func (c *claim) tryEnd(forget bool, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.by.Copies.End(ctx, c.owner, c.copies, forget)
	if errors.Is(err, keys.ErrClaimLost) { // somebody else has it, and ours has ended with it
		return nil
	}
	return err
}

package milter

import (
	"fmt"
	"log/slog"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// The events that an operator reads, a function each. None of them holds
// anything of a message but its sizes; addresses stand there only where the
// site switched that on.

// logSealed: the MTA has the sealed message.
func (s *session) logSealed(sealed *envelope.Copy, to []*keys.Key) {
	m := s.message
	fingerprints := make([]string, len(to))
	for i, key := range to {
		fingerprints[i] = key.Fingerprint
	}
	s.config().Log.Info("sealed", append(s.about(),
		"method", keys.OpenPGP,
		"cipher", m.sealed()[0].accounts[0].Cipher,
		"keys", fingerprints,
		"body_bytes", m.size,
		"sealed_bytes", sealed.Size(1),
		"seconds", time.Since(m.begun).Round(time.Millisecond).Seconds())...)
}

// logPassed: no recipient is due for sealing.
func (s *session) logPassed() {
	reason := "no recipient was left"
	if r := s.message.recipients; len(r) > 0 {
		reason = r[0].decision.Reason
	}
	s.config().Log.Info("passed", append(s.about(), "reason", reason)...)
}

// logDeferred: the message stays with its sender.
func (s *session) logDeferred(reason error) {
	s.config().Log.Error("deferred", append(s.about(), "reason", reason)...)
}

// logRecipientDeferred: one recipient was answered 451.
func (s *session) logRecipientDeferred(address string, reason error) {
	s.config().Log.Error("recipient deferred", append(s.about(), s.address(address), "reason", reason)...)
}

// logApart: a recipient was asked for in a transaction of its own.
func (s *session) logApart(r *recipient) {
	s.config().Log.Info("recipient asked for apart", append(s.about(), s.address(r.address))...)
}

// logUnread: keys are enrolled that cannot be read, beside others that can.
func (s *session) logUnread(reason error) {
	s.config().Log.Warn("a key cannot be read", append(s.about(), "reason", reason)...)
}

// logBroken: a connection ended that the MTA did not end. A message that was
// under way stays with its sender.
func (s *session) logBroken(reason error) {
	s.config().Log.Warn("connection broken", append(s.about(), "reason", reason)...)
}

// logPanic: a fault of ours. The stack holds no message content.
func (s *session) logPanic(cause any, stack []byte) {
	s.config().Log.Error("panic", append(s.about(), "cause", fmt.Sprint(cause), "stack", string(stack))...)
}

// config is what the message goes by, or what the next one would.
func (s *session) config() Config {
	if s.message != nil {
		return s.message.settings.Config
	}
	return s.server.now()
}

// about names the message: its queue id, or NOQUEUE as Postfix calls it, and
// its recipients.
func (s *session) about() []any {
	queueID := s.conn.macro("i")
	if queueID == "" {
		queueID = "NOQUEUE"
	}
	attrs := []any{"queue_id", queueID}
	if s.message == nil {
		return attrs
	}
	attrs = append(attrs, "recipients", len(s.message.recipients))
	if s.config().LogAddresses && len(s.message.recipients) > 0 {
		var to []string
		for _, r := range s.message.recipients {
			to = append(to, fmt.Sprintf("%q", r.address))
		}
		attrs = append(attrs, "to", to)
	}
	return attrs
}

// address is a recipient's address where the site wants to see it.
func (s *session) address(address string) slog.Attr {
	if !s.config().LogAddresses {
		return slog.Attr{}
	}
	return slog.String("address", fmt.Sprintf("%q", address))
}

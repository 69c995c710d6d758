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
func (s *Server) logSealed(on *session, sealed *envelope.Copy, to []*keys.Key) {
	m := on.message
	fingerprints := make([]string, len(to))
	for i, key := range to {
		fingerprints[i] = key.Fingerprint
	}
	s.Log.Info("sealed", append(s.about(on),
		"method", keys.OpenPGP,
		"cipher", m.sealed()[0].accounts[0].Cipher,
		"keys", fingerprints,
		"body_bytes", m.size,
		"sealed_bytes", sealed.Size(1),
		"seconds", time.Since(m.begun).Round(time.Millisecond).Seconds())...)
}

// logPassed: no recipient is due for sealing.
func (s *Server) logPassed(on *session) {
	reason := "no recipient was left"
	if r := on.message.recipients; len(r) > 0 {
		reason = r[0].decision.Reason
	}
	s.Log.Info("passed", append(s.about(on), "reason", reason)...)
}

// logDeferred: the message stays with its sender.
func (s *Server) logDeferred(on *session, reason error) {
	s.Log.Error("deferred", append(s.about(on), "reason", reason)...)
}

// logRecipientDeferred: one recipient was answered 451.
func (s *Server) logRecipientDeferred(on *session, address string, reason error) {
	s.Log.Error("recipient deferred", append(s.about(on), s.address(address), "reason", reason)...)
}

// logApart: a recipient was asked for in a transaction of its own.
func (s *Server) logApart(on *session, r *recipient) {
	s.Log.Info("recipient asked for apart", append(s.about(on), s.address(r.address))...)
}

// logUnread: keys are enrolled that cannot be read, beside others that can.
func (s *Server) logUnread(on *session, reason error) {
	s.Log.Warn("a key cannot be read", append(s.about(on), "reason", reason)...)
}

// logBroken: a connection ended that the MTA did not end. A message that was
// under way stays with its sender.
func (s *Server) logBroken(on *session, reason error) {
	s.Log.Warn("connection broken", append(s.about(on), "reason", reason)...)
}

// logPanic: a fault of ours. The stack holds no message content.
func (s *Server) logPanic(on *session, cause any, stack []byte) {
	s.Log.Error("panic", append(s.about(on), "cause", fmt.Sprint(cause), "stack", string(stack))...)
}

// about names the message: its queue id, or NOQUEUE as Postfix calls it, and
// its recipients.
func (s *Server) about(on *session) []any {
	queueID := on.conn.macro("i")
	if queueID == "" {
		queueID = "NOQUEUE"
	}
	attrs := []any{"queue_id", queueID}
	if on.message == nil {
		return attrs
	}
	attrs = append(attrs, "recipients", len(on.message.recipients))
	if s.LogAddresses && len(on.message.recipients) > 0 {
		var to []string
		for _, r := range on.message.recipients {
			to = append(to, fmt.Sprintf("%q", r.address))
		}
		attrs = append(attrs, "to", to)
	}
	return attrs
}

// address is a recipient's address where the site wants to see it.
func (s *Server) address(address string) slog.Attr {
	if !s.LogAddresses {
		return slog.Attr{}
	}
	return slog.String("address", fmt.Sprintf("%q", address))
}

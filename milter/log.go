package milter

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// The events that an operator reads, a function each. None of them holds
// anything of a message but its sizes; addresses stand there only where the
// site switched that on.

// logDelivered: the MTA is given what stays in the transaction. If the connection
// breaks before it has all of it, that is logged behind this, and the MTA
// defers.
func (s *session) logDelivered(p plan) {
	if p.stays.sealed != nil {
		s.logSealed("sealed", p.stays)
		return
	}
	s.config().Log.Info("passed", append(s.aboutGroup(p.stays), "reason", p.stays.way.Reason)...)
}

// logReinjected: a copy was accepted by the MTA's other service.
func (s *session) logReinjected(g group) { s.logSealed("reinjected", g) }

func (s *session) logSealed(event string, g group) {
	m := s.message
	attrs := append(s.aboutGroup(g), "reason", g.way.Reason)
	if p := m.settings.Policy; g.way.Outcome == policy.Global || p.Escrow {
		attrs = append(attrs, "site_can_read", fingerprints(p.GlobalKeys))
	}
	s.config().Log.Info(event, append(attrs,
		"method", g.way.form.Method,
		"cipher", g.way.form.Cipher,
		"keys", fingerprints(g.to),
		"body_bytes", m.size,
		"sealed_bytes", m.sealedSize(g.sealed),
		"seconds", time.Since(m.begun).Round(time.Millisecond).Seconds())...)
}

// logSentBefore: an earlier attempt, which the sender was not told to be
// successful, has had the copy accepted.
func (s *session) logSentBefore(to []*recipient) {
	s.config().Log.Info("not re-injected again, an earlier attempt was accepted", s.aboutGroup(group{recipients: to})...)
}

// logMayDouble: nobody can know whether the copy was accepted, or we could not
// note that it was. The sender tries again, and then it may come twice.
func (s *session) logMayDouble(g group, cause error) {
	s.config().Log.Warn("a copy may come twice", append(s.aboutGroup(g), "reason", cause)...)
}

// logPassed: no recipient is due for sealing.
func (s *session) logPassed() {
	var reasons []string
	for _, r := range s.message.recipients {
		if reason := r.settled().Reason; !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	s.config().Log.Info("passed", append(s.about(), "reason", strings.Join(reasons, "; "))...)
}

// logDeferred: the message stays with its sender.
func (s *session) logDeferred(reason error) {
	s.config().Log.Error("deferred", append(s.about(), "reason", reason)...)
}

// logRejected: policy refused the message for good.
func (s *session) logRejected(d policy.Decision) {
	s.config().Log.Warn("rejected", append(s.about(), "reason", d.Reason)...)
}

// logRecipientRejected: policy refused one recipient for good.
func (s *session) logRecipientRejected(r *recipient) {
	s.config().Log.Warn("recipient rejected", append(s.aboutRecipient(r), "reason", r.settled().Reason)...)
}

// logTooLarge: the message was refused for good.
func (s *session) logTooLarge(size, limit int64) {
	s.config().Log.Warn("refused, too large once sealed", append(s.about(), "sealed_bytes", size, "limit", limit)...)
}

// logRecipientDeferred: one recipient was answered 451.
func (s *session) logRecipientDeferred(r *recipient, reason error) {
	s.config().Log.Error("recipient deferred", append(s.aboutRecipient(r), "reason", reason)...)
}

// logApart: a recipient was answered 452.
func (s *session) logApart(r *recipient) {
	s.config().Log.Info("recipient asked for in a transaction of its own", s.aboutRecipient(r)...)
}

// logUnread: keys are enrolled that cannot be read, beside others that can.
func (s *session) logUnread(r *recipient, unread []error) {
	s.config().Log.Warn("not every key of a recipient can be read",
		append(s.aboutRecipient(r), "reason", strings.TrimPrefix(because(unread), "; "))...)
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
	if s.message != nil && s.message.settings != nil {
		return s.message.settings.Config
	}
	return s.server.now()
}

// about names the message: its queue id, or NOQUEUE as Postfix calls it, the
// SMTP client, and the recipients.
func (s *session) about() []any {
	if s.message == nil {
		return s.aboutClient()
	}
	return s.aboutGroup(group{recipients: s.message.recipients})
}

// aboutGroup names some of the recipients.
func (s *session) aboutGroup(g group) []any {
	attrs := append(s.aboutClient(), "recipients", len(g.recipients))
	if s.config().LogAddresses && len(g.recipients) > 0 {
		var to []string
		for _, r := range g.recipients {
			to = append(to, r.address)
		}
		attrs = append(attrs, "to", to)
	}
	return attrs
}

func (s *session) aboutClient() []any {
	queueID := s.conn.macro("i")
	if queueID == "" {
		queueID = "NOQUEUE"
	}
	client := ""
	if s.client.IsValid() {
		client = s.client.String()
	}
	return []any{"queue_id", queueID, "client", client}
}

// aboutRecipient names one recipient by its address, where the site wants to
// see that, and by the keys that it has.
func (s *session) aboutRecipient(r *recipient) []any {
	attrs := s.aboutClient()
	if s.config().LogAddresses {
		attrs = append(attrs, "address", r.address)
	}
	var enrolled []*keys.Key
	for _, account := range r.accounts {
		enrolled = append(enrolled, account.Keys...)
	}
	if len(enrolled) > 0 {
		attrs = append(attrs, "keys", fingerprints(enrolled))
	}
	return attrs
}

func fingerprints(of []*keys.Key) (all []string) {
	for _, key := range of {
		if !slices.Contains(all, key.Fingerprint) {
			all = append(all, key.Fingerprint)
		}
	}
	return all
}

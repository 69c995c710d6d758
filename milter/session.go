package milter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// What the sender is told. The reason is in the log.
const (
	replyDefer = "451 4.3.0 Mail cannot be sealed at the moment, please try again later"
	replyApart = "452 4.5.3 Please send to this recipient in a transaction of its own"
	replyLarge = "552 5.3.4 The message is too large once it is sealed (%d bytes, at most %d can be taken)"
)

const codeReply = byte(milter.ActReplyCode)

// session is one connection's backend. go-milter asks for a new backend after
// every final reply, in the middle of a transaction too, and is given the
// same one: a message begins at MAIL and ends here, nowhere else.
type session struct {
	server  *Server
	conn    *conn
	client  string   // the SMTP client's address, "" for local submission
	message *message // nil outside of a transaction
}

func newSession(s *Server, c *conn) *session {
	session := &session{server: s, conn: c}
	c.header = session.header
	return session
}

// Connect notes who the SMTP client is.
func (s *session) Connect(_, _ string, _ uint16, address net.IP, _ *milter.Modifier) (milter.Response, error) {
	if address != nil {
		s.client = address.String()
	}
	return s.unless(milter.OptNoConnReply, milter.RespContinue), nil
}

// Helo has nothing to decide.
func (s *session) Helo(string, *milter.Modifier) (milter.Response, error) {
	return s.unless(milter.OptNoHeloReply, milter.RespContinue), nil
}

// MailFrom begins a message.
func (s *session) MailFrom(string, *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		s.endMessage()
		s.message = &message{begun: time.Now(), local: s.isLocal(), settings: s.server.acquire()}
		if s.conn.lacking != 0 {
			return s.refuse(fmt.Errorf("the MTA does not let the filter do what sealing needs (missing actions %#x)", uint32(s.conn.lacking)))
		}
		return milter.RespContinue
	})
}

// isLocal tells Postfix's non-SMTP submission, which emulates the SMTP
// commands for a message that is in the queue already: smtpd has no queue id
// before the first recipient.
func (s *session) isLocal() bool {
	return strings.HasPrefix(s.conn.macro("v"), "Postfix ") && s.conn.macro("i") != ""
}

// RcptTo looks the recipient up and decides for it, so that one who cannot
// share the transaction can be asked for apart.
func (s *session) RcptTo(string, *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		if s.message == nil {
			return s.refuse(errors.New("the MTA sent RCPT outside of a transaction"))
		}
		r := &recipient{
			address:  strings.TrimSuffix(strings.TrimPrefix(s.conn.args[0], "<"), ">"),
			resolved: s.conn.resolved,
		}
		if err := s.lookup(r); err != nil {
			return s.refuseRecipient(r, err)
		}
		if !s.message.admits(r) {
			s.logApart(r)
			if s.message.local {
				s.message.fail(errors.New("recipients that need transactions of their own came in one local submission, where none can be refused: the message waits in the maildrop queue until it is removed (postsuper -d) and sent to each apart"))
				return milter.RespContinue
			}
			return milter.NewResponseStr(codeReply, replyApart)
		}
		s.message.recipients = append(s.message.recipients, r)
		return milter.RespContinue
	})
}

// lookup asks the store for one recipient and decides. The error says why the
// recipient must be deferred.
func (s *session) lookup(r *recipient) error {
	config := s.config()
	if !config.Policy.Enable {
		r.decision = config.Policy.Decide(policy.Facts{})
		return nil
	}
	names, err := r.names()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.conn.timeouts.lookup)
	defer cancel()
	found, err := keys.Lookup(ctx, config.Store, names)
	if err != nil {
		return err
	}
	r.decide(config.Policy, names, found, time.Now())
	if r.decision.Outcome == policy.Defer {
		return fmt.Errorf("%s%s", r.decision.Reason, because(r.unread()))
	}
	if unread := r.unread(); len(unread) > 0 {
		s.logUnread(r, unread)
	}
	return nil
}

// refuseRecipient defers one recipient and leaves the others their chance.
func (s *session) refuseRecipient(r *recipient, err error) milter.Response {
	s.logRecipientDeferred(r, err)
	if s.message.local {
		s.message.fail(err)
		return milter.RespContinue
	}
	return milter.NewResponseStr(codeReply, replyDefer)
}

// Header is never called: the connection hands the fields on by itself.
func (s *session) Header(string, string, *milter.Modifier) (milter.Response, error) {
	panic("internal error: go-milter was shown a header field")
}

// header keeps a header field.
func (s *session) header(name, value string) {
	if s.message != nil {
		s.message.addField(name, value, s.leadingSpace())
	}
}

// Headers ends the header. What is not to be sealed is accepted here: its
// body need not come, and nothing of it is touched.
func (s *session) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		m := s.message
		switch {
		case m == nil || len(m.recipients) == 0 && m.failed == nil:
			return s.refuse(errors.New("the MTA sent a message without its beginning, or without a recipient"))
		case m.failed == nil && len(m.sealed()) == 0:
			s.logPassed()
			s.reset()
			return milter.RespAccept
		case m.failed == nil:
			if err := m.beginSealing(time.Now()); err != nil {
				m.fail(err)
			}
		}
		if m.failed != nil {
			return s.refuse(m.failed)
		}
		return milter.RespContinue
	})
}

// BodyChunk seals a piece of the body.
func (s *session) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	return s.guard(milter.OptNoBodyReply, func() milter.Response {
		if s.message != nil {
			s.message.addBody(chunk)
		}
		return milter.RespContinue
	})
}

// Body ends the message: the whole copy is made, then the message in the
// MTA's queue is edited, then comes the verdict.
func (s *session) Body(edit *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		m := s.message
		if m == nil || m.failed == nil && m.sealing == nil {
			return s.refuse(errors.New("the MTA sent an end of message without its beginning"))
		}
		if m.failed != nil {
			return s.refuse(m.failed)
		}
		s.conn.limit(time.Now().Add(s.conn.timeouts.end)) // taken off by the next MAIL
		sealed, err := s.finishSealing()
		if err == nil && m.tooLarge(sealed) {
			return s.refuseLarge(m.sealedSize(sealed))
		}
		if err == nil {
			err = rewrite(edit, m.header, sealed, s.leadingSpace())
		}
		if err != nil {
			return s.refuse(err)
		}
		s.logSealed(sealed)
		s.reset()
		return milter.RespAccept
	})
}

// finishSealing makes the copy, and tells the MTA meanwhile that it should
// wait. When it returns, no progress is sent any more: it would end the
// replacement of the body.
func (s *session) finishSealing() (*envelope.Copy, error) {
	stop := keepWaiting(s.conn, s.conn.timeouts.progress)
	defer stop()
	return s.message.finishSealing(time.Now())
}

// keepWaiting sends progress at each interval until the returned function is
// called, which returns when the last one is out.
func keepWaiting(c *conn, interval time.Duration) (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
				if c.progress() != nil {
					return // the next write of the verdict meets the same error
				}
			}
		}
	})
	return func() {
		close(ended)
		running.Wait()
	}
}

// Abort ends the message without a trace. It may come at any time, twice too.
func (s *session) Abort(*milter.Modifier) error {
	s.reset()
	return nil
}

// refuse defers the message and ends it.
func (s *session) refuse(err error) milter.Response {
	s.logDeferred(err)
	if s.message != nil && s.message.poisoned {
		s.conn.lastReply = true
	}
	s.reset()
	return milter.NewResponseStr(codeReply, replyDefer)
}

// refuseLarge refuses a message that the MTA could not keep, for good. Postfix
// would do so too, when the new body has grown its queue file over the limit,
// but in words that tell the sender nothing of sealing.
func (s *session) refuseLarge(size int64) milter.Response {
	limit := s.message.settings.SizeLimit
	s.logTooLarge(size, limit)
	s.reset()
	return milter.NewResponseStr(codeReply, fmt.Sprintf(replyLarge, size, limit))
}

// reset ends the message and gives back what it holds.
func (s *session) reset() {
	s.endMessage()
	s.conn.end()
}

func (s *session) endMessage() {
	m := s.message
	if m == nil {
		return
	}
	s.message = nil
	s.server.release(m.settings)
	m.end()
}

// leadingSpace says whether header values come and go with the white space
// that follows the colon.
func (s *session) leadingSpace() bool { return s.conn.protocol&milter.OptHeaderLeadingSpace != 0 }

// unless is a reply that is left out where the MTA was promised none.
func (s *session) unless(promised milter.OptProtocol, reply milter.Response) milter.Response {
	if s.conn.protocol&promised != 0 {
		return nil
	}
	return reply
}

// guard runs a step of the message. A panic in it becomes a 451, and the
// connection on which it happened is not used again. Where the MTA was
// promised no reply to the step, the failure is told at the next that has one.
func (s *session) guard(promised milter.OptProtocol, step func() milter.Response) (reply milter.Response, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.logPanic(cause, debug.Stack())
			reply = s.panicked(promised)
		}
		reply = s.unless(promised, reply)
	}()
	return step(), nil
}

// panicked takes back what a panic left behind. The message is marked where
// it still has to be answered, and is otherwise refused at once.
func (s *session) panicked(promised milter.OptProtocol) milter.Response {
	failure := errors.New("internal error: a panic while the message was handled")
	if s.conn.protocol&promised != 0 && s.message != nil {
		s.message.fail(failure)
		s.message.poisoned = true
		return nil
	}
	s.conn.lastReply = true
	return s.refuse(failure)
}

package milter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/policy"
)

// What the sender is told. The reason is in the log.
const (
	replyDefer  = "451 4.3.0 Mail cannot be sealed at the moment, please try again later"
	replyReject = "550 5.7.1 The recipient's policy does not let this message be delivered"
	replyRefuse = "550 5.5.0 Please send to this recipient in a transaction of its own"
	replyApart  = "452 4.5.3 Please send to this recipient in a transaction of its own"
	replyLarge  = "552 5.3.4 The message is too large once it is sealed (%d bytes, at most %d can be taken)"
)

const codeReply = byte(milter.ActReplyCode)

// session is one connection's backend. go-milter asks for a new backend after
// every final reply, in the middle of a transaction too, and is given the
// same one: a message begins at MAIL and ends here, nowhere else.
type session struct {
	server   *Server
	conn     *conn
	listener string   // that the MTA came by, as the configuration names it
	message  *message // nil outside of a transaction
	claim    *claim   // on copies of the last message, nil where it had none

	// The SMTP client, of which client is the zero Addr for local submission.
	client     netip.Addr
	clientPort uint16
	clientName string
	helo       string
}

func newSession(s *Server, c *conn, listener string) *session {
	session := &session{server: s, conn: c, listener: listener}
	c.header = session.header
	return session
}

// Connect notes who the SMTP client is.
func (s *session) Connect(name, _ string, port uint16, address net.IP, _ *milter.Modifier) (milter.Response, error) {
	s.clientName, s.clientPort = name, port
	client, known := netip.AddrFromSlice(address)
	if !known {
		client, _ = netip.ParseAddr(strings.TrimPrefix(s.conn.client, "IPv6:")) // so Sendmail writes it
	}
	s.client = client.Unmap()
	return s.unless(milter.OptNoConnReply, milter.RespContinue), nil
}

// Helo notes what the client calls itself.
func (s *session) Helo(name string, _ *milter.Modifier) (milter.Response, error) {
	s.helo = name
	return s.unless(milter.OptNoHeloReply, milter.RespContinue), nil
}

// MailFrom begins a message.
func (s *session) MailFrom(string, *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		s.endMessage()
		s.endClaim(true)
		s.message = &message{
			begun:    time.Now(),
			local:    s.isLocal(),
			settings: s.server.acquire(),
			from:     s.conn.args,
			deletes:  s.conn.macro(macroDeletes) == "yes",
		}
		s.message.facts = policy.Facts{
			Sender:        keys.Canonical(withoutBrackets(s.conn.args[0])),
			Authenticated: s.conn.macro("auth_authen") != "" || s.conn.macro("auth_type") != "",
			Client:        s.client,
			Listener:      s.listener,
		}
		if s.message.local { // Postfix shows 127.0.0.1
			s.message.facts.Local, s.message.facts.Client = true, netip.Addr{}
		}
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
			address:  withoutBrackets(s.conn.args[0]),
			args:     s.conn.args[1:],
			resolved: s.conn.resolved,
			facts:    s.message.facts,
		}
		if s.message.has(r) {
			return milter.RespContinue // what was decided for it holds
		}
		if err := s.lookup(r); err != nil {
			return s.refuseRecipient(r, err)
		}
		if way := r.settled(); way != nil && way.Outcome == policy.Defer {
			return s.refuseRecipient(r, fmt.Errorf("%s%s", way.Reason, because(r.unread())))
		} else if way != nil && way.Outcome == policy.Reject && !s.message.local {
			s.logRecipientRejected(r)
			return milter.NewResponseStr(codeReply, rejection(way.Decision))
		}
		if !s.message.admits(r) {
			s.logApart(r)
			if s.message.local {
				s.message.fail(errors.New("recipients that need transactions of their own came in one local submission, where none can be refused: the message waits in the maildrop queue until it is removed (postsuper -d) and sent to each apart; with submitted.master.cf of contrib/postfix such mail takes the way of all other"))
				return milter.RespContinue
			}
			if s.config().Split == SplitRefuse {
				return milter.NewResponseStr(codeReply, replyRefuse)
			}
			return milter.NewResponseStr(codeReply, replyApart)
		}
		s.message.recipients = append(s.message.recipients, r)
		return milter.RespContinue
	})
}

// withoutBrackets is what stands between the angle brackets of MAIL and RCPT.
func withoutBrackets(path string) string {
	return strings.TrimSuffix(strings.TrimPrefix(path, "<"), ">")
}

// lookup asks the store for one recipient and weighs what may become of it. The
// error says why the recipient must be deferred.
func (s *session) lookup(r *recipient) error {
	config, now := s.config(), time.Now()
	if !config.Policy.Enable {
		return r.weigh(config.Policy, now)
	}
	names, err := r.names(config.Naming)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.conn.timeouts.lookup)
	defer cancel()
	found, err := keys.Lookup(ctx, config.Store, config.Naming, names)
	if err != nil {
		return err
	}
	if err := r.meet(found, names, config.Naming, now); err != nil {
		return err
	}
	if err := r.weigh(config.Policy, now); err != nil {
		return err
	}
	if unread := r.unread(); len(unread) > 0 && r.maySeal() {
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
		if m == nil || len(m.recipients) == 0 && m.failed == nil {
			return s.refuse(errors.New("the MTA sent a message without its beginning, or without a recipient"))
		}
		if m.failed == nil && !m.passes() {
			m.fail(m.weigh(time.Now()))
		}
		switch {
		case m.failed != nil:
			return s.refuse(m.failed)
		case m.passes():
			s.logPassed()
			s.reset()
			return milter.RespAccept
		case m.refused() != nil:
			return s.conclude(m.refused())
		}
		if err := m.beginSealing(); err != nil {
			return s.refuse(err)
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

// Body ends the message: what is to become of it is decided, the whole copy is
// made, then the message in the MTA's queue is edited, then comes the verdict.
func (s *session) Body(edit *milter.Modifier) (milter.Response, error) {
	return s.guard(0, func() milter.Response {
		m := s.message
		if m == nil || m.failed == nil && m.detector == nil {
			return s.refuse(errors.New("the MTA sent an end of message without its beginning"))
		}
		if m.failed == nil {
			m.fail(m.decide(time.Now()))
		}
		if m.failed != nil {
			return s.refuse(m.failed)
		}
		switch {
		case m.refused() != nil:
			return s.conclude(m.refused())
		case m.passes():
			return s.conclude(m.recipients[0].settled())
		}
		return s.deliver(edit, m.plan())
	})
}

// deliver carries a plan out: the copies that leave, then the edits of this
// transaction in the order that Postfix and Sendmail both take: recipients,
// header, body.
func (s *session) deliver(edit *milter.Modifier, p plan) milter.Response {
	m := s.message
	until := time.Now().Add(s.conn.timeouts.end)
	s.conn.limit(until) // taken off by the next MAIL
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	largest, err := s.prepare(ctx, &p)
	if largest > 0 {
		return s.refuseLarge(largest)
	}
	for _, address := range m.leaving(p) {
		if err == nil {
			err = edit.DeleteRecipient(address) // go-milter puts the brackets on
		}
	}
	if err == nil && p.stays.sealed != nil {
		err = rewrite(edit, m.header, p.stays.sealed, s.leadingSpace())
	}
	if err != nil {
		return s.refuse(err)
	}
	if s.claim != nil {
		s.claim.settle(s.conn.timeouts.lookup)
	}
	if p.stays.way == nil { // everybody has had their copy
		s.reset()
		return milter.RespDiscard
	}
	s.logDelivered(p)
	s.reset()
	return milter.RespAccept
}

// prepare makes all copies and has those taken that leave, and tells the MTA
// meanwhile that it should wait. When it returns, no progress is sent any more:
// it would end the replacement of the body. It returns the size of a copy that
// is larger than the MTA can take, 0 where there is none.
func (s *session) prepare(ctx context.Context, p *plan) (tooLarge int64, err error) {
	stop := keepWaiting(s.conn, s.conn.timeouts.progress)
	defer stop()
	m := s.message
	if m.hasGuard(time.Now()) {
		return 0, errLoop
	}
	if m.digest != nil { // there are several, and an earlier attempt may have split them
		if err := s.claimCopies(ctx); err != nil {
			return 0, err
		}
		*p = m.plan() // without those who have had theirs
	}
	switch leaves := len(p.leave)+len(p.had) > 0; {
	case leaves && !m.deletes:
		return 0, errors.New("internal error: some recipients are to leave a transaction of which none is sure to be deleted")
	case leaves && !s.confirmsDeletes():
		return 0, errCleanup
	}
	if err := m.seal(p, time.Now()); err != nil {
		return 0, err
	}
	for _, g := range append(p.leave, p.stays) {
		if g.sealed != nil && m.tooLarge(g.sealed) {
			return m.sealedSize(g.sealed), nil
		}
	}
	if len(p.leave) == 0 {
		return 0, nil
	}
	return 0, s.reinject(ctx, *p)
}

// errCleanup is for the administrator, too.
var errCleanup = errors.New("the cleanup(8) of Postfix has not said at the end of the message that it deletes recipients as they were written: let main.cf have milter_macro_v and milter_end_of_data_macros as in reinject.main.cf of contrib/postfix, and set enable_original_recipient nowhere else")

// confirmsDeletes says whether what will delete recipients says the same as what
// has shown them, see macroDeletes. Only Postfix has these apart. Sendmail sends
// the macro v where it is told to, and it is the version, 8.17.1 for one.
func (s *session) confirmsDeletes() bool {
	v := s.conn.connect["v"]
	return v == "" || strings.HasPrefix(v, "8.") || strings.HasSuffix(s.conn.message["v"], macroDeletes+"=yes")
}

// errLoop is for the administrator, who has to mend it.
var errLoop = errors.New("a loop: the message is a copy that was re-injected from here, so that the service which [reinject] names has this filter; take it out there (-o smtpd_milters= in Postfix, InputMailFilters= in Sendmail)")

// conclude ends a message that is not sealed.
func (s *session) conclude(w *way) milter.Response {
	switch w.Outcome {
	case policy.Pass:
		s.logPassed()
		s.reset()
		return milter.RespAccept
	case policy.Reject:
		s.logRejected(w.Decision)
		s.reset()
		return milter.NewResponseStr(codeReply, rejection(w.Decision))
	}
	return s.refuse(errors.New(w.Reason))
}

// rejection is the reply to what is refused for good. A rule's text may bring
// codes of its own.
func rejection(d policy.Decision) string {
	if d.Text == "" {
		return replyReject
	}
	if policy.HasCode(d.Text) {
		return d.Text
	}
	return "550 5.7.1 " + d.Text
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
	s.endClaim(true)
	return nil
}

// refuse defers the message and ends it.
func (s *session) refuse(err error) milter.Response {
	s.logDeferred(err)
	if s.message != nil && s.message.poisoned {
		s.conn.lastReply = true
	}
	s.reset()
	s.endClaim(false)
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

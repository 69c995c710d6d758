package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-milter"
)

// Recipient is one RCPT command: the address without angle brackets, and ESMTP
// arguments such as NOTIFY=NEVER.
type Recipient struct {
	Addr string
	Args []string
}

// To makes recipients without arguments.
func To(addrs ...string) []Recipient {
	to := make([]Recipient, len(addrs))
	for i, a := range addrs {
		to[i].Addr = a
	}
	return to
}

// Envelope is what the SMTP client says before DATA.
type Envelope struct {
	From     string // without angle brackets; empty for a bounce
	FromArgs []string
	To       []Recipient
	QueueID  string // 4F2C91A0B7 where none is given
	Login    string // the user that the client authenticated as, where it did

	accepted int // recipients accepted so far: the queue id exists from the first on
}

func (e Envelope) authMacros() []string {
	if e.Login == "" {
		return []string{}
	}
	return []string{"{auth_type}", "PLAIN", "{auth_authen}", e.Login}
}

// Result is what became of a message.
type Result struct {
	Stage      Stage   // at which the verdict came
	Final      Reply   // the verdict on the message
	Mail       Reply   // the answer to MAIL
	Recipients []Reply // the answers to RCPT, in order; fewer where the verdict came before
	Aborted    bool    // by Abort

	// Queued is what the MTA holds in its queue now. It is nil where the message
	// was refused, discarded or aborted.
	Queued *Queued

	Edits    []Edit // as they came
	Progress int    // progress packets at the end of the message
}

// Point is a place within a transaction: behind the Count-th event of a stage,
// or with Count 0 behind the last.
type Point struct {
	Stage Stage
	Count int
}

var errAborted = errors.New("aborted")

// Send plays one transaction. The error says how the filter broke the protocol,
// or that it went away or was too slow; a refusal is none. After an error the
// session is of no more use but for Close.
func (s *Session) Send(e Envelope, m Message) (Result, error) {
	return s.play(e, m, Point{Stage: -1})
}

// Abort plays a transaction up to a point and aborts it there, as both MTAs do
// when the SMTP client goes away or says RSET. Where the filter's verdict comes
// sooner there is nothing to abort.
func (s *Session) Abort(e Envelope, m Message, at Point) (Result, error) {
	return s.play(e, m, at)
}

func (s *Session) play(e Envelope, m Message, stop Point) (Result, error) {
	if s.broken != nil {
		return Result{}, fmt.Errorf("the session is broken: %w", s.broken)
	}
	t := &transaction{Session: s, envelope: e, message: m, stop: stop}
	t.envelope.QueueID = orElse(e.QueueID, "4F2C91A0B7")
	if s.verdict != nil {
		t.stage, t.over = Connect, true
		t.result.Final = *s.verdict
	}
	for _, step := range []func() error{t.mail, t.rcpt, t.data, t.header, t.body, t.end} {
		if t.over {
			break
		}
		if err := step(); errors.Is(err, errAborted) {
			t.result.Aborted, t.over = true, true
		} else if err != nil {
			s.broken = err
			return t.result, fmt.Errorf("at %s: %w", t.stage, err)
		}
	}
	if err := t.finish(); err != nil {
		s.broken = err
		return t.result, fmt.Errorf("behind the message: %w", err)
	}
	return t.result, nil
}

// transaction is the state of one message.
type transaction struct {
	*Session
	envelope Envelope
	message  Message
	stop     Point
	stage    Stage
	count    int  // events of this stage
	over     bool // the verdict has come, or the transaction was aborted
	refused  bool // all recipients were refused, so that DATA never comes
	result   Result
}

// begin enters a stage, and leave ends it, where it may be the point to abort at.
func (t *transaction) begin(st Stage) { t.stage, t.count = st, 0 }

func (t *transaction) leave() error {
	if !t.over && t.stop.Stage == t.stage && t.stop.Count == 0 {
		return errAborted
	}
	return nil
}

// tell reports an event and takes the answer for the message as a whole: for
// every stage but RCPT and the end, where a refusal means something else.
func (t *transaction) tell(to Recipient, data []byte) (Reply, error) {
	reply, err := t.event(t.stage, t.macros(t.stage, t.envelope, to), data)
	if err != nil {
		return reply, err
	}
	final := reply.Refused() && t.stage != Rcpt
	if final || reply.Action == milter.ActAccept || reply.Action == milter.ActDiscard {
		t.over = true
		t.result.Final = reply
	}
	t.count++
	if !t.over && t.stop == (Point{t.stage, t.count}) {
		return reply, errAborted
	}
	return reply, nil
}

func (t *transaction) mail() error {
	t.begin(Mail)
	var err error
	t.result.Mail, err = t.tell(Recipient{}, command(t.envelope.From, t.envelope.FromArgs))
	if err != nil {
		return err
	}
	return t.leave()
}

// rcpt plays all RCPT commands. A refusal is for one recipient; where none is
// left the SMTP client gives the transaction up.
func (t *transaction) rcpt() error {
	t.begin(Rcpt)
	for _, to := range t.envelope.To {
		reply, err := t.tell(to, command(to.Addr, to.Args))
		if err != nil {
			return err
		}
		t.result.Recipients = append(t.result.Recipients, reply)
		if t.over {
			return nil
		}
		t.result.Final = reply
		if !reply.Refused() {
			t.envelope.accepted++
		}
	}
	t.refused = t.envelope.accepted == 0
	t.over = t.refused
	return t.leave()
}

func (t *transaction) data() error {
	t.begin(Data)
	if _, err := t.tell(Recipient{}, nil); err != nil {
		return err
	}
	return t.leave()
}

func (t *transaction) header() error {
	t.begin(Header)
	m := t.message
	if t.Protocol&milter.OptHeaderLeadingSpace == 0 {
		m = m.WithoutLeadingSpace()
	}
	for _, f := range m.Header {
		if t.unseen(Header) {
			break
		}
		data := append(append([]byte(f.Name), 0), f.Value...)
		if _, err := t.tell(Recipient{}, append(data, 0)); err != nil || t.over {
			return err
		}
	}
	if err := t.leave(); err != nil {
		return err
	}
	t.begin(EndOfHeader)
	if _, err := t.tell(Recipient{}, nil); err != nil {
		return err
	}
	return t.leave()
}

func (t *transaction) body() error {
	t.begin(Body)
	for rest := t.message.Body; len(rest) > 0 && !t.unseen(Body); {
		n := min(len(rest), t.opts.ChunkSize)
		reply, err := t.tell(Recipient{}, rest[:n])
		if err != nil || t.over {
			return err
		}
		if reply.Action == milter.ActSkip {
			break
		}
		rest = rest[n:]
	}
	return t.leave()
}

// finish sets what the MTA holds now, tells the filter that the message is
// over, and listens for answers that nobody asked for.
func (t *transaction) finish() error {
	r := &t.result
	r.Stage = t.stage
	if r.Aborted {
		r.Final = Reply{}
	}
	switch {
	case r.Aborted, t.refused, r.Final.Refused(), r.Final.Action == milter.ActDiscard:
		r.Queued = nil
	case r.Queued == nil: // accepted before the end: nothing was edited
		q := newQueue(t)
		r.Queued = q.queued()
	}
	if t.verdict != nil {
		return nil // no filter to talk to
	}
	// Sendmail sends ABORT only where it gives a transaction up.
	if !t.opts.Sendmail || r.Aborted || t.refused {
		if err := t.wire.Send(Frame{Code: byte(milter.CodeAbort)}); err != nil {
			return err
		}
	}
	f, err := t.wire.Receive(t.opts.Settle)
	if errors.Is(err, errTimeout) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the filter sent %q (%d bytes) that nobody asked for", f.Code, len(f.Data))
}

// end plays the end of the message: edits and progress packets, then the
// verdict, all within the MTA's patience.
func (t *transaction) end() error {
	t.begin(EndOfMessage)
	if err := t.report(EndOfMessage, t.macros(EndOfMessage, t.envelope, Recipient{}), nil); err != nil {
		return err
	}
	q := newQueue(t)
	deadline := time.Now().Add(t.opts.EndTimeout)
	for {
		f, err := t.wire.Receive(min(t.opts.Timeout, time.Until(deadline)))
		if err != nil {
			return err
		}
		switch {
		case f.Code == progress:
			if len(f.Data) != 0 {
				return errors.New("progress with data")
			}
			t.result.Progress++
			q.endBody()
		case isEdit(f.Code):
			edit, err := q.apply(f)
			if err != nil {
				return fmt.Errorf("edit %d, %q: %w", len(t.result.Edits)+1, f.Code, err)
			}
			t.result.Edits = append(t.result.Edits, edit)
		default:
			reply, err := parseReply(f)
			if err == nil && reply.Action == milter.ActSkip {
				err = errors.New("skip where it is not allowed")
			}
			if err != nil {
				return err
			}
			t.over = true
			t.result.Final = reply
			t.result.Queued = q.queued()
			return nil
		}
	}
}

// command is the data of MAIL and RCPT.
func command(addr string, args []string) []byte {
	data := []byte("<" + addr + ">\x00")
	for _, a := range args {
		data = append(append(data, a...), 0)
	}
	return data
}

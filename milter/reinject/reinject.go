// Package reinject hands finished messages to an MTA: to a listener of it on
// loopback or a unix socket that asks no filter, by SMTP or LMTP. It is for the
// copies that cannot stay in the transaction they came in.
//
// A message is taken whole or not at all: one recipient refused, and nothing is
// delivered. Only LMTP can break that, where each recipient has an answer of
// their own after the data. And there is one moment in which nobody can know,
// between the end of the data and its answer; an error in it is ErrUnknown.
//
// The client is go-smtp's, which knows greeting, EHLO or LHLO and QUIT. What it
// cannot say is said on the connection itself, between its commands, and this
// is the list:
//
//   - XFORWARD, which it does not have.
//   - MAIL and RCPT with their arguments as the sender wrote them. Its typed
//     options decode and encode again, and lose: a backslash, \x{5C}, in an ORCPT
//     of type utf-8; the ASCII form of such an ORCPT, which it writes in UTF-8
//     wherever the server knows SMTPUTF8, asked for or not; address types other
//     than its two. Its arguments BY and MT-PRIORITY stand at RCPT, while
//     RFC 2852 and RFC 6710 have them at MAIL.
//   - DATA. Its writer looks at each byte and writes 4 KiB at a time, and its
//     answers of LMTP are in a map by address, where one address that is named
//     twice has one answer.
package reinject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Target is a listener that takes messages without asking a filter.
type Target struct {
	Address string // "127.0.0.1:10026" or "unix:/path"
	LMTP    bool
	Hello   string // our name in EHLO or LHLO; localhost if empty

	// Timeout is for connecting, for each command, and for each piece of the
	// data that is written; a minute if it is 0. The answer to the data is
	// waited for as long as the context allows, see finalTimeout.
	Timeout time.Duration
}

// Message is one message and its envelope.
type Message struct {
	From     string   // without brackets; the null sender is ""
	FromArgs []string // the ESMTP arguments of MAIL, such as "RET=HDRS"
	To       []Recipient
	Client   Client

	// Size is the number of bytes that Write writes. A message that turns out
	// otherwise is not sent. 0 says that it is not known.
	Size int64

	// Write writes header and body with CRLF line ends. It is called at most
	// once for each Send, and nothing of what it writes is held. After an error
	// of it the server gets no end of the data, and so no message.
	Write func(w io.Writer) error
}

// Recipient is one of a message's.
type Recipient struct {
	Address string   // the bytes of RCPT, without brackets
	Args    []string // its ESMTP arguments, such as "NOTIFY=SUCCESS,FAILURE"
}

// Client is where the message came from, as XFORWARD tells it to a server that
// offers it: then that server logs the true client. What is not known is empty.
type Client struct {
	Name     string
	Addr     netip.Addr
	Port     uint16
	Helo     string
	Protocol string // SMTP, ESMTP, ESMTPS …
	QueueID  string // the message's in the queue that it comes from
	Local    bool   // not from the network
}

// Outcome says what became of a message.
type Outcome struct {
	// Replies are the final ones, in the order of the message's recipients, as
	// far as they came; empty where the message did not get to its end. In SMTP
	// it is one reply for all of them.
	Replies []Reply

	// Dropped are the ESMTP arguments that the server does not know and the
	// message can do without, such as "ORCPT".
	Dropped []string

	// Forwarded says that the server took all of XFORWARD that it offers.
	Forwarded bool
}

// Accepted says whether the server has taken the message for the recipient i:
// from here on it is in the other queue.
func (o Outcome) Accepted(i int) bool { return i < len(o.Replies) && o.Replies[i].positive() }

// Reply is a server's answer.
type Reply struct {
	Code     int
	Enhanced string // such as "5.1.1"; empty where there is none
	Text     string // lines are joined by LF
}

func (r Reply) positive() bool { return r.Code/100 == 2 }

// closing is 421: the server ends the connection (RFC 5321, section 3.8).
func (r Reply) closing() bool  { return r.Code == 421 }
func (r Reply) negative() bool { return r.Code/100 == 4 || r.Code/100 == 5 }

// ErrUnknown is the error where the data was sent to its end and the answer
// did not come: the server may have taken the message or not. For LMTP it is
// about those recipients only who have no reply in the Outcome.
var ErrUnknown = errors.New("whether the server has taken the message is not known")

// errBroken is the error of a session that cannot send any more.
var errBroken = errors.New("the connection was given up after an error")

// Refused is a server's answer of 4xx or 5xx.
type Refused struct {
	Command   string // "the connection" up to EHLO, then "XFORWARD", "MAIL", "RCPT", "DATA", and "." for the message
	Recipient string // at RCPT, and at the end of the data in LMTP
	Reply
}

// Error does not leave out the server's text: it is for the log.
func (r *Refused) Error() string {
	to := ""
	if r.Recipient != "" {
		to = fmt.Sprintf(" of %q", r.Recipient)
	}
	return fmt.Sprintf("the server refused %s%s: %d %s %q", r.Command, to, r.Code, r.Enhanced, r.Text)
}

// Permanent says whether the server would refuse it again.
func (r *Refused) Permanent() bool { return r.Code/100 == 5 }

// Unsupported is the error where the sender asked for something in an ESMTP
// argument that the server does not offer, and the message cannot do without.
type Unsupported struct {
	Argument  string // its name, such as "SMTPUTF8"
	Extension string // that would be needed; empty where the argument is unknown here
}

func (u *Unsupported) Error() string {
	if u.Extension == "" {
		return fmt.Sprintf("the argument %s is not known", u.Argument)
	}
	return fmt.Sprintf("the server does not offer %s, which the argument %s needs", u.Extension, u.Argument)
}

// Send sends one message over a connection of its own.
func (t Target) Send(ctx context.Context, m Message) (Outcome, error) {
	s, err := t.Dial(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer s.Close()
	return s.Send(ctx, m)
}

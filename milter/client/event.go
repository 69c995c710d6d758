package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-milter"
)

// Stage is a kind of event that the MTA reports to the filter.
type Stage int

// The stages in the order in which they come.
const (
	Connect Stage = iota
	Helo
	Mail
	Rcpt
	Data
	Header
	EndOfHeader
	Body
	EndOfMessage
)

// stage is a stage's command, the flag by which a filter declines to see it, the
// flag by which it declines to answer it, and the number by which it asks for
// macros.
type stage struct {
	name    string
	code    milter.Code
	unseen  milter.OptProtocol
	noReply milter.OptProtocol
	symbols milter.Stage
}

var stages = [...]stage{
	Connect:      {"connect", milter.CodeConn, milter.OptNoConnect, milter.OptNoConnReply, milter.StageConnect},
	Helo:         {"helo", milter.CodeHelo, milter.OptNoHelo, milter.OptNoHeloReply, milter.StageHelo},
	Mail:         {"mail", milter.CodeMail, milter.OptNoMailFrom, milter.OptNoMailReply, milter.StageMailFrom},
	Rcpt:         {"rcpt", milter.CodeRcpt, milter.OptNoRcptTo, milter.OptNoRcptReply, milter.StageRcptTo},
	Data:         {"data", milter.CodeData, milter.OptNoData, milter.OptNoDataReply, milter.StageData},
	Header:       {"header", milter.CodeHeader, milter.OptNoHeaders, milter.OptNoHeaderReply, noSymbols},
	EndOfHeader:  {"end of header", milter.CodeEOH, milter.OptNoEOH, milter.OptNoEOHReply, milter.StageEOH},
	Body:         {"body", milter.CodeBody, milter.OptNoBody, milter.OptNoBodyReply, noSymbols},
	EndOfMessage: {"end of message", milter.CodeEOB, 0, 0, milter.StageEOM},
}

// noSymbols marks the stages for which a filter cannot ask for macros.
const noSymbols milter.Stage = 1 << 16

func (st Stage) String() string { return stages[st].name }

// unseen says whether the filter declined to see a stage, and mute whether it
// declined to answer it.
func (s *Session) unseen(st Stage) bool { return s.Protocol&stages[st].unseen != 0 }
func (s *Session) mute(st Stage) bool   { return s.Protocol&stages[st].noReply != 0 }

// event reports one event with its macros and waits for the answer, where one
// is due. The macros go out even where the event itself is not wanted, as
// Postfix does it.
func (s *Session) event(st Stage, macros []string, data []byte) (Reply, error) {
	if err := s.report(st, macros, data); err != nil {
		return Reply{}, err
	}
	if s.unseen(st) || s.mute(st) {
		return goOn, nil
	}
	for {
		f, err := s.receive()
		if err != nil {
			return Reply{}, err
		}
		if f.Code == progress {
			if len(f.Data) != 0 {
				return Reply{}, errors.New("progress with data")
			}
			continue
		}
		if isEdit(f.Code) {
			return Reply{}, fmt.Errorf("edit %q before the end of the message", f.Code)
		}
		reply, err := parseReply(f)
		if err == nil && reply.Action == milter.ActSkip && (st != Body || s.Protocol&milter.OptSkip == 0) {
			err = errors.New("skip where it is not allowed")
		}
		return reply, err
	}
}

// report sends an event without waiting. An answer that has come before the
// event went out was given to an event that has none.
func (s *Session) report(st Stage, macros []string, data []byte) error {
	if s.wire.Pending() {
		f, err := s.wire.Receive(s.opts.Timeout)
		if err != nil {
			return err
		}
		return fmt.Errorf("the filter sent %q (%d bytes) that nobody asked for", f.Code, len(f.Data))
	}
	var frames []Frame
	if macros != nil {
		text := append([]byte{byte(stages[st].code)}, strings.Join(macros, "\x00")...)
		if len(macros) > 0 {
			text = append(text, 0)
		}
		frames = append(frames, Frame{byte(milter.CodeMacro), text})
	}
	if !s.unseen(st) {
		frames = append(frames, Frame{byte(stages[st].code), data})
	}
	return s.wire.Send(frames...)
}

func (s *Session) receive() (Frame, error) {
	return s.wire.Receive(s.opts.Timeout)
}

// macros are names and values in turn, as each MTA sends them by default. Nil
// means that no macro packet goes out, which is not the same as an empty one.
func (s *Session) macros(st Stage, e Envelope, to Recipient) []string {
	all := s.postfixMacros(st, e, to)
	if s.opts.Sendmail {
		all = s.sendmailMacros(st, e, to)
	}
	wanted, asked := s.symbols[st]
	if !asked {
		return all
	}
	kept := []string{}
	for i := 0; i < len(all); i += 2 {
		if slices.Contains(wanted, all[i]) {
			kept = append(kept, all[i], all[i+1])
		}
	}
	return kept
}

// postfixMacros were taken from the wire of Postfix 3.7.11, where the queue id
// comes with every event from the second RCPT on, each header field included.
func (s *Session) postfixMacros(st Stage, e Envelope, to Recipient) []string {
	switch st {
	case Connect:
		return append([]string{"j", s.opts.Hostname, "{daemon_name}", s.opts.Hostname, "{daemon_addr}", "127.0.0.1",
			"v", "Postfix 3.7.11", "_", "unknown [" + s.opts.ClientAddr + "]"}, s.opts.Macros...)
	case Helo:
		return []string{}
	case Mail:
		return append(e.authMacros(), "{mail_addr}", e.From, "{mail_host}", domain(e.From), "{mail_mailer}", "smtp")
	case Rcpt:
		m := []string{"{rcpt_addr}", to.Addr, "{rcpt_host}", domain(to.Addr), "{rcpt_mailer}", "virtual"}
		if e.accepted == 0 {
			return m
		}
		return append([]string{"i", e.QueueID}, m...)
	case EndOfMessage:
		return append([]string{"i", e.QueueID}, s.opts.EndMacros...)
	default:
		return []string{"i", e.QueueID}
	}
}

// sendmailMacros follow the defaults of Sendmail 8.17: the queue id is there
// from MAIL on, and nothing comes with DATA, header fields or their end.
func (s *Session) sendmailMacros(st Stage, e Envelope, to Recipient) []string {
	switch st {
	case Connect:
		return append([]string{"j", s.opts.Hostname, "_", s.opts.ClientName, "{daemon_name}", "MTA",
			"{if_name}", s.opts.Hostname, "{if_addr}", "127.0.0.1"}, s.opts.Macros...)
	case Helo:
		return []string{}
	case Mail:
		return append(append([]string{"i", e.QueueID}, e.authMacros()...),
			"{mail_mailer}", "esmtp", "{mail_host}", domain(e.From), "{mail_addr}", e.From)
	case Rcpt:
		return []string{"{rcpt_mailer}", "relay", "{rcpt_host}", domain(to.Addr), "{rcpt_addr}", to.Addr}
	case EndOfMessage:
		return []string{"{msg_id}", "<" + e.QueueID + "@" + s.opts.Hostname + ">"}
	default:
		return nil
	}
}

func domain(addr string) string {
	return addr[strings.LastIndexByte(addr, '@')+1:]
}

// readSymbols reads the lists of macros that a filter may ask for behind its
// answer to the offer: a stage's number and names with spaces between, again
// and again.
func (s *Session) readSymbols(b []byte) error {
	if len(b) > 0 && s.Actions&milter.OptSetSymList == 0 {
		return fmt.Errorf("%d bytes behind the answer without SMFIF_SETSYMLIST", len(b))
	}
	for len(b) > 0 {
		if len(b) < 4 {
			return errors.New("a list of macros breaks off")
		}
		number := milter.Stage(binary.BigEndian.Uint32(b))
		names, rest, ended := strings.Cut(string(b[4:]), "\x00")
		if !ended {
			return errors.New("a list of macros without its NUL")
		}
		b = []byte(rest)
		st := slices.IndexFunc(stages[:], func(row stage) bool { return row.symbols == number })
		if st < 0 || number == noSymbols {
			return fmt.Errorf("macros for a stage %d that does not exist", number)
		}
		if s.symbols == nil {
			s.symbols = make(map[Stage][]string)
		}
		s.symbols[Stage(st)] = strings.Fields(names)
	}
	return nil
}

package milter

import (
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/detect"
	"sealmilter/policy"
)

// Bounds of the header that is held of one message. Postfix limits each field
// (header_size_limit) but neither their sum nor their number.
const (
	maxHeader     = 4 << 20 // bytes, with what it costs to hold a field
	fieldOverhead = 64      // bytes
)

// message is what is known of one message. It is made at MAIL and ends with
// the message or with ABORT; nothing of it reaches the next one.
type message struct {
	settings   *settings
	begun      time.Time
	local      bool         // Postfix's own submission, where no recipient can be refused
	from       []string     // the argument of MAIL, and its ESMTP arguments
	deletes    bool         // whether the MTA is known to delete a recipient when it is told to
	facts      policy.Facts // of the envelope, for every recipient
	recipients []*recipient

	header     []envelope.Field
	headerSize int             // what it costs to hold it
	size       int64           // of header and body with CRLF, in bytes
	disclosed  map[string]bool // the addresses in To and Cc, nil until somebody asks
	sent       map[string]bool // the mailboxes that had their copy by an earlier attempt
	digest     hash.Hash       // of header and body, nil where nobody will ask for it

	detector *detect.Detector
	sealings map[keys.Form]*envelope.Sealing
	failed   error // why the message must stay with its sender

	poisoned bool // a panic left it in a state that nobody knows
}

// macroDeletes is set to "yes" by an administrator who knows that deleting a
// recipient works. Postfix gives no sign of failure: with
// enable_original_recipient = no it compares with what it has made of the
// address, and a filter before us may have changed it. So main.cf defines the
// macro as $enable_original_recipient.
//
// That is smtpd's. Recipients are deleted by cleanup, which may have been given
// another, and sends what smtpd has told it of all macros but a few of its own.
// One of these is v, for which main.cf has a parameter: at the end of the message
// it holds the same again, as cleanup sees it.
const macroDeletes = "sealmilter_deletes"

// fail notes that the message cannot be handled. The first reason counts; nil is
// none.
func (m *message) fail(err error) {
	if m.failed == nil {
		m.failed = err
	}
}

// addField keeps a header field. leading says whether the MTA shows the white
// space that follows the colon; where it does not, it has taken one space off.
func (m *message) addField(name, value string, leading bool) {
	if !leading {
		value = " " + value
	}
	m.size += int64(len(name) + len(":") + len(value) + strings.Count(value, "\n") + len("\r\n"))
	if m.headerSize += len(name) + len(value) + fieldOverhead; m.headerSize > maxHeader {
		m.header = nil // who is not sealed to is none the worse for it
		return
	}
	m.header = append(m.header, envelope.Field{Name: name, Value: value})
}

// weigh decides anew for every recipient with what the header says.
func (m *message) weigh(now time.Time) error {
	if m.headerSize > maxHeader {
		return fmt.Errorf("its header is longer than %d bytes", maxHeader)
	}
	header := make([]policy.Field, len(m.header))
	for i, f := range m.header {
		header[i] = policy.Field{Name: f.Name, Value: f.Value}
	}
	for _, r := range m.recipients {
		r.facts.Stage, r.facts.Header = policy.AtHeader, header
		if err := r.weigh(m.settings.Policy, now); err != nil {
			return err
		}
	}
	return nil
}

// beginSealing starts to encrypt for the recipients that may be due for it, once
// for each way in which they may be, and to look whether somebody else has.
func (m *message) beginSealing() error {
	m.detector = detect.New(m.header)
	m.sealings = make(map[keys.Form]*envelope.Sealing)
	if by := m.settings.Reinjection; by != nil && len(m.recipients) > 1 {
		m.beginDigest()
	}
	for _, r := range m.recipients {
		for _, w := range r.ways {
			if !w.seals() || m.sealings[w.form] != nil {
				continue
			}
			sealing, err := envelope.Begin(w.form, m.settings.Spool)
			if err != nil {
				return fmt.Errorf("beginning to seal: %w", err)
			}
			m.sealings[w.form] = sealing
			if err := sealing.Header(m.header); err != nil {
				return fmt.Errorf("sealing the header: %w", err)
			}
		}
	}
	return nil
}

// addBody takes a piece of the body. Where the message has failed already, it
// is only waited for its end.
func (m *message) addBody(chunk []byte) {
	m.size += int64(len(chunk))
	if m.failed != nil || m.detector == nil {
		return
	}
	m.detector.Write(chunk) // what it cannot read is not sealed
	if m.digest != nil {
		m.digest.Write(chunk)
	}
	for _, sealing := range m.sealings {
		if _, err := sealing.Write(chunk); err != nil {
			m.fail(fmt.Errorf("sealing the body: %w", err))
		}
	}
}

// decide decides for every recipient with all that there is to know.
func (m *message) decide(now time.Time) error {
	sealed := m.detector.Finish()
	for _, r := range m.recipients {
		r.facts.Stage, r.facts.Size = policy.AtEnd, m.size
		r.came(sealed, m.settings.Policy, m.settings.Hidden, now)
		if err := r.weigh(m.settings.Policy, now); err != nil {
			return err
		}
	}
	return nil
}

// seal ends the encryption and makes the copy of every group that is to have a
// sealed one.
func (m *message) seal(p *plan, now time.Time) error {
	for _, sealing := range m.sealings {
		if err := sealing.Close(); err != nil {
			return fmt.Errorf("sealing the body: %w", err)
		}
	}
	groups := []*group{&p.stays}
	for i := range p.leave {
		groups = append(groups, &p.leave[i])
	}
	for _, g := range groups {
		if g.way == nil || !g.way.seals() {
			continue
		}
		sealing := m.sealings[g.way.form]
		if sealing == nil {
			return errors.New("internal error: the message was not sealed in the way that was decided")
		}
		c, err := sealing.Copy(g.to, m.settings.Addressing, now)
		if err != nil {
			return fmt.Errorf("sealing to the recipients: %w", err)
		}
		g.sealed = c
	}
	return nil
}

// sealedSize is what the sealed message takes in the MTA's queue: header and
// body with LF line ends, without what the MTA keeps of the envelope.
func (m *message) sealedSize(sealed *envelope.Copy) int64 {
	kept, added := sealed.OuterHeader(m.header)
	size := sealed.Size(1) + 1
	for _, f := range append(kept, added...) {
		if f.Name != "" {
			size += f.Size()
		}
	}
	return size
}

// tooLarge says whether the MTA could not keep the sealed message.
func (m *message) tooLarge(sealed *envelope.Copy) bool {
	limit := m.settings.SizeLimit
	return limit > 0 && m.sealedSize(sealed) > limit
}

// passes says whether it is settled that everybody gets the message as it is.
func (m *message) passes() bool {
	return !slices.ContainsFunc(m.recipients, func(r *recipient) bool { return !r.passes() })
}

// refused is the decision for which nobody gets the message, nil where there is
// none: admits lets nobody share a transaction who may meet with another.
func (m *message) refused() *way {
	for _, r := range m.recipients {
		if w := r.settled(); w != nil && !w.seals() && w.Outcome != policy.Pass {
			return w
		}
	}
	return nil
}

// hasField says whether the header has a field of a name.
func (m *message) hasField(name string) bool {
	return slices.ContainsFunc(m.header, func(f envelope.Field) bool { return strings.EqualFold(f.Name, name) })
}

// end gives back what the message holds.
func (m *message) end() {
	for _, sealing := range m.sealings {
		sealing.Discard()
	}
}

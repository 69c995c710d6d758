package milter

import (
	"errors"
	"fmt"
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
	local      bool // Postfix's own submission, where no recipient can be refused
	recipients []*recipient

	facts policy.Facts // of the envelope, for every recipient

	header     []envelope.Field
	headerSize int   // what it costs to hold it
	size       int64 // of header and body with CRLF, in bytes

	detector *detect.Detector
	sealings map[content]*envelope.Sealing
	failed   error // why the message must stay with its sender

	poisoned bool // a panic left it in a state that nobody knows
}

// content is how a message is encrypted: once for all who share it.
type content struct {
	method keys.Method
	cipher keys.Cipher
}

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
	m.sealings = make(map[content]*envelope.Sealing)
	for _, r := range m.recipients {
		for _, w := range r.ways {
			as := content{w.method, w.cipher}
			if !w.seals() || m.sealings[as] != nil {
				continue
			}
			sealing, err := envelope.Begin(w.method, w.cipher, m.settings.Spool)
			if err != nil {
				return fmt.Errorf("beginning to seal: %w", err)
			}
			m.sealings[as] = sealing
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

// finishSealing ends the encryption and makes the copy that stays in this
// transaction.
func (m *message) finishSealing(w *way, now time.Time) (*envelope.Copy, error) {
	sealing := m.sealings[content{w.method, w.cipher}]
	if sealing == nil {
		return nil, errors.New("internal error: the message was not sealed in the way that was decided")
	}
	if err := sealing.Close(); err != nil {
		return nil, fmt.Errorf("sealing the body: %w", err)
	}
	c, err := sealing.Copy(w.to, now)
	if err != nil {
		return nil, fmt.Errorf("sealing to the recipients: %w", err)
	}
	return c, nil
}

// sealedSize is what the sealed message takes in the MTA's queue: header and
// body with LF line ends, without what the MTA keeps of the envelope.
func (m *message) sealedSize(sealed *envelope.Copy) int64 {
	stay, added := sealed.OuterHeader(m.header)
	size := sealed.Size(1) + 1
	for i, f := range m.header {
		if stay[i] {
			size += f.Size()
		}
	}
	for _, f := range added {
		size += f.Size()
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

// settled is what was decided, nil where it is still open. It is the same for
// all recipients, as long as admits lets nobody in for whom it may differ.
func (m *message) settled() *way { return m.recipients[0].settled() }

// end gives back what the message holds.
func (m *message) end() {
	for _, sealing := range m.sealings {
		sealing.Discard()
	}
}

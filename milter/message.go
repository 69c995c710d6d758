package milter

import (
	"fmt"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
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

	header     []envelope.Field
	headerSize int
	size       int64 // of the body, in bytes

	method  keys.Method
	sealTo  []*keys.Key
	sealing *envelope.Sealing // nil while nothing is sealed
	failed  error             // why the message must stay with its sender

	poisoned bool // a panic left it in a state that nobody knows
}

// fail notes that the message cannot be handled. The first reason counts.
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
	if m.headerSize += len(name) + len(value) + fieldOverhead; m.headerSize > maxHeader {
		m.header = nil // who is not sealed to is none the worse for it
		return
	}
	m.header = append(m.header, envelope.Field{Name: name, Value: value})
}

// beginSealing starts to encrypt for the recipients that are due for it.
func (m *message) beginSealing(now time.Time) error {
	if m.headerSize > maxHeader {
		return fmt.Errorf("its header is longer than %d bytes", maxHeader)
	}
	var accounts []*keys.Account
	for _, r := range m.sealed() {
		accounts = append(accounts, r.accounts...)
	}
	var err error
	if m.method, m.sealTo, err = keys.SealTo(accounts, now); err != nil {
		return fmt.Errorf("choosing what to seal to: %w", err)
	}
	sealing, err := envelope.Begin(m.method, m.cipher(), m.settings.Spool)
	if err != nil {
		return fmt.Errorf("beginning to seal: %w", err)
	}
	m.sealing = sealing
	if err := sealing.Header(m.header); err != nil {
		return fmt.Errorf("sealing the header: %w", err)
	}
	return nil
}

// cipher is the strongest that one of the accounts sealed to has chosen.
func (m *message) cipher() keys.Cipher {
	for _, r := range m.sealed() {
		for _, account := range r.accounts {
			if account.Cipher == keys.AES256 {
				return keys.AES256
			}
		}
	}
	return keys.AES128
}

// addBody takes a piece of the body. Where the message has failed already, it
// is only waited for its end.
func (m *message) addBody(chunk []byte) {
	m.size += int64(len(chunk))
	if m.failed != nil || m.sealing == nil {
		return
	}
	if _, err := m.sealing.Write(chunk); err != nil {
		m.fail(fmt.Errorf("sealing the body: %w", err))
	}
}

// finishSealing ends the encryption and makes the copy that stays in this
// transaction.
func (m *message) finishSealing(now time.Time) (*envelope.Copy, error) {
	if err := m.sealing.Close(); err != nil {
		return nil, fmt.Errorf("sealing the body: %w", err)
	}
	c, err := m.sealing.Copy(m.sealTo, now)
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

// sealed are the recipients whose copy is to be sealed.
func (m *message) sealed() []*recipient {
	var sealed []*recipient
	for _, r := range m.recipients {
		if r.decision.Outcome == policy.Seal {
			sealed = append(sealed, r)
		}
	}
	return sealed
}

// end gives back what the message holds.
func (m *message) end() {
	if m.sealing != nil {
		m.sealing.Discard()
	}
}

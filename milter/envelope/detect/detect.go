// Package detect says whether a message is sealed already, and for whom: a
// message that its sender has encrypted needs no second seal.
//
// No label is believed. The whole body is parsed while it streams in, and a
// message is sealed only where it is strictly one encrypted object with
// nothing beside it, in one of three forms: PGP/MIME (RFC 3156, section 4), an
// armored OpenPGP message as the whole of a plain text, or S/MIME (RFC 8551,
// section 3.3). Everything else is not: what is signed or compressed only, a
// sealed part beside a plain one, a line of text in front of the armor or
// behind it, a message over which two mail programs could disagree. A wrong
// "not sealed" costs a reader one more layer to open; a wrong "sealed" leaves
// plaintext in the store.
//
// What cannot be judged is the content. The octets inside an encrypted packet
// or an EnvelopedData may be anything, and so may the encrypted session key
// that names a reader: only the reader can tell that they open to nothing. Nor
// is anything said of the header outside, subject and all, which sealing again
// would not hide, or of the few words that the formats have room for beside
// the object: an armor's comments and the description of a MIME part, both
// short and bounded.
package detect

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// maxReaders bounds the key packets or RecipientInfos of one message. A list
// that seals to all its members at once may have some hundreds.
const maxReaders = 1024

// Detector judges one message. It holds a line of it and the names of its
// readers, usually some KiB and never more than a few MiB: maxEnvelope says how
// much of the names is read. It is not safe for concurrent use.
type Detector struct {
	form  form // nil where the verdict is known
	found Found
}

// form is one of the forms that a sealed message can have. An error says why
// the message does not have it; nothing is asked of the form after one.
type form interface {
	write(chunk []byte) error
	// end is called once, after all of the body was written.
	end() ([]keys.ReaderID, error)
	// name is for a person; the method is the one the form belongs to.
	name() (string, keys.Method)
}

// Found is the verdict.
type Found struct {
	Sealed  bool
	Method  keys.Method     // in which it is sealed
	Readers []keys.ReaderID // as the message names them; at least one where it is sealed
	Reason  string          // one line for a person
}

// New looks at the header. A Detector for a message whose header cannot be
// that of a sealed one knows its verdict at once and ignores the body.
func New(header []envelope.Field) *Detector {
	d := &Detector{}
	e, err := readEntity(header)
	if err == nil {
		d.form, err = formOf(e)
	}
	if err != nil {
		d.fail(err)
	}
	return d
}

// formOf chooses the form by the message's type. What says that it is some
// other type is shown as that by mail programs, whatever it holds.
func formOf(e *entity) (form, error) {
	switch e.kind {
	case "multipart/encrypted":
		return newPGPMIME(e)
	case "text/plain", "":
		return newInline(e)
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		return newSMIME(e)
	}
	return nil, errors.New("its type is none that a sealed message has")
}

// Write takes the next piece of the body, cut anywhere. It never fails.
func (d *Detector) Write(chunk []byte) (int, error) {
	if d.form != nil {
		if err := d.form.write(chunk); err != nil {
			d.fail(err)
		}
	}
	return len(chunk), nil
}

// Finish gives the verdict, once all of the body was written.
func (d *Detector) Finish() Found {
	if d.form == nil {
		return d.found
	}
	readers, err := d.form.end()
	if err != nil {
		d.fail(err)
		return d.found
	}
	name, method := d.form.name()
	plural := "s"
	if len(readers) == 1 {
		plural = ""
	}
	d.found = Found{Sealed: true, Method: method, Readers: readers,
		Reason: fmt.Sprintf("sealed already: it is one %s message and nothing else, to %d reader%s", name, len(readers), plural)}
	d.form = nil
	return d.found
}

// fail decides that the message is not sealed.
func (d *Detector) fail(why error) {
	d.form = nil
	d.found = Found{Reason: "not sealed: " + strings.ReplaceAll(why.Error(), "\n", " ")}
}

// SealedTo says whether the message is sealed to each of the accounts: whether
// a reader is a key of it that is usable or expired. Readers whom the message
// does not name are taken for the owner of any OpenPGP key where hidden is
// true, and for nobody otherwise. Of no accounts at all it says no.
func (f Found) SealedTo(accounts []*keys.Account, hidden bool) bool {
	for _, account := range accounts {
		if !f.sealedToOne(account, hidden) {
			return false
		}
	}
	return f.Sealed && len(accounts) > 0
}

func (f Found) sealedToOne(account *keys.Account, hidden bool) bool {
	for _, key := range account.Keys {
		// Time turns a usable key into an expired one and does nothing else to
		// its state, so that any moment will do.
		if state := key.State(time.Time{}); state != keys.Usable && state != keys.Expired {
			continue
		}
		for _, reader := range f.Readers {
			if reader.IsHidden() && hidden && key.Method == keys.OpenPGP || key.IsNamedBy(reader) {
				return true
			}
		}
	}
	return false
}

package main

import (
	"bytes"
	"io"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// ownMessage is a message that this program writes itself: to the owner of a
// key, about that key.
type ownMessage struct {
	header []envelope.Field
	body   string // LF line ends
}

// sealToKey seals a message to one key and nothing else, in the way that the
// daemon seals mail, and writes it with LF line ends, as sendmail(1) takes it.
// Whether the key counts is not asked: an expired one is sealed to, and one that
// is pending. Nothing is written where it fails.
func (m ownMessage) sealToKey(w io.Writer, key *keys.Key, how envelope.Addressing, now time.Time) error {
	form, to, err := keys.SealTo([]*keys.Account{{Keys: []*keys.Key{key}, Cipher: keys.AES256}}, now)
	if err != nil {
		return err
	}
	sealing, err := envelope.Begin(form, envelope.Spool{Memory: 1 << 20})
	if err != nil {
		return err
	}
	defer sealing.Discard()
	if err := sealing.Header(m.header); err != nil {
		return err
	}
	if _, err := sealing.Write(bytes.ReplaceAll([]byte(m.body), []byte("\n"), []byte("\r\n"))); err != nil {
		return err
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	how.OAEP = how.OAEP || key.Options.OAEP
	sealed, err := sealing.Copy(to, how, now)
	if err != nil {
		return err
	}
	return writeSealed(w, m.header, sealed, "\n")
}

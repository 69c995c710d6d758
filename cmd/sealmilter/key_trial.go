package main

import (
	"io"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// sealTrial seals a message to a key, in the way that the daemon will, and
// throws it away.
func sealTrial(now time.Time) func(*keys.Key) error {
	return func(key *keys.Key) error {
		form, to, err := keys.SealTo([]*keys.Account{{Keys: []*keys.Key{key}, Cipher: keys.AES256}}, now)
		if err != nil {
			return err
		}
		sealing, err := envelope.Begin(form, envelope.Spool{Memory: 1 << 20})
		if err != nil {
			return err
		}
		defer sealing.Discard()
		if err := sealing.Header([]envelope.Field{{Name: "Subject", Value: " Trial"}}); err != nil {
			return err
		}
		if err := sealing.Close(); err != nil {
			return err
		}
		sealed, err := sealing.Copy(to, envelope.Addressing{OAEP: key.Options.OAEP}, now)
		if err != nil {
			return err
		}
		return sealed.WriteBody(io.Discard, "\r\n")
	}
}

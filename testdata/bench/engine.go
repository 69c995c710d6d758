package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// milterChunk is the largest piece of a body that an MTA sends.
const milterChunk = 65535

// seal seals one message with the engine and writes it out, as the daemon does
// it for one recipient.
func seal(w io.Writer, form keys.Form, key *keys.Key, where envelope.Spool, fields []envelope.Field, body []byte) error {
	return sealPieces(w, form, key, where, fields, func(write func([]byte) error) error {
		for piece := range slices.Chunk(body, milterChunk) {
			if err := write(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

// sealPieces is seal for a body that need not be there as a whole.
func sealPieces(w io.Writer, form keys.Form, key *keys.Key, where envelope.Spool, fields []envelope.Field, body func(write func([]byte) error) error) error {
	sealing, err := envelope.Begin(form, where)
	if err != nil {
		return err
	}
	defer sealing.Discard()
	if err := sealing.Header(fields); err != nil {
		return err
	}
	err = body(func(piece []byte) error {
		_, err := sealing.Write(piece)
		return err
	})
	if err != nil {
		return err
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	sealed, err := sealing.Copy([]*keys.Key{key}, envelope.Addressing{}, time.Now())
	if err != nil {
		return err
	}
	sealed.OuterHeader(fields)
	return sealed.WriteBody(w, "\r\n")
}

// fields are the header as a milter is shown it.
func fields() (all []envelope.Field) {
	for text := range strings.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimRight(text, "\r\n"), ":")
		all = append(all, envelope.Field{Name: name, Value: value})
	}
	return all
}

// form is one with AES-256.
func form(method keys.Method, aead keys.AEAD) keys.Form {
	return keys.Form{Method: method, Cipher: keys.AES256, AEAD: aead}
}

// supported says whether the engine has a form: a small message must really
// be of it.
func supported(f keys.Form, key *keys.Key) bool {
	var out bytes.Buffer
	if err := seal(&out, f, key, envelope.Spool{Memory: 1 << 20}, fields(), []byte("body\r\n")); err != nil {
		return false
	}
	if f.AEAD == keys.NoAEAD {
		return true
	}
	if f.Method == keys.SMIME {
		der, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, &out))
		return err == nil && bytes.Contains(der, authEnveloped)
	}
	block, err := armor.Decode(&out)
	if err != nil {
		return false
	}
	for packets := packet.NewReader(block.Body); ; {
		switch p, err := packets.Next(); p := p.(type) {
		case *packet.SymmetricallyEncrypted:
			return p.Version == 2 && p.Mode == map[keys.AEAD]packet.AEADMode{keys.GCM: packet.AEADModeGCM, keys.OCB: packet.AEADModeOCB}[f.AEAD]
		default:
			if err != nil {
				return false
			}
		}
	}
}

// authEnveloped is id-ct-authEnvelopedData (RFC 5083) in DER.
var authEnveloped = []byte{0x06, 0x0B, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x10, 0x01, 0x17}

package envelope

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"sealmilter/keys"
	"sealmilter/milter/envelope/openpgp"
)

// pgpMIME makes PGP/MIME entities (RFC 3156, section 4).
type pgpMIME struct {
	*openpgp.Encrypter
}

func beginPGPMIME(w io.Writer, form keys.Form) (method, error) {
	function := openpgp.AES256
	if form.Cipher == keys.AES128 {
		function = openpgp.AES128
	}
	mode := openpgp.NoAEAD
	switch form.AEAD {
	case keys.GCM:
		mode = openpgp.GCM
	case keys.OCB:
		mode = openpgp.OCB
	}
	encrypter, err := openpgp.NewEncrypter(w, function, mode)
	return pgpMIME{encrypter}, err
}

func (m pgpMIME) addsType() bool { return true }

func (m pgpMIME) discard() {} // it holds one piece of a message at a time

func (m pgpMIME) copyFor(to []*keys.Key, how Addressing, now time.Time) (*Copy, error) {
	var public []*packet.PublicKey
	seen := make(map[string]bool)
	for _, key := range to {
		for _, p := range key.OpenPGPKeys(now) {
			if !seen[string(p.Fingerprint)] {
				seen[string(p.Fingerprint)] = true
				public = append(public, p)
			}
		}
	}
	if len(public) == 0 {
		return nil, errors.New("no key to seal to")
	}
	prefix, err := m.Prefix(public, how.Hidden)
	if err != nil {
		return nil, err
	}
	boundary, err := newBoundary()
	if err != nil {
		return nil, err
	}
	armor := m.Armor(prefix)
	return &Copy{
		fields: []Field{{"Content-Type", " multipart/encrypted; protocol=\"application/pgp-encrypted\";\n\tboundary=\"" + boundary + "\""}},
		opening: "This message was sealed to its recipient's OpenPGP key when it arrived.\n" +
			"\n--" + boundary + "\n" +
			"Content-Type: application/pgp-encrypted\n" +
			"Content-Description: PGP/MIME version identification\n" +
			"\nVersion: 1\n" +
			"\n--" + boundary + "\n" +
			"Content-Type: application/octet-stream; name=\"encrypted.asc\"\n" +
			"Content-Description: OpenPGP encrypted message\n" +
			"Content-Disposition: inline; filename=\"encrypted.asc\"\n\n",
		closing:     "\n--" + boundary + "--\n",
		prefix:      prefix,
		octets:      openpgp.LineOctets,
		encoder:     func(w io.Writer, eol string) encoder { return armor.Writer(w, eol) },
		encodedSize: armor.Size,
	}, nil
}

// newBoundary makes a MIME boundary that no armor can contain: its lines have
// no underscore.
func newBoundary() (string, error) {
	random := make([]byte, 15)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("making a boundary: %w", err)
	}
	return "sealed_" + hex.EncodeToString(random), nil
}

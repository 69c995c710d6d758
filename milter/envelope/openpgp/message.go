package openpgp

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Prefix makes what stands in front of the encrypted body in one copy of the
// message: a key packet for each of the public keys (section 5.1), then the
// header of the SEIPD packet. Key packets that are hidden do not name the key
// that opens them (section 5.1.8). The Encrypter must be closed: only then is
// the length known. The keys are not changed and may be shared.
func (e *Encrypter) Prefix(to []*packet.PublicKey, hidden bool) ([]byte, error) {
	if !e.closed {
		return nil, errors.New("internal error: key packets for a message that has not ended")
	}
	if e.err != nil {
		return nil, fmt.Errorf("the message was not encrypted whole: %w", e.err)
	}
	if len(to) == 0 {
		return nil, errors.New("internal error: a copy for nobody")
	}
	var prefix bytes.Buffer
	for _, key := range to {
		// Key packets of version 3 go with SEIPD version 1, and of version 6 with
		// version 2, whatever the key's version (section 10.3.2.1).
		err := packet.SerializeEncryptedKeyAEADwithHiddenOption(&prefix, key, e.function, e.mode != NoAEAD, e.sessionKey, hidden, nil)
		if err != nil {
			return nil, fmt.Errorf("sealing the session key to %s: %w", key.KeyIdString(), err)
		}
	}
	prefix.WriteByte(newFormat | tagSEIPD)
	prefix.Write(bodyLength(e.w.octets))
	return prefix.Bytes(), nil
}

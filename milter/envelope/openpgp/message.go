package openpgp

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Prefix makes what stands in front of the encrypted body in one copy of the
// message: a version 3 key packet for each of the public keys (section
// 5.1.1), then the header of the SEIPD packet. The Encrypter must be closed:
// only then is the length known. The keys are not changed and may be shared.
func (e *Encrypter) Prefix(to []*packet.PublicKey) ([]byte, error) {
	if !e.closed {
		return nil, errors.New("internal error: key packets for a message that has not ended")
	}
	if len(to) == 0 {
		return nil, errors.New("internal error: a copy for nobody")
	}
	var prefix bytes.Buffer
	for _, key := range to {
		// PKESK version 3 goes with SEIPD version 1, whatever the key's version.
		const version6 = false
		err := packet.SerializeEncryptedKeyAEAD(&prefix, key, e.function, version6, e.sessionKey, nil)
		if err != nil {
			return nil, fmt.Errorf("sealing the session key to %s: %w", key.KeyIdString(), err)
		}
	}
	prefix.WriteByte(newFormat | tagSEIPD)
	prefix.Write(bodyLength(e.size))
	return prefix.Bytes(), nil
}

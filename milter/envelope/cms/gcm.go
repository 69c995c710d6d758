package cms

import (
	"crypto/cipher"
	"encoding/asn1"
	"fmt"
)

const (
	// nonceSize is what RFC 5084, section 3.2, recommends. At random it is good
	// for a key that encrypts once.
	nonceSize = 12
	// icvSize is the longest there is. It must be written out: the default of
	// the structure is 12.
	icvSize = 16
)

// gcm holds the content until it ends, and encrypts it in its place (RFC 5084).
type gcm struct {
	out     *output
	aead    cipher.AEAD
	nonce   []byte
	content held
}

func newGCM(out *output, block cipher.Block, nonce []byte, budget Budget) (*gcm, error) {
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("starting the cipher: %w", err)
	}
	return &gcm{out: out, aead: aead, nonce: nonce, content: held{budget: budget}}, nil
}

func (g *gcm) write(p []byte) error { return g.content.add(p) }

// close writes the ciphertext, and the field that stands behind it: mac, of RFC
// 5083, section 2.1. There are no attributes that would be authenticated too.
func (g *gcm) close() error {
	content := g.content.octets
	sealed := g.aead.Seal(content[:0], g.nonce, content, nil)
	g.content.octets = nil // it is ciphertext now, which nobody needs to wipe
	if err := g.out.write(sealed[:len(content)]); err != nil {
		return err
	}
	return g.out.write(enclose(asn1.TagOctetString, 0, sealed[len(content):]))
}

func (g *gcm) discard() { g.content.discard() }

// behindGCM is the length of the mac field.
const behindGCM = 2 + icvSize

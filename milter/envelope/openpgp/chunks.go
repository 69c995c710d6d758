package openpgp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/ocb"
)

const (
	seipdVersion2 = 2
	saltSize      = 32
	indexSize     = 8

	// chunkOctet is the size of a chunk, as section 5.13.2 encodes it. Readers
	// must hold a whole chunk before they may show any of it, and so must we
	// before we can write it; 16 KiB cost a thousandth in tags.
	chunkOctet = 8
	chunkSize  = 1 << (chunkOctet + 6)
)

// chunks encrypts a version 2 packet (section 5.13.2): chunks of one size, each
// with a tag, and in the end a tag over the number of octets.
type chunks struct {
	w      io.Writer
	aead   cipher.AEAD
	about  []byte // the packet, which every tag protects too
	nonce  []byte // ends with the index of the next chunk
	sealed []byte // chunk
	octets uint64 // of plaintext
}

func newChunks(w io.Writer, function Cipher, mode AEAD, sessionKey []byte) (*chunks, error) {
	c := &chunks{w: w, about: []byte{newFormat | tagSEIPD, seipdVersion2, byte(function), byte(mode), chunkOctet}}
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("making a salt: %w", err)
	}
	if err := c.start(mode, sessionKey, salt); err != nil {
		return nil, fmt.Errorf("starting the cipher: %w", err)
	}
	_, err := w.Write(append(c.about[1:len(c.about):len(c.about)], salt...))
	return c, err
}

// start derives the key and all of the nonce but the index (section 5.13.2).
func (c *chunks) start(mode AEAD, sessionKey, salt []byte) error {
	if mode != OCB && mode != GCM {
		return fmt.Errorf("there is no mode %d", mode)
	}
	nonceSize := mode.IvLength()
	derived, err := hkdf.Key(sha256.New, sessionKey, salt, string(c.about), len(sessionKey)+nonceSize-indexSize)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(derived[:len(sessionKey)])
	if err != nil {
		return err
	}
	c.nonce = append(derived[len(sessionKey):], make([]byte, indexSize)...)
	if mode == OCB {
		c.aead, err = ocb.NewOCB(block)
	} else {
		c.aead, err = cipher.NewGCM(block)
	}
	return err
}

func (c *chunks) unit() int { return chunkSize }

// checksum says that armor has none around a version 2 packet (section 6.1).
func (c *chunks) checksum() (CRC24, bool) { return 0, false }

func (c *chunks) seal(p []byte) ([]byte, error) {
	for ; len(p) >= chunkSize; p = p[chunkSize:] {
		if err := c.chunk(p[:chunkSize]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (c *chunks) chunk(p []byte) error {
	c.sealed = c.aead.Seal(c.sealed[:0], c.nonce, p, c.about)
	c.octets += uint64(len(p))
	index := c.nonce[len(c.nonce)-indexSize:]
	binary.BigEndian.PutUint64(index, binary.BigEndian.Uint64(index)+1)
	_, err := c.w.Write(c.sealed)
	return err
}

func (c *chunks) finish(p []byte) error {
	if len(p) > 0 {
		if err := c.chunk(p); err != nil {
			return err
		}
	}
	about := binary.BigEndian.AppendUint64(c.about, c.octets)
	_, err := c.w.Write(c.aead.Seal(nil, c.nonce, nil, about))
	return err
}

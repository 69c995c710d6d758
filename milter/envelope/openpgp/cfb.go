package openpgp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"fmt"
	"hash"
	"io"
)

const (
	seipdVersion1 = 1
	// mdcHeader opens the Modification Detection Code packet that ends the
	// plaintext; it is hashed, the 20 octets behind it are the hash.
	mdcHeader = "\xd3\x14"
	spareRoom = len(mdcHeader) + sha1.Size
)

// cfb encrypts a version 1 packet (section 5.13.1).
//
// In CFB each block is encrypted only when the one before it is known, so the
// processor waits: it could do several blocks of AES in the time that one
// takes. Whatever else has to be done to the octets is therefore done between
// two blocks, and takes the time of waiting and hardly any of its own.
type cfb struct {
	w      io.Writer
	crc    CRC24 // of the output
	block  cipher.Block
	stream [aes.BlockSize]byte // of keys, for the next block
	hash   hash.Hash
}

// newCFB begins a packet with the random octets in front of the plaintext, which
// it leaves to be encrypted.
func newCFB(w io.Writer, sessionKey []byte) (*cfb, []byte, error) {
	block, err := aes.NewCipher(sessionKey)
	if err != nil {
		return nil, nil, fmt.Errorf("starting the cipher: %w", err)
	}
	prefix := make([]byte, aes.BlockSize+2, aes.BlockSize+3)
	if _, err := rand.Read(prefix[:aes.BlockSize]); err != nil {
		return nil, nil, fmt.Errorf("making a prefix: %w", err)
	}
	copy(prefix[aes.BlockSize:], prefix[aes.BlockSize-2:]) // section 13.9, step 3
	c := &cfb{w: w, crc: NewCRC24().Update([]byte{seipdVersion1}), block: block, hash: sha1.New()}
	block.Encrypt(c.stream[:], c.stream[:]) // the key stream begins as the encrypted IV of zeros
	_, err = w.Write([]byte{seipdVersion1})
	return c, prefix, err
}

// unit is what SHA-1 takes at once, four blocks of AES.
func (c *cfb) unit() int { return sha1.BlockSize }

func (c *cfb) seal(p []byte) ([]byte, error) {
	full := len(p) &^ (sha1.BlockSize - 1)
	if full == 0 {
		return p, nil
	}
	crc, stream := c.crc, c.stream[:]
	for at := 0; at < full; at += aes.BlockSize {
		if at%sha1.BlockSize == 0 {
			c.hash.Write(p[at : at+sha1.BlockSize])
		}
		block := p[at : at+aes.BlockSize]
		subtle.XORBytes(block, block, stream)
		c.block.Encrypt(stream, block)
		crc = crc.block((*[crcBlock]byte)(block))
	}
	c.crc = crc
	_, err := c.w.Write(p[:full])
	return p[full:], err
}

// encrypt encrypts a block.
func (c *cfb) encrypt(p []byte) {
	subtle.XORBytes(p, p, c.stream[:])
	c.block.Encrypt(c.stream[:], p)
	c.crc = c.crc.block((*[aes.BlockSize]byte)(p))
}

func (c *cfb) checksum() (CRC24, bool) { return c.crc, true }

func (c *cfb) finish(p []byte) error {
	p = append(p, mdcHeader...)
	c.hash.Write(p)
	p = c.hash.Sum(p)
	rest := p
	for ; len(rest) >= aes.BlockSize; rest = rest[aes.BlockSize:] {
		c.encrypt(rest[:aes.BlockSize])
	}
	subtle.XORBytes(rest, rest, c.stream[:])
	c.crc = c.crc.Update(rest)
	_, err := c.w.Write(p)
	return err
}

package cms

import (
	"crypto/aes"
	"crypto/cipher"
	"slices"
)

// bufferSize is how much ciphertext is gathered before it goes out. A message
// that is shorter takes no more than it is long.
const bufferSize = 64 << 10

// cbc encrypts while content arrives (RFC 3565).
type cbc struct {
	out    *output
	cipher cipher.BlockMode
	rest   []byte // content of a block that is not full
	buffer []byte // ciphertext that waits to be written
}

func newCBC(out *output, block cipher.Block, iv []byte) *cbc {
	return &cbc{out: out, cipher: cipher.NewCBCEncrypter(block, iv), rest: make([]byte, 0, aes.BlockSize)}
}

func (c *cbc) write(p []byte) error {
	if len(c.rest) > 0 {
		n := min(aes.BlockSize-len(c.rest), len(p))
		c.rest, p = append(c.rest, p[:n]...), p[n:]
		if len(c.rest) == aes.BlockSize {
			if err := c.encrypt(c.rest); err != nil {
				return err
			}
			c.rest = c.rest[:0]
		}
	}
	for len(p) >= aes.BlockSize {
		n := min(len(p)&^(aes.BlockSize-1), bufferSize-len(c.buffer))
		if err := c.encrypt(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	c.rest = append(c.rest, p...)
	return nil
}

// close pads the content (RFC 5652, section 6.3). A whole block is added to
// content that ends with one.
func (c *cbc) close() error {
	padding := aes.BlockSize - len(c.rest)
	for range padding {
		c.rest = append(c.rest, byte(padding))
	}
	if err := c.encrypt(c.rest); err != nil {
		return err
	}
	return c.flush()
}

func (c *cbc) discard() {
	clear(c.rest[:cap(c.rest)])
	c.rest, c.buffer, c.cipher = nil, nil, nil
}

// encrypt adds full blocks to the buffer, for one of which at least it has room
// before it is full.
func (c *cbc) encrypt(blocks []byte) error {
	old := len(c.buffer)
	c.buffer = slices.Grow(c.buffer, len(blocks))[:old+len(blocks)]
	c.cipher.CryptBlocks(c.buffer[old:], blocks)
	if len(c.buffer) < bufferSize {
		return nil
	}
	return c.flush()
}

func (c *cbc) flush() error {
	if len(c.buffer) == 0 {
		return nil
	}
	err := c.out.write(c.buffer)
	c.buffer = c.buffer[:0]
	return err
}

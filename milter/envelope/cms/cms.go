// Package cms writes encrypted CMS messages (RFC 5652), which is what S/MIME
// (RFC 8551) carries, as a stream: the content is encrypted once, and each
// copy of the message puts its own RecipientInfos in front. A message is an
// EnvelopedData (RFC 5652, section 6):
//
//   - The content is in AES-256 or AES-128, CBC mode (RFC 3565), under a key
//     made for this message.
//   - A recipient with an RSA key gets that key by PKCS #1 version 1.5, the one
//     way that every reader in use knows (RFC 5652, section 6.2.1).
//   - A recipient with a key on P-256, P-384 or P-521 gets it by ephemeral
//     ECDH, SHA-256 and AES key wrap (RFC 5753; RFC 3394).
//   - Recipients are named by the issuer and serial number of their
//     certificates, again for the readers: the other way needs an extension
//     that not every certificate has.
//
// CBC does not authenticate. Whoever can change the stored message can change
// what its reader sees; envelope therefore makes the encrypted part the only
// part of a message.
//
// All of it is DER with definite lengths, because not every reader takes the
// indefinite ones that streaming calls for: what stands in front is made when
// the ciphertext's length is known, and the ciphertext ends the message.
package cms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// Cipher is a content encryption algorithm.
type Cipher int

// The ciphers that mail is sealed with. The zero Cipher is none, so that one
// that was forgotten is noticed.
const (
	AES128 Cipher = iota + 1
	AES256
)

// keySize is the length of the cipher's key in octets, 0 for no cipher.
func (c Cipher) keySize() int {
	switch c {
	case AES128:
		return 16
	case AES256:
		return 32
	}
	return 0
}

// bufferSize is how much ciphertext is gathered before it goes out.
const bufferSize = 64 << 10

// maxSize is the longest ciphertext: OpenSSL and NSS keep lengths in an int.
// It leaves room for what stands around it.
const maxSize = 1<<31 - 1<<20

// Encrypter is an io.WriteCloser that encrypts what is written to it. Its
// output is the ciphertext alone, which Prefix completes to a message.
type Encrypter struct {
	w      io.Writer
	cipher Cipher
	key    []byte // content-encryption key
	iv     []byte

	cbc    cipher.BlockMode
	rest   []byte // content of a block that is not full
	buffer []byte // ciphertext that waits to be written
	size   int64  // octets written to w
	closed bool
	err    error // of the writer behind; the ciphertext may have a hole
}

// NewEncrypter begins a message whose ciphertext goes to w, with a random key
// and initialization vector of its own.
func NewEncrypter(w io.Writer, c Cipher) (*Encrypter, error) {
	size := c.keySize()
	if size == 0 {
		return nil, fmt.Errorf("internal error: no content cipher %d", c)
	}
	e := &Encrypter{w: w, cipher: c, key: make([]byte, size), iv: make([]byte, aes.BlockSize)}
	if _, err := rand.Read(e.key); err != nil {
		return nil, fmt.Errorf("making a content key: %w", err)
	}
	if _, err := rand.Read(e.iv); err != nil {
		return nil, fmt.Errorf("making an initialization vector: %w", err)
	}
	block, err := aes.NewCipher(e.key)
	if err != nil {
		return nil, fmt.Errorf("starting the cipher: %w", err)
	}
	e.cbc = cipher.NewCBCEncrypter(block, e.iv)
	e.rest = make([]byte, 0, aes.BlockSize)
	e.buffer = make([]byte, 0, bufferSize)
	return e, nil
}

// Write encrypts content. An error is final: no copy can be made after it.
func (e *Encrypter) Write(p []byte) (int, error) {
	if e.closed {
		return 0, errors.New("internal error: content behind the end of the message")
	}
	written := len(p)
	if len(e.rest) > 0 {
		n := min(aes.BlockSize-len(e.rest), len(p))
		e.rest, p = append(e.rest, p[:n]...), p[n:]
		if len(e.rest) == aes.BlockSize {
			e.encrypt(e.rest)
			e.rest = e.rest[:0]
		}
	}
	for len(p) >= aes.BlockSize && e.err == nil {
		n := min(len(p)&^(aes.BlockSize-1), bufferSize-len(e.buffer))
		e.encrypt(p[:n])
		p = p[n:]
	}
	if e.err != nil {
		return 0, e.err
	}
	e.rest = append(e.rest, p...)
	return written, nil
}

// Close pads the content (RFC 5652, section 6.3) and writes the rest of the
// ciphertext. A whole block is added to content that ends with one.
func (e *Encrypter) Close() error {
	if e.closed {
		return e.err
	}
	e.closed = true
	padding := aes.BlockSize - len(e.rest)
	for range padding {
		e.rest = append(e.rest, byte(padding))
	}
	e.encrypt(e.rest)
	e.flush()
	e.rest, e.buffer, e.cbc = nil, nil, nil
	return e.err
}

// Size is the number of octets that were written: the ciphertext.
func (e *Encrypter) Size() int64 { return e.size }

// encrypt adds full blocks to the buffer, which has room for one at least.
func (e *Encrypter) encrypt(blocks []byte) {
	old := len(e.buffer)
	e.buffer = e.buffer[:old+len(blocks)]
	e.cbc.CryptBlocks(e.buffer[old:], blocks)
	if len(e.buffer) == bufferSize {
		e.flush()
	}
}

// flush writes the buffer. After an error nothing is written any more: what
// comes behind a hole is no message.
func (e *Encrypter) flush() {
	if e.err == nil && e.size+int64(len(e.buffer)) > maxSize {
		e.err = fmt.Errorf("more than %d octets are too many for a CMS message", int64(maxSize))
	}
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(e.buffer)
		if e.err == nil && n != len(e.buffer) {
			e.err = io.ErrShortWrite
		}
		e.size += int64(n)
	}
	e.buffer = e.buffer[:0]
}

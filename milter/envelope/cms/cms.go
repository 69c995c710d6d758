// Package cms writes encrypted CMS messages (RFC 5652), which is what S/MIME
// (RFC 8551) carries, as a stream: the content is encrypted once, and each
// copy of the message puts its own RecipientInfos in front. A message is an
// EnvelopedData (RFC 5652, section 6), or with GCM an AuthEnvelopedData (RFC
// 5083), and opens in more readers the less is chosen:
//
//   - The content is in AES-256 or AES-128, under a key made for this message;
//     in CBC mode (RFC 3565), or by choice in GCM (RFC 5084).
//   - A recipient with an RSA key gets that key by PKCS #1 version 1.5, the one
//     way that every reader in use knows (RFC 5652, section 6.2.1), or by
//     choice by OAEP with SHA-256 (RFC 3560).
//   - A recipient with a key on P-256, P-384 or P-521 gets it by ephemeral
//     ECDH, SHA-256 and AES key wrap (RFC 5753; RFC 3394).
//   - Recipients are named by the issuer and serial number of their
//     certificates, again for the readers, or by choice by the subject key
//     identifier, an extension that not every certificate has.
//
// CBC does not authenticate. Whoever can change the stored message can change
// what its reader sees; envelope therefore makes the encrypted part the only
// part of a message. GCM notices every change, but the whole content is held
// in memory for it: the standard library encrypts in one go, and to put GCM
// together from its parts is nothing that a filter should do by itself.
//
// All of it is DER with definite lengths, because not every reader takes the
// indefinite ones that streaming calls for: what stands in front is made when
// the ciphertext's length is known. Behind the ciphertext there is nothing in
// an EnvelopedData, and 18 octets that all copies share in an
// AuthEnvelopedData.
package cms

import (
	"crypto/aes"
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

// Options say how content is encrypted.
type Options struct {
	GCM    bool   // an AuthEnvelopedData, in place of CBC and an EnvelopedData
	Budget Budget // for what GCM holds; nil is without bound
}

// Budget bounds the memory of all messages together.
type Budget interface {
	// Take asks for more. The message fails with the error where there is none.
	Take(octets int64) error
	// Give gives back what was taken.
	Give(octets int64)
}

// maxSize is the longest output: OpenSSL and NSS keep lengths in an int. It
// leaves room for what stands around it, and is far below what GCM may encrypt
// under one key.
const maxSize = 1<<31 - 1<<20

var errTooLong = fmt.Errorf("more than %d octets are too many for a CMS message", int64(maxSize))

// Encrypter is an io.WriteCloser that encrypts what is written to it. Its
// output is the message but for its beginning, which Prefix makes for each
// copy. The way is Write, Close, Prefix, and Discard in the end, whatever
// happened. Only Prefix is safe for concurrent use.
type Encrypter struct {
	out    output
	cipher Cipher
	key    []byte // content-encryption key
	iv     []byte // initialization vector, or nonce
	mode   mode
	gcm    bool
	closed bool
	err    error // the first; the output may have a hole
}

// mode encrypts the content. After an error nothing more is asked of it but to
// discard.
type mode interface {
	write(content []byte) error
	// close encrypts what is left, and gives back what was held.
	close() error
	// discard gives it back without that; it may be called at any time, again
	// too.
	discard()
}

// output counts what goes to the writer behind.
type output struct {
	w    io.Writer
	size int64
}

func (o *output) write(p []byte) error {
	if o.size+int64(len(p)) > maxSize {
		return errTooLong
	}
	n, err := o.w.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	o.size += int64(n)
	return err
}

// NewEncrypter begins a message whose ciphertext goes to w, with a random key
// and initialization vector of its own.
func NewEncrypter(w io.Writer, c Cipher, how Options) (*Encrypter, error) {
	size := c.keySize()
	if size == 0 {
		return nil, fmt.Errorf("internal error: no content cipher %d", c)
	}
	ivSize := aes.BlockSize
	if how.GCM {
		ivSize = nonceSize
	}
	e := &Encrypter{out: output{w: w}, cipher: c, gcm: how.GCM, key: make([]byte, size), iv: make([]byte, ivSize)}
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
	if how.GCM {
		e.mode, err = newGCM(&e.out, block, e.iv, how.Budget)
	} else {
		e.mode = newCBC(&e.out, block, e.iv)
	}
	return e, err
}

// Write encrypts content. An error is final: no copy can be made after it.
func (e *Encrypter) Write(p []byte) (int, error) {
	if e.closed {
		return 0, errors.New("internal error: content behind the end of the message")
	}
	if e.err == nil {
		if e.err = e.mode.write(p); e.err != nil {
			e.mode.discard()
		}
	}
	if e.err != nil {
		return 0, e.err
	}
	return len(p), nil
}

// Close ends the content, and writes what is left of the output.
func (e *Encrypter) Close() error {
	if e.closed {
		return e.err
	}
	e.closed = true
	if e.err == nil {
		e.err = e.mode.close()
	}
	e.mode.discard()
	return e.err
}

// Discard gives back what the message holds, and forgets its key: no copy can
// be made any more. The nil Encrypter holds nothing.
func (e *Encrypter) Discard() {
	if e == nil {
		return
	}
	e.mode.discard()
	clear(e.key)
	e.closed = true
	if e.err == nil {
		e.err = errors.New("internal error: the message was discarded")
	}
}

// Size is the number of octets that were written: all that stands behind the
// prefix of a copy.
func (e *Encrypter) Size() int64 { return e.out.size }

// SMIMEType is what the smime-type parameter of the message's entity says (RFC
// 8551, section 3.2.2).
func (e *Encrypter) SMIMEType() string {
	if e.gcm {
		return "authEnveloped-data"
	}
	return "enveloped-data"
}

// Package openpgp writes encrypted OpenPGP messages (RFC 9580) as a stream:
// the content is encrypted once, into a version 1 Symmetrically Encrypted and
// Integrity Protected Data packet (section 5.13.1), and each copy of the
// message puts its own Public Key Encrypted Session Key packets in front.
//
// Version 1 is what every reader opens. The packet is written here, because
// go-crypto's own CFB goes byte by byte; go-crypto makes the key packets.
package openpgp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Cipher is a symmetric cipher that NewEncrypter knows.
type Cipher = packet.CipherFunction

// The ciphers that mail is sealed with.
const (
	AES128 = packet.CipherAES128
	AES256 = packet.CipherAES256
)

const (
	tagLiteral = 11
	tagSEIPD   = 18
	newFormat  = 0xC0 // first octet of a packet header, section 4.2

	seipdVersion = 1
	// mdcHeader opens the Modification Detection Code packet that ends the
	// plaintext; it is hashed, the 20 octets behind it are the hash.
	mdcHeader = "\xd3\x14"

	// chunkExponent is the size of a partial body (section 4.2.1.4), as a
	// power of two. The content's length is not known when it begins.
	chunkExponent = 16
	chunkSize     = 1 << chunkExponent
)

// maxPacket is the most that a packet's header can announce.
const maxPacket = 1<<32 - 1

// Encrypter is an io.WriteCloser that encrypts what is written to it. Its
// output is the body of the SEIPD packet; Prefix makes what stands in front.
type Encrypter struct {
	w          io.Writer
	function   Cipher
	sessionKey []byte

	cbc    cipher.BlockMode
	stream []byte // key stream; its first block belongs to the first block of plain
	plain  []byte // packet octets that wait for encryption
	hash   hash.Hash
	chunk  []byte // content that waits for a partial body to fill
	size   int64  // octets written to w
	closed bool
}

// NewEncrypter begins a message whose SEIPD body goes to w, with a random
// session key of its own.
func NewEncrypter(w io.Writer, function Cipher) (*Encrypter, error) {
	e := &Encrypter{w: w, function: function, hash: sha1.New()}
	e.sessionKey = make([]byte, function.KeySize())
	prefix := make([]byte, aes.BlockSize+2)
	if _, err := rand.Read(e.sessionKey); err != nil {
		return nil, fmt.Errorf("making a session key: %w", err)
	}
	if _, err := rand.Read(prefix[:aes.BlockSize]); err != nil {
		return nil, fmt.Errorf("making a prefix: %w", err)
	}
	copy(prefix[aes.BlockSize:], prefix[aes.BlockSize-2:aes.BlockSize]) // section 13.9, step 3
	block, err := aes.NewCipher(e.sessionKey)
	if err != nil {
		return nil, fmt.Errorf("starting the cipher: %w", err)
	}
	e.stream = make([]byte, aes.BlockSize, chunkSize+2*aes.BlockSize)
	block.Encrypt(e.stream, e.stream) // the key stream begins as the encrypted IV of zeros
	e.cbc = cipher.NewCBCEncrypter(block, e.stream)
	if err := e.output([]byte{seipdVersion}); err != nil {
		return nil, err
	}
	// Literal data (section 5.9): binary, no file name, no date.
	e.chunk = append(make([]byte, 0, chunkSize), 'b', 0, 0, 0, 0, 0)
	e.plain = make([]byte, 0, chunkSize+64)
	return e, e.encrypt(append(prefix, newFormat|tagLiteral))
}

// Write encrypts content. An error of the writer behind is final.
func (e *Encrypter) Write(p []byte) (int, error) {
	if e.closed {
		return 0, errors.New("internal error: content behind the end of the message")
	}
	written := len(p)
	for len(p) > 0 {
		n := copy(e.chunk[len(e.chunk):chunkSize], p)
		e.chunk, p = e.chunk[:len(e.chunk)+n], p[n:]
		if len(e.chunk) < chunkSize {
			break
		}
		if err := e.encrypt([]byte{0xE0 | chunkExponent}); err != nil {
			return 0, err
		}
		if err := e.encrypt(e.chunk); err != nil {
			return 0, err
		}
		e.chunk = e.chunk[:0]
	}
	return written, nil
}

// Close ends the content and writes the rest of the packet.
func (e *Encrypter) Close() error {
	if e.closed {
		return nil
	}
	e.closed = true
	if err := e.encrypt(bodyLength(int64(len(e.chunk)))); err != nil {
		return err
	}
	if err := e.encrypt(e.chunk); err != nil {
		return err
	}
	if err := e.encrypt([]byte(mdcHeader)); err != nil {
		return err
	}
	e.plain = e.hash.Sum(e.plain)
	if err := e.flush(); err != nil {
		return err
	}
	subtle.XORBytes(e.plain, e.plain, e.stream[:len(e.plain)])
	if err := e.output(e.plain); err != nil {
		return err
	}
	e.plain, e.chunk, e.stream = nil, nil, nil
	if e.size > maxPacket {
		return fmt.Errorf("%d octets are more than an OpenPGP packet can hold", e.size)
	}
	return nil
}

// encrypt hashes packet octets and encrypts as many blocks as are full.
func (e *Encrypter) encrypt(p []byte) error {
	e.hash.Write(p)
	e.plain = append(e.plain, p...)
	return e.flush()
}

// flush encrypts the full blocks of plain and keeps the rest. OpenPGP's CFB
// makes C(i) = P(i) xor K(i) with K(i+1) = E(C(i)), so K(i+1) is
// E(P(i) xor K(i)): the key stream is the CBC encryption of the plaintext,
// for which processors have a fast path.
func (e *Encrypter) flush() error {
	full := len(e.plain) &^ (aes.BlockSize - 1)
	if full == 0 {
		return nil
	}
	e.stream = e.stream[:aes.BlockSize+full]
	e.cbc.CryptBlocks(e.stream[aes.BlockSize:], e.plain[:full])
	subtle.XORBytes(e.plain[:full], e.plain[:full], e.stream[:full])
	if err := e.output(e.plain[:full]); err != nil {
		return err
	}
	copy(e.stream, e.stream[full:])
	e.plain = e.plain[:copy(e.plain, e.plain[full:])]
	return nil
}

func (e *Encrypter) output(p []byte) error {
	n, err := e.w.Write(p)
	e.size += int64(n)
	return err
}

// bodyLength writes a packet's length (section 4.2.1).
func bodyLength(n int64) []byte {
	switch {
	case n < 192:
		return []byte{byte(n)}
	case n < 8384:
		n -= 192
		return []byte{byte(n>>8) + 192, byte(n)}
	}
	return []byte{0xFF, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

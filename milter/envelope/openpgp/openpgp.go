// Package openpgp writes encrypted OpenPGP messages (RFC 9580) as a stream:
// the content is encrypted once, into a Symmetrically Encrypted and Integrity
// Protected Data packet (SEIPD, section 5.13), and each copy of the message
// puts its own Public Key Encrypted Session Key packets (PKESK) in front.
//
// Version 1 of SEIPD is what every reader opens; version 2, with an AEAD mode,
// is what the newer ones prefer. Both are written here, because go-crypto's own
// CFB and CRC go byte by byte; go-crypto makes the key packets.
package openpgp

import (
	"crypto/rand"
	"errors"
	"fmt"
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

// AEAD is the mode of a version 2 packet, or NoAEAD for one of version 1.
type AEAD = packet.AEADMode

// The modes that mail is sealed with. Every reader of version 2 knows OCB
// (section 9.6); GCM is many times as fast.
const (
	NoAEAD AEAD = 0
	OCB         = packet.AEADModeOCB
	GCM         = packet.AEADModeGCM
)

const (
	tagLiteral = 11
	tagSEIPD   = 18
	newFormat  = 0xC0 // first octet of a packet header, section 4.2

	// partialExponent is the size of a partial body (section 4.2.1.4), as a
	// power of two. The content's length is not known when it begins.
	partialExponent = 16
	partialSize     = 1 << partialExponent

	// longestLength is what the length in a packet's header takes at most.
	longestLength = 5
)

// maxPacket is the most that a packet's header can announce.
const maxPacket = 1<<32 - 1

// Encrypter is an io.WriteCloser that encrypts what is written to it. Its
// output is the body of the SEIPD packet; Prefix makes what stands in front.
type Encrypter struct {
	w          *counter
	function   Cipher
	mode       AEAD
	sessionKey []byte
	sealer     sealer

	// buffer begins with the octets of packets that wait to be encrypted, of
	// which there are fewer than a unit. From room on it gathers content. Room
	// has space for both what waits and a packet's length right in front of the
	// content, so that the sealer gets them in one piece.
	buffer  []byte
	waiting int
	room    int
	closed  bool
	err     error // the first; the output has a hole
}

// sealer encrypts packets. It writes its own header first.
type sealer interface {
	// unit is the number of octets that it encrypts at once.
	unit() int
	// seal encrypts as many whole units as p has and returns the rest. It may
	// change p.
	seal(p []byte) (rest []byte, err error)
	// checksum is that of the output, for armor, which some packets must not have.
	checksum() (crc CRC24, wanted bool)
	// finish encrypts the last octets, fewer than a unit, and what protects the
	// whole. It may change p and the spareRoom behind it.
	finish(p []byte) error
}

// NewEncrypter begins a message whose SEIPD body goes to w, with a random
// session key of its own.
func NewEncrypter(w io.Writer, function Cipher, mode AEAD) (*Encrypter, error) {
	if function != AES128 && function != AES256 {
		return nil, fmt.Errorf("there is no cipher %d", function)
	}
	e := &Encrypter{w: &counter{w: w}, function: function, mode: mode, sessionKey: make([]byte, function.KeySize())}
	if _, err := rand.Read(e.sessionKey); err != nil {
		return nil, fmt.Errorf("making a session key: %w", err)
	}
	var first []byte
	var err error
	if mode == NoAEAD {
		e.sealer, first, err = newCFB(e.w, e.sessionKey)
	} else {
		e.sealer, err = newChunks(e.w, function, mode, e.sessionKey)
	}
	if err != nil {
		return nil, err
	}
	e.room = e.sealer.unit() + longestLength
	e.buffer = make([]byte, e.room, e.room+spareRoom)
	e.waiting = copy(e.buffer, append(first, newFormat|tagLiteral))
	// Literal data (section 5.9): binary, no file name, no date.
	_, err = e.Write([]byte{'b', 0, 0, 0, 0, 0})
	return e, err
}

// Write encrypts content. An error of the writer behind is final.
func (e *Encrypter) Write(p []byte) (int, error) {
	if e.closed {
		return 0, errors.New("internal error: content behind the end of the message")
	}
	if e.err != nil {
		return 0, e.err
	}
	written := len(p)
	for len(p) > 0 {
		n := min(e.room+partialSize-len(e.buffer), len(p))
		e.grow(len(e.buffer) + n)
		e.buffer, p = append(e.buffer, p[:n]...), p[n:]
		if len(e.buffer) < e.room+partialSize {
			break
		}
		rest, err := e.sealer.seal(e.behind([]byte{0xE0 | partialExponent}))
		if err != nil {
			e.err = err
			return 0, err
		}
		e.waiting = copy(e.buffer, rest)
		e.buffer = e.buffer[:e.room]
	}
	return written, nil
}

// grow makes the buffer hold so many octets, and then spareRoom more. Most
// messages are far shorter than a partial body. What is left behind is cleared:
// it is plaintext.
func (e *Encrypter) grow(size int) {
	if size+spareRoom <= cap(e.buffer) {
		return
	}
	size = min(max(size, 2*cap(e.buffer)), e.room+partialSize)
	bigger := make([]byte, len(e.buffer), size+spareRoom)
	copy(bigger, e.buffer)
	clear(e.buffer)
	e.buffer = bigger
}

// behind puts the content behind its length, and that behind what waits.
func (e *Encrypter) behind(length []byte) []byte {
	start := e.room - len(length) - e.waiting
	copy(e.buffer[start:], e.buffer[:e.waiting])
	copy(e.buffer[start+e.waiting:], length)
	return e.buffer[start:]
}

// Close ends the content and writes the rest of the packet.
func (e *Encrypter) Close() error {
	if e.closed {
		return e.err
	}
	e.closed = true
	if e.err == nil {
		var rest []byte
		if rest, e.err = e.sealer.seal(e.behind(bodyLength(int64(len(e.buffer) - e.room)))); e.err == nil {
			e.err = e.sealer.finish(rest)
		}
	}
	clear(e.buffer)
	e.buffer = nil
	if e.err == nil && e.w.octets > maxPacket {
		e.err = fmt.Errorf("%d octets are more than an OpenPGP packet can hold", e.w.octets)
	}
	return e.err
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

// counter counts the octets that go through it.
type counter struct {
	w      io.Writer
	octets int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.octets += int64(n)
	return n, err
}

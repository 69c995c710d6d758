package detect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sealmilter/keys"
)

// The packet types that have to do with an encrypted message (RFC 9580,
// section 5).
const (
	tagPublicKeyESK    = 1
	tagSymmetricKeyESK = 3
	tagUnprotected     = 9
	tagMarker          = 10
	tagProtected       = 18
	tagGnuPGOCB        = 20
	tagPadding         = 21
)

const (
	// maxPackets bounds the packets in front of the encrypted one.
	maxPackets = maxReaders
	// maxSmallPacket bounds each of them, in bytes: a session key encrypted to
	// RSA of 16384 bits takes 2 KiB, to ML-KEM-1024 and X448 less.
	maxSmallPacket = 4 << 10
	// packetStart is how much of a packet is looked at: a session key packet of
	// version 6 names its reader within 35 octets.
	packetStart = 36
)

// packets reads the packets of an OpenPGP message as they stream in, and
// takes nothing but an encrypted one (RFC 9580, section 10.3): packets with a
// session key, one of them at least for a public key, then one packet of
// encrypted data, which ends where the message does.
type packets struct {
	tagged bool // the packet's first octet was read
	begun  bool // and its first length
	tag    int
	kind   int    // of the length in the old format, -1 in the new one
	length []byte // octets of a length that is not complete
	left   int64  // octets of the packet, or of its piece, that are to come
	more   bool   // another piece follows (section 4.2.1.4)

	start   []byte // of the packet
	size    int64  // of the packet so far
	count   int
	sealed  bool // the encrypted packet is complete
	readers []keys.ReaderID
	keysFor [dataFormats]bool // there are session keys of the version that goes with a format
}

func (p *packets) write(octets []byte) error {
	for len(octets) > 0 {
		if p.left == 0 {
			if err := p.headerOctet(octets[0]); err != nil {
				return err
			}
			octets = octets[1:]
			continue
		}
		n := int(min(int64(len(octets)), p.left))
		p.left -= int64(n)
		p.start = append(p.start, octets[:min(n, packetStart-len(p.start))]...)
		p.size += int64(n)
		octets = octets[n:]
		if err := p.complete(); err != nil {
			return err
		}
	}
	return nil
}

// headerOctet takes an octet of a packet's header, or of the length of its
// next piece.
func (p *packets) headerOctet(octet byte) error {
	switch {
	case p.sealed:
		return errors.New("something stands behind the encrypted packet")
	case p.tagged:
		p.length = append(p.length, octet)
		return p.readLength()
	case octet&0x80 == 0:
		return errors.New("the armor holds something that is not OpenPGP")
	case octet&0x40 != 0:
		p.tag, p.kind = int(octet&0x3F), -1
	default:
		p.tag, p.kind = int(octet>>2&0x0F), int(octet&3)
	}
	p.tagged = true
	if p.kind == 3 {
		// A packet that lasts to the end of the message. None that may be in it
		// can have that: encrypted data is of a type above 15, which takes the
		// new format.
		p.more = true
		return p.begin()
	}
	return nil
}

// readLength goes on once the length is complete (sections 4.2.1 and 4.2.2).
func (p *packets) readLength() error {
	octets := 1 // that the length has
	first := p.length[0]
	switch {
	case p.kind >= 0:
		octets = 1 << p.kind
	case first >= 192 && first < 224:
		octets = 2
	case first == 255:
		octets = 5
	}
	if len(p.length) < octets {
		return nil
	}
	p.more = false
	switch {
	case p.kind < 0 && octets == 5:
		p.left = int64(binary.BigEndian.Uint32(p.length[1:]))
	case p.kind < 0 && octets == 2:
		p.left = int64(first-192)<<8 + int64(p.length[1]) + 192
	case p.kind < 0 && first >= 224:
		p.left, p.more = 1<<(first&0x1F), true
	default:
		p.left = 0
		for _, octet := range p.length {
			p.left = p.left<<8 | int64(octet)
		}
	}
	p.length = p.length[:0]
	if !p.begun {
		if err := p.begin(); err != nil {
			return err
		}
	}
	return p.complete()
}

// begin judges a packet by its type and length.
func (p *packets) begin() error {
	p.begun = true
	switch p.tag {
	case tagPublicKeyESK, tagSymmetricKeyESK, tagMarker, tagPadding:
		if p.count++; p.count > maxPackets {
			return fmt.Errorf("it has more than %d packets in front of the encrypted one", maxPackets)
		}
		if p.more || p.left > maxSmallPacket {
			return errors.New("a packet in front of the encrypted one has a length that it cannot have")
		}
		return nil
	case tagProtected, tagGnuPGOCB:
		if len(p.readers) == 0 {
			return errors.New("it is encrypted to no public key")
		}
		return nil
	case tagUnprotected:
		// Whoever can edit the store can change such a message unnoticed, and
		// read of it what the reader's program then gives away; that is why no
		// program of today opens one (RFC 9580, section 5.7).
		return errors.New("it is encrypted without protection against changes")
	}
	return fmt.Errorf("the armor holds a packet of type %d, which is not encrypted", p.tag)
}

// complete judges a packet whose last octet was read.
func (p *packets) complete() error {
	if p.left > 0 || p.more {
		return nil
	}
	err := p.judge()
	p.tagged, p.begun, p.start, p.size = false, false, p.start[:0], 0
	return err
}

func (p *packets) judge() error {
	switch p.tag {
	case tagPublicKeyESK:
		return p.addReader()
	case tagSymmetricKeyESK:
		return p.addPassphrase()
	case tagMarker:
		if string(p.start) != "PGP" {
			return errors.New("it has a marker packet with something in it")
		}
	case tagProtected, tagGnuPGOCB:
		err := p.judgeData()
		p.sealed = err == nil
		return err
	}
	return nil
}

func (p *packets) finish() ([]keys.ReaderID, error) {
	if !p.sealed || p.tagged {
		return nil, errors.New("its encrypted packet is missing or cut off")
	}
	return p.readers, nil
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"sealmilter/keys"
)

// The packets that matter here (RFC 9580, section 5).
const (
	tagSecretKey = 5
	tagPublicKey = 6
	tagMarker    = 10
)

// isOpenPGP says whether something begins with a packet that a file of keys may
// begin with.
func isOpenPGP(begin []byte) bool {
	if len(begin) == 0 || begin[0]&0x80 == 0 {
		return false
	}
	tag := begin[0] >> 2 & 0xf
	if begin[0]&0x40 != 0 {
		tag = begin[0] & 0x3f
	}
	return tag == tagSecretKey || tag == tagPublicKey || tag == tagMarker
}

// keyCutter cuts a stream of OpenPGP packets into keys.
type keyCutter struct {
	in   *bufio.Reader
	each func(data []byte, problem error) error

	key     []byte // so far
	tooLong bool   // it has more than a key may have, and was let go
}

// cut hands on one key after the other. Where the stream is damaged nobody can
// tell where the next one begins: that is said, and is the end.
func (c *keyCutter) cut() error {
	for {
		tag, header, length, err := readPacketHeader(c.in)
		if err == nil && (tag == tagPublicKey || tag == tagSecretKey) {
			if err := c.handOn(); err != nil {
				return err
			}
		}
		if err == nil {
			err = c.take(header, length)
		}
		switch {
		case err == io.EOF:
			return c.handOn()
		case err != nil: // what is cut off may lack its revocation
			return c.each(nil, &keys.Refusal{Reason: keys.ReasonDamaged, Text: "it is damaged from here on: " + err.Error()})
		}
	}
}

// take adds a packet to the key.
func (c *keyCutter) take(header []byte, length int64) error {
	if c.tooLong || int64(len(c.key)+len(header))+length > keys.MaxKeySize {
		c.key, c.tooLong = nil, true
		_, err := io.CopyN(io.Discard, c.in, length)
		return cutOff(err)
	}
	at := len(c.key) + len(header)
	c.key = append(append(c.key, header...), make([]byte, length)...)
	_, err := io.ReadFull(c.in, c.key[at:])
	return cutOff(err)
}

// cutOff is the error of a packet that has no end.
func cutOff(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut off")
	}
	return err
}

func (c *keyCutter) handOn() error {
	key, tooLong := c.key, c.tooLong
	c.key, c.tooLong = nil, false
	switch {
	case tooLong:
		return c.each(nil, &keys.Refusal{Reason: keys.ReasonTooLarge, Text: fmt.Sprintf("it has more bytes than a key may have (%d)", keys.MaxKeySize)})
	case key == nil:
		return nil
	}
	return c.each(key, nil)
}

// readPacketHeader reads what stands before a packet (RFC 9580, section 4.2).
// The error is io.EOF where there is none left.
func readPacketHeader(in *bufio.Reader) (tag byte, header []byte, length int64, err error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, nil, 0, err
	}
	if first&0x80 == 0 {
		return 0, nil, 0, errors.New("there is no packet")
	}
	header = append(header, first)
	next := func(count int) (number int64) {
		for range count {
			octet, failed := in.ReadByte()
			if failed != nil {
				err = cutOff(failed)
			}
			header = append(header, octet)
			number = number<<8 | int64(octet)
		}
		return number
	}
	if first&0x40 == 0 { // the old format
		if first&3 == 3 {
			return 0, nil, 0, errors.New("a packet has no length")
		}
		length = next(1 << (first & 3))
		return first >> 2 & 0xf, header, length, err
	}
	length = next(1)
	switch {
	case length < 192:
	case length < 224:
		length = (length-192)<<8 + next(1) + 192
	case length == 255:
		length = next(4)
	default:
		return 0, nil, 0, errors.New("a packet comes in parts, which a key does not")
	}
	return first & 0x3f, header, length, err
}

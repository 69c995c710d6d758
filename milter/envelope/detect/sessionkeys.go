package detect

import (
	"bytes"
	"encoding/binary"
	"errors"

	"sealmilter/keys"
)

// dataFormat is a format of encrypted data. A session key fits one of them by
// its version, and readers pass over one that fits another (RFC 9580, section
// 10.3.2.1), so that it names nobody.
type dataFormat int

const (
	withMDC     dataFormat = iota // version 1 of the encrypted packet
	withAEAD                      // version 2
	withOCB                       // GnuPG's own packet
	dataFormats                   // their number
)

// The least octets that each format's packet has: version, random block and
// hash around nothing, of a cipher with short blocks; or the parameters, and
// one tag where there is no content.
const (
	leastMDC  = 1 + 8 + 2 + 22
	leastAEAD = 4 + 32 + 16
	leastOCB  = 4 + 15 + 16
)

var errSessionKey = errors.New("it has a session key in a format that is unknown")

// addReader takes the packet with a session key for a public key (section 5.1).
func (p *packets) addReader() error {
	const keyID, algorithm = 8, 1
	start := p.start
	switch {
	case len(start) > 1+keyID+algorithm && start[0] == 3:
		p.keysFor[withMDC] = true
		p.readers = append(p.readers, keys.ReaderID{KeyID: binary.BigEndian.Uint64(start[1:])})
		return nil
	case len(start) < 2 || start[0] != 6:
		return errSessionKey
	}
	p.keysFor[withAEAD] = true
	size := int(start[1]) // of the key's version and fingerprint
	if p.size <= int64(2+size+algorithm) || len(start) < 2+size {
		return errSessionKey
	}
	if size == 0 {
		p.readers = append(p.readers, keys.ReaderID{})
		return nil
	}
	version, fingerprint := start[2], start[3:2+size]
	if version == 4 && len(fingerprint) == 20 || version == 6 && len(fingerprint) == 32 {
		p.readers = append(p.readers, keys.ReaderID{Fingerprint: bytes.Clone(fingerprint)})
		return nil
	}
	return errSessionKey
}

// addPassphrase takes the packet with a session key for a passphrase (section
// 5.3), which is a reader whom nobody can name. Version 5 is GnuPG's.
func (p *packets) addPassphrase() error {
	if len(p.start) == 0 {
		return errSessionKey
	}
	switch p.start[0] {
	case 4:
		p.keysFor[withMDC] = true
	case 5:
		p.keysFor[withOCB] = true
	case 6:
		p.keysFor[withAEAD] = true
	default:
		return errSessionKey
	}
	return nil
}

// judgeData judges the encrypted packet by its first octets (section 5.13).
// That of type 20, which no RFC has, is GnuPG's: since version 2.3 it writes
// them to keys that ask for OCB. They are protected against changes, with
// session keys for public keys as they always were.
func (p *packets) judgeData() error {
	start := p.start
	format := withMDC
	switch {
	case p.tag == tagProtected && len(start) > 0 && start[0] == 1 && p.size >= leastMDC:
	case p.tag == tagProtected && p.size >= leastAEAD && start[0] == 2 && isCipher(start[1]) && isMode(start[2]) && start[3] <= 16:
		format = withAEAD
	case p.tag == tagGnuPGOCB && p.size >= leastOCB && start[0] == 1 && isCipher(start[1]) && isMode(start[2]) && start[3] <= 56:
		format = withOCB
	default:
		return errors.New("its encrypted packet is in a format that is unknown")
	}
	for other, are := range p.keysFor {
		if are && dataFormat(other) != format && !(format == withOCB && dataFormat(other) == withMDC) {
			return errors.New("it has a session key that does not fit its encrypted packet")
		}
	}
	return nil
}

// isCipher says whether a number is that of a cipher (section 9.3): those of
// 64-bit blocks, AES, Twofish and Camellia. 0 is plaintext.
func isCipher(id byte) bool { return id >= 1 && id <= 4 || id >= 7 && id <= 13 }

// isMode says whether a number is that of an AEAD mode (section 9.6): EAX, OCB
// or GCM.
func isMode(id byte) bool { return id >= 1 && id <= 3 }

package keys

import (
	"bytes"
	"crypto"
	bigendian "encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// leaveOut is what to do with a key that is too large by its owner's making.
const leaveOut = "its owner should leave out what is of no use any more (gpg --edit-key FINGERPRINT, with delkey and deluid)"

// checkCounts looks at the limits of one key before anything is parsed.
func checkCounts(packets []*packet.OpaquePacket) error {
	count := make(map[uint8]int)
	for _, p := range packets {
		if count[p.Tag]++; p.Tag == tagUserID && len(p.Contents) > maxUserID {
			return refuseTo(leaveOut, ReasonTooLarge, "a user id has %d bytes, the most is %d", len(p.Contents), maxUserID)
		}
	}
	switch {
	case count[tagPublicSubkey] > maxSubkeys:
		return refuseTo(leaveOut, ReasonTooLarge, "it has %d subkeys, the most is %d", count[tagPublicSubkey], maxSubkeys)
	case count[tagUserID]+count[tagUserAttribute] > maxUserIDs:
		return refuseTo(leaveOut, ReasonTooLarge, "it has %d user ids, the most is %d", count[tagUserID]+count[tagUserAttribute], maxUserIDs)
	case count[tagSignature] > maxSignatures:
		return refuse(ReasonTooLarge, "it has %d signatures, the most is %d", count[tagSignature], maxSignatures)
	}
	return nil
}

// isRevocation says whether a signature takes something back.
func isRevocation(sig *packet.Signature) bool {
	switch sig.SigType {
	case packet.SigTypeKeyRevocation, packet.SigTypeSubkeyRevocation, packet.SigTypeCertificationRevocation:
		return true
	}
	return false
}

// isTaken says whether a signature holds that makes the part one of the key.
func (on *part) isTaken() bool {
	return slices.ContainsFunc(on.taken, func(sig *packet.Signature) bool { return !isRevocation(sig) })
}

// isSHA1 says whether that signature is over a SHA-1 hash.
func (on *part) isSHA1() bool {
	return slices.ContainsFunc(on.taken, func(sig *packet.Signature) bool { return !isRevocation(sig) && sig.Hash == crypto.SHA1 })
}

// isSHA1Only says whether a user id has no better signature.
func (t *transferable) isSHA1Only(userID string) bool {
	return slices.ContainsFunc(t.userIDs, func(id *part) bool { return string(id.packet.Contents) == userID && id.isSHA1() })
}

// isOverOnly says whether the signature on a user id has expired.
func (t *transferable) isOverOnly(userID string, now time.Time) bool {
	isOver := func(sig *packet.Signature) bool {
		end := lifetime(sig.CreationTime, sig.SigLifetimeSecs)
		return !isRevocation(sig) && !end.IsZero() && !now.Before(end)
	}
	return slices.ContainsFunc(t.userIDs, func(id *part) bool {
		return string(id.packet.Contents) == userID && slices.ContainsFunc(id.taken, isOver)
	})
}

// finish verifies what sealing does not ask for, as subkeys that sign.
func (v *verifier) finish(t *transferable) error {
	for _, sub := range t.subkeys {
		if sub.unreadable != nil || len(sub.taken) > 0 {
			continue
		}
		if _, err := v.subkey(sub, t.primary.public); errors.Is(err, errEffort) {
			return err
		}
	}
	return nil
}

// revokers are the fingerprints of those whom a key lets revoke it (RFC 9580,
// section 5.2.3.23), as its direct-key signatures that hold name them.
func (v *verifier) revokers(t *transferable) (fingerprints [][]byte, err error) {
	const revocationKey, critical, fixed, isRevoker = 12, 0x80, 4, 0x80
	public := t.primary.public
	for _, sig := range t.primary.signatures {
		if sig.SigType != packet.SigTypeDirectSignature || len(sig.packet.Contents) < fixed {
			continue
		}
		size := 2
		if public.Version == 6 {
			size = 4
		}
		hashed, _, _ := cutArea(sig.packet.Contents[fixed:], size)
		subpackets, failed := packet.OpaqueSubpackets(hashed)
		if failed != nil {
			continue
		}
		for _, s := range subpackets {
			if s.SubType&^critical != revocationKey || len(s.Contents) < 22 || s.Contents[0]&isRevoker == 0 {
				continue
			}
			if v.effort -= cost(public); v.effort < 0 {
				return nil, errEffort
			}
			if public.VerifyDirectKeySignature(sig.Signature) == nil {
				fingerprints = append(fingerprints, s.Contents[2:])
			}
		}
	}
	return fingerprints, nil
}

// isBy says whether a signature is in the name of the version 4 key of a
// fingerprint.
func isBy(sig *packet.Signature, fingerprint []byte) bool {
	if len(sig.IssuerFingerprint) > 0 {
		return bytes.Equal(sig.IssuerFingerprint, fingerprint)
	}
	return sig.IssuerKeyId != nil && len(fingerprint) >= 8 && *sig.IssuerKeyId == bigendian.BigEndian.Uint64(fingerprint[len(fingerprint)-8:])
}

// strip writes of a key what was verified: each part with the newest signature
// that makes it one, and the newest that takes it back. Whatever else stands in
// it could be a photograph, or anything that anybody put there.
func (t *transferable) strip() []byte {
	var data bytes.Buffer
	for _, on := range t.parts() {
		if on != t.primary && len(on.taken) == 0 {
			continue
		}
		if on.public == nil {
			on.packet.Serialize(&data) // writing to memory cannot fail
		} else {
			on.public.Serialize(&data) // and what may stand behind its numbers is left off
		}
		for _, sig := range on.signatures {
			if slices.Contains(on.taken, sig.Signature) {
				stripped := packet.OpaquePacket{Tag: tagSignature, Contents: stripSignature(sig.packet.Contents)}
				stripped.Serialize(&data)
			}
		}
	}
	return data.Bytes()
}

// stripSignature leaves off a signature what it does not sign itself and nobody
// needs (RFC 9580, section 5.2.3): unhashed subpackets that do not say who made
// it, and what stands behind its numbers. A signature that was verified has
// this form; one of another is returned as it is.
func stripSignature(sig []byte) []byte {
	const fixed = 4 // version, type, two algorithms
	if len(sig) < fixed {
		return sig
	}
	size := 2 // of the lengths
	if sig[0] == 6 {
		size = 4
	}
	hashed, rest, ok := cutArea(sig[fixed:], size)
	if !ok {
		return sig
	}
	unhashed, rest, ok := cutArea(rest, size)
	if !ok {
		return sig
	}
	numbers, ok := numbersLength(sig[0], sig[2], rest)
	if !ok {
		return sig
	}
	kept := keptSubpackets(unhashed)
	return slices.Concat(sig[:fixed+size+len(hashed)], octets(len(kept), size), kept, rest[:numbers])
}

// octets writes a number, the highest octet first.
func octets(n, size int) []byte {
	written := make([]byte, size)
	for i := range written {
		written[i] = byte(n >> (8 * (size - 1 - i)))
	}
	return written
}

// cutArea cuts off what has its length in so many octets before it.
func cutArea(data []byte, size int) (area, rest []byte, ok bool) {
	if len(data) < size {
		return nil, nil, false
	}
	length := 0
	for _, octet := range data[:size] {
		length = length<<8 | int(octet)
	}
	if data = data[size:]; length > len(data) {
		return nil, nil, false
	}
	return data[:length], data[length:], true
}

// keptSubpackets are those of an unhashed area that say who made the signature,
// and the signature of a subkey within that of its primary key.
func keptSubpackets(area []byte) (kept []byte) {
	const issuer, embedded, issuerFingerprint, critical = 16, 32, 33, 0x80
	subpackets, err := packet.OpaqueSubpackets(area)
	if err != nil {
		return area
	}
	for _, s := range subpackets {
		content := s.Contents
		switch s.SubType &^ critical {
		case issuer, issuerFingerprint:
		case embedded:
			content = stripSignature(content)
		default:
			continue
		}
		kept = append(kept, subpacketLength(len(content)+1)...)
		kept = append(append(kept, s.SubType), content...)
	}
	return kept
}

// subpacketLength writes a length (RFC 9580, section 5.2.3.7).
func subpacketLength(n int) []byte {
	switch {
	case n < 192:
		return []byte{byte(n)}
	case n < 16320:
		return []byte{byte((n-192)>>8) + 192, byte(n - 192)}
	}
	return append([]byte{255}, octets(n, 4)...)
}

// numbersLength is the length of what stands behind the subpackets: two octets
// of the hash, version 6's salt, and the signature's numbers.
func numbersLength(version, algorithm byte, rest []byte) (length int, ok bool) {
	length = 2
	if version == 6 {
		if len(rest) < 3 {
			return 0, false
		}
		length += 1 + int(rest[2])
	}
	integers := 0
	switch packet.PublicKeyAlgorithm(algorithm) {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		integers = 1
	case packet.PubKeyAlgoDSA, packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		integers = 2
	case packet.PubKeyAlgoEd25519:
		length += 64
	case packet.PubKeyAlgoEd448:
		length += 114
	default: // of those beyond RFC 9580 all is kept
		length = len(rest)
	}
	for range integers {
		if len(rest) < length+2 {
			return 0, false
		}
		bits := int(rest[length])<<8 | int(rest[length+1])
		length += 2 + (bits+7)/8
	}
	return length, length <= len(rest)
}

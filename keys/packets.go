package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	// maxPackets bounds what is allocated for one block. A key that was
	// flooded with third parties' signatures to the limit of MaxKeySize has
	// some 2000.
	maxPackets = 4096
	// maxBits is the longest modulus of a key: what is longer takes seconds to
	// check, and programs that make such keys are not known.
	maxBits = 8192
)

// The packet types that a key consists of (RFC 9580, section 5).
const (
	tagSignature     = 2
	tagSecretKey     = 5
	tagPublicKey     = 6
	tagSecretSubkey  = 7
	tagMarker        = 10
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
	tagPadding       = 21
)

// firstUncritical is where the packet types begin that a reader may skip
// where it does not know them (section 4.3).
const firstUncritical = 40

// cutKeys cuts packets into transferable public keys (section 10.1), each of
// which begins with a primary key. No packet is looked into but a secret key
// is recognised, and a compressed packet, which may be any size once it is
// opened, never is.
func cutKeys(data []byte) ([][]*packet.OpaquePacket, error) {
	var keys [][]*packet.OpaquePacket
	packets := packet.NewOpaqueReader(bytes.NewReader(data))
	for number := 1; ; number++ {
		p, err := packets.Next()
		switch {
		case err == io.EOF && len(keys) > 0:
			return keys, nil
		case err == io.EOF:
			return nil, refuse(ReasonNoKey, "there is no key in it")
		case errors.Is(err, io.ErrUnexpectedEOF) && number == 1:
			return nil, refuse(ReasonDamaged, "it is cut off in its first packet, or is not OpenPGP")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, refuse(ReasonDamaged, "it is cut off in packet %d", number)
		case err != nil:
			return nil, refuse(ReasonDamaged, "packet %d is damaged, or this is not OpenPGP", number)
		case number > maxPackets:
			return nil, refuse(ReasonTooLarge, "it has more than %d packets", maxPackets)
		}
		switch p.Tag {
		case tagSecretKey, tagSecretSubkey:
			return nil, ErrSecretKey
		case tagPublicKey:
			keys = append(keys, []*packet.OpaquePacket{p})
		case tagSignature, tagUserID, tagPublicSubkey, tagUserAttribute:
			if len(keys) == 0 {
				return nil, refuse(ReasonDamaged, "packet %d is %s, where a key should begin", number, packetName(p.Tag))
			}
			keys[len(keys)-1] = append(keys[len(keys)-1], p)
		case tagMarker, tagTrust, tagPadding:
		default:
			if p.Tag < firstUncritical {
				return nil, refuse(ReasonNoKey, "packet %d is %s, which has no place in a key", number, packetName(p.Tag))
			}
		}
	}
}

func packetName(tag uint8) string {
	switch tag {
	case tagSignature:
		return "a signature"
	case tagUserID, tagUserAttribute:
		return "a user id"
	case tagPublicSubkey:
		return "a subkey"
	case 1, 3, 8, 9, 11, 18, 20:
		return fmt.Sprintf("part of a message (type %d)", tag)
	}
	return fmt.Sprintf("of type %d", tag)
}

// transferable is one transferable public key, taken apart. Of its signatures
// only those are in it that its own primary key says it made: third parties'
// are not needed for sealing, and anybody can add thousands of them to a key
// that is not theirs. User ids without a signature by the key are left out,
// and so are photographs.
type transferable struct {
	primary *part
	userIDs []*part
	subkeys []*part
}

// signed is the date of the newest of the signatures that were found to hold.
func (t *transferable) signed() (newest time.Time) {
	for _, on := range t.parts() {
		for _, sig := range on.taken {
			if sig.CreationTime.After(newest) {
				newest = sig.CreationTime
			}
		}
	}
	return newest
}

// part is a primary key, a user id or a subkey with the signatures on it.
type part struct {
	packet     *packet.OpaquePacket
	public     *packet.PublicKey   // nil for a user id, and for a key that cannot be read
	unreadable error               // why it cannot be
	signatures []signature         // in the order of the key
	taken      []*packet.Signature // those of them that were found to hold, and count
	foreign    []*packet.Signature // revocations of a primary key that are in another's name
}

type signature struct {
	*packet.Signature
	packet *packet.OpaquePacket
}

// takeApart sorts the packets of one transferable key. A part that comes again
// is the same part: keys that were merged carelessly hold a subkey twice, and
// its revocation once.
func takeApart(packets []*packet.OpaquePacket) (*transferable, error) {
	t := &transferable{primary: newPart(packets[0])}
	if t.primary.unreadable != nil {
		return nil, t.primary.unreadable
	}
	type place struct {
		on      *part // nil for a part itself
		tag     uint8
		content string
	}
	seen := make(map[place]*part)
	once := func(parts *[]*part, p *packet.OpaquePacket) *part {
		here := place{nil, p.Tag, string(p.Contents)}
		if seen[here] == nil {
			seen[here] = newPart(p)
			*parts = append(*parts, seen[here])
		}
		return seen[here]
	}
	on := t.primary
	for _, p := range packets[1:] {
		switch p.Tag {
		case tagUserID:
			on = once(&t.userIDs, p)
		case tagPublicSubkey:
			on = once(&t.subkeys, p)
		case tagUserAttribute:
			on = nil
		case tagSignature:
			here := place{on, p.Tag, string(p.Contents)}
			if on != nil && seen[here] == nil {
				seen[here] = on
				on.addSignature(p, t.primary.public)
			}
		}
	}
	t.userIDs = slices.DeleteFunc(t.userIDs, func(id *part) bool { return len(id.signatures) == 0 })
	return t, nil
}

func newPart(p *packet.OpaquePacket) *part {
	made := &part{packet: p}
	if p.Tag != tagUserID {
		made.public, made.unreadable = readPublicKey(p)
	}
	return made
}

// unreadable is the reason of an error of the library.
func unreadable(err error) Reason {
	var unsupported pgperrors.UnsupportedError
	if errors.As(err, &unsupported) {
		return ReasonUnsupported
	}
	return ReasonDamaged
}

// readPublicKey reads the packet of a primary key or a subkey.
func readPublicKey(p *packet.OpaquePacket) (*packet.PublicKey, error) {
	if len(p.Contents) > 0 && p.Contents[0] != 4 && p.Contents[0] != 6 {
		return nil, refuse(ReasonUnsupported, "keys of version %d are not supported, only 4 and 6 are", p.Contents[0])
	}
	parsed, err := p.Parse()
	if err != nil {
		return nil, refuse(unreadable(err), "it cannot be read: %s", err)
	}
	public := parsed.(*packet.PublicKey)
	// The algorithms up to DSA are those of big numbers.
	if bits, _ := public.BitLength(); bits > maxBits && public.PubKeyAlgo <= packet.PubKeyAlgoDSA {
		return nil, refuse(ReasonUnsupported, "a key of %d bits is too long, the most is %d", bits, maxBits)
	}
	return public, nil
}

// addSignature keeps a signature where it is one by the primary key. One that
// cannot be read is a third party's, or counts for nothing.
func (on *part) addSignature(p *packet.OpaquePacket, primary *packet.PublicKey) {
	parsed, err := p.Parse()
	if err != nil {
		return
	}
	sig, ok := parsed.(*packet.Signature)
	switch {
	case !ok:
	case sig.CheckKeyIdOrFingerprint(primary):
		on.signatures = append(on.signatures, signature{sig, p})
	case sig.SigType == packet.SigTypeKeyRevocation && on.public == primary:
		on.foreign = append(on.foreign, sig)
	}
}

// newestFirst returns the signatures of some types. Of two that were made in
// the same second the last counts for newer, as it does for GnuPG.
func (on *part) newestFirst(types ...packet.SignatureType) []*packet.Signature {
	var found []*packet.Signature
	for _, sig := range slices.Backward(on.signatures) {
		if slices.Contains(types, sig.SigType) {
			found = append(found, sig.Signature)
		}
	}
	slices.SortStableFunc(found, func(a, b *packet.Signature) int { return b.CreationTime.Compare(a.CreationTime) })
	return found
}

// parts are all parts, in the order in which a key has them.
func (t *transferable) parts() []*part {
	return slices.Concat([]*part{t.primary}, t.userIDs, t.subkeys)
}

// serialize writes the key.
func (t *transferable) serialize() []byte {
	var data bytes.Buffer
	for _, on := range t.parts() {
		on.packet.Serialize(&data) // writing to memory cannot fail
		for _, sig := range on.signatures {
			sig.packet.Serialize(&data)
		}
	}
	return data.Bytes()
}

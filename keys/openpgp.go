package keys

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	// minRSABits is the least modulus that mail is sealed to, as RFC 9580,
	// section 12.4, asks of new messages.
	minRSABits = 2048
	// maxEncryptionKeys bounds what one message to one key may cost: each of
	// them takes a public key operation and a packet of its own.
	maxEncryptionKeys = 20
)

// parsePackets reads transferable public keys (RFC 9580, section 10.1), one
// after the other.
func parsePackets(data []byte, v *verifier) ([]*Key, error) {
	cut, err := cutKeys(data)
	if err != nil {
		return nil, err
	}
	var all []*Key
	for i, packets := range cut {
		if v.entering != nil {
			if err := checkCounts(packets); err != nil {
				return nil, fmt.Errorf("key %d: %w", i+1, err)
			}
		}
		t, err := takeApart(packets)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		key, err := newKey(t, v)
		if err != nil {
			return nil, fmt.Errorf("key %X: %w", t.primary.public.Fingerprint, err)
		}
		all = append(all, key)
		if v.entering != nil {
			v.entering[key] = t
		}
	}
	return all, nil
}

// newKey verifies a key and keeps what sealing needs of it. A revoked key is
// no error, whatever else is wrong with it: that it was revoked is what its
// administrator must hear.
func newKey(t *transferable, v *verifier) (*Key, error) {
	primary := t.primary.public
	if primary.PubKeyAlgo == packet.PubKeyAlgoDSA {
		return nil, refuse(ReasonUnsupported, "DSA is out of use, and so are keys that are signed with it: its owner should make a new key")
	}
	says, err := v.primary(t)
	if err != nil {
		return nil, err
	}
	key := &Key{
		Method:      OpenPGP,
		Fingerprint: fmt.Sprintf("%X", primary.Fingerprint),
		UserIDs:     says.userIDs,
		Created:     primary.CreationTime,
		withdrawn:   says.revocation != nil,
		encoded:     t.serialize(),
	}
	if key.withdrawn {
		key.RevokedAt = says.revocation.CreationTime
	}
	key.encryption, err = encryptionKeys(t, says, v)
	if err != nil && !key.withdrawn {
		return nil, err
	}
	key.Expires, key.Signed = lastExpiry(key.encryption), t.signed()
	if classic := key.chosen(); len(classic) > 0 {
		key.Algorithm = algorithm(newest(classic))
	} else if len(key.encryption) > 0 {
		key.Algorithm = algorithm(newest(key.encryption))
	}
	return key, nil
}

// encryptionKeys returns every key that mail may be sealed to: each subkey
// flagged for communications or for storage (RFC 9580, section 5.2.3.29), and
// the primary key where it is flagged itself. Most programs take the newest
// only, and a user who reads on two devices with two subkeys would be locked
// out of one. The error says why there is none.
func encryptionKeys(t *transferable, says selfSignatures, v *verifier) ([]encryptionKey, error) {
	primary := t.primary.public
	self := says.userID
	if primary.Version == 6 || self == nil { // section 10.1.1
		self = says.direct
	}
	if self == nil {
		return nil, refuse(ReasonUnsigned, "neither the key nor a user id has a valid self-signature; a key server may have left the user ids out, or they are all revoked")
	}
	ends := expiry(primary, self)
	if says.direct != nil {
		ends = earlier(ends, expiry(primary, says.direct))
	}
	var found []encryptionKey
	var reason error
	for _, sub := range t.subkeys {
		binding, err := encryptionSubkey(sub, primary, v)
		switch {
		case errors.Is(err, errEffort):
			return nil, err
		case err != nil:
			reason = err
		case binding != nil:
			found = append(found, newEncryptionKey(sub.public, self, earlier(ends, expiry(sub.public, binding))))
		}
	}
	// A primary key without flags is used only where no subkey can be: old
	// RSA keys have neither.
	if forEncryption(primary, self, len(found) == 0) {
		if err := sealable(primary); err != nil {
			reason = err
		} else {
			found = append(found, newEncryptionKey(primary, self, ends))
		}
	}
	switch {
	case len(found) > maxEncryptionKeys:
		return nil, refuse(ReasonTooLarge, "it has %d subkeys to encrypt to, the most is %d", len(found), maxEncryptionKeys)
	case len(found) > 0:
		return found, nil
	}
	if reason != nil {
		return nil, fmt.Errorf("no part of it can be sealed to (%w)", reason)
	}
	return nil, refuse(ReasonPurpose, "no part of it is meant for encryption")
}

// newEncryptionKey is a key that mail can be sealed to, with what the key's own
// signature says of its reader.
func newEncryptionKey(public *packet.PublicKey, self *packet.Signature, expires time.Time) encryptionKey {
	return encryptionKey{
		public:      public,
		expires:     expires,
		postQuantum: public.PubKeyAlgo == packet.PubKeyAlgoMlkem768X25519,
		seipd2:      public.Version == 6 && self.SEIPDv2,
	}
}

// encryptionSubkey returns the binding of a subkey that mail can be sealed to,
// nil where it is for something else. The error says why mail cannot be.
func encryptionSubkey(sub *part, primary *packet.PublicKey, v *verifier) (*packet.Signature, error) {
	if sub.unreadable != nil {
		return nil, fmt.Errorf("a subkey: %w", sub.unreadable)
	}
	if !sub.public.PubKeyAlgo.CanEncrypt() {
		return nil, nil
	}
	binding, err := v.subkey(sub, primary)
	if err == nil && !forEncryption(sub.public, binding, true) {
		return nil, nil
	}
	if err == nil {
		err = sealable(sub.public)
	}
	if err != nil {
		return nil, fmt.Errorf("subkey %s: %w", sub.public.KeyIdString(), err)
	}
	return binding, nil
}

// forEncryption says whether a key can encrypt and is meant to, by the flags of
// its self-signature. Keys of the time before flags have none, and unflagged
// says how they count.
func forEncryption(public *packet.PublicKey, sig *packet.Signature, unflagged bool) bool {
	switch {
	case !public.PubKeyAlgo.CanEncrypt():
		return false
	case !sig.FlagsValid:
		return unflagged
	}
	return sig.FlagEncryptCommunications || sig.FlagEncryptStorage
}

// sealable refuses what RFC 9580 does not let new messages use, and what the
// sealing would fail with.
func sealable(public *packet.PublicKey) error {
	switch public.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSAEncryptOnly:
		return sealableRSA(public.PublicKey.(*rsa.PublicKey))
	case packet.PubKeyAlgoECDH, packet.PubKeyAlgoX25519, packet.PubKeyAlgoX448:
		return nil
	case packet.PubKeyAlgoElGamal:
		return refuse(ReasonUnsupported, "ElGamal is out of use")
	case packet.PubKeyAlgoMlkem768X25519: // where its owner has chosen it
		return nil
	case packet.PubKeyAlgoMlkem1024X448:
		return refuse(ReasonUnsupported, "of ML-KEM only ML-KEM-768+X25519 is known")
	}
	return refuse(ReasonUnsupported, "algorithm %d is not supported", public.PubKeyAlgo)
}

// sealableRSA looks at the number itself: the length that stands in front of
// it may be wrong.
func sealableRSA(public *rsa.PublicKey) error {
	switch bits := public.N.BitLen(); {
	case bits < minRSABits:
		return refuse(ReasonWeak, "an RSA key of %d bits is too short, the least is %d", bits, minRSABits)
	case public.N.Bit(0) == 0, public.E < 3, public.E%2 == 0:
		return refuse(ReasonWeak, "its numbers are not those of an RSA key")
	}
	return nil
}

// expiry is the end of a key's life as a self-signature gives it, or of the
// signature itself where that comes first. Zero: never.
func expiry(public *packet.PublicKey, sig *packet.Signature) time.Time {
	return earlier(
		lifetime(public.CreationTime, sig.KeyLifetimeSecs),
		lifetime(sig.CreationTime, sig.SigLifetimeSecs))
}

func lifetime(from time.Time, seconds *uint32) time.Time {
	if seconds == nil || *seconds == 0 {
		return time.Time{}
	}
	return from.Add(time.Duration(*seconds) * time.Second)
}

// earlier is the earlier of two moments of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

func newest(encryption []encryptionKey) *packet.PublicKey {
	return slices.MaxFunc(encryption, func(a, b encryptionKey) int {
		return a.public.CreationTime.Compare(b.public.CreationTime)
	}).public
}

// algorithm names a public key's algorithm and strength.
func algorithm(public *packet.PublicKey) string {
	if public.PubKeyAlgo == packet.PubKeyAlgoMlkem768X25519 {
		return "ML-KEM-768+X25519"
	}
	if curve, err := public.Curve(); err == nil {
		return string(curve)
	}
	bits, _ := public.BitLength()
	return fmt.Sprintf("RSA-%d", bits)
}

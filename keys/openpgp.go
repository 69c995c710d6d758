package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// minRSABits is the least modulus that mail is sealed to, as RFC 9580,
// section 12.4, asks of new messages.
const minRSABits = 2048

// anyTime switches go-crypto's own comparison with the clock off. Expiry is
// read from the signatures and judged when the key is used: a parsed key is
// kept for longer than it may be valid.
var anyTime time.Time

// parsePackets reads transferable public keys (RFC 9580, section 10.1), one
// after the other.
func parsePackets(data []byte) ([]*Key, error) {
	var all []*Key
	packets := packet.NewReader(bytes.NewReader(data))
	for {
		entity, err := openpgp.ReadEntity(packets)
		if err == io.EOF && len(all) > 0 {
			return all, nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("reading key %d: %w", len(all)+1, err)
		}
		key, err := newKey(entity)
		if err != nil {
			return nil, fmt.Errorf("key %X: %w", entity.PrimaryKey.Fingerprint, err)
		}
		all = append(all, key)
	}
}

// newKey verifies an entity and keeps what sealing needs of it.
func newKey(entity *openpgp.Entity) (*Key, error) {
	if holdsSecret(entity) {
		return nil, ErrSecretKey
	}
	config := &packet.Config{}
	self, err := entity.PrimarySelfSignature(anyTime, config)
	if err != nil {
		return nil, errors.New("no user id has a valid self-signature")
	}
	key := &Key{
		Method:      OpenPGP,
		Fingerprint: strings.ToUpper(fmt.Sprintf("%x", entity.PrimaryKey.Fingerprint)),
		UserIDs:     validUserIDs(entity, config),
		Created:     entity.PrimaryKey.CreationTime,
		withdrawn:   entity.Revoked(time.Now()),
	}
	key.encryption, err = encryptionKeys(entity, self, config)
	if err != nil && !key.withdrawn {
		return nil, err
	}
	key.Expires = lastExpiry(key.encryption)
	if len(key.encryption) > 0 {
		key.Algorithm = algorithm(newest(key.encryption))
	}
	var binary bytes.Buffer
	if err := entity.Serialize(&binary); err != nil {
		return nil, fmt.Errorf("writing the key: %w", err)
	}
	key.packets = binary.Bytes()
	return key, nil
}

// holdsSecret says whether any part of the entity is a secret key.
func holdsSecret(entity *openpgp.Entity) bool {
	return entity.PrivateKey != nil || slices.ContainsFunc(entity.Subkeys, func(sub openpgp.Subkey) bool {
		return sub.PrivateKey != nil
	})
}

func validUserIDs(entity *openpgp.Entity, config *packet.Config) []string {
	var ids []string
	for name, identity := range entity.Identities {
		if _, err := identity.Verify(anyTime, config); err == nil {
			ids = append(ids, name)
		}
	}
	slices.Sort(ids)
	return ids
}

// encryptionKeys returns every key that mail may be sealed to: each subkey
// flagged for communications or for storage (RFC 9580, section 5.2.3.29), and
// the primary key where it is flagged itself. go-crypto's own choice is the
// newest subkey only, and a user who reads on two devices with two subkeys
// would be locked out of one. The error says why there is none.
func encryptionKeys(entity *openpgp.Entity, self *packet.Signature, config *packet.Config) ([]encryptionKey, error) {
	primaryEnds := expiry(entity.PrimaryKey, self)
	if direct, err := entity.LatestValidDirectSignature(anyTime, config); err == nil {
		primaryEnds = earlier(primaryEnds, expiry(entity.PrimaryKey, direct))
	}
	var found []encryptionKey
	var reason error
	consider := func(public *packet.PublicKey, binding *packet.Signature) {
		if err := sealable(public); err != nil {
			reason = fmt.Errorf("subkey %s: %w", public.KeyIdString(), err)
			return
		}
		found = append(found, encryptionKey{public, earlier(primaryEnds, expiry(public, binding))})
	}
	for i := range entity.Subkeys {
		sub := &entity.Subkeys[i]
		binding, err := sub.Verify(anyTime, config)
		if err != nil {
			reason = fmt.Errorf("subkey %s: %w", sub.PublicKey.KeyIdString(), err)
			continue
		}
		if forEncryption(binding, true) {
			consider(sub.PublicKey, binding)
		}
	}
	// A primary key without flags is used only where no subkey can be: old
	// RSA keys have neither.
	if entity.PrimaryKey.PubKeyAlgo.CanEncrypt() && forEncryption(self, len(found) == 0) {
		consider(entity.PrimaryKey, self)
	}
	if len(found) > 0 {
		return found, nil
	}
	if reason != nil {
		return nil, fmt.Errorf("no part of it can be sealed to (%w)", reason)
	}
	return nil, errors.New("no part of it is meant for encryption")
}

// forEncryption reads the key flags of a self-signature. Keys of the time
// before flags have none, and unflagged says how they count.
func forEncryption(sig *packet.Signature, unflagged bool) bool {
	if !sig.FlagsValid {
		return unflagged
	}
	return sig.FlagEncryptCommunications || sig.FlagEncryptStorage
}

// sealable refuses algorithms that RFC 9580 does not let new messages use.
func sealable(public *packet.PublicKey) error {
	switch public.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSAEncryptOnly:
		if bits, err := public.BitLength(); err != nil || bits < minRSABits {
			return fmt.Errorf("an RSA key of %d bits is too short, the least is %d", bits, minRSABits)
		}
	case packet.PubKeyAlgoECDH, packet.PubKeyAlgoX25519, packet.PubKeyAlgoX448:
	default:
		return fmt.Errorf("algorithm %d is not supported", public.PubKeyAlgo)
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
	if curve, err := public.Curve(); err == nil {
		return string(curve)
	}
	bits, _ := public.BitLength()
	return fmt.Sprintf("RSA-%d", bits)
}

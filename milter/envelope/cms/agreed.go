package cms

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
)

// readKeyAgree is a KeyAgreeRecipientInfo as others may write it (RFC 5753,
// section 3.1.1). The originator is a CHOICE under an explicit tag: a SEQUENCE
// of one under an implicit tag has the same octets.
type readKeyAgree struct {
	Version    int
	Originator struct {
		Key struct {
			Algorithm pkix.AlgorithmIdentifier
			PublicKey asn1.BitString
		} `asn1:"tag:1"`
	} `asn1:"tag:0"`
	UKM       []byte `asn1:"optional,explicit,tag:1"`
	Algorithm pkix.AlgorithmIdentifier
	Keys      []readAgreedKey
}

type readAgreedKey struct {
	RID asn1.RawValue
	Key []byte
}

// agreed is one of the recipients of a KeyAgreeRecipientInfo.
type agreed struct {
	info readKeyAgree
	key  readAgreedKey
}

func (a agreed) contentKey(with Identity, _ int) ([]byte, error) {
	private, ok := with.Key.(*ecdsa.PrivateKey)
	if !ok || !a.names(with) {
		return nil, ErrNotForUs
	}
	ours, err := private.ECDH()
	if err != nil {
		return nil, fmt.Errorf("the private key is on a curve that is not supported: %w", err)
	}
	theirs, err := ours.Curve().NewPublicKey(a.info.Originator.Key.PublicKey.RightAlign())
	if err != nil {
		return nil, fmt.Errorf("the message's ephemeral key is damaged: %w", err)
	}
	secret, err := ours.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	wrapping, err := a.wrappingKey(secret)
	if err != nil {
		return nil, err
	}
	return a.unwrap(wrapping)
}

// names says whether the identity is meant. Under [0] there stands a
// RecipientKeyIdentifier, whose first field is the subject key identifier.
func (a agreed) names(with Identity) bool {
	if rid := a.key.RID; rid.Class == asn1.ClassContextSpecific {
		var id asn1.RawValue
		if _, err := asn1.Unmarshal(rid.Bytes, &id); err != nil || rid.Tag != 0 {
			return false
		}
		return len(id.Bytes) > 0 && string(id.Bytes) == string(with.Certificate.SubjectKeyId)
	}
	return names(a.key.RID, with.Certificate)
}

// wrappingKey derives the key that wraps the content's key (RFC 5753, sections
// 7.1.4 and 7.2).
func (a agreed) wrappingKey(secret []byte) ([]byte, error) {
	newHash := kdfHash(a.info.Algorithm.Algorithm)
	if newHash == nil {
		return nil, fmt.Errorf("the key agreement %s is not supported", a.info.Algorithm.Algorithm)
	}
	var wrap pkix.AlgorithmIdentifier
	if _, err := asn1.Unmarshal(a.info.Algorithm.Parameters.FullBytes, &wrap); err != nil {
		return nil, errors.New("the key agreement names no key wrap")
	}
	size, err := wrapSize(wrap.Algorithm)
	if err != nil {
		return nil, err
	}
	info, err := asn1.Marshal(readSharedInfo{wrap, a.info.UKM, binary.BigEndian.AppendUint32(nil, uint32(8*size))})
	if err != nil {
		return nil, err
	}
	return deriveKey(newHash(), secret, info, size), nil
}

// unwrap takes the wrapping off the content's key.
func (a agreed) unwrap(wrapping []byte) ([]byte, error) {
	var wrap pkix.AlgorithmIdentifier
	if _, err := asn1.Unmarshal(a.info.Algorithm.Parameters.FullBytes, &wrap); err != nil {
		return nil, err
	}
	if wrap.Algorithm.Equal(oid3DESWrap) {
		return unwrap3DES(wrapping, a.key.Key)
	}
	return unwrapKey(wrapping, a.key.Key)
}

// readSharedInfo is ECC-CMS-SharedInfo with what others may put into it.
type readSharedInfo struct {
	KeyInfo     pkix.AlgorithmIdentifier
	UKM         []byte `asn1:"optional,omitempty,explicit,tag:0"`
	SuppPubInfo []byte `asn1:"explicit,tag:2"`
}

// kdfHash is the hash of a standard ECDH scheme (RFC 5753, section 7.1.4), nil
// for an unknown one.
func kdfHash(scheme asn1.ObjectIdentifier) func() hash.Hash {
	certicom := asn1.ObjectIdentifier{1, 3, 132, 1, 11}
	switch {
	case scheme.Equal(asn1.ObjectIdentifier{1, 3, 133, 16, 840, 63, 0, 2}):
		return sha1.New
	case scheme.Equal(append(certicom, 0)):
		return sha256.New224
	case scheme.Equal(append(certicom, 1)):
		return sha256.New
	case scheme.Equal(append(certicom, 2)):
		return sha512.New384
	case scheme.Equal(append(certicom, 3)):
		return sha512.New
	}
	return nil
}

// oid3DESWrap is id-alg-CMS3DESwrap (RFC 3370, section 4.3.1), which openssl
// takes where nobody names a cipher.
var oid3DESWrap = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 3, 6}

// wrapSize is the length of a key wrap's key in octets.
func wrapSize(wrap asn1.ObjectIdentifier) (int, error) {
	oidAES192Wrap := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 25}
	switch {
	case wrap.Equal(oidAES128Wrap):
		return 16, nil
	case wrap.Equal(oidAES192Wrap), wrap.Equal(oid3DESWrap):
		return 24, nil
	case wrap.Equal(oidAES256Wrap):
		return 32, nil
	}
	return 0, fmt.Errorf("the key wrap %s is not supported", wrap)
}

// unwrap3DES unwraps a triple-DES key (RFC 3217, section 3.2).
func unwrap3DES(wrapping, wrapped []byte) ([]byte, error) {
	const ivSize, keySize, sumSize = 8, 24, 8
	block, err := des.NewTripleDESCipher(wrapping)
	if err != nil {
		return nil, err
	}
	if len(wrapped) != ivSize+keySize+sumSize {
		return nil, errors.New("the message's key is damaged")
	}
	inner := make([]byte, len(wrapped))
	cipher.NewCBCDecrypter(block, []byte("\x4a\xdd\xa2\x2c\x79\xe8\x21\x05")).CryptBlocks(inner, wrapped)
	slices.Reverse(inner)
	key := inner[ivSize:]
	cipher.NewCBCDecrypter(block, inner[:ivSize]).CryptBlocks(key, key)
	sum := sha1.Sum(key[:keySize])
	if subtle.ConstantTimeCompare(sum[:sumSize], key[keySize:]) != 1 {
		return nil, errChanged
	}
	return key[:keySize], nil
}

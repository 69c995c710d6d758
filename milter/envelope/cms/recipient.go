package cms

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Object identifiers of key management (RFC 3370, section 4.2.1; RFC 5753,
// sections 7.1.2, 7.1.4 and 7.1.5), to be read only.
var (
	oidRSAEncryption  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidECPublicKey    = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidStdDHSHA256KDF = asn1.ObjectIdentifier{1, 3, 132, 1, 11, 1}
	oidAES128Wrap     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 5}
	oidAES256Wrap     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 45}
)

// Sizes of RSA keys in bits: below the one a key can be broken (RFC 8551,
// section 4.4), above the other OpenSSL does not use it.
const (
	minRSABits = 2048
	maxRSABits = 16384
)

// issuerAndSerialNumber names a certificate (RFC 5652, section 10.2.4). The
// issuer has the certificate's own octets: readers compare them.
type issuerAndSerialNumber struct {
	Issuer       asn1.RawValue
	SerialNumber *big.Int
}

// keyTransRecipientInfo is of RFC 5652, section 6.2.1.
type keyTransRecipientInfo struct {
	Version                int
	RID                    issuerAndSerialNumber
	KeyEncryptionAlgorithm pkix.AlgorithmIdentifier
	EncryptedKey           []byte
}

// keyAgreeRecipientInfo is of RFC 5652, section 6.2.2. There is no ukm, which
// would keep the wrapping keys of one ephemeral key apart: each recipient of
// each copy has an ephemeral key that nobody else has.
type keyAgreeRecipientInfo struct {
	Version                int
	Originator             originator `asn1:"tag:0"`
	KeyEncryptionAlgorithm pkix.AlgorithmIdentifier
	RecipientEncryptedKeys []recipientEncryptedKey
}

// originator stands for OriginatorIdentifierOrKey, a CHOICE under an explicit
// tag: a SEQUENCE of one under an implicit tag has the same octets.
type originator struct {
	Key originatorPublicKey `asn1:"tag:1"`
}

type originatorPublicKey struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

type recipientEncryptedKey struct {
	RID          issuerAndSerialNumber
	EncryptedKey []byte
}

// The versions of the two kinds (RFC 5652, sections 6.2.1 and 6.2.2); the
// first goes with issuerAndSerialNumber.
const (
	versionKeyTrans = 0
	versionKeyAgree = 3
)

// recipientInfo seals the content key to a certificate's key. It returns the
// RecipientInfo and its version.
func (e *Encrypter) recipientInfo(certificate *x509.Certificate) ([]byte, int, error) {
	rid, err := identify(certificate)
	if err != nil {
		return nil, 0, err
	}
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		info, err := e.keyTrans(rid, key)
		return info, versionKeyTrans, err
	case *ecdsa.PublicKey:
		info, err := e.keyAgree(rid, key)
		return info, versionKeyAgree, err
	case nil:
		return nil, 0, errors.New("a key of an unknown kind cannot be sealed to")
	default:
		return nil, 0, fmt.Errorf("a key of kind %s cannot be sealed to", certificate.PublicKeyAlgorithm)
	}
}

// identify takes the name of a certificate out of it.
func identify(certificate *x509.Certificate) (issuerAndSerialNumber, error) {
	if certificate == nil {
		return issuerAndSerialNumber{}, errors.New("internal error: a recipient without a certificate")
	}
	if len(certificate.RawIssuer) == 0 || certificate.SerialNumber == nil {
		return issuerAndSerialNumber{}, errors.New("internal error: a certificate that was not parsed")
	}
	return issuerAndSerialNumber{
		Issuer:       asn1.RawValue{FullBytes: certificate.RawIssuer},
		SerialNumber: certificate.SerialNumber,
	}, nil
}

// keyTrans encrypts the content key with an RSA key.
func (e *Encrypter) keyTrans(rid issuerAndSerialNumber, key *rsa.PublicKey) ([]byte, error) {
	if key == nil || key.N == nil || key.N.Sign() <= 0 {
		return nil, errors.New("an RSA key without a modulus cannot be sealed to")
	}
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("an RSA key of %d bits cannot be sealed to, only %d to %d", bits, minRSABits, maxRSABits)
	}
	// This padding endangers a reader that shows strangers, message after
	// message, whether decryption succeeded; but gpgsm 2.2 knows no other.
	//lint:ignore SA1019 there is nothing else that every S/MIME reader opens
	encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, key, e.key)
	if err != nil {
		return nil, err
	}
	rsaEncryption, err := algorithm(oidRSAEncryption, asn1.NullRawValue)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(keyTransRecipientInfo{versionKeyTrans, rid, rsaEncryption, encrypted})
}

// keyAgree wraps the content key with one that a fresh ephemeral key and the
// recipient's agree on (RFC 5753, section 3.1).
func (e *Encrypter) keyAgree(rid issuerAndSerialNumber, key *ecdsa.PublicKey) ([]byte, error) {
	public, err := agreementKey(key)
	if err != nil {
		return nil, err
	}
	ephemeral, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an ephemeral key: %w", err)
	}
	secret, err := ephemeral.ECDH(public)
	if err != nil {
		return nil, err
	}
	wrapAlgorithm := e.wrapAlgorithm()
	wrapped, err := wrapAgreed(secret, wrapAlgorithm, e.key)
	if err != nil {
		return nil, err
	}
	agreement, err := algorithm(oidStdDHSHA256KDF, wrapAlgorithm)
	if err != nil {
		return nil, err
	}
	point := ephemeral.PublicKey().Bytes()
	return asn1.MarshalWithParams(keyAgreeRecipientInfo{
		Version: versionKeyAgree,
		// Without parameters: the curve is the recipient's (RFC 5753, section
		// 3.1.1). Outlook was reported to stumble over the NULL that is allowed.
		Originator: originator{originatorPublicKey{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey},
			PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)},
		}},
		KeyEncryptionAlgorithm: agreement,
		RecipientEncryptedKeys: []recipientEncryptedKey{{rid, wrapped}},
	}, "tag:1")
}

// agreementKey checks that a key is a point of P-256, P-384 or P-521, which are
// the curves that crypto/ecdh and the readers have in common.
func agreementKey(key *ecdsa.PublicKey) (*ecdh.PublicKey, error) {
	//lint:ignore SA1019 the method below panics on a key without coordinates
	if key == nil || key.Curve == nil || key.X == nil || key.Y == nil {
		return nil, errors.New("an elliptic-curve key without a point cannot be sealed to")
	}
	public, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("an elliptic-curve key on %s cannot be sealed to: %w", key.Curve.Params().Name, err)
	}
	return public, nil
}

// wrapAlgorithm is as strong as the content's cipher, as OpenSSL and NSS have
// it too: whoever chose AES-128 for an old reader has one that may know no
// other (section 8 asks for id-aes128-wrap beside id-aes128-cbc), and a key of
// AES-256 must not hide behind less. Its parameters are absent (section 7.1.5).
func (e *Encrypter) wrapAlgorithm() pkix.AlgorithmIdentifier {
	if e.cipher == AES128 {
		return pkix.AlgorithmIdentifier{Algorithm: oidAES128Wrap}
	}
	return pkix.AlgorithmIdentifier{Algorithm: oidAES256Wrap}
}

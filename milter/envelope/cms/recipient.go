package cms

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Object identifiers of key management (RFC 3370, section 4.2.1; RFC 4055,
// sections 2.1, 2.2 and 4.1; RFC 5753, sections 7.1.2, 7.1.4 and 7.1.5), to be
// read only.
var (
	oidRSAEncryption  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidOAEP           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256         = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
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

// Recipient is somebody to seal to. The choices are for readers that are known:
// not all of them open OAEP, or find themselves by a subject key identifier.
type Recipient struct {
	Certificate  *x509.Certificate
	OAEP         bool // where the key is an RSA key
	SubjectKeyID bool // where the certificate has one
}

// recipientInfo seals the content key to a recipient. It returns the
// RecipientInfo and its version.
func (e *Encrypter) recipientInfo(to Recipient) ([]byte, int, error) {
	certificate := to.Certificate
	if certificate == nil {
		return nil, 0, errors.New("internal error: a recipient without a certificate")
	}
	if len(certificate.RawIssuer) == 0 || certificate.SerialNumber == nil {
		return nil, 0, errors.New("internal error: a certificate that was not parsed")
	}
	to.SubjectKeyID = to.SubjectKeyID && len(certificate.SubjectKeyId) > 0
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		return e.keyTrans(to, key)
	case *ecdsa.PublicKey:
		return e.keyAgree(to, key)
	case nil:
		return nil, 0, errors.New("a key of an unknown kind cannot be sealed to")
	default:
		return nil, 0, fmt.Errorf("a key of kind %s cannot be sealed to", certificate.PublicKeyAlgorithm)
	}
}

// issuerAndSerialNumber names a certificate (RFC 5652, section 10.2.4). The
// issuer has the certificate's own octets: readers compare them.
func issuerAndSerialNumber(certificate *x509.Certificate) ([]byte, error) {
	serial, err := asn1.Marshal(certificate.SerialNumber)
	if err != nil {
		return nil, fmt.Errorf("encoding the serial number: %w", err)
	}
	return enclose(tagSequence, 0, certificate.RawIssuer, serial), nil
}

// keyTrans encrypts the content key with an RSA key. It makes a
// KeyTransRecipientInfo (RFC 5652, section 6.2.1), of version 2 where the
// subject key identifier names the recipient.
func (e *Encrypter) keyTrans(to Recipient, key *rsa.PublicKey) ([]byte, int, error) {
	if key == nil || key.N == nil || key.N.Sign() <= 0 {
		return nil, 0, errors.New("an RSA key without a modulus cannot be sealed to")
	}
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, 0, fmt.Errorf("an RSA key of %d bits cannot be sealed to, only %d to %d", bits, minRSABits, maxRSABits)
	}
	version := 0
	rid, err := issuerAndSerialNumber(to.Certificate)
	if err != nil {
		return nil, 0, err
	}
	if to.SubjectKeyID {
		version = 2
		rid = enclose(tagContext, 0, to.Certificate.SubjectKeyId)
	}
	transport := algorithm(oidRSAEncryption, null)
	var encrypted []byte
	if to.OAEP {
		transport = oaepSHA256()
		encrypted, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, key, e.key, nil)
	} else {
		// This padding endangers a reader that shows strangers, message after
		// message, whether decryption succeeded; but gpgsm 2.2 knows no other.
		//lint:ignore SA1019 there is nothing else that every S/MIME reader opens
		encrypted, err = rsa.EncryptPKCS1v15(rand.Reader, key, e.key)
	}
	if err != nil {
		return nil, 0, err
	}
	return enclose(tagSequence, 0, integer(version), rid, transport, enclose(asn1.TagOctetString, 0, encrypted)), version, nil
}

// oaepSHA256 is RSAES-OAEP with SHA-256 in both places (RFC 4055, sections 2.1,
// 2.2 and 4.1). The hash has its NULL parameter as OpenSSL writes it, and the
// label, which is empty, is left out as the default.
func oaepSHA256() []byte {
	hash := algorithm(oidSHA256, null)
	return algorithm(oidOAEP, enclose(tagSequence, 0,
		enclose(tagContext|constructed, 0, hash),
		enclose(tagContext|constructed|1, 0, algorithm(oidMGF1, hash))))
}

// keyAgree wraps the content key with one that a fresh ephemeral key and the
// recipient's agree on (RFC 5753, section 3.1). It makes a
// KeyAgreeRecipientInfo (RFC 5652, section 6.2.2), which is of version 3.
// There is no ukm, which would keep the wrapping keys of one ephemeral key
// apart: each recipient of each copy has one that nobody else has.
func (e *Encrypter) keyAgree(to Recipient, key *ecdsa.PublicKey) ([]byte, int, error) {
	public, err := agreementKey(key)
	if err != nil {
		return nil, 0, err
	}
	ephemeral, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, 0, fmt.Errorf("making an ephemeral key: %w", err)
	}
	secret, err := ephemeral.ECDH(public)
	if err != nil {
		return nil, 0, err
	}
	wrap := e.wrapAlgorithm()
	wrapped, err := wrapAgreed(secret, wrap, e.key)
	if err != nil {
		return nil, 0, err
	}
	rid, err := issuerAndSerialNumber(to.Certificate)
	if err != nil {
		return nil, 0, err
	}
	if to.SubjectKeyID { // a RecipientKeyIdentifier without its optional fields
		rid = enclose(tagContext|constructed, 0, enclose(asn1.TagOctetString, 0, to.Certificate.SubjectKeyId))
	}
	const version = 3
	return enclose(tagContext|constructed|1, 0,
		integer(version),
		enclose(tagContext|constructed, 0, originatorKey(ephemeral.PublicKey())),
		algorithm(oidStdDHSHA256KDF, wrap),
		enclose(tagSequence, 0, enclose(tagSequence, 0, rid, enclose(asn1.TagOctetString, 0, wrapped))),
	), version, nil
}

// originatorKey is the ephemeral key as an OriginatorPublicKey. Its algorithm
// has no parameters: the curve is the recipient's (RFC 5753, section 3.1.1).
// Outlook was reported to stumble over the NULL that is allowed.
func originatorKey(key *ecdh.PublicKey) []byte {
	const noUnusedBits = "\x00"
	return enclose(tagContext|constructed|1, 0,
		algorithm(oidECPublicKey),
		enclose(asn1.TagBitString, 0, []byte(noUnusedBits), key.Bytes()))
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
func (e *Encrypter) wrapAlgorithm() []byte {
	if e.cipher == AES128 {
		return algorithm(oidAES128Wrap)
	}
	return algorithm(oidAES256Wrap)
}

package cms

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Identity is a certificate with its private key, an *rsa.PrivateKey or an
// *ecdsa.PrivateKey on one of the curves that Prefix knows.
type Identity struct {
	Certificate *x509.Certificate
	Key         crypto.PrivateKey
}

// ErrNotForUs says that none of the keys at hand is one that a message was
// sealed to.
var ErrNotForUs = errors.New("the message is not sealed to this key")

// Open decrypts an EnvelopedData, ours or another program's: BER or DER, AES
// or triple DES in CBC mode, RSA by PKCS #1 version 1.5 or OAEP, ephemeral ECDH
// with any of the SHA families. Whether the content was changed cannot be told:
// CBC does not authenticate. The cut-off and the wrong key are noticed, the
// latter by padding alone.
func Open(message []byte, with []Identity) ([]byte, error) {
	top, _, err := readValue(message, 0)
	if err != nil {
		return nil, err
	}
	e, err := readEnveloped(top)
	if err != nil {
		return nil, err
	}
	found := error(ErrNotForUs)
	for _, info := range e.recipients {
		for _, identity := range with {
			key, err := info.contentKey(identity, e.keySize())
			if errors.Is(err, ErrNotForUs) {
				continue
			}
			if err == nil {
				return e.decrypt(key)
			}
			found = err
		}
	}
	return nil, found
}

// enveloped is what there is to know of an EnvelopedData.
type enveloped struct {
	recipients []recipient
	algorithm  pkix.AlgorithmIdentifier
	ciphertext []byte
}

// readEnveloped takes the message apart down to its RecipientInfos (RFC 5652,
// sections 3 and 6.1).
func readEnveloped(top value) (*enveloped, error) {
	const universal, context = asn1.ClassUniversal, asn1.ClassContextSpecific
	malformed := errors.New("the encrypted CMS message is malformed")
	info, err := top.children()
	if err != nil {
		return nil, err
	}
	var kind asn1.ObjectIdentifier
	if !top.is(universal, asn1.TagSequence) || len(info) != 2 || info[0].unmarshal(&kind, "") != nil || !kind.Equal(oidEnvelopedData) {
		return nil, errors.New("this is not a CMS message that is encrypted in the usual way (EnvelopedData); authenticated encryption is not read yet")
	}
	outer, err := info[1].children()
	if err != nil || !info[1].is(context, 0) || len(outer) != 1 || !outer[0].is(universal, asn1.TagSequence) {
		return nil, malformed
	}
	parts, err := outer[0].children()
	if err != nil {
		return nil, err
	}
	// version, [0] originatorInfo, recipientInfos, encryptedContentInfo, [1] attributes
	if len(parts) > 1 && parts[1].is(context, 0) {
		parts = append(parts[:1:1], parts[2:]...)
	}
	if len(parts) < 3 || !parts[1].is(universal, asn1.TagSet) || !parts[2].is(universal, asn1.TagSequence) {
		return nil, malformed
	}
	e := &enveloped{}
	if err := e.readContent(parts[2]); err != nil {
		return nil, err
	}
	infos, err := parts[1].children()
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		e.readRecipient(info)
	}
	return e, nil
}

// readContent reads an EncryptedContentInfo (RFC 5652, section 6.1).
func (e *enveloped) readContent(v value) error {
	parts, err := v.children()
	if err != nil {
		return err
	}
	if len(parts) != 3 || !parts[2].is(asn1.ClassContextSpecific, 0) {
		return errors.New("the encrypted CMS message has no content")
	}
	if err := parts[1].unmarshal(&e.algorithm, ""); err != nil {
		return err
	}
	e.ciphertext, err = parts[2].octets(0)
	return err
}

// Content ciphers of other programs (RFC 3370, section 5.1; RFC 3565).
var (
	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
)

// keySize is the length of the content's key in octets, 0 for an unknown
// cipher.
func (e *enveloped) keySize() int {
	switch id := e.algorithm.Algorithm; {
	case id.Equal(oidAES128CBC):
		return 16
	case id.Equal(oidAES192CBC), id.Equal(oidDESEDE3CBC):
		return 24
	case id.Equal(oidAES256CBC):
		return 32
	}
	return 0
}

// decrypt decrypts the content and takes the padding off (section 6.3).
func (e *enveloped) decrypt(key []byte) ([]byte, error) {
	if e.keySize() == 0 || len(key) != e.keySize() {
		return nil, fmt.Errorf("the content cipher %s is not supported", e.algorithm.Algorithm)
	}
	newCipher := aes.NewCipher
	if e.algorithm.Algorithm.Equal(oidDESEDE3CBC) {
		newCipher = des.NewTripleDESCipher
	}
	block, err := newCipher(key)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if _, err := asn1.Unmarshal(e.algorithm.Parameters.FullBytes, &iv); err != nil || len(iv) != block.BlockSize() {
		return nil, errors.New("the content has no initialization vector")
	}
	size := block.BlockSize()
	if len(e.ciphertext) == 0 || len(e.ciphertext)%size != 0 {
		return nil, errCutOff
	}
	content := make([]byte, len(e.ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(content, e.ciphertext)
	padding := int(content[len(content)-1])
	if padding == 0 || padding > size ||
		!bytes.Equal(content[len(content)-padding:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errors.New("the key does not fit, or the message was changed")
	}
	return content[:len(content)-padding], nil
}

// recipient is a RecipientInfo that we can read.
type recipient interface {
	// contentKey gets the content's key of size octets with an identity. The
	// error is ErrNotForUs where the identity is not meant.
	contentKey(with Identity, size int) ([]byte, error)
}

// readRecipient reads a RecipientInfo; one of a kind that is unknown, or that
// is damaged, is somebody else's.
func (e *enveloped) readRecipient(v value) {
	if v.class == asn1.ClassUniversal {
		var info readKeyTrans
		if v.unmarshal(&info, "") == nil {
			e.recipients = append(e.recipients, info)
		}
		return
	}
	var info readKeyAgree
	if v.tag == 1 && v.unmarshal(&info, "tag:1") == nil {
		for _, key := range info.Keys {
			e.recipients = append(e.recipients, agreed{info, key})
		}
	}
}

// readKeyTrans is a KeyTransRecipientInfo as others may write it: rid is a
// choice.
type readKeyTrans struct {
	Version   int
	RID       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

func (r readKeyTrans) contentKey(with Identity, size int) ([]byte, error) {
	private, ok := with.Key.(*rsa.PrivateKey)
	if !ok || !names(r.RID, with.Certificate) {
		return nil, ErrNotForUs
	}
	if !r.Algorithm.Algorithm.Equal(oidRSAEncryption) {
		return openOAEP(r.Algorithm, private, r.Key)
	}
	// A wrong padding gives a key at random, which the content then does not
	// fit: whoever sees our error learns nothing of the padding (RFC 3218).
	key := make([]byte, size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	//lint:ignore SA1019 it is what most S/MIME messages are sealed with
	if err := rsa.DecryptPKCS1v15SessionKey(nil, private, r.Key, key); err != nil {
		return nil, fmt.Errorf("decrypting the message's key: %w", err)
	}
	return key, nil
}

// names says whether a RecipientIdentifier means a certificate: by its issuer
// and serial number, or by its subject key identifier under [0].
func names(rid asn1.RawValue, certificate *x509.Certificate) bool {
	if rid.Class == asn1.ClassContextSpecific {
		return rid.Tag == 0 && len(rid.Bytes) > 0 && bytes.Equal(rid.Bytes, certificate.SubjectKeyId)
	}
	var name issuerAndSerialNumber
	if _, err := asn1.Unmarshal(rid.FullBytes, &name); err != nil || name.SerialNumber == nil {
		return false
	}
	return bytes.Equal(name.Issuer.FullBytes, certificate.RawIssuer) && name.SerialNumber.Cmp(certificate.SerialNumber) == 0
}

// openOAEP decrypts a key by RSAES-OAEP (RFC 3560), with MGF1 over the same
// hash, as all that write it have it.
func openOAEP(algorithm pkix.AlgorithmIdentifier, private *rsa.PrivateKey, encrypted []byte) ([]byte, error) {
	oidOAEP := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	if !algorithm.Algorithm.Equal(oidOAEP) {
		return nil, fmt.Errorf("the key transport %s is not supported", algorithm.Algorithm)
	}
	var params struct {
		Hash pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:0"`
		MGF  pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(algorithm.Parameters.FullBytes, &params); err != nil {
		return nil, fmt.Errorf("reading the parameters of OAEP: %w", err)
	}
	newHash := sha1.New // the default (RFC 8017, appendix A.2.1)
	if params.Hash.Algorithm != nil {
		if newHash = oaepHash(params.Hash.Algorithm); newHash == nil {
			return nil, fmt.Errorf("the hash %s is not supported with OAEP", params.Hash.Algorithm)
		}
	}
	key, err := rsa.DecryptOAEP(newHash(), nil, private, encrypted, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypting the message's key: %w", err)
	}
	return key, nil
}

func oaepHash(id asn1.ObjectIdentifier) func() hash.Hash {
	sha2 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2}
	switch {
	case id.Equal(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}):
		return sha1.New
	case id.Equal(append(sha2, 1)):
		return sha256.New
	case id.Equal(append(sha2, 2)):
		return sha512.New384
	case id.Equal(append(sha2, 3)):
		return sha512.New
	}
	return nil
}

// unwrapKey is the inverse of wrapKey (RFC 3394, section 2.2.2).
func unwrapKey(wrapping, wrapped []byte) ([]byte, error) {
	count := len(wrapped)/semiblock - 1
	if len(wrapped)%semiblock != 0 || count < 2 {
		return nil, errors.New("the message's key is damaged")
	}
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		return nil, err
	}
	key := bytes.Clone(wrapped)
	var b [aes.BlockSize]byte
	for step := 6*count - 1; step >= 0; step-- {
		place := key[semiblock*(1+step%count):][:semiblock]
		copy(b[:], key[:semiblock])
		b[semiblock-1] ^= byte(step + 1) // 6 times the count is far below 256
		copy(b[semiblock:], place)
		block.Decrypt(b[:], b[:])
		copy(key, b[:semiblock])
		copy(place, b[semiblock:])
	}
	if subtle.ConstantTimeCompare(key[:semiblock], bytes.Repeat([]byte{0xA6}, semiblock)) != 1 {
		return nil, errors.New("the key does not fit, or the message was changed")
	}
	return key[semiblock:], nil
}

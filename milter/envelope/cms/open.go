package cms

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
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

var (
	errChanged   = errors.New("the key does not fit, or the message was changed")
	errMalformed = errors.New("the encrypted CMS message is malformed")
)

// maxTries is how many RecipientInfos are tried that name the identities. Two
// certificates of one key share a subject key identifier, so that more than one
// may; but a message of nothing else must not keep us busy for days.
const maxTries = 16

// Open decrypts an EnvelopedData or an AuthEnvelopedData, ours or another
// program's: BER or DER; AES in CBC or GCM, or triple DES in CBC mode; RSA by
// PKCS #1 version 1.5 or OAEP, ephemeral ECDH, with any of the SHA families. Of
// an AuthEnvelopedData nothing comes out that was changed. Whether an
// EnvelopedData was cannot be told: CBC does not authenticate. The cut-off and
// the wrong key are noticed, the latter by padding alone.
func Open(message []byte, with []Identity) ([]byte, error) {
	top, _, err := readValue(message, 0)
	if err != nil {
		return nil, err
	}
	e, err := readEnveloped(top)
	if err != nil {
		return nil, err
	}
	found, tries := error(ErrNotForUs), 0
	for _, info := range e.recipients {
		for _, identity := range with {
			key, err := info.contentKey(identity, e.keySize())
			if errors.Is(err, ErrNotForUs) {
				continue
			}
			if err == nil {
				var content []byte
				if content, err = e.decrypt(key); err == nil {
					return content, nil
				}
			}
			found = err
			if tries++; tries == maxTries {
				return nil, found
			}
		}
	}
	return nil, found
}

// enveloped is what there is to know of a message.
type enveloped struct {
	recipients []recipient
	algorithm  pkix.AlgorithmIdentifier
	ciphertext []byte

	// Of an AuthEnvelopedData.
	authenticated bool
	attributes    []byte // authAttrs as they are authenticated; nil for none
	mac           []byte
}

// readEnveloped takes the message apart down to its RecipientInfos (RFC 5652,
// sections 3 and 6.1; RFC 5083, section 2.1). Versions are not looked at: they
// announce what the rest says better.
func readEnveloped(top value) (*enveloped, error) {
	const universal, context = asn1.ClassUniversal, asn1.ClassContextSpecific
	info, err := top.children()
	if err != nil {
		return nil, err
	}
	var kind asn1.ObjectIdentifier
	if !top.is(universal, asn1.TagSequence) || len(info) != 2 || info[0].unmarshal(&kind, "") != nil ||
		!kind.Equal(oidEnvelopedData) && !kind.Equal(oidAuthEnvelopedData) {
		return nil, errors.New("this is not an encrypted CMS message (EnvelopedData or AuthEnvelopedData)")
	}
	outer, err := info[1].children()
	if err != nil || !info[1].is(context, 0) || len(outer) != 1 || !outer[0].is(universal, asn1.TagSequence) {
		return nil, errMalformed
	}
	parts, err := outer[0].children()
	if err != nil {
		return nil, err
	}
	// version, [0] originatorInfo, recipientInfos, encryptedContentInfo, …
	if len(parts) > 1 && parts[1].is(context, 0) {
		parts = append(parts[:1:1], parts[2:]...)
	}
	if len(parts) < 3 || !parts[1].is(universal, asn1.TagSet) || !parts[2].is(universal, asn1.TagSequence) {
		return nil, errMalformed
	}
	e := &enveloped{authenticated: kind.Equal(oidAuthEnvelopedData)}
	if err := e.readContent(parts[2]); err != nil {
		return nil, err
	}
	if e.authenticated {
		if err := e.readAuthentication(parts[3:]); err != nil {
			return nil, err
		}
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

// maxAttributes bounds what is authenticated beside the content: nobody writes
// more than a time and a few identifiers there.
const maxAttributes = 64 << 10

// readAuthentication reads what stands behind the content of an
// AuthEnvelopedData: [1] authAttrs, mac, [2] unauthAttrs (RFC 5083, section
// 2.1).
func (e *enveloped) readAuthentication(parts []value) (err error) {
	if len(parts) > 0 && parts[0].is(asn1.ClassContextSpecific, 1) {
		if len(parts[0].content) > maxAttributes {
			return errors.New("the encrypted CMS message has too many attributes")
		}
		if e.attributes, err = parts[0].set(); err != nil {
			return err
		}
		parts = parts[1:]
	}
	if len(parts) == 0 || !parts[0].is(asn1.ClassUniversal, asn1.TagOctetString) {
		return errMalformed
	}
	e.mac, err = parts[0].octets(0)
	return err
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

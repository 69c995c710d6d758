package cms

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Object identifiers of what a message is made of: RFC 5652, sections 4 and
// 6.1, and RFC 3565, section 4.1. Go has no constants of this type.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidAES128CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// Prefix makes what stands in front of the ciphertext in one copy of the
// message; with the ciphertext behind it, it is the whole message. The
// Encrypter must be closed: only then is the length known. The certificates
// are not changed and may be shared, and Prefix may be called concurrently.
func (e *Encrypter) Prefix(to []*x509.Certificate) ([]byte, error) {
	if !e.closed {
		return nil, errors.New("internal error: recipients for a message that has not ended")
	}
	if e.err != nil {
		return nil, fmt.Errorf("the message was not encrypted whole: %w", e.err)
	}
	if len(to) == 0 {
		return nil, errors.New("internal error: a copy for nobody")
	}
	version := versionPlain
	infos := make([]asn1.RawValue, len(to))
	for i, certificate := range to {
		info, infoVersion, err := e.recipientInfo(certificate)
		if err != nil {
			return nil, fmt.Errorf("sealing the content key to %s: %w", name(certificate), err)
		}
		infos[i].FullBytes = info
		if infoVersion != 0 {
			version = versionOther
		}
	}
	return e.head(version, infos)
}

// Versions of EnvelopedData that we write (RFC 5652, section 6.1): 0 where all
// RecipientInfos are of version 0, 2 where one is not.
const (
	versionPlain = 0
	versionOther = 2
)

// name tells an operator which certificate is meant, without saying whose.
func name(certificate *x509.Certificate) string {
	if certificate == nil {
		return "no certificate"
	}
	return fmt.Sprintf("certificate %x", sha256.Sum256(certificate.Raw))
}

// head writes the headers around the ciphertext. They are
//
//	ContentInfo ::= SEQUENCE {
//	    contentType   id-envelopedData,
//	    content       [0] EXPLICIT EnvelopedData }
//	EnvelopedData ::= SEQUENCE {
//	    version                CMSVersion,
//	    recipientInfos         SET OF RecipientInfo,
//	    encryptedContentInfo   EncryptedContentInfo }
//	EncryptedContentInfo ::= SEQUENCE {
//	    contentType                  id-data,
//	    contentEncryptionAlgorithm   AlgorithmIdentifier,
//	    encryptedContent             [0] IMPLICIT OCTET STRING }
//
// and all end where the ciphertext ends, so that nothing follows it.
func (e *Encrypter) head(version int, infos []asn1.RawValue) ([]byte, error) {
	// The encoder sorts what it marks as a set, as DER asks for.
	beginning, err := marshalAll(version, marshalAs{infos, "set"})
	if err != nil {
		return nil, err
	}
	algorithm, err := e.contentAlgorithm()
	if err != nil {
		return nil, err
	}
	content, err := marshalAll(oidData, algorithm)
	if err != nil {
		return nil, err
	}
	outer, err := marshalAll(oidEnvelopedData)
	if err != nil {
		return nil, err
	}
	content = append(content, header(contextTag, e.size)...)
	content = e.enclose(sequenceTag, content)
	content = e.enclose(sequenceTag, append(beginning, content...))
	content = e.enclose(contextTag|constructed, content)
	return e.enclose(sequenceTag, append(outer, content...)), nil
}

// contentAlgorithm names the content's cipher, whose parameter is the
// initialization vector (RFC 3565, section 4.1).
func (e *Encrypter) contentAlgorithm() (pkix.AlgorithmIdentifier, error) {
	iv, err := asn1.Marshal(e.iv)
	if err != nil {
		return pkix.AlgorithmIdentifier{}, err
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: iv}}
	if e.cipher == AES128 {
		algorithm.Algorithm = oidAES128CBC
	}
	return algorithm, nil
}

// Identifier octets of DER.
const (
	sequenceTag = 0x30
	contextTag  = 0x80 // [0]
	constructed = 0x20
)

// enclose puts a header in front of content that goes on with the ciphertext.
func (e *Encrypter) enclose(tag byte, content []byte) []byte {
	return append(header(tag, int64(len(content))+e.size), content...)
}

// header writes identifier and length octets. encoding/asn1 can write a length
// only for what it has in memory.
func header(tag byte, length int64) []byte {
	if length < 0x80 {
		return []byte{tag, byte(length)}
	}
	octets := 1
	for length>>(8*octets) != 0 {
		octets++
	}
	h := []byte{tag, 0x80 | byte(octets)}
	for octets--; octets >= 0; octets-- {
		h = append(h, byte(length>>(8*octets)))
	}
	return h
}

// marshalAs is a value with encoding/asn1's parameters for it.
type marshalAs struct {
	value  any
	params string
}

// marshalAll writes values one after the other.
func marshalAll(values ...any) ([]byte, error) {
	var all []byte
	for _, value := range values {
		as, marked := value.(marshalAs)
		if !marked {
			as.value = value
		}
		der, err := asn1.MarshalWithParams(as.value, as.params)
		if err != nil {
			return nil, fmt.Errorf("encoding the message: %w", err)
		}
		all = append(all, der...)
	}
	return all, nil
}

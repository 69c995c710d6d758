package cms

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Object identifiers (RFC 5652, sections 4 and 6.1; RFC 3565, section 4.1), to
// be read only: Go has no constants of this type.
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
//
// RSA keys and elliptic curves can share a copy, but NSS before 3.100 opens no
// message that has a curve's RecipientInfo, not even for its RSA readers
// (Mozilla's bug 676100): the caller does well to keep the two apart.
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

// The fields in front of the ciphertext. Each of the three sequences goes on
// with the next one, and the last with the ciphertext, so that all end where
// it ends and nothing follows it.
type (
	contentInfo struct { // section 3; goes on with [0] EXPLICIT envelopedData
		ContentType asn1.ObjectIdentifier
	}
	envelopedData struct { // section 6.1; goes on with encryptedContentInfo
		Version        int
		RecipientInfos []asn1.RawValue `asn1:"set"` // which is sorted, as DER asks for
	}
	encryptedContentInfo struct { // section 6.1; goes on with [0] IMPLICIT OCTET STRING
		ContentType                asn1.ObjectIdentifier
		ContentEncryptionAlgorithm pkix.AlgorithmIdentifier
	}
)

// Identifier octets of DER.
const (
	tagSequence        = 0x30
	tagContextOctets   = 0x80 // [0], primitive
	tagContextExplicit = 0xA0 // [0], constructed
)

// head writes the headers around the ciphertext, the innermost first: the
// length of each counts those within.
func (e *Encrypter) head(version int, infos []asn1.RawValue) ([]byte, error) {
	algorithm, err := e.contentAlgorithm()
	if err != nil {
		return nil, err
	}
	head := e.enclose(tagContextOctets, nil)
	if head, err = e.sequence(encryptedContentInfo{oidData, algorithm}, head); err != nil {
		return nil, err
	}
	if head, err = e.sequence(envelopedData{version, infos}, head); err != nil {
		return nil, err
	}
	head = e.enclose(tagContextExplicit, head)
	return e.sequence(contentInfo{oidEnvelopedData}, head)
}

// contentAlgorithm names the content's cipher, whose parameter is the
// initialization vector (RFC 3565, section 4.1).
func (e *Encrypter) contentAlgorithm() (pkix.AlgorithmIdentifier, error) {
	identifier := oidAES256CBC
	if e.cipher == AES128 {
		identifier = oidAES128CBC
	}
	return algorithm(identifier, e.iv)
}

// sequence writes a SEQUENCE of the fields of a struct, with rest and then the
// ciphertext behind them. encoding/asn1 counts only what it has in memory: its
// header is taken off, and one that counts all put in its place.
func (e *Encrypter) sequence(fields any, rest []byte) ([]byte, error) {
	der, err := asn1.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encoding a header: %w", err)
	}
	var short asn1.RawValue
	if _, err := asn1.Unmarshal(der, &short); err != nil {
		return nil, fmt.Errorf("encoding a header: %w", err)
	}
	return e.enclose(tagSequence, append(short.Bytes, rest...)), nil
}

// enclose puts a header in front of content that goes on with the ciphertext.
func (e *Encrypter) enclose(tag byte, content []byte) []byte {
	return append(header(tag, int64(len(content))+e.size), content...)
}

// header writes the identifier octet and the length of a DER value, in as few
// octets as the length needs.
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

// algorithm is an AlgorithmIdentifier, with a parameter unless that is nil.
func algorithm(identifier asn1.ObjectIdentifier, parameter any) (pkix.AlgorithmIdentifier, error) {
	a := pkix.AlgorithmIdentifier{Algorithm: identifier}
	if parameter == nil {
		return a, nil
	}
	der, err := asn1.Marshal(parameter)
	if err != nil {
		return a, fmt.Errorf("encoding a parameter: %w", err)
	}
	a.Parameters.FullBytes = der
	return a, nil
}

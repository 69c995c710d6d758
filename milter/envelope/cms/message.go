package cms

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// Object identifiers (RFC 5652, sections 4 and 6.1; RFC 5083, section 2.1; RFC
// 3565, section 4.1; RFC 5084, section 3.2), to be read only: Go has no
// constants of this type.
var (
	oidData              = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidAuthEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 23}
	oidAES128CBC         = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256CBC         = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oidAES128GCM         = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 6}
	oidAES256GCM         = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}
)

// Prefix makes what stands in front of the output in one copy of the message;
// with the output behind it, it is the whole message. The Encrypter must be
// closed: only then is the length known. The certificates are not changed and
// may be shared, and Prefix may be called concurrently.
//
// RSA keys and elliptic curves can share a copy, but NSS before 3.100 opens no
// message that has a curve's RecipientInfo, not even for its RSA readers
// (Mozilla's bug 676100): the caller does well to keep the two apart.
func (e *Encrypter) Prefix(to []Recipient) ([]byte, error) {
	if !e.closed {
		return nil, errors.New("internal error: recipients for a message that has not ended")
	}
	if e.err != nil {
		return nil, fmt.Errorf("the message was not encrypted whole: %w", e.err)
	}
	if len(to) == 0 {
		return nil, errors.New("internal error: a copy for nobody")
	}
	// Version 0 is for RecipientInfos that are all of version 0 (RFC 5652,
	// section 6.1), and for every AuthEnvelopedData (RFC 5083, section 2.1).
	version := 0
	infos := make([][]byte, len(to))
	for i, r := range to {
		info, infoVersion, err := e.recipientInfo(r)
		if err != nil {
			return nil, fmt.Errorf("sealing the content key to %s: %w", name(r.Certificate), err)
		}
		infos[i] = info
		if infoVersion != 0 && !e.gcm {
			version = 2
		}
	}
	return e.head(version, infos), nil
}

// name tells an operator which certificate is meant, without saying whose.
func name(certificate *x509.Certificate) string {
	if certificate == nil {
		return "no certificate"
	}
	return fmt.Sprintf("certificate %x", sha256.Sum256(certificate.Raw))
}

// head writes the headers around the ciphertext, the innermost first: the
// length of each counts those within, and what follows in the output.
func (e *Encrypter) head(version int, infos [][]byte) []byte {
	contentType, behind := oidEnvelopedData, int64(0)
	if e.gcm {
		contentType, behind = oidAuthEnvelopedData, behindGCM
	}
	slices.SortFunc(infos, bytes.Compare) // as DER wants a SET OF (X.690, section 11.6)

	content := enclose(tagContext, e.out.size-behind) // encryptedContent
	content = enclose(tagSequence, e.out.size-behind, // EncryptedContentInfo
		object(oidData), e.contentAlgorithm(), content)
	content = enclose(tagSequence, e.out.size, // EnvelopedData or AuthEnvelopedData
		integer(version), enclose(tagSet, 0, infos...), content)
	content = enclose(tagContext|constructed, e.out.size, content)
	return enclose(tagSequence, e.out.size, object(contentType), content) // ContentInfo
}

// contentAlgorithm names the content's cipher. Its parameter is the
// initialization vector (RFC 3565, section 4.1), or GCMParameters (RFC 5084,
// section 3.2).
func (e *Encrypter) contentAlgorithm() []byte {
	iv := enclose(asn1.TagOctetString, 0, e.iv)
	switch {
	case e.gcm && e.cipher == AES128:
		return algorithm(oidAES128GCM, enclose(tagSequence, 0, iv, integer(icvSize)))
	case e.gcm:
		return algorithm(oidAES256GCM, enclose(tagSequence, 0, iv, integer(icvSize)))
	case e.cipher == AES128:
		return algorithm(oidAES128CBC, iv)
	}
	return algorithm(oidAES256CBC, iv)
}

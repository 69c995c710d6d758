package detect

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"

	"sealmilter/keys"
)

// keyTrans is a KeyTransRecipientInfo (RFC 5652, section 6.2.1).
type keyTrans struct {
	Version   int
	RID       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

// keyAgree is a KeyAgreeRecipientInfo (section 6.2.2).
type keyAgree struct {
	Version    int
	Originator asn1.RawValue `asn1:"explicit,tag:0"`
	UKM        []byte        `asn1:"optional,explicit,tag:1"`
	Algorithm  pkix.AlgorithmIdentifier
	Keys       []struct {
		RID asn1.RawValue
		Key []byte
	}
}

// readRecipient reads whom a RecipientInfo names. Those who share a key or a
// passphrase with the sender, and readers of kinds that came later, are
// readers whom nobody can name.
func readRecipient(value []byte) ([]keys.ReaderID, error) {
	switch value[0] {
	case berSequence:
		var info keyTrans
		if err := unmarshal(value, &info, ""); err != nil {
			return nil, err
		}
		id, err := readRID(info.RID, info.RID.Bytes)
		return []keys.ReaderID{id}, err
	case berTagged + 1:
		var info keyAgree
		if err := unmarshal(value, &info, "tag:1"); err != nil {
			return nil, err
		}
		var ids []keys.ReaderID
		for _, key := range info.Keys {
			// Under [0] there is a RecipientKeyIdentifier, whose first field is
			// the subject key identifier.
			var first asn1.RawValue
			if key.RID.Class == asn1.ClassContextSpecific {
				if _, err := asn1.Unmarshal(key.RID.Bytes, &first); err != nil || first.Tag != asn1.TagOctetString {
					return nil, errBER
				}
			}
			id, err := readRID(key.RID, first.Bytes)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
		return ids, nil
	}
	return nil, nil
}

// readRID reads a choice of an issuer with a serial number, or of a subject
// key identifier under [0].
func readRID(rid asn1.RawValue, subjectKeyID []byte) (keys.ReaderID, error) {
	if rid.Class == asn1.ClassContextSpecific {
		if rid.Tag != 0 || len(subjectKeyID) == 0 {
			return keys.ReaderID{}, errBER
		}
		return keys.ReaderID{SubjectKeyID: slices.Clone(subjectKeyID)}, nil
	}
	var name struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	if err := unmarshal(rid.FullBytes, &name, ""); err != nil {
		return keys.ReaderID{}, err
	}
	return keys.ReaderID{Issuer: slices.Clone(name.Issuer.FullBytes), Serial: name.Serial}, nil
}

// The ciphers that content is really encrypted with, by the two types: those
// that programs have written since triple DES (RFC 3370, 3565, 3657, 4010,
// 2984) and those that authenticate (RFC 5084, 8103). Single DES is none any
// more.
var (
	blockCiphers = []string{
		"1.2.840.113549.3.7",                                                           // triple DES
		"2.16.840.1.101.3.4.1.2", "2.16.840.1.101.3.4.1.22", "2.16.840.1.101.3.4.1.42", // AES in CBC
		"1.2.392.200011.61.1.1.1.2", "1.2.392.200011.61.1.1.1.3", "1.2.392.200011.61.1.1.1.4", // Camellia
		"1.2.410.200004.1.4",     // SEED
		"1.2.840.113533.7.66.10", // CAST-128
	}
	authCiphers = []string{
		"2.16.840.1.101.3.4.1.6", "2.16.840.1.101.3.4.1.26", "2.16.840.1.101.3.4.1.46", // AES in GCM
		"2.16.840.1.101.3.4.1.7", "2.16.840.1.101.3.4.1.27", "2.16.840.1.101.3.4.1.47", // AES in CCM
		"1.2.840.113549.1.9.16.3.18", // ChaCha20-Poly1305
	}
)

// judgeCipher judges the algorithm that the content is encrypted with.
func judgeCipher(value []byte, auth bool) error {
	var algorithm pkix.AlgorithmIdentifier
	if err := unmarshal(value, &algorithm, ""); err != nil {
		return err
	}
	known := blockCiphers
	if auth {
		known = authCiphers
	}
	id := algorithm.Algorithm.String()
	if slices.Contains(known, id) || !auth && id == "1.2.840.113549.3.2" && isLongRC2(algorithm.Parameters) {
		return nil
	}
	return errors.New("the S/MIME object is encrypted with a cipher that is unknown or does not hide anything any more")
}

// isLongRC2 says whether RC2 has its full strength: 58 stands for 128 bits
// (RFC 3370, section 5.2); keys of 40 and 64 bits were made to be broken.
func isLongRC2(parameters asn1.RawValue) bool {
	var rc2 struct {
		Version int
		IV      []byte
	}
	return unmarshal(parameters.FullBytes, &rc2, "") == nil && rc2.Version == 58
}

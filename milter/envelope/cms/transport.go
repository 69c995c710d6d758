package cms

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// readKeyTrans is a KeyTransRecipientInfo as others may write it (RFC 5652,
// section 6.2.1): rid is a choice.
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
	switch id := r.Algorithm.Algorithm; {
	case id.Equal(oidOAEP):
		return openOAEP(r.Algorithm, private, r.Key)
	case !id.Equal(oidRSAEncryption):
		return nil, fmt.Errorf("the key transport %s is not supported", id)
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
	var name struct {
		Issuer       asn1.RawValue
		SerialNumber *big.Int
	}
	if _, err := asn1.Unmarshal(rid.FullBytes, &name); err != nil || name.SerialNumber == nil {
		return false
	}
	return bytes.Equal(name.Issuer.FullBytes, certificate.RawIssuer) && name.SerialNumber.Cmp(certificate.SerialNumber) == 0
}

// oaepParameters are RSAES-OAEP-params (RFC 4055, section 4.1), in which what is
// left out has a default.
type oaepParameters struct {
	Hash  pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:0"`
	MGF   pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:1"`
	Label pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:2"`
}

// openOAEP decrypts a key by RSAES-OAEP (RFC 3560). MGF1 may be over another
// hash, as Java's programs have it; a label has no use in CMS.
func openOAEP(algorithm pkix.AlgorithmIdentifier, private *rsa.PrivateKey, encrypted []byte) ([]byte, error) {
	var params oaepParameters
	if _, err := asn1.Unmarshal(algorithm.Parameters.FullBytes, &params); err != nil {
		return nil, fmt.Errorf("reading the parameters of OAEP: %w", err)
	}
	var options rsa.OAEPOptions
	var err error
	if options.Hash, err = oaepHash(params.Hash); err != nil {
		return nil, err
	}
	var maskHash pkix.AlgorithmIdentifier
	if params.MGF.Algorithm != nil {
		if _, err := asn1.Unmarshal(params.MGF.Parameters.FullBytes, &maskHash); err != nil || !params.MGF.Algorithm.Equal(oidMGF1) {
			return nil, errors.New("the mask generation of OAEP is not supported")
		}
	}
	if options.MGFHash, err = oaepHash(maskHash); err != nil {
		return nil, err
	}
	var label []byte
	if params.Label.Algorithm != nil {
		if _, err := asn1.Unmarshal(params.Label.Parameters.FullBytes, &label); err != nil || len(label) > 0 {
			return nil, errors.New("OAEP with a label is not supported")
		}
	}
	key, err := private.Decrypt(nil, encrypted, &options)
	if err != nil {
		return nil, fmt.Errorf("decrypting the message's key: %w", err)
	}
	return key, nil
}

// oaepHash is SHA-1 where nothing is said (RFC 4055, section 4.1).
func oaepHash(named pkix.AlgorithmIdentifier) (crypto.Hash, error) {
	sha2 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2}
	switch id := named.Algorithm; {
	case id == nil, id.Equal(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}):
		return crypto.SHA1, nil
	case id.Equal(append(sha2, 1)):
		return crypto.SHA256, nil
	case id.Equal(append(sha2, 2)):
		return crypto.SHA384, nil
	case id.Equal(append(sha2, 3)):
		return crypto.SHA512, nil
	case id.Equal(append(sha2, 4)):
		return crypto.SHA224, nil
	case id.Equal(append(sha2, 5)):
		return crypto.SHA512_224, nil
	case id.Equal(append(sha2, 6)):
		return crypto.SHA512_256, nil
	}
	return 0, fmt.Errorf("the hash %s is not supported with OAEP", named.Algorithm)
}

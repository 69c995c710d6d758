package keys

import (
	"bytes"
	"crypto/x509"
	"math/big"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// ReaderID is how a sealed message names one of those who can open it. Of an
// OpenPGP message KeyID or Fingerprint is set (RFC 9580, section 5.1), of an
// S/MIME message Issuer and Serial or SubjectKeyID (RFC 5652, section 6.2.1).
// The zero ReaderID is a hidden reader, whom an OpenPGP message does not name.
type ReaderID struct {
	KeyID        uint64   // of the subkey, 0 where the reader is hidden
	Fingerprint  []byte   // of the subkey, binary
	Issuer       []byte   // the certificate's issuer, DER
	Serial       *big.Int // the certificate's serial number, with Issuer
	SubjectKeyID []byte   // the certificate's subject key identifier
}

// IsHidden says whether the message does not tell who the reader is.
func (id ReaderID) IsHidden() bool {
	return id.KeyID == 0 && len(id.Fingerprint) == 0 && id.Serial == nil && len(id.SubjectKeyID) == 0
}

// IsNamedBy says whether id names the key: one of the subkeys that mail is
// sealed to, valid or expired, or the certificate. A revoked key is named by
// nothing: what is sealed to it only is not sealed to its holder's liking.
func (k *Key) IsNamedBy(id ReaderID) bool {
	if k.withdrawn || id.IsHidden() {
		return false
	}
	for _, e := range k.encryption {
		if e.public != nil && namesSubkey(id, e.public) || e.certificate != nil && namesCertificate(id, e.certificate) {
			return true
		}
	}
	return false
}

func namesSubkey(id ReaderID, public *packet.PublicKey) bool {
	if len(id.Fingerprint) > 0 {
		return bytes.Equal(id.Fingerprint, public.Fingerprint)
	}
	return id.KeyID != 0 && id.KeyID == public.KeyId
}

func namesCertificate(id ReaderID, certificate *x509.Certificate) bool {
	if id.Serial != nil {
		return bytes.Equal(id.Issuer, certificate.RawIssuer) && id.Serial.Cmp(certificate.SerialNumber) == 0
	}
	return len(id.SubjectKeyID) > 0 && bytes.Equal(id.SubjectKeyID, certificate.SubjectKeyId)
}

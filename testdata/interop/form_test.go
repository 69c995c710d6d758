package interop_test

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
)

// isOfItsForm holds a row's message to what the row says, so that a choice that
// the engine does not heed yet does not look as if everybody could read it.
func (s *sealed) isOfItsForm(t *testing.T) error {
	t.Helper()
	header, _, _ := bytes.Cut(s.mail, []byte("\n\n"))
	if hidden := s.form.Protection != keys.NoProtection; hidden != bytes.Contains(header, []byte("\nSubject: [...]")) {
		return fmt.Errorf("the subject is hidden: %v", !hidden)
	}
	if shy := s.form.Protection == keys.Shy; shy == bytes.Contains(header, []byte("RWxsYSBHcsO8bg==")) { // the sender's name
		return fmt.Errorf("display names are hidden: %v", !shy)
	}
	if s.form.Method == keys.SMIME {
		return s.isCMS(s.der(t))
	}
	block, err := armor.Decode(bytes.NewReader(s.armor(t)))
	if err != nil {
		return err
	}
	return s.isOpenPGP(packet.NewReader(block.Body))
}

func (s *sealed) isOpenPGP(packets *packet.Reader) error {
	secret, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(s.owner.secret))
	if err != nil {
		return err
	}
	count, cipher := 0, packet.CipherFunction(0)
	for {
		next, err := packets.Next()
		if err != nil {
			return err
		}
		switch p := next.(type) {
		case *packet.EncryptedKey:
			count++
			if hidden := p.KeyId == 0 && len(p.KeyFingerprint) == 0; hidden != s.how.Hidden {
				return fmt.Errorf("the recipient is hidden: %v", hidden)
			}
			if mlkem := p.Algo == packet.PubKeyAlgoMlkem768X25519; mlkem != s.options.MLKEM {
				return fmt.Errorf("the key goes by ML-KEM: %v", mlkem)
			}
			for _, subkey := range secret[0].Subkeys {
				if p.Decrypt(subkey.PrivateKey, nil) == nil {
					cipher = p.CipherFunc
				}
			}
		case *packet.SymmetricallyEncrypted:
			want := map[keys.Cipher]packet.CipherFunction{keys.AES128: packet.CipherAES128, keys.AES256: packet.CipherAES256}[s.form.Cipher]
			mode := map[keys.AEAD]packet.AEADMode{keys.GCM: packet.AEADModeGCM, keys.OCB: packet.AEADModeOCB}[s.form.AEAD]
			if p.Version == 2 {
				cipher = p.Cipher
			}
			switch {
			case count != max(s.packets, 1):
				return fmt.Errorf("it has %d key packets", count)
			case p.Version != 1 && s.form.AEAD == keys.NoAEAD, p.Version != 2 && s.form.AEAD != keys.NoAEAD:
				return fmt.Errorf("it is SEIPD version %d", p.Version)
			case p.Mode != mode:
				return fmt.Errorf("its mode is number %d", p.Mode)
			case cipher != want:
				return fmt.Errorf("its cipher is number %d", cipher)
			}
			return nil
		default:
			return fmt.Errorf("it holds a %T", next)
		}
	}
}

// The object identifiers that tell the forms of CMS apart.
var (
	enveloped     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	authEnveloped = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 23}
	oaep          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	aes128CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	aes128GCM     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 6}
	aes256CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	aes256GCM     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}
)

func (s *sealed) isCMS(der []byte) error {
	gcm := s.form.AEAD == keys.GCM
	content, cipher := enveloped, map[keys.Cipher]asn1.ObjectIdentifier{keys.AES128: aes128CBC, keys.AES256: aes256CBC}[s.form.Cipher]
	if gcm {
		content, cipher = authEnveloped, map[keys.Cipher]asn1.ObjectIdentifier{keys.AES128: aes128GCM, keys.AES256: aes256GCM}[s.form.Cipher]
	}
	if gcm != bytes.Contains(s.mail, []byte("smime-type=authEnveloped-data")) {
		return errors.New("its smime-type is the other one")
	}
	for _, oid := range []asn1.ObjectIdentifier{enveloped, authEnveloped, oaep, aes128CBC, aes128GCM, aes256CBC, aes256GCM} {
		encoded, err := asn1.Marshal(oid)
		if err != nil {
			return err
		}
		want := oid.Equal(content) || oid.Equal(cipher) || oid.Equal(oaep) && s.options.OAEP
		if is := bytes.Contains(der[:min(len(der), 2000)], encoded); is != want {
			return fmt.Errorf("it has %s: %v", oid, is)
		}
	}
	return s.named(der, s.owner.key.Certificates(s.at)[0])
}

// named holds by what the message names its recipient.
func (s *sealed) named(der []byte, certificate *x509.Certificate) error {
	byID := bytes.Contains(der, certificate.SubjectKeyId) && !bytes.Contains(der, certificate.RawIssuer)
	if byID != s.how.SubjectKeyID {
		return fmt.Errorf("its recipient is named by the subject key identifier: %v", byID)
	}
	return nil
}

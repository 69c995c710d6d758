package openpgp

import (
	"bytes"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// kinds are the keys that mail is sealed to, by the encryption subkey.
var kinds = map[string]packet.Config{
	"RSA":               {Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048},
	"ECDH Curve25519":   {Algorithm: packet.PubKeyAlgoEdDSA},
	"ECDH Curve448":     {Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve448},
	"ECDH P-256":        {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256},
	"ECDH P-384":        {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP384},
	"ECDH P-521":        {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP521},
	"ECDH Brainpool256": {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP256},
	"ECDH Brainpool384": {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP384},
	"ECDH Brainpool512": {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP512},
	"X25519":            {Algorithm: packet.PubKeyAlgoEd25519},
	"X448":              {Algorithm: packet.PubKeyAlgoEd448},
	"RSA v6":            {Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, V6Keys: true},
	"ECDH P-256 v6":     {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256, V6Keys: true},
	"X25519 v6":         {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true},
	"X448 v6":           {Algorithm: packet.PubKeyAlgoEd448, V6Keys: true},
	"ML-KEM-768 v6":     {Algorithm: packet.PubKeyAlgoMldsa65Ed25519, V6Keys: true},
	"ML-KEM-1024 v6":    {Algorithm: packet.PubKeyAlgoMldsa87Ed448, V6Keys: true},
}

// TestKinds seals to every kind of key with every choice. A hidden key packet
// does not name its key.
func TestKinds(t *testing.T) {
	content := []byte("content")
	for kind, config := range kinds {
		t.Run(kind, func(t *testing.T) {
			entity := newEntity(t, &config)
			to := entity.Subkeys[0].PublicKey
			for name, mode := range modes {
				for _, hidden := range []bool{false, true} {
					sealed := seal(t, AES256, mode, hidden, content, 100, to)
					if got, err := open(sealed, entity); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s, hidden %v: %q came back, error %v", name, hidden, got, err)
					}
					lookAtKeyPacket(t, sealed, to, mode, hidden)
				}
			}
		})
	}
}

// TestPostQuantumSubkey seals to a version 4 key that has such a subkey, which
// is how people are said to begin.
func TestPostQuantumSubkey(t *testing.T) {
	entity := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519})
	if err := entity.AddEncryptionSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoMlkem768X25519}); err != nil {
		t.Fatal(err)
	}
	to := entity.Subkeys[1].PublicKey
	for name, mode := range modes {
		sealed := seal(t, AES256, mode, false, []byte("content"), 100, to)
		if got, err := open(sealed, entity); err != nil || string(got) != "content" {
			t.Errorf("%s: %q came back, error %v", name, got, err)
		}
		lookAtKeyPacket(t, sealed, to, mode, false)
	}
}

// lookAtKeyPacket compares the beginning of a key packet with sections 5.1.1 and
// 5.1.2, octet for octet.
func lookAtKeyPacket(t *testing.T, sealed []byte, to *packet.PublicKey, mode AEAD, hidden bool) {
	t.Helper()
	var want []byte
	switch {
	case mode == NoAEAD && hidden:
		want = make([]byte, 9)
		want[0] = 3
	case mode == NoAEAD && to.Version == 6:
		want = append([]byte{3}, to.Fingerprint[:8]...)
	case mode == NoAEAD:
		want = append([]byte{3}, to.Fingerprint[12:]...)
	case hidden:
		want = []byte{6, 0}
	default:
		want = append([]byte{6, byte(1 + len(to.Fingerprint)), byte(to.Version)}, to.Fingerprint...)
	}
	want = append(want, byte(to.PubKeyAlgo))
	found, err := packet.NewOpaqueReader(bytes.NewReader(sealed)).Next()
	if err != nil || found.Tag != 1 || !bytes.HasPrefix(found.Contents, want) {
		t.Errorf("mode %d, hidden %v: packet %d begins with %x, want %x; error %v", mode, hidden, found.Tag, found.Contents[:min(40, len(found.Contents))], want, err)
	}
}

// TestManyReaders seals one copy to several kinds at once: each opens it, and a
// hidden one among them too.
func TestManyReaders(t *testing.T) {
	var readers []*openpgp.Entity
	var to []*packet.PublicKey
	for _, kind := range []string{"RSA", "ECDH Curve25519", "X25519", "X25519 v6", "X448 v6"} {
		config := kinds[kind]
		readers = append(readers, newEntity(t, &config))
		to = append(to, readers[len(readers)-1].Subkeys[0].PublicKey)
	}
	for name, mode := range modes {
		for _, hidden := range []bool{false, true} {
			sealed := seal(t, AES128, mode, hidden, []byte("content"), 100, to...)
			for i, reader := range readers {
				if got, err := open(sealed, reader); err != nil || string(got) != "content" {
					t.Errorf("%s, hidden %v, reader %d: %q came back, error %v", name, hidden, i, got, err)
				}
			}
		}
	}
}

// TestUnknown holds that nothing is encrypted with what is not known here.
func TestUnknown(t *testing.T) {
	for function, mode := range map[Cipher]AEAD{packet.CipherCAST5: NoAEAD, packet.Cipher3DES: NoAEAD, 0: OCB, AES128: packet.AEADModeEAX, AES256: 99} {
		if _, err := NewEncrypter(&bytes.Buffer{}, function, mode); err == nil {
			t.Errorf("cipher %d with mode %d was taken", function, mode)
		}
	}
}

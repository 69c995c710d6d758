package keys

import (
	"bytes"
	"crypto/dsa" //lint:ignore SA1019 keys of it are to be refused
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/elgamal"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// TestAlgorithms: what can be sealed to can really be sealed to, and opened
// again with the secret key.
func TestAlgorithms(t *testing.T) {
	for _, test := range []struct {
		config    packet.Config
		algorithm string
	}{
		{packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048}, "RSA-2048"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}, "Curve25519"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve448}, "Curve448"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEd25519}, "Curve25519"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true}, "Curve25519"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEd448}, "Curve448"},
		{packet.Config{Algorithm: packet.PubKeyAlgoEd448, V6Keys: true}, "Curve448"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256}, "P256"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP384}, "P384"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP521}, "P521"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP256}, "BrainpoolP256"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP384}, "BrainpoolP384"},
		{packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP512}, "BrainpoolP512"},
	} {
		test.config.Time = at(birth).Time
		t.Run(test.algorithm, func(t *testing.T) {
			entity := newEntity(t, &test.config)
			key := parseOne(t, binary(t, entity))
			if key.Algorithm != test.algorithm || key.State(noon) != Usable {
				t.Errorf("%s, %s; want %s, usable", key.Algorithm, key.State(noon), test.algorithm)
			}
			public := key.OpenPGPKeys(noon)
			if len(public) != 1 {
				t.Fatalf("%d keys to encrypt to, want 1", len(public))
			}
			opens(t, public[0], entity.Subkeys[0].PrivateKey)
			if again := parseOne(t, []byte(key.Armored())); again.Fingerprint != key.Fingerprint || again.State(noon) != Usable {
				t.Errorf("armored, it is %s, %s; want %s, usable", again.Fingerprint, again.State(noon), key.Fingerprint)
			}
		})
	}
}

// opens seals a session key and opens it with the secret key.
func opens(t testing.TB, public *packet.PublicKey, private *packet.PrivateKey) {
	t.Helper()
	sessionKey := make([]byte, 32)
	rand.Read(sessionKey)
	var sealed bytes.Buffer
	if err := packet.SerializeEncryptedKeyAEAD(&sealed, public, packet.CipherAES256, false, sessionKey, nil); err != nil {
		t.Fatal(err)
	}
	read, err := packet.Read(&sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := read.(*packet.EncryptedKey).Decrypt(private, nil); err != nil || !bytes.Equal(read.(*packet.EncryptedKey).Key, sessionKey) {
		t.Errorf("sealing to %s gives another session key back (%v)", public.KeyIdString(), err)
	}
}

// TestEncryptionKeys: which subkeys of a key mail is sealed to, by their
// numbers, 0 being the primary key.
func TestEncryptionKeys(t *testing.T) {
	flags := func(communications, storage, sign bool) func(*packet.Signature) {
		return func(sig *packet.Signature) {
			sig.FlagsValid = true
			sig.FlagEncryptCommunications, sig.FlagEncryptStorage, sig.FlagSign = communications, storage, sign
		}
	}
	rsaConfig := &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, Time: at(birth).Time}
	for _, test := range []struct {
		name   string
		config *packet.Config
		change func(*openpgp.Entity)
		want   []int
	}{
		{"one", at(birth), func(*openpgp.Entity) {}, []int{1}},
		{"several", at(birth), func(e *openpgp.Entity) {
			addSubkey(t, e, at(birth.Add(day)))
			addSubkey(t, e, at(birth.Add(2*day)))
		}, []int{1, 2, 3}},
		{"for storage only", at(birth), func(e *openpgp.Entity) {
			rebind(t, &e.Subkeys[0], birth.Add(day), flags(false, true, false))
		}, []int{1}},
		{"for communications only", at(birth), func(e *openpgp.Entity) {
			rebind(t, &e.Subkeys[0], birth.Add(day), flags(true, false, false))
		}, []int{1}},
		{"one is for something else now", at(birth), func(e *openpgp.Entity) {
			addSubkey(t, e, at(birth))
			rebind(t, &e.Subkeys[0], birth.Add(day), flags(false, false, false))
		}, []int{2}},
		{"a subkey without flags", at(birth), func(e *openpgp.Entity) {
			rebind(t, &e.Subkeys[0], birth.Add(day), func(sig *packet.Signature) { sig.FlagsValid = false })
		}, []int{1}},
		{"a signing subkey beside it", at(birth), func(e *openpgp.Entity) {
			if err := e.AddSigningSubkey(at(birth)); err != nil {
				t.Fatal(err)
			}
		}, []int{1}},
		{"one revoked", at(birth), func(e *openpgp.Entity) {
			revoke(t, addSubkey(t, e, at(birth)), packet.NoReason)
		}, []int{1}},
		{"one superseded, and bound again later", at(birth), func(e *openpgp.Entity) {
			sub := addSubkey(t, e, at(birth))
			revoke(t, sub, packet.KeySuperseded)
			rebind(t, sub, birth.Add(50*day), func(*packet.Signature) {})
		}, []int{1}},
		{"one without a binding", at(birth), func(e *openpgp.Entity) {
			addSubkey(t, e, at(birth)).Bindings = nil
		}, []int{1}},
		{"one bound by another key", at(birth), func(e *openpgp.Entity) {
			stranger := newEntity(t, at(birth))
			stranger.Subkeys[0].Bindings[0].Packet.IssuerFingerprint = nil
			e.Subkeys = append(e.Subkeys, stranger.Subkeys[0])
		}, []int{1}},
		{"one bound by another key in this one's name", at(birth), func(e *openpgp.Entity) {
			sub := addSubkey(t, e, at(birth))
			sub.Bindings[0].Packet.EdDSASigR = e.Subkeys[0].Bindings[0].Packet.EdDSASigR
		}, []int{1}},
		{"the primary key too", rsaConfig, func(e *openpgp.Entity) {
			recertify(t, e, birth.Add(day), flags(true, true, true))
		}, []int{1, 0}},
		{"the primary key alone", rsaConfig, func(e *openpgp.Entity) {
			e.Subkeys = nil
			recertify(t, e, birth.Add(day), flags(true, true, true))
		}, []int{0}},
		{"an old RSA key without flags", rsaConfig, func(e *openpgp.Entity) {
			e.Subkeys = nil
			recertify(t, e, birth.Add(day), func(sig *packet.Signature) { sig.FlagsValid = false })
		}, []int{0}},
		{"an old RSA key without flags, and its subkey", rsaConfig, func(e *openpgp.Entity) {
			recertify(t, e, birth.Add(day), func(sig *packet.Signature) { sig.FlagsValid = false })
		}, []int{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			entity := newEntity(t, test.config)
			test.change(entity)
			key := parseOne(t, binary(t, entity))
			var want, got []string
			for _, number := range test.want {
				if number == 0 {
					want = append(want, entity.PrimaryKey.KeyIdString())
				} else {
					want = append(want, entity.Subkeys[number-1].PublicKey.KeyIdString())
				}
			}
			for _, public := range key.OpenPGPKeys(noon) {
				got = append(got, public.KeyIdString())
			}
			if !slices.Equal(got, want) {
				t.Errorf("sealed to %v, want %v", got, want)
			}
		})
	}
}

func revoke(t testing.TB, sub *openpgp.Subkey, reason packet.ReasonForRevocation) {
	t.Helper()
	if err := sub.Revoke(reason, "", at(birth.Add(day))); err != nil {
		t.Fatal(err)
	}
}

// TestNoEncryptionKey: where there is nothing to seal to, the error says why.
func TestNoEncryptionKey(t *testing.T) {
	short := must(rsa.GenerateKey(rand.Reader, 1024))(t).PublicKey
	big2049 := new(big.Int).Lsh(big.NewInt(1), 2048)
	for _, test := range []struct {
		name   string
		change func(*openpgp.Entity)
		want   string
	}{
		{"signing only", func(e *openpgp.Entity) { e.Subkeys = nil }, "no part of it is meant for encryption"},
		{"signing and certifying", func(e *openpgp.Entity) {
			e.Subkeys = nil
			e.AddSigningSubkey(at(birth))
		}, "no part of it is meant for encryption"},
		{"not bound", func(e *openpgp.Entity) { e.Subkeys[0].Bindings = nil }, "the primary key's signature on it is missing or does not hold"},
		{"revoked", func(e *openpgp.Entity) { revoke(t, &e.Subkeys[0], packet.KeyCompromised) }, "it is revoked"},
		{"ElGamal", func(e *openpgp.Entity) {
			adopt(t, e, packet.NewElGamalPublicKey(birth, &elgamal.PublicKey{P: big2049, G: big.NewInt(5), Y: big.NewInt(7)}))
		}, "ElGamal is out of use"},
		{"RSA-1024", func(e *openpgp.Entity) { adopt(t, e, packet.NewRSAPublicKey(birth, &short)) }, "an RSA key of 1024 bits is too short, the least is 2048"},
		{"RSA, even", func(e *openpgp.Entity) {
			adopt(t, e, packet.NewRSAPublicKey(birth, &rsa.PublicKey{N: big2049, E: 65537}))
		}, "its numbers are not those of an RSA key"},
		{"RSA, exponent 1", func(e *openpgp.Entity) {
			adopt(t, e, packet.NewRSAPublicKey(birth, &rsa.PublicKey{N: new(big.Int).Add(big2049, big.NewInt(1)), E: 1}))
		}, "its numbers are not those of an RSA key"},
		{"RSA-16384", func(e *openpgp.Entity) {
			adopt(t, e, packet.NewRSAPublicKey(birth, &rsa.PublicKey{N: new(big.Int).Lsh(big2049, 14336), E: 65537}))
		}, "a key of 16385 bits is too long, the most is 8192"},
		{"DSA", func(e *openpgp.Entity) {
			e.PrimaryKey = packet.NewDSAPublicKey(birth, &dsa.PublicKey{Parameters: dsa.Parameters{P: big2049, Q: big.NewInt(3), G: big.NewInt(5)}, Y: big.NewInt(7)})
		}, "DSA is out of use"},
		{"ML-KEM", func(e *openpgp.Entity) {
			*e = *newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoMldsa87Ed448, V6Keys: true, Time: at(birth).Time})
		}, "of ML-KEM only ML-KEM-768+X25519 is known"},
		{"too many subkeys", func(e *openpgp.Entity) {
			for range maxEncryptionKeys {
				addSubkey(t, e, at(birth))
			}
		}, "it has 21 subkeys to encrypt to, the most is 20"},
		{"no user id", func(e *openpgp.Entity) { e.Identities = nil }, "neither the key nor a user id has a valid self-signature"},
		{"the user id revoked", func(e *openpgp.Entity) { revokeUserID(t, e, "Ann <ann@example.org>", birth.Add(day)) }, "neither the key nor a user id has a valid self-signature"},
		{"an unknown critical notation", func(e *openpgp.Entity) {
			e.Identities["Ann <ann@example.org>"].SelfCertifications = nil
			recertifyFrom(t, e, func(sig *packet.Signature) {
				sig.Notations = []*packet.Notation{{Name: "x@example.org", IsCritical: true}}
			})
		}, "neither the key nor a user id has a valid self-signature"},
	} {
		t.Run(test.name, func(t *testing.T) {
			entity := newEntity(t, at(birth))
			test.change(entity)
			parsed, err := Parse(binary(t, entity))
			if err == nil {
				t.Fatalf("no error, and %d keys to encrypt to", len(parsed[0].OpenPGPKeys(noon)))
			}
			if !strings.HasPrefix(err.Error(), "key ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want the key and %q", err, test.want)
			}
		})
	}
}

// recertifyFrom makes a first signature on the user id.
func recertifyFrom(t testing.TB, entity *openpgp.Entity, change func(*packet.Signature)) {
	t.Helper()
	donor := newEntity(t, at(birth))
	entity.Identities["Ann <ann@example.org>"].SelfCertifications = donor.Identities["Ann <ann@example.org>"].SelfCertifications
	sig := entity.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet
	sig.IssuerFingerprint, sig.IssuerKeyId = entity.PrimaryKey.Fingerprint, &entity.PrimaryKey.KeyId
	change(sig)
	if err := sig.SignUserId("Ann <ann@example.org>", entity.PrimaryKey, entity.PrivateKey, at(birth)); err != nil {
		t.Fatal(err)
	}
}

func revokeUserID(t testing.TB, entity *openpgp.Entity, name string, when time.Time) {
	t.Helper()
	id := entity.Identities[name]
	sig := *id.SelfCertifications[0].Packet
	sig.SigType, sig.CreationTime, sig.IsPrimaryId = packet.SigTypeCertificationRevocation, when, nil
	if err := sig.SignUserId(name, entity.PrimaryKey, entity.PrivateKey, at(when)); err != nil {
		t.Fatal(err)
	}
	id.Revocations = append(id.Revocations, packet.NewVerifiableSig(&sig))
}

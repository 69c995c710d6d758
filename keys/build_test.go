package keys

import (
	"bytes"
	"encoding/base64"
	bigendian "encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// The moments of the tests: keys are made at birth, and it is noon now.
var (
	birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	noon  = birth.Add(100 * day)
)

const day = 24 * time.Hour

// at is a configuration whose clock stands still.
func at(when time.Time) *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return when }}
}

// newEntity makes a key pair with a user id and a subkey to encrypt to.
func newEntity(t testing.TB, config *packet.Config) *openpgp.Entity {
	t.Helper()
	entity, err := openpgp.NewEntity("Ann", "", "ann@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	return entity
}

// binary is a key's public part.
func binary(t testing.TB, entity *openpgp.Entity) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := entity.Serialize(&data); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// secret is a key's secret part.
func secret(t testing.TB, entity *openpgp.Entity) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := entity.SerializePrivateWithoutSigning(&data, nil); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// inBlock puts data into a block of any kind.
func inBlock(kind string, data []byte) string {
	return strings.ReplaceAll(armorBlock(data), publicKey, kind)
}

// wrapped is base64 in lines of 76, as PostgreSQL's encode writes it.
func wrapped(data []byte) string {
	text := base64.StdEncoding.EncodeToString(data)
	var lines strings.Builder
	for len(text) > 76 {
		lines.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	return lines.String() + text
}

// parseOne parses what must be one key.
func parseOne(t testing.TB, data []byte) *Key {
	t.Helper()
	parsed, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed) != 1 {
		t.Fatalf("%d keys, want 1", len(parsed))
	}
	return parsed[0]
}

// addSubkey adds a subkey and returns it.
func addSubkey(t testing.TB, entity *openpgp.Entity, config *packet.Config) *openpgp.Subkey {
	t.Helper()
	if err := entity.AddEncryptionSubkey(config); err != nil {
		t.Fatal(err)
	}
	return &entity.Subkeys[len(entity.Subkeys)-1]
}

// rebind signs a subkey anew at a moment, with a binding that change has
// changed; the old binding stays.
func rebind(t testing.TB, sub *openpgp.Subkey, when time.Time, change func(*packet.Signature)) {
	t.Helper()
	sig := *sub.Bindings[0].Packet
	sig.CreationTime = when
	change(&sig)
	if err := sig.SignKey(sub.PublicKey, sub.Primary.PrivateKey, at(when)); err != nil {
		t.Fatal(err)
	}
	sub.Bindings = append(sub.Bindings, packet.NewVerifiableSig(&sig))
}

// recertify signs the user ids anew, as rebind does.
func recertify(t testing.TB, entity *openpgp.Entity, when time.Time, change func(*packet.Signature)) {
	t.Helper()
	for _, id := range entity.Identities {
		sig := *id.SelfCertifications[0].Packet
		sig.CreationTime = when
		change(&sig)
		if err := sig.SignUserId(id.Name, entity.PrimaryKey, entity.PrivateKey, at(when)); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications = append(id.SelfCertifications, packet.NewVerifiableSig(&sig))
	}
}

// adopt binds any public key to an entity as a subkey to encrypt to.
func adopt(t testing.TB, entity *openpgp.Entity, public *packet.PublicKey) {
	t.Helper()
	public.IsSubkey = true
	sig := *entity.Subkeys[0].Bindings[0].Packet
	if err := sig.SignKey(public, entity.PrivateKey, at(birth)); err != nil {
		t.Fatal(err)
	}
	entity.Subkeys = []openpgp.Subkey{{Primary: entity, PublicKey: public, Bindings: []*packet.VerifiableSignature{packet.NewVerifiableSig(&sig)}}}
}

// expires sets a lifetime in a self-signature, counted from birth.
func expires(after time.Duration) func(*packet.Signature) {
	seconds := uint32(after / time.Second)
	return func(sig *packet.Signature) { sig.KeyLifetimeSecs = &seconds }
}

// inNameOf makes one key's signatures, in whatever they stand, claim to be by
// another.
func inNameOf(data []byte, by, other *packet.PublicKey) []byte {
	data = bytes.ReplaceAll(data, by.Fingerprint, other.Fingerprint)
	return bytes.ReplaceAll(data, binary64(by.KeyId), binary64(other.KeyId))
}

func binary64(n uint64) []byte { return bigendian.BigEndian.AppendUint64(nil, n) }

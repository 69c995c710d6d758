package keys

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// TestWeakPrimary: a strong subkey under a primary key that can be broken is
// refused, and is read from the store all the same.
func TestWeakPrimary(t *testing.T) {
	for bits, want := range map[int]Reason{1024: ReasonWeak, 2048: ""} {
		secret := packet.NewRSAPrivateKey(birth, must(rsa.GenerateKey(rand.Reader, bits))(t))
		entity := &openpgp.Entity{PrimaryKey: &secret.PublicKey, PrivateKey: secret, Identities: make(map[string]*openpgp.Identity)}
		if err := entity.AddUserId("Ann", "", "ann@example.org", at(birth)); err != nil {
			t.Fatal(err)
		}
		addSubkey(t, entity, at(birth))
		data := binary(t, entity)
		if _, _, err := Validate(data, Rules{Address: "ann@example.org", Now: noon, Allow: Administrator, Seal: sealed}); ReasonOf(err) != want {
			t.Errorf("a primary key of %d bits: %v, want %q", bits, err, want)
		}
		if key := parseOne(t, data); key.State(noon) != Usable {
			t.Errorf("in the store, one of %d bits is %s", bits, key.State(noon))
		}
	}
}

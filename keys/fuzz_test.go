package keys

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// FuzzParse: whatever comes in, what is read of it can be armored and read
// again, is the same key then, and holds nothing secret.
func FuzzParse(f *testing.F) {
	entity := newEntity(f, at(birth))
	v6 := newEntity(f, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, Time: at(birth).Time})
	p256 := newEntity(f, &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256, Time: at(birth).Time})
	for _, data := range [][]byte{binary(f, entity), binary(f, v6), binary(f, p256)} {
		f.Add(data)
		f.Add([]byte(armorBlock(data)))
		f.Add([]byte(wrapped(data)))
	}
	f.Add(secret(f, entity))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := Parse(data)
		if err != nil {
			if len(parsed) > 0 || err.Error() == "" {
				t.Fatalf("%d keys beside the error %q", len(parsed), err)
			}
			return
		}
		for _, key := range parsed {
			armored := key.Armored()
			again := parseOne(t, []byte(armored))
			if again.Fingerprint != key.Fingerprint || again.State(noon) != key.State(noon) || !again.Expires.Equal(key.Expires) ||
				len(again.OpenPGPKeys(noon)) != len(key.OpenPGPKeys(noon)) || again.Armored() != armored {
				t.Fatalf("armored, %s, %s is %s, %s", key.Fingerprint, key.State(noon), again.Fingerprint, again.State(noon))
			}
			cut, err := cutKeys(key.encoded)
			if err != nil || len(cut) != 1 {
				t.Fatalf("its packets are %d keys (%v)", len(cut), err)
			}
			for _, public := range key.OpenPGPKeys(noon) {
				var sealed bytes.Buffer
				if err := packet.SerializeEncryptedKeyAEAD(&sealed, public, packet.CipherAES256, false, make([]byte, 32), nil); err != nil {
					t.Logf("sealing: %v", err) // and no panic
				}
			}
		}
	})
}

// FuzzCanonical: what was read is the same when it is read again, unless it
// has characters that must be quoted; it is nothing that the address has not,
// and spelling the address in ways that mean the same changes nothing.
func FuzzCanonical(f *testing.F) {
	for _, spelling := range dodges {
		f.Add(spelling)
	}
	f.Fuzz(func(t *testing.T, address string) {
		canonical, ok := readAddress(address)
		if Canonical(address) != canonical {
			t.Fatalf("%q is %q and %q", address, Canonical(address), canonical)
		}
		if !ok {
			if canonical != address {
				t.Fatalf("%q cannot be read and is %q", address, canonical)
			}
			return
		}
		if !strings.ContainsAny(canonical, `"\()<>[],;:`+blanks) && Canonical(canonical) != canonical {
			t.Fatalf("%q is %q, and that is %q", address, canonical, Canonical(canonical))
		}
		for _, same := range []string{" " + address, address + "(x)", "@r.test:" + address, strings.ReplaceAll(address, "@", " @ ")} {
			// Within quotes a blank counts, and so does a backslash before it.
			if strings.ContainsAny(address, `"\[`) && strings.Contains(same, " @ ") {
				continue
			}
			if got := Canonical(same); got != canonical {
				t.Fatalf("%q is %q, and %q is %q", address, canonical, same, got)
			}
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(canonical) + `"`
		if got := Canonical(quoted); got != canonical {
			t.Fatalf("%q is %q, and that in quotes is %q", address, canonical, got)
		}
	})
}

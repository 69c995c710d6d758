package keys

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// formKeys are keys of every kind that a form depends on.
func formKeys(t *testing.T) map[string]*Key {
	t.Helper()
	version6 := packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, Time: at(birth).Time}
	advertised := version6
	advertised.AEADConfig = &packet.AEADConfig{}
	quantum := packet.Config{Algorithm: packet.PubKeyAlgoMldsa65Ed25519, V6Keys: true, Time: at(birth).Time}
	all := make(map[string]*Key)
	for name, config := range map[string]*packet.Config{"v4": at(birth), "v6 of old": &version6, "v6": &advertised, "ML-KEM": &quantum} {
		all[name] = parseOne(t, binary(t, newEntity(t, config)))
	}
	both := newEntity(t, at(birth))
	donor := newEntity(t, &quantum)
	all["donor"] = parseOne(t, binary(t, donor))
	if err := both.AddEncryptionSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoMldsa65Ed25519, Time: at(birth.Add(day)).Time}); err != nil {
		t.Fatal(err)
	}
	all["both"] = parseOne(t, binary(t, both))
	certificate, err := os.ReadFile(filepath.Join(certificates(t), "rsa.pem"))
	if err != nil {
		t.Fatal(err)
	}
	all["certificate"] = parseOne(t, certificate)
	return all
}

// TestCommonAEAD: authenticated encryption is for who has chosen it, and for
// version 6 keys that say that they read it; one reader who has not is enough
// for none.
func TestCommonAEAD(t *testing.T) {
	all := formKeys(t)
	gcm, ocb := KeyOptions{AEAD: GCM}, KeyOptions{AEAD: OCB}
	for _, test := range []struct {
		name string
		keys []*Key
		want AEAD
	}{
		{"v4", []*Key{all["v4"]}, NoAEAD},
		{"v4 that chose GCM", []*Key{all["v4"].With(gcm)}, GCM},
		{"v4 that chose OCB", []*Key{all["v4"].With(ocb)}, OCB},
		{"two choices", []*Key{all["v4"].With(gcm), all["v6"].With(ocb)}, OCB},
		{"v6", []*Key{all["v6"]}, OCB},
		{"v6 without the feature", []*Key{all["v6 of old"]}, NoAEAD},
		{"v6 that chose GCM", []*Key{all["v6"].With(gcm)}, GCM},
		{"v6, and v4 that chose GCM", []*Key{all["v6"], all["v4"].With(gcm)}, OCB},
		{"v6 and v4", []*Key{all["v6"], all["v4"]}, NoAEAD},
		{"GCM and v4", []*Key{all["v6"].With(gcm), all["v4"]}, NoAEAD},
		{"certificate", []*Key{all["certificate"]}, NoAEAD},
		{"certificate that chose GCM", []*Key{all["certificate"].With(gcm)}, GCM},
		{"one certificate of two", []*Key{all["certificate"].With(gcm), all["certificate"].With(KeyOptions{OAEP: true})}, NoAEAD},
	} {
		account := &Account{Keys: test.keys, Cipher: AES256}
		form, to, err := SealTo([]*Account{account}, noon)
		if err != nil || form.AEAD != test.want || len(to) != len(test.keys) || form.Cipher != AES256 {
			t.Errorf("%s: %+v to %d keys, error %v; want %q", test.name, form, len(to), err, test.want)
		}
	}
}

// TestMLKEM: an ML-KEM subkey is sealed to where it was chosen, and then nothing
// beside it.
func TestMLKEM(t *testing.T) {
	all := formKeys(t)
	chosen := KeyOptions{MLKEM: true}
	for _, test := range []struct {
		name  string
		key   *Key
		state State
		to    string // the algorithm of all that is sealed to
		only  bool
	}{
		{"ML-KEM alone", all["ML-KEM"], Unusable, "ML-KEM-768+X25519", true},
		{"ML-KEM alone, chosen", all["ML-KEM"].With(chosen), Usable, "ML-KEM-768+X25519", true},
		{"both", all["both"], Usable, "Curve25519", false},
		{"both, chosen", all["both"].With(chosen), Usable, "ML-KEM-768+X25519", false},
		{"none, chosen", all["v4"].With(chosen), Usable, "Curve25519", false},
	} {
		if got := test.key.State(noon); got != test.state || test.key.Algorithm != test.to || test.key.IsPostQuantumOnly() != test.only {
			t.Errorf("%s: %s, %s, only ML-KEM %t; want %s, %s, %t", test.name, got, test.key.Algorithm, test.key.IsPostQuantumOnly(), test.state, test.to, test.only)
		}
		to := test.key.OpenPGPKeys(noon)
		if (len(to) == 1) != (test.state == Usable) {
			t.Errorf("%s: sealed to %d keys", test.name, len(to))
		}
		for _, public := range to {
			if got := algorithm(public); got != test.to {
				t.Errorf("%s: sealed to %s", test.name, got)
			}
		}
	}
}

// rows is a store that answers with rows for the addresses in them, and knows
// nobody else.
type rows []Row

func (r rows) RecipientKeys(_ context.Context, addresses []string) (all []Row, _ error) {
	for _, address := range addresses {
		if address != r[0].Address {
			all = append(all, Row{Address: address})
		}
	}
	return append(all, r...), nil
}

func (r rows) Close() {}

// TestKeyOptions: a row's options are its key's and its account's, each kept
// apart; what nobody knows defers.
func TestKeyOptions(t *testing.T) {
	all := formKeys(t)
	row := func(key *Key, options string) Row {
		return Row{Address: "ann@example.org", Account: "ann@example.org", Known: true, Enabled: true, Key: key.Armored(), Options: json.RawMessage(options)}
	}
	for _, test := range []struct {
		name    string
		rows    rows
		account string // its options; "error" where the lookup fails
		keys    []KeyOptions
	}{
		{"none", rows{row(all["v4"], ``)}, ``, []KeyOptions{{}}},
		{"empty", rows{row(all["v4"], `{}`)}, ``, []KeyOptions{{}}},
		{"a key's", rows{row(all["v4"], `{"key":{"aead":"ocb"}}`)}, ``, []KeyOptions{{AEAD: OCB}}},
		{"an account's too", rows{row(all["v4"], `{"no_key": "pass", "key":{"aead":"gcm","later":1}}`)}, `{"no_key":"pass"}`, []KeyOptions{{AEAD: GCM}}},
		{"a name in another case, which is another name", rows{row(all["v4"], `{"key":{"AEAD":"GCM","Oaep":5,"aead":"ocb"}}`)}, ``, []KeyOptions{{AEAD: OCB}}},
		{"of one key of two", rows{row(all["v4"], `{"always": true, "key": {"ml_kem":true}}`), row(all["certificate"], `{"always":true}`)}, `{"always":true}`, []KeyOptions{{MLKEM: true}, {}}},
		{"a certificate's", rows{row(all["certificate"], `{"key":{"aead":"gcm","oaep":true}}`)}, ``, []KeyOptions{{AEAD: GCM, OAEP: true}}},
		{"accounts that differ", rows{row(all["v4"], `{"always":true}`), row(all["certificate"], `{"always":false}`)}, "error", nil},
		{"no object", rows{row(all["v4"], `[]`)}, "error", nil},
		{"no object for a key", rows{row(all["v4"], `{"key":"ocb"}`)}, "error", nil},
		{"an unknown mode", rows{row(all["v4"], `{"key":{"aead":"eax"}}`)}, "error", nil},
		{"no boolean", rows{row(all["certificate"], `{"key":{"oaep":"yes"}}`)}, "error", nil},
		{"OCB in S/MIME", rows{row(all["certificate"], `{"key":{"aead":"ocb"}}`)}, "error", nil},
		{"OAEP in OpenPGP", rows{row(all["v4"], `{"key":{"oaep":true}}`)}, "error", nil},
		{"ML-KEM in S/MIME", rows{row(all["certificate"], `{"key":{"ml_kem":true}}`)}, "error", nil},
	} {
		found, err := Lookup(t.Context(), test.rows, Naming{}, []string{"ann@example.org"})
		if test.account == "error" {
			if !errors.Is(err, ErrStore) {
				t.Errorf("%s: error %v, want one of the store", test.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		account := found["ann@example.org"].Accounts[0]
		if string(account.Options) != test.account || len(account.Keys) != len(test.keys) {
			t.Errorf("%s: the account's are %s, with %d keys", test.name, account.Options, len(account.Keys))
			continue
		}
		for i, want := range test.keys {
			if account.Keys[i].Options != want {
				t.Errorf("%s: key %d has %+v, want %+v", test.name, i, account.Keys[i].Options, want)
			}
		}
	}
}

// TestRevokedKeepsOptions: where a row of a key is revoked, the other is too, and
// each keeps what was chosen for it.
func TestRevokedKeepsOptions(t *testing.T) {
	entity := newEntity(t, at(birth))
	before := binary(t, entity)
	if err := entity.Revoke(packet.KeyCompromised, "", at(birth.Add(day))); err != nil {
		t.Fatal(err)
	}
	a := &Account{Keys: []*Key{parseOne(t, before).With(KeyOptions{AEAD: GCM}), parseOne(t, binary(t, entity))}}
	a.spreadRevocations()
	if a.Keys[0].State(noon) != Revoked || a.Keys[0].Options.AEAD != GCM || a.Keys[1].Options.AEAD != NoAEAD {
		t.Errorf("%s with %+v", a.Keys[0].State(noon), a.Keys[0].Options)
	}
}

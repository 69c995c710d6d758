package keys

import (
	"bytes"
	"image"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// TestState: what a key is good for, as its self-signatures say.
func TestState(t *testing.T) {
	never := time.Time{}
	lifetime := func(config *packet.Config, days uint32) *packet.Config {
		config.KeyLifetimeSecs = days * 86400
		return config
	}
	subkeyFor := func(after time.Duration) func(*openpgp.Entity) {
		return func(e *openpgp.Entity) { rebind(t, &e.Subkeys[0], birth.Add(day), expires(after)) }
	}
	revokeFor := func(reason packet.ReasonForRevocation, when time.Time) func(*openpgp.Entity) {
		return func(e *openpgp.Entity) {
			if err := e.Revoke(reason, "", at(when)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name    string
		config  *packet.Config
		change  func(*openpgp.Entity)
		want    State
		expires time.Time
	}{
		{"without end", at(birth), nil, Usable, never},
		{"of a year", lifetime(at(birth), 365), nil, Usable, birth.Add(365 * day)},
		{"of 100 days", lifetime(at(birth), 100), nil, Expired, noon},
		{"of 10 days", lifetime(at(birth), 10), nil, Expired, birth.Add(10 * day)},
		{"the subkey of 10 days", at(birth), subkeyFor(10 * day), Expired, birth.Add(10 * day)},
		{"the subkey longer than the key", lifetime(at(birth), 10), subkeyFor(365 * day), Expired, birth.Add(10 * day)},
		{"one subkey of 10 days, one without end", at(birth), func(e *openpgp.Entity) {
			subkeyFor(10 * day)(e)
			addSubkey(t, e, at(birth))
		}, Usable, never},
		{"made longer", lifetime(at(birth), 10), func(e *openpgp.Entity) {
			recertify(t, e, birth.Add(5*day), expires(200*day))
			rebind(t, &e.Subkeys[0], birth.Add(5*day), expires(200*day))
		}, Usable, birth.Add(200 * day)},
		{"made longer, the older signature last", lifetime(at(birth), 10), func(e *openpgp.Entity) {
			recertify(t, e, birth.Add(5*day), expires(200*day))
			rebind(t, &e.Subkeys[0], birth.Add(5*day), expires(200*day))
			slices.Reverse(e.Subkeys[0].Bindings)
			slices.Reverse(e.Identities["Ann <ann@example.org>"].SelfCertifications)
		}, Usable, birth.Add(200 * day)},
		{"made shorter", at(birth), func(e *openpgp.Entity) { recertify(t, e, birth.Add(5*day), expires(10*day)) }, Expired, birth.Add(10 * day)},
		{"its signature ends", at(birth), func(e *openpgp.Entity) {
			recertify(t, e, birth.Add(5*day), func(sig *packet.Signature) { sig.SigLifetimeSecs = new(uint32); *sig.SigLifetimeSecs = 86400 })
		}, Expired, birth.Add(6 * day)},
		{"shorter by a direct signature", at(birth), func(e *openpgp.Entity) { direct(t, e, expires(10*day)) }, Expired, birth.Add(10 * day)},
		{"no user id, a direct signature", at(birth), func(e *openpgp.Entity) {
			direct(t, e, func(*packet.Signature) {})
			e.Identities = nil
		}, Usable, never},
		{"made tomorrow", at(noon.Add(day)), nil, Usable, never},
		{"version 6, of 10 days", &packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, Time: at(birth).Time, KeyLifetimeSecs: 864000}, nil, Expired, birth.Add(10 * day)},

		{"revoked", at(birth), revokeFor(packet.NoReason, birth.Add(day)), Revoked, never},
		{"compromised, as of tomorrow", at(birth), revokeFor(packet.KeyCompromised, noon.Add(day)), Revoked, never},
		{"superseded", at(birth), revokeFor(packet.KeySuperseded, birth.Add(day)), Revoked, never},
		{"retired, as of tomorrow", at(birth), revokeFor(packet.KeyRetired, noon.Add(day)), Revoked, never},
		{"revoked and expired", lifetime(at(birth), 10), revokeFor(packet.NoReason, birth.Add(day)), Revoked, birth.Add(10 * day)},
		{"revoked, and signed again", at(birth), func(e *openpgp.Entity) {
			revokeFor(packet.KeyRetired, birth.Add(day))(e)
			recertify(t, e, birth.Add(5*day), func(*packet.Signature) {})
		}, Revoked, never},
		{"revoked, nothing else left", at(birth), func(e *openpgp.Entity) {
			revokeFor(packet.NoReason, birth.Add(day))(e)
			e.Identities, e.Subkeys = nil, nil
		}, Revoked, never},
		{"revoked by another key", at(birth), func(e *openpgp.Entity) {
			stranger := newEntity(t, at(birth))
			revokeFor(packet.NoReason, birth.Add(day))(stranger)
			e.Revocations = stranger.Revocations
		}, Usable, never},
		{"revoked in its name by another key", at(birth), func(e *openpgp.Entity) {
			stranger := newEntity(t, at(birth))
			revokeFor(packet.NoReason, birth.Add(day))(stranger)
			var sig bytes.Buffer
			stranger.Revocations[0].Packet.Serialize(&sig)
			forged := must(packet.Read(bytes.NewReader(inNameOf(sig.Bytes(), stranger.PrimaryKey, e.PrimaryKey))))(t)
			e.Revocations = []*packet.VerifiableSignature{packet.NewVerifiableSig(forged.(*packet.Signature))}
		}, Usable, never},
	} {
		t.Run(test.name, func(t *testing.T) {
			entity := newEntity(t, test.config)
			if test.change != nil {
				test.change(entity)
			}
			key := parseOne(t, binary(t, entity))
			if got := key.State(noon); got != test.want || !key.Expires.Equal(test.expires) {
				t.Errorf("%s, expires %v; want %s, %v", got, key.Expires, test.want, test.expires)
			}
			if sealable := len(key.OpenPGPKeys(noon)) > 0; sealable != (test.want != Revoked) {
				t.Errorf("%s, keys to encrypt to: %v", key.State(noon), key.OpenPGPKeys(noon))
			}
			if again := parseOne(t, []byte(key.Armored())); again.State(noon) != test.want || !again.Expires.Equal(test.expires) {
				t.Errorf("armored, it is %s, expires %v; want %s, %v", again.State(noon), again.Expires, test.want, test.expires)
			}
		})
	}
}

// direct signs the primary key itself.
func direct(t testing.TB, entity *openpgp.Entity, change func(*packet.Signature)) {
	t.Helper()
	sig := *entity.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet
	sig.SigType, sig.IsPrimaryId = packet.SigTypeDirectSignature, nil
	change(&sig)
	if err := sig.SignDirectKeyBinding(entity.PrimaryKey, entity.PrivateKey, at(birth)); err != nil {
		t.Fatal(err)
	}
	entity.DirectSignatures = append(entity.DirectSignatures, packet.NewVerifiableSig(&sig))
}

// TestOpenPGPKeys: a key that has expired in all its parts is sealed to by
// those that lasted longest.
func TestOpenPGPKeys(t *testing.T) {
	entity := newEntity(t, at(birth))
	first := addSubkey(t, entity, at(birth)).PublicKey.KeyIdString()
	rebind(t, &entity.Subkeys[0], birth, expires(20*day))
	rebind(t, &entity.Subkeys[1], birth, expires(30*day))
	key := parseOne(t, binary(t, entity))
	for _, test := range []struct {
		now   time.Time
		state State
		keys  int
	}{
		{birth.Add(-day), Usable, 2},
		{birth.Add(20*day - 1), Usable, 2},
		{birth.Add(20 * day), Usable, 1},
		{birth.Add(30*day - 1), Usable, 1},
		{birth.Add(30 * day), Expired, 1},
	} {
		public := key.OpenPGPKeys(test.now)
		if key.State(test.now) != test.state || len(public) != test.keys {
			t.Errorf("%v: %s, %d keys; want %s, %d", test.now, key.State(test.now), len(public), test.state, test.keys)
		}
		if test.keys == 1 && public[0].KeyIdString() != first {
			t.Errorf("%v: sealed to %s, want %s", test.now, public[0].KeyIdString(), first)
		}
	}
}

// TestUserIDs: those that hold are listed, in order.
func TestUserIDs(t *testing.T) {
	entity := newEntity(t, at(birth))
	for _, name := range []string{"Zoe", "Bea", "Old"} {
		if err := entity.AddUserId(name, "", "ann@example.net", at(birth)); err != nil {
			t.Fatal(err)
		}
	}
	revokeUserID(t, entity, "Old <ann@example.net>", birth.Add(day))
	revokeUserID(t, entity, "Bea <ann@example.net>", birth.Add(day))
	bea := entity.Identities["Bea <ann@example.net>"]
	again := *bea.SelfCertifications[0].Packet
	again.CreationTime = birth.Add(2 * day)
	if err := again.SignUserId(bea.Name, entity.PrimaryKey, entity.PrivateKey, at(birth)); err != nil {
		t.Fatal(err)
	}
	bea.SelfCertifications = append(bea.SelfCertifications, packet.NewVerifiableSig(&again))
	key := parseOne(t, binary(t, entity))
	want := []string{"Ann <ann@example.org>", "Bea <ann@example.net>", "Zoe <ann@example.net>"}
	if !slices.Equal(key.UserIDs, want) {
		t.Errorf("user ids %q, want %q", key.UserIDs, want)
	}
}

// TestArmoredStrips: third parties' signatures, user ids that nobody signed
// and photographs are left out; all else is there, and in one order always.
func TestArmoredStrips(t *testing.T) {
	entity, stranger := newEntity(t, at(birth)), newEntity(t, at(birth))
	clean := parseOne(t, binary(t, entity)).Armored()
	if err := entity.SignIdentity("Ann <ann@example.org>", stranger, at(birth)); err != nil {
		t.Fatal(err)
	}
	photo, err := packet.NewUserAttributePhoto(image.NewGray(image.Rect(0, 0, 8, 8)))
	if err != nil {
		t.Fatal(err)
	}
	cut := must(cutKeys(binary(t, entity)))(t)[0]
	var data bytes.Buffer
	for _, p := range cut {
		if p.Tag == tagPublicSubkey { // before it, the photograph with a signature, and a trust packet
			packet.NewUserId("Eve", "", "ann@example.com").Serialize(&data)
			photo.Serialize(&data)
			entity.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet.Serialize(&data)
			(&packet.OpaquePacket{Tag: tagTrust, Contents: []byte{1}}).Serialize(&data)
		}
		p.Serialize(&data)
	}
	if data.Len() < 2*len(binary(t, newEntity(t, at(birth)))) {
		t.Fatalf("the key has %d bytes only", data.Len())
	}
	if got := parseOne(t, data.Bytes()).Armored(); got != clean {
		t.Errorf("armored, it is\n%s\nwant\n%s", got, clean)
	}
}

// TestUnknownSubkey: a subkey of an algorithm to come is kept, with the
// signature on it, and the others are used.
func TestUnknownSubkey(t *testing.T) {
	entity := newEntity(t, at(birth))
	data := bytes.NewBuffer(binary(t, entity))
	unknown := []byte("\xce\x0a\x04\x00\x00\x00\x00\x63later")[:12]
	data.Write(unknown)
	entity.Subkeys[0].Bindings[0].Packet.Serialize(data)
	key := parseOne(t, data.Bytes())
	if !bytes.Equal(key.encoded, data.Bytes()) {
		t.Errorf("armored, it is\n%x\nwant\n%x", key.encoded, data.Bytes())
	}
	if key.State(noon) != Usable || len(key.OpenPGPKeys(noon)) != 1 {
		t.Errorf("%s, %d keys to encrypt to; want usable, 1", key.State(noon), len(key.OpenPGPKeys(noon)))
	}
}

// TestMergedParts: what was revoked in one place is revoked where it comes a
// second time.
func TestMergedParts(t *testing.T) {
	entity := newEntity(t, at(birth))
	addSubkey(t, entity, at(birth))
	before := binary(t, entity)
	revoke(t, &entity.Subkeys[0], packet.KeyCompromised)
	after := must(cutKeys(binary(t, entity)))(t)[0]
	data := bytes.NewBuffer(before)
	for _, p := range after[1:] {
		p.Serialize(data)
	}
	key := parseOne(t, data.Bytes())
	if public := key.OpenPGPKeys(noon); len(public) != 1 || public[0].KeyId != entity.Subkeys[1].PublicKey.KeyId {
		t.Errorf("sealed to %d keys, want the one that is not revoked", len(public))
	}
	if strings.Count(key.Armored(), "\n") > 30 {
		t.Errorf("armored, its parts are there twice:\n%s", key.Armored())
	}
}

// TestConcurrentUse: one key serves many messages at once (run with -race).
func TestConcurrentUse(t *testing.T) {
	for _, config := range []packet.Config{
		{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048},
		{Algorithm: packet.PubKeyAlgoEdDSA},
		{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true},
		{Algorithm: packet.PubKeyAlgoEd448},
		{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256},
		{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP256},
	} {
		config.Time = at(birth).Time
		entity := newEntity(t, &config)
		key := parseOne(t, binary(t, entity))
		var running sync.WaitGroup
		for range 16 {
			running.Go(func() {
				for _, public := range key.OpenPGPKeys(noon) {
					opens(t, public, entity.Subkeys[0].PrivateKey)
				}
				if key.State(noon) != Usable || key.Armored() == "" {
					t.Error("the key is not usable")
				}
			})
		}
		running.Wait()
	}
}

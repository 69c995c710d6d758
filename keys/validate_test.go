package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/testdata/bed"
)

// sealed is a trial that goes well.
func sealed(*Key) error { return nil }

// TestStrip: what is to be stored has nothing in it that the key did not sign
// and sealing does not need, whatever stood in the file.
func TestStrip(t *testing.T) {
	entity, stranger := newEntity(t, at(birth)), newEntity(t, at(birth))
	revoked := addSubkey(t, entity, at(birth))
	revoke(t, revoked, packet.NoReason)
	if err := entity.AddUserId("Ann", "", "ann@example.net", at(birth)); err != nil {
		t.Fatal(err)
	}
	revokeUserID(t, entity, "Ann <ann@example.net>", birth.Add(day))
	if err := entity.AddSigningSubkey(at(birth)); err != nil {
		t.Fatal(err)
	}
	unbound := newEntity(t, at(birth)).Subkeys[0].PublicKey
	recertify(t, entity, birth.Add(-day), func(*packet.Signature) {}) // older than the first

	const junk = "this is junk"
	inUnhashed := func(p *packet.OpaquePacket) {
		size := 4 + 2 + int(p.Contents[4])<<8 + int(p.Contents[5])
		area, rest, ok := cutArea(p.Contents[size:], 2)
		if !ok {
			t.Fatal("a signature without an unhashed area")
		}
		area = slices.Concat(area, []byte{byte(len(junk) + 1), 100}, []byte(junk))
		p.Contents = slices.Concat(p.Contents[:size], octets(len(area), 2), area, rest, []byte(junk))
	}
	var data bytes.Buffer
	for _, p := range must(cutKeys(binary(t, entity)))(t)[0] {
		switch p.Tag {
		case tagSignature:
			inUnhashed(p)
		case tagPublicKey, tagPublicSubkey:
			p.Contents = append(p.Contents, junk...)
		}
		p.Serialize(&data)
		if p.Tag == tagUserID { // certified by a stranger, and in this key's name
			var by bytes.Buffer
			stranger.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet.Serialize(&by)
			data.Write(by.Bytes())
			data.Write(inNameOf(by.Bytes(), stranger.PrimaryKey, entity.PrimaryKey))
		}
	}
	(&packet.OpaquePacket{Tag: tagUserID, Contents: []byte(junk)}).Serialize(&data)
	(&packet.OpaquePacket{Tag: tagUserAttribute, Contents: []byte("\x20\x01" + junk + strings.Repeat("x", 8000))}).Serialize(&data)
	unbound.Serialize(&data)
	(&packet.OpaquePacket{Tag: tagPublicSubkey, Contents: []byte("\x04\x00\x00\x00\x00\x63" + junk)}).Serialize(&data)
	(&packet.OpaquePacket{Tag: tagTrust, Contents: []byte(junk)}).Serialize(&data)
	(&packet.OpaquePacket{Tag: 60, Contents: []byte(junk)}).Serialize(&data)

	found, warnings, err := Validate(data.Bytes(), Rules{Address: "ann@example.org", Now: noon, Seal: sealed})
	if err != nil || len(found) != 1 || len(warnings) > 0 {
		t.Fatalf("%d keys, warnings %v, error %v", len(found), warnings, err)
	}
	text := found[0].Armored()
	for part, bytes := range map[string][]byte{"junk": []byte(junk), "the stranger's name": stranger.PrimaryKey.Fingerprint, "the unbound subkey": unbound.Fingerprint} {
		if strings.Contains(string(found[0].encoded), string(bytes)) {
			t.Errorf("%s is stored", part)
		}
	}
	count := make(map[uint8]int)
	kinds := make(map[packet.SignatureType]int)
	for _, p := range must(cutKeys(found[0].encoded))(t)[0] {
		count[p.Tag]++
		if p.Tag == tagSignature {
			kinds[must(p.Parse())(t).(*packet.Signature).SigType]++
		}
	}
	if count[tagUserID] != 2 || count[tagPublicSubkey] != 3 || count[tagUserAttribute] != 0 || count[tagSignature] != 7 {
		t.Errorf("%d user ids, %d subkeys, %d photographs, %d signatures", count[tagUserID], count[tagPublicSubkey], count[tagUserAttribute], count[tagSignature])
	}
	if kinds[packet.SigTypeSubkeyRevocation] != 1 || kinds[packet.SigTypeCertificationRevocation] != 1 {
		t.Errorf("the revocations are lost: %v", kinds)
	}
	again := parseOne(t, []byte(text))
	before := parseOne(t, data.Bytes())
	if again.Fingerprint != before.Fingerprint || !slices.Equal(again.UserIDs, before.UserIDs) || len(again.OpenPGPKeys(noon)) != 1 || again.Armored() != text {
		t.Errorf("stored, it is %+v, before %+v", again, before)
	}
	checkGnuPGTakes(t, text, again.Fingerprint)
}

// checkGnuPGTakes: what is stored is a key for others too.
func checkGnuPGTakes(t *testing.T, text, want string) {
	t.Helper()
	g := bed.NewGnuPG(t)
	g.Import(t, []byte(text))
	if got := fingerprint(t, g, "ann@example.org"); got != want {
		t.Errorf("GnuPG reads it as %s, want %s", got, want)
	}
}

// TestStripRevoked: a revocation stays in what Armored gives of a key that came
// from the store, too.
func TestStripRevoked(t *testing.T) {
	entity := newEntity(t, at(birth))
	if err := entity.Revoke(packet.KeyCompromised, "", at(birth.Add(day))); err != nil {
		t.Fatal(err)
	}
	key := parseOne(t, binary(t, entity))
	if again := parseOne(t, []byte(key.Armored())); again.State(noon) != Revoked {
		t.Errorf("written and read again, it is %s", again.State(noon))
	}
}

// TestStripSignature cuts a signature off everywhere: what comes back is no
// longer than it was, and nothing panics.
func TestStripSignature(t *testing.T) {
	for _, config := range []*packet.Config{at(birth), {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, Time: at(birth).Time},
		{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, Time: at(birth).Time}, {Algorithm: packet.PubKeyAlgoEd448, V6Keys: true, Time: at(birth).Time}} {
		for _, p := range must(cutKeys(binary(t, newEntity(t, config))))(t)[0] {
			if p.Tag != tagSignature {
				continue
			}
			if got := stripSignature(append(bytes.Clone(p.Contents), "junk"...)); !bytes.Equal(got, stripSignature(p.Contents)) || len(got) > len(p.Contents) {
				t.Errorf("%d bytes and junk are %d bytes", len(p.Contents), len(got))
			}
			for cut := range p.Contents {
				if got := stripSignature(p.Contents[:cut]); len(got) > cut {
					t.Errorf("of %d bytes %d were made", cut, len(got))
				}
			}
		}
	}
}

// TestAllowances: what an administrator's word counts for is a warning, and
// what it does not is a refusal still.
func TestAllowances(t *testing.T) {
	year := func(e *openpgp.Entity) { recertify(t, e, birth.Add(time.Second), expires(30*day)) }
	for _, test := range []struct {
		name    string
		address string
		now     time.Time
		change  func(*openpgp.Entity)
		allow   Allowance
		reason  Reason
		comes   string // of a warning
	}{
		{"another address", "bob@example.org", noon, nil, AllowAddress, ReasonAddress, "does not name bob@example.org, its user ids are [\"Ann <ann@example.org>\"]"},
		{"expired", "ann@example.org", noon, year, AllowExpired, ReasonExpired, "expired on 2026-01-31; mail is sealed to it as long as there is no newer one"},
		{"of the future", "ann@example.org", birth.Add(-day), nil, AllowEarly, ReasonEarly, "is not valid before 2026-01-01; mail is sealed to it all the same"},
		{"revoked", "ann@example.org", noon, func(e *openpgp.Entity) { e.Revoke(packet.NoReason, "", at(birth)) }, 0, ReasonRevoked, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			entity := newEntity(t, at(birth))
			if test.change != nil {
				test.change(entity)
			}
			rules := Rules{Address: test.address, Now: test.now, Seal: sealed, Allow: Administrator &^ test.allow}
			if _, _, err := Validate(binary(t, entity), rules); ReasonOf(err) != test.reason {
				t.Errorf("not allowed: %v", err)
			}
			rules.Allow = Administrator
			found, warnings, err := Validate(binary(t, entity), rules)
			if test.allow == 0 {
				if ReasonOf(err) != test.reason || len(found)+len(warnings) > 0 {
					t.Errorf("an administrator's: %v", err)
				}
				return
			}
			if err != nil || len(found) != 1 || len(warnings) != 1 || warnings[0].Reason != test.reason || !strings.HasSuffix(warnings[0].Text, test.comes) {
				t.Errorf("allowed: %d keys, warnings %v, error %v", len(found), warnings, err)
			}
		})
	}
}

// TestValidationEffort: signatures within the limits, that claim to be by a key
// which takes long to check, are given up in time.
func TestValidationEffort(t *testing.T) {
	files := map[string][]byte{"RSA-8192": forgedRSA(t, 8192)}
	for _, curve := range []packet.Curve{packet.CurveNistP384, packet.CurveNistP521, packet.CurveBrainpoolP256, packet.CurveBrainpoolP512} {
		files[string(curve)] = forged(t, &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: curve, Time: at(birth).Time}, true)
	}
	const most = 100 * time.Millisecond
	for name, data := range files {
		var some bytes.Buffer
		for _, p := range must(cutKeys(data))(t)[0][:maxSignatures] {
			p.Serialize(&some)
		}
		var took time.Duration
		var err error
		for range 5 {
			begin := time.Now()
			_, _, err = Validate(some.Bytes(), Rules{Now: noon, Seal: sealed})
			if took = time.Since(begin); took < most*slow {
				break
			}
		}
		if ReasonOf(err) != ReasonTooLarge || took >= most*slow {
			t.Errorf("%s: %v, after %v", name, err, took)
		}
		t.Logf("%s: %v", name, took)
	}
}

// TestTrial: a key that nothing can be sealed to is refused in the end.
func TestTrial(t *testing.T) {
	fails := func(*Key) error { return errors.New("it does not fit") }
	_, _, err := Validate(binary(t, newEntity(t, at(birth))), Rules{Now: noon, Seal: fails, Allow: Administrator})
	if ReasonOf(err) != ReasonTrial || !strings.Contains(err.Error(), "it does not fit") {
		t.Errorf("the error is %v", err)
	}
}

// TestPostQuantum: a key with ML-KEM alone is taken where that is chosen.
func TestPostQuantum(t *testing.T) {
	entity := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoMldsa65Ed25519, V6Keys: true, Time: at(birth).Time})
	rules := Rules{Now: noon, Seal: sealed}
	if _, _, err := Validate(binary(t, entity), rules); ReasonOf(err) != ReasonPurpose || !strings.Contains(err.Error(), "only by ML-KEM") {
		t.Errorf("not chosen: %v", err)
	}
	rules.Options = func(*Key) KeyOptions { return KeyOptions{MLKEM: true} }
	found, _, err := Validate(binary(t, entity), rules)
	if err != nil || found[0].State(noon) != Usable {
		t.Errorf("chosen: %v", err)
	}
	rules.Options = func(*Key) KeyOptions { return KeyOptions{OAEP: true} }
	if _, _, err := Validate(binary(t, entity), rules); ReasonOf(err) != ReasonPurpose {
		t.Errorf("with an option of certificates: %v", err)
	}
}

// TestValidateCertificates: what OpenSSL makes is judged as TestCertificates
// has it, and what Parse bears with is refused.
func TestValidateCertificates(t *testing.T) {
	dir := certificates(t)
	for file, want := range map[string]Reason{
		"rsa.pem": "", "p256.pem": "", "chain.p7b": "", "chain.p7c": "", "root-leaf-middle.pem": "", "trusted.pem": "", "rsa.b64": "", "no-usage.pem": "",
		"subject-address.pem": "", "two-leaves.pem": "", "home-made.pem": ReasonAuthority, "expired.pem": ReasonExpired, "other-address.pem": ReasonAddress,
		"no-address.pem": ReasonAddress, "utf8-address.pem": ReasonAddress, "web-server.pem": ReasonPurpose, "signs-only.pem": ReasonPurpose,
		"middle-root.pem": ReasonAuthority, "rsa.p12": ReasonSecret, "with-key.pem": ReasonSecret, "secp256k1.pem": ReasonUnsupported, "rsa1024.pem": ReasonWeak,
	} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		_, warnings, err := Validate(data, Rules{Address: "ann@example.org", Now: time.Now(), Seal: sealed})
		if ReasonOf(err) != want || (err == nil) != (want == "") || len(warnings) > 0 {
			t.Errorf("%s: warnings %v, error %v, want %q", file, warnings, err, want)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "home-made.pem"))
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err := Validate(data, Rules{Address: "ann@example.org", Now: time.Now(), Seal: sealed, Allow: Administrator})
	if err != nil || len(warnings) != 1 || warnings[0].Reason != ReasonAuthority {
		t.Errorf("home-made, and allowed: warnings %v, error %v", warnings, err)
	}
}

// TestNames: which user ids are of an address.
func TestNames(t *testing.T) {
	for _, test := range []struct {
		userID, address string
		want            bool
	}{
		{"Ann <ann@example.org>", "ann@example.org", true},
		{"ann@example.org", "ann@example.org", true},
		{"Ann (home) <Ann@EXAMPLE.org>", "ann@example.org", true},
		{"Ann <x> <ann@example.org>", "ann@example.org", true},
		{`Ann <"ann"@example.org.>`, "ann@example.org", true},
		{"Ann <ann@xn--bcher-kva.example>", "ann@bücher.example", true},
		{"Ann <ÄNN@example.org>", "änn@example.org", true},
		{"Ann <ann@example.org>", "@example.org", true},
		{"Ann <ann@sub.example.org>", "@example.org", false},
		{"ann@example.org <bob@example.org>", "ann@example.org", false},
		{"Ann <ann@example.org.example.net>", "ann@example.org", false},
		{"Ann <ann@example.org\x00>", "ann@example.org", false},
		{"Ann", "ann@example.org", false},
		{"@example.org", "@example.org", false},
		{"", "ann@example.org", false},
	} {
		key := &Key{UserIDs: []string{"nobody", test.userID}}
		if got := key.Names(test.address); got != test.want {
			t.Errorf("%q is of %s: %v", test.userID, test.address, got)
		}
	}
	key := &Key{UserIDs: []string{"Ann <ann@EXAMPLE.org>", "ann@example.org", "Bob", "<bob@xn--bcher-kva.example>"}}
	if got := key.Addresses(); !slices.Equal(got, []string{"ann@example.org", "bob@bücher.example"}) {
		t.Errorf("addresses %q", got)
	}
}

// TestReasons: whatever Parse refuses has a reason, so that there is advice.
func TestReasons(t *testing.T) {
	for _, data := range []string{"", "x", "\x99\x00\x00", "\xc6\xff", "0\x82\x01", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		base64.StdEncoding.EncodeToString([]byte("\xc6\x01\x04"))} {
		if _, err := Parse([]byte(data)); ReasonOf(err) == "" || advice[ReasonOf(err)] == "" {
			t.Errorf("%q: %v has no reason, or there is nothing that can be done", data, err)
		}
	}
}

package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

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
	f.Fuzz(survives)
}

// FuzzCertificate is the same for certificates and bundles of them.
func FuzzCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PKCS7-----\nMIAGCSqGSIb3DQEHAqCA\n-----END PKCS7-----\n"))
	f.Fuzz(survives)
}

// patience is far more than any key takes, on a busy machine under the race
// detector.
const patience = 5 * time.Second

func survives(t *testing.T, data []byte) {
	begun := time.Now()
	parsed, err := Parse(data)
	if took := time.Since(begun); took > patience {
		t.Fatalf("%d bytes took %v", len(data), took)
	}
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
			again.Method != key.Method || again.Algorithm != key.Algorithm || !slices.Equal(again.UserIDs, key.UserIDs) ||
			len(again.OpenPGPKeys(noon)) != len(key.OpenPGPKeys(noon)) || again.Armored() != armored {
			t.Fatalf("armored, %s, %s is %s, %s", key.Fingerprint, key.State(noon), again.Fingerprint, again.State(noon))
		}
		switch key.Method {
		case OpenPGP:
			canBeSealedTo(t, key)
		case SMIME:
			if found := key.Certificates(noon); len(found) != 1 || !bytes.Equal(found[0].Raw, key.encoded) {
				t.Fatalf("%s has %d certificates", key.Fingerprint, len(found))
			}
		}
	}
}

func canBeSealedTo(t *testing.T, key *Key) {
	t.Helper()
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

// inQuotes spells an address so that everything in it is taken by its word.
func inQuotes(plain string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(plain) + `"`
}

// upperASCII changes case as far as a store does not mind.
func upperASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			r -= 'a' - 'A'
		}
		return r
	}, text)
}

// FuzzDomain: a domain has one canonical form, which is its own, whatever the
// case of its letters; and so has a local part.
func FuzzDomain(f *testing.F) {
	for _, domain := range []string{"Example.ORG", "ÜBER.example", "xn--bcher-kva.example", "faß.de", "a\u3002b", "[192.0.2.1]", "XN--A.b", "ﬀ.x", "İ.test", "a\u200db", "xn--.", "\uff20", "\u3002", "a\uff20b", "Xn--"} {
		f.Add(domain)
	}
	f.Fuzz(func(t *testing.T, domain string) {
		if !utf8.ValidString(domain) || strings.HasSuffix(domain, ".") || strings.Contains(domain, "@") {
			return // which readAddress refuses, takes off, or has for the end of the local part
		}
		canonical := CanonicalDomain(domain)
		if again := CanonicalDomain(canonical); again != canonical {
			t.Errorf("%q is %q, and that is %q", domain, canonical, again)
		}
		if upper := CanonicalDomain(upperASCII(domain)); upper != canonical {
			t.Errorf("%q is %q, and in capitals %q", domain, canonical, upper)
		}
		for _, spelling := range (Naming{}).spellings("", canonical) {
			if strings.HasPrefix(spelling, "@") && CanonicalDomain(spelling[1:]) != canonical {
				t.Errorf("%q has the spelling %q, which is %q", canonical, spelling, CanonicalDomain(spelling[1:]))
			}
		}
		// x/text folds Cherokee letters to capitals, and these to small ones.
		cherokee := strings.ContainsFunc(domain, func(r rune) bool { return unicode.Is(unicode.Cherokee, r) })
		if folded := Folded(domain); Folded(folded) != folded && !cherokee {
			t.Errorf("%q is folded to %q, and that to %q", domain, folded, Folded(folded))
		}
		if entered := Entered("a@" + domain); Entered(entered) != entered {
			t.Errorf("%q is entered as %q, and that as %q", domain, entered, Entered(entered))
		}
	})
}

// one is a store with one entry.
type one struct{ name string }

func (o one) RecipientKeys(_ context.Context, addresses []string) (rows []Row, _ error) {
	for _, address := range addresses {
		row := Row{Address: address}
		if upperASCII(address) == upperASCII(o.name) {
			row.Account, row.Known, row.Enabled, row.Key = o.name, true, true, "a key that nobody reads"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (one) Close() {}

// FuzzSpelling enters an address under its canonical spelling and looks it up by
// other spellings of it: it is found by each.
func FuzzSpelling(f *testing.F) {
	for _, address := range dodges {
		f.Add(address, "+", true)
	}
	f.Add("Jörg@ÜBER.example", "-", false)
	f.Add(`"owner-a"@b.test`, "-+", false)
	f.Fuzz(func(t *testing.T, address, delimiter string, sensitive bool) {
		canonical, ok := readAddress(address)
		if !ok || !isASCII(delimiter) || strings.ContainsAny(delimiter, "@\x00") {
			return
		}
		naming := Naming{Delimiter: delimiter, CaseSensitive: sensitive}
		local, domain := splitAddress(canonical)
		spellings := []string{address, " " + address, address + "(x)", "@r.test:" + address, inQuotes(canonical)}
		if domain != "" {
			spellings = append(spellings, inQuotes(canonical)+".", inQuotes(local+"@"+upperASCII(domain)))
			if ascii, err := idnaForm.ToASCII(domain); err == nil && CanonicalDomain(ascii) == domain {
				spellings = append(spellings, inQuotes(local+"@"+ascii))
			}
			if extended := local + delimiter + "x"; naming.withoutExtension(extended) == local {
				spellings = append(spellings, inQuotes(extended+"@"+domain))
			}
		}
		if !sensitive {
			spellings = append(spellings, inQuotes(upperASCII(canonical)))
		}
		found, err := Lookup(t.Context(), one{canonical}, naming, spellings)
		if err != nil {
			t.Fatalf("%q is %q: %v", address, canonical, err)
		}
		for _, spelling := range spellings {
			if r := found[spelling]; len(r.Accounts) != 1 || !r.Accounts[0].Enrolled() {
				t.Errorf("%q is entered as %q and not found as %q", address, canonical, spelling)
			}
		}
	})
}

// FuzzKeyOptions: the options of a key are taken out of those of its account, and
// all others stay what they were.
func FuzzKeyOptions(f *testing.F) {
	for _, options := range []string{"", "{}", "null", "[]", `{"key":{"aead":"gcm","oaep":true},"no_key":"defer"}`, `{"key":null}`,
		`{"key":{"aead":"ocb","ml_kem":true,"x":1}}`, `{"key":{"aead":"cfb"}}`, `{"key":[],"a":1}`, `{"a":1e999,"key":{"x":1e999}}`, `{"KEY":{},"key":{"AEAD":"gcm"},"z":{"b":[1,2.50],"a":null}}`} {
		f.Add([]byte(options))
	}
	f.Fuzz(func(t *testing.T, options []byte) {
		rest, text, err := splitOptions(options)
		if err != nil {
			return
		}
		ofKey, err := ParseKeyOptions(text)
		if err != nil {
			return
		}
		if !slices.Contains([]AEAD{NoAEAD, GCM, OCB}, ofKey.AEAD) {
			t.Fatalf("%q has the mode %q", options, ofKey.AEAD)
		}
		all, read := readExactly(options)
		left, readRest := readExactly(rest)
		if !read || !readRest {
			t.Fatalf("%q became %q", options, rest)
		}
		delete(all, keyOptions)
		if len(all) != len(left) || len(all) > 0 && !reflect.DeepEqual(all, left) {
			t.Errorf("%q became %q", options, rest)
		}
		if again, none, err := splitOptions(rest); err != nil || !bytes.Equal(again, rest) || len(none) > 0 {
			t.Errorf("%q became %q, and that %q with %q, %v", options, rest, again, none, err)
		}
		written, err := json.Marshal(ofKey)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseKeyOptions(written); err != nil || again != ofKey {
			t.Errorf("%+v is written %q and read as %+v, %v", ofKey, written, again, err)
		}
	})
}

// readExactly reads a JSON object, with numbers that are in no range too.
func readExactly(text []byte) (object map[string]any, ok bool) {
	if len(text) == 0 {
		return nil, true
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err := decoder.Decode(&object)
	return object, err == nil
}

// FuzzRows: a store's rows are an error, or nobody's key is overlooked: whoever
// has something for a key is enrolled, under each of the accounts named.
func FuzzRows(f *testing.F) {
	f.Add("ann@example.org", "bob@example.org", "openpgp", "aes128", "x", "", []byte(`{"key":{"oaep":true}}`))
	f.Add("", "", "", "", "x", " ", []byte(nil))
	f.Add("", "ann@example.org", "smime", "", "", "x", []byte("{}"))
	f.Add("a", "a", "", "aes256", "", "", []byte("[]"))
	f.Fuzz(func(t *testing.T, first, second, method, cipher, key, other string, options []byte) {
		accounts, err := readAccounts([]Row{
			{Address: "asked@example.org", Account: first, Known: true, Enabled: true, Key: key, Options: options},
			{Address: "asked@example.org", Account: second, Known: true, Enabled: true, Method: Method(method), Cipher: Cipher(cipher), Key: other},
		})
		if err != nil {
			if accounts != nil {
				t.Fatalf("%d accounts beside the error %v", len(accounts), err)
			}
			return
		}
		want := make(map[string]bool)
		for account, text := range map[string]string{first: "", second: ""} {
			if account == first {
				text += key
			}
			if account == second {
				text += other
			}
			if account == "" && text != "" {
				account = "asked@example.org"
			}
			if account != "" {
				want[account] = want[account] || text != ""
			}
		}
		got := make(map[string]bool)
		for _, a := range accounts {
			got[a.Address] = a.Enrolled()
			if a.Cipher != AES128 && a.Cipher != AES256 || a.State(noon) != Unusable && len(a.Keys) == 0 {
				t.Errorf("%+v", a)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("enrolled are %v, want %v", got, want)
		}
	})
}

package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

// authenticated writes AuthEnvelopedData that we do not write: for reading.
type authenticated struct {
	key, nonce, content []byte
	cipher              asn1.ObjectIdentifier
	parameters          []byte // of the cipher; nil is what belongs there
	icv                 int
	attributes          [][]byte // in the order in which they are written
	sealed              [][]byte // what is authenticated; nil is attributes
	unauthenticated     []byte
	kind                asn1.ObjectIdentifier // of the message; nil is AuthEnvelopedData
	mac                 func(mac []byte) []byte
}

// message is sealed to one reader.
func (a authenticated) message(t testing.TB, r *reader) []byte {
	t.Helper()
	e := &Encrypter{key: a.key, cipher: AES256}
	info, _, err := e.recipientInfo(Recipient{Certificate: r.certificate})
	if err != nil {
		t.Fatal(err)
	}
	block := must(aes.NewCipher(a.key))
	aead := must(cipher.NewGCMWithTagSize(block, max(a.icv, 12)))
	var aad []byte
	if a.sealed == nil {
		a.sealed = a.attributes
	}
	if a.sealed != nil {
		aad = enclose(tagSet, 0, a.sealed...)
	}
	sealed := aead.Seal(nil, a.nonce, a.content, aad)
	ciphertext, mac := sealed[:len(a.content)], sealed[len(a.content):][:a.icv]
	if a.mac != nil {
		mac = a.mac(mac)
	}
	if a.parameters == nil {
		a.parameters = enclose(tagSequence, 0, enclose(4, 0, a.nonce))
		if a.icv != 12 {
			a.parameters = enclose(tagSequence, 0, enclose(4, 0, a.nonce), integer(a.icv))
		}
	}
	parts := [][]byte{integer(0), enclose(tagSet, 0, info),
		enclose(tagSequence, 0, object(oidData), algorithm(a.cipher, a.parameters), enclose(tagContext, 0, ciphertext))}
	if a.attributes != nil {
		parts = append(parts, enclose(tagContext|constructed|1, 0, a.attributes...))
	}
	parts = append(parts, enclose(4, 0, mac))
	if a.unauthenticated != nil {
		parts = append(parts, enclose(tagContext|constructed|2, 0, a.unauthenticated))
	}
	if a.kind == nil {
		a.kind = oidAuthEnvelopedData
	}
	return enclose(tagSequence, 0, object(a.kind), enclose(tagContext|constructed, 0, enclose(tagSequence, 0, parts...)))
}

func newAuthenticated() authenticated {
	a := authenticated{key: make([]byte, 32), nonce: make([]byte, 12), content: []byte("content"), cipher: oidAES256GCM, icv: 16}
	rand.Read(a.key)
	return a
}

// attribute is one of RFC 5652, section 5.3.
func attribute(last int, values ...[]byte) []byte {
	return enclose(tagSequence, 0, object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, last}), enclose(tagSet, 0, values...))
}

// TestAuthenticated opens messages of other structure than ours, and refuses
// what nobody may write, or what was changed.
func TestAuthenticated(t *testing.T) {
	first, second := attribute(3, object(oidData)), attribute(52, integer(1), integer(2), integer(3), integer(4), integer(5)) // the longer last
	long := attribute(52, make([]byte, maxAttributes))
	flip := func(mac []byte) []byte { mac[0] ^= 1; return mac }
	for what, test := range map[string]struct {
		change func(*authenticated)
		want   string // in the error; "" where it opens
	}{
		"as ours":                 {func(*authenticated) {}, ""},
		"ICV of 12, the default":  {func(a *authenticated) { a.icv = 12 }, ""},
		"ICV of 13":               {func(a *authenticated) { a.icv = 13 }, ""},
		"ICV of 14":               {func(a *authenticated) { a.icv = 14 }, ""},
		"ICV of 15":               {func(a *authenticated) { a.icv = 15 }, ""},
		"no content":              {func(a *authenticated) { a.content = nil }, ""},
		"AES-192":                 {func(a *authenticated) { a.cipher, a.key = oidAES192GCM, a.key[:24] }, ""},
		"attributes":              {func(a *authenticated) { a.attributes = [][]byte{first, second} }, ""},
		"no attribute, but empty": {func(a *authenticated) { a.attributes = [][]byte{} }, ""},
		"unsorted attributes": {func(a *authenticated) {
			a.attributes, a.sealed = [][]byte{second, first}, [][]byte{first, second}
		}, ""},
		"others":              {func(a *authenticated) { a.unauthenticated = second }, ""},
		"both":                {func(a *authenticated) { a.attributes, a.unauthenticated = [][]byte{first}, second }, ""},
		"attributes changed":  {func(a *authenticated) { a.attributes, a.sealed = [][]byte{first}, [][]byte{second} }, "changed"},
		"attributes added":    {func(a *authenticated) { a.attributes, a.sealed = [][]byte{first}, [][]byte{} }, "changed"},
		"too many attributes": {func(a *authenticated) { a.attributes = [][]byte{long} }, "too many"},
		"mac changed":         {func(a *authenticated) { a.mac = flip }, "changed"},
		"mac cut off":         {func(a *authenticated) { a.mac = func(mac []byte) []byte { return mac[:12] } }, "12 octets where 16"},
		"mac empty":           {func(a *authenticated) { a.mac = func([]byte) []byte { return nil } }, "0 octets"},
		"ICV of 4":            {func(a *authenticated) { a.icv = 4 }, "4 octets"},
		"ICV of 11":           {func(a *authenticated) { a.icv = 11 }, "11 octets"},
		"ICV of 0":            {func(a *authenticated) { a.icv = 0 }, "0 octets"},
		"ICV of 17":           {func(a *authenticated) { a.parameters = enclose(tagSequence, 0, enclose(4, 0, a.nonce), integer(17)) }, "17"},
		"ICV negative": {func(a *authenticated) {
			a.parameters = enclose(tagSequence, 0, enclose(4, 0, a.nonce), []byte{2, 1, 0xFF})
		}, "-1"},
		"nonce of 8": {func(a *authenticated) {
			a.parameters = enclose(tagSequence, 0, enclose(4, 0, make([]byte, 8)), integer(16))
		}, "nonce"},
		"no nonce":                  {func(a *authenticated) { a.parameters = enclose(tagSequence, 0) }, "nonce"},
		"parameters of CBC":         {func(a *authenticated) { a.parameters = enclose(4, 0, make([]byte, 16)) }, "nonce"},
		"parameters are NULL":       {func(a *authenticated) { a.parameters = null }, "nonce"},
		"CBC in it":                 {func(a *authenticated) { a.cipher = oidAES256CBC }, "not supported"},
		"GCM in an EnvelopedData":   {func(a *authenticated) { a.kind = oidEnvelopedData }, "not supported"},
		"a kind that is not sealed": {func(a *authenticated) { a.kind = oidData }, "not an encrypted"},
	} {
		for _, kind := range []string{"p256", "rsa2048"} {
			r := newReader(t, kind, certificateOptions{})
			a := newAuthenticated()
			test.change(&a)
			if kind == "p256" && len(a.key) != AES256.keySize() {
				continue // our key wrap is for keys of its own length
			}
			message := a.message(t, r)
			got, err := Open(message, []Identity{r.identity()})
			switch {
			case test.want == "" && (err != nil || !bytes.Equal(got, a.content)):
				t.Errorf("%s, %s: %q came back, error %v", kind, what, got, err)
			case test.want != "" && (err == nil || got != nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%s, %s: %q came back, error %v", kind, what, got, err)
			}
		}
	}
}

// TestChangedAnywhere changes each octet of a message in GCM, and cuts it off
// after each: it opens as what was sealed or not at all.
func TestChangedAnywhere(t *testing.T) {
	content := random(100)
	for _, kind := range []string{"rsa2048", "p256"} {
		r := newReader(t, kind, certificateOptions{subjectKeyID: []byte("identifier")})
		message := seal(t, gcm256, content, 1000, chosen(r)...)
		for at := range message {
			changed := bytes.Clone(message)
			changed[at] ^= 1
			got, err := Open(changed, []Identity{r.identity()})
			sealed := at >= len(message)-behindGCM-len(content)
			if err == nil && (sealed || !bytes.Equal(got, content)) {
				t.Fatalf("%s: with octet %d changed it opens as %q", kind, at, got)
			}
			if got, err := Open(message[:at], []Identity{r.identity()}); err == nil {
				t.Fatalf("%s: cut off after %d octets it opens as %q", kind, at, got)
			}
		}
	}
}

// TestManyRecipients holds that a message that names us again and again is
// given up after a few.
func TestManyRecipients(t *testing.T) {
	r := newReader(t, "rsa2048", certificateOptions{})
	e, output := encrypt(t, gcm256, []byte("content"), 10)
	right, _, err := e.recipientInfo(plain(r)[0])
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(right)
	wrong[len(wrong)-1] ^= 1
	infos := [][]byte{right}
	for range maxTries - 1 {
		infos = append(infos, wrong)
	}
	if got, err := Open(append(e.head(0, infos), output...), []Identity{r.identity()}); err != nil || string(got) != "content" {
		t.Errorf("%q, error %v", got, err)
	}
	infos = infos[:0]
	for range 10_000 {
		infos = append(infos, wrong)
	}
	if _, err = Open(append(e.head(0, infos), output...), []Identity{r.identity()}); !errors.Is(err, errChanged) {
		t.Errorf("error %v", err)
	}
}

// streamed rewrites DER as a program does that does not know lengths when it
// begins: none on composed values, and the ciphertext in pieces.
func streamed(t testing.TB, der []byte) (ber []byte) {
	t.Helper()
	for len(der) > 0 {
		v, rest, err := readValue(der, 0)
		if err != nil {
			t.Fatal(err)
		}
		whole := der[:len(der)-len(rest)]
		der = rest
		inside := v.content
		switch {
		case v.constructed:
			inside = streamed(t, inside)
		case v.is(asn1.ClassContextSpecific, 0):
			half := len(inside) / 2
			inside = append(enclose(4, 0, inside[:half]), enclose(4, 0, inside[half:])...)
		default:
			ber = append(ber, whole...)
			continue
		}
		ber = append(append(ber, whole[0]|constructed, 0x80), inside...)
		ber = append(ber, 0, 0)
	}
	return ber
}

// TestStreamed opens what has indefinite lengths all over, attributes too.
func TestStreamed(t *testing.T) {
	r := newReader(t, "p256", certificateOptions{})
	a := newAuthenticated()
	a.attributes = [][]byte{attribute(3, object(oidData))}
	for what, message := range map[string][]byte{
		"CBC":                 seal(t, cbc256, a.content, 10, plain(r)...),
		"GCM":                 seal(t, gcm256, a.content, 10, plain(r)...),
		"GCM with attributes": a.message(t, r),
	} {
		got, err := Open(streamed(t, message), []Identity{r.identity()})
		if err != nil || !bytes.Equal(got, a.content) {
			t.Errorf("%s: %q came back, error %v", what, got, err)
		}
	}
}

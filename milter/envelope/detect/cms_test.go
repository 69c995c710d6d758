package detect

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sealmilter/milter/envelope"
)

// octets reads hexadecimal, with blanks for the eye.
func octets(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tlv writes a value of indefinite length, or a definite one.
func tlv(indefinite bool, identifier byte, contents ...[]byte) []byte {
	content := slices.Concat(contents...)
	if indefinite {
		return slices.Concat([]byte{identifier, 0x80}, content, []byte{0, 0})
	}
	size := len(content)
	return append([]byte{identifier, 0x84, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, content...)
}

// object has the parts of a CMS object, any of which a test may change.
type object struct {
	oid, version, originator, infos, kind, cipher, content, behind []byte
	indefinite                                                     bool
}

func newObject(t testing.TB) *object {
	t.Helper()
	rid, err := asn1.Marshal(struct {
		Issuer pkix.RDNSequence
		Serial *big.Int
	}{pkix.Name{CommonName: "Root"}.ToRDNSequence(), big.NewInt(7)})
	if err != nil {
		t.Fatal(err)
	}
	info, err := asn1.Marshal(keyTrans{RID: asn1.RawValue{FullBytes: rid}, Key: make([]byte, 256),
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	return &object{
		oid: octets(t, "0609 2A864886F70D010703"), version: []byte{2, 1, 0}, infos: info,
		kind:    octets(t, "0609 2A864886F70D010701"),
		cipher:  octets(t, "301D 0609 60864801650304012A 0410 00000000000000000000000000000000"),
		content: append([]byte{0x80, 16}, make([]byte, 16)...), indefinite: true,
	}
}

func (o *object) bytes() []byte {
	i := o.indefinite
	return tlv(i, 0x30, o.oid, tlv(i, 0xA0, tlv(i, 0x30, o.version, o.originator, tlv(i, 0x31, o.infos),
		tlv(i, 0x30, o.kind, o.cipher, o.content), o.behind)))
}

func TestObjects(t *testing.T) {
	const gcm = "301E 0609 60864801650304012E 3011 040C 000000000000000000000000 020110"
	auth := func(o *object) {
		o.oid, o.cipher = octets(t, "060B 2A864886F70D0109100117"), octets(t, gcm)
		o.behind = append([]byte{4, 16}, make([]byte, 16)...)
	}
	tests := []struct {
		name   string
		change func(o *object)
		want   string
	}{
		{"indefinite", func(o *object) {}, ""},
		{"definite", func(o *object) { o.indefinite = false }, ""},
		{"content in pieces", func(o *object) { o.content = octets(t, "A080 0403 010203 2480 0401 01 0000 2403 0401 01 0000") }, ""},
		{"content in pieces of another kind", func(o *object) { o.content = octets(t, "A080 0403 010203 0C01 41 0000") }, "damaged"},
		{"content elsewhere", func(o *object) { o.content = nil }, "lacks"},
		{"content without its tag", func(o *object) { o.content[0] = 4 }, "damaged"},
		{"authenticated", auth, ""},
		{"authenticated, without its mac", func(o *object) { auth(o); o.behind = nil }, "lacks"},
		{"authenticated attributes", func(o *object) { auth(o); o.behind = append(octets(t, "A102 3000"), o.behind...) }, "attributes"},
		{"unprotected attributes", func(o *object) { o.behind = octets(t, "A102 3000") }, "attributes"},
		{"a mac where none belongs", func(o *object) { o.behind = []byte{4, 0} }, "damaged"},
		{"certificates of the sender", func(o *object) { o.originator = octets(t, "A000") }, "certificates"},
		{"CBC that should authenticate", func(o *object) { c := o.cipher; auth(o); o.cipher = c }, "cipher"},
		{"GCM that does not", func(o *object) { o.cipher = octets(t, gcm) }, "cipher"},
		{"DES", func(o *object) { o.cipher = octets(t, "3011 0605 2B0E030207 0408 0000000000000000") }, "cipher"},
		{"RC2 of 128 bits", func(o *object) { o.cipher = octets(t, "3019 0608 2A864886F70D0302 300D 02013A 0408 0000000000000000") }, ""},
		{"RC2 of 40 bits", func(o *object) {
			o.cipher = octets(t, "301A 0608 2A864886F70D0302 300E 020200A0 0408 0000000000000000")
		}, "cipher"},
		{"RC2 of no bits", func(o *object) { o.cipher = octets(t, "300A 0608 2A864886F70D0302") }, "cipher"},
		{"plain data", func(o *object) { o.oid[10] = 1 }, "plain"},
		{"signed", func(o *object) { o.oid[10] = 2 }, "signed"},
		{"compressed", func(o *object) { o.oid = octets(t, "060B 2A864886F70D0109100109") }, "compressed"},
		{"no readers", func(o *object) { o.infos = nil }, "lacks"},
		{"for a password", func(o *object) { o.infos = octets(t, "A303 020100") }, "no certificate"},
		{"for a password too", func(o *object) { o.infos = append(o.infos, octets(t, "A303 020100")...) }, ""},
		{"a reader of another kind", func(o *object) { o.infos = octets(t, "A500") }, "damaged"},
		{"a damaged reader by agreement", func(o *object) { o.infos = octets(t, "A103 020103") }, "damaged"},
		{"a reader without a name", func(o *object) { o.infos = bytes.Replace(o.infos, []byte{2, 1, 7}, []byte{5, 1, 7}, 1) }, "damaged"},
		{"an object that is none", func(o *object) { o.oid = octets(t, "0601 80") }, "damaged"},
		{"a cipher that is none", func(o *object) { o.cipher = octets(t, "3000") }, "damaged"},
		{"a damaged reader", func(o *object) { o.infos[5]++ }, "damaged"},
		{"too many readers", func(o *object) { o.infos = bytes.Repeat(o.infos, maxReaders+1) }, "more than"},
		{"too many passwords", func(o *object) { o.infos = bytes.Repeat(octets(t, "A303 020100"), maxReaders+1) }, "more than"},
		{"too large a reader", func(o *object) { o.infos = tlv(false, 0xA3, tlv(false, 4, make([]byte, maxSmallValue))) }, "too large"},
		{"too large readers", func(o *object) {
			o.infos = bytes.Repeat(tlv(false, 0xA3, tlv(false, 4, make([]byte, maxSmallValue-9))), 9)
		}, "too many"},
		{"a version that is none", func(o *object) { o.version = octets(t, "020A 01020304050607080910") }, "damaged"},
		{"a long tag", func(o *object) { o.version = octets(t, "1F2200") }, "damaged"},
		{"a length of five octets", func(o *object) { o.version = octets(t, "02850000000001 00") }, "damaged"},
		{"an indefinite plain value", func(o *object) { o.version = octets(t, "0280 00 0000") }, "damaged"},
		{"a value longer than what is around it", func(o *object) { o.version = octets(t, "020100"); o.cipher[3] = 0x7F }, "damaged"},
		{"an end with a length", func(o *object) { o.behind = octets(t, "0001 00") }, "damaged"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newObject(t)
			test.change(o)
			expect(t, readObject(o.bytes()), test.want)
		})
	}
	good := newObject(t).bytes()
	for cut := range good {
		if readObject(good[:cut]) == nil {
			t.Errorf("cut off behind %d octets it is sealed", cut)
		}
	}
	expect(t, readObject(append(good, 0)), "behind")
	expect(t, readObject(bytes.Repeat(octets(t, "3080"), 99)), "damaged")
	deep := newObject(t)
	deep.content = slices.Concat([]byte{0xA0, 0x80}, bytes.Repeat([]byte{0x24, 0x80}, 99))
	expect(t, readObject(deep.bytes()), "damaged")
}

func readObject(data []byte) error {
	m, err := newSMIME(&entity{encoding: "binary"})
	if err == nil {
		err = m.write(data)
	}
	if err == nil {
		_, err = m.end()
	}
	return err
}

// TestMemory streams a large message in each form, and holds what is allocated on the
// way to what the package promises.
func TestMemory(t *testing.T) {
	const most = 64 << 10
	endless := slices.Concat(reader3, []byte{0xC0 | 18, 255, 255, 255, 255, 255, 1})
	o := newObject(t)
	o.content = []byte{0x80, 0x84, 0x7F, 0xFF, 0xFF, 0xFF}
	object := bytes.TrimRight(o.bytes(), "\x00")
	encode := func(data []byte) string {
		for len(data)%48 != 0 {
			data = append(data, 1)
		}
		var text strings.Builder
		for line := range slices.Chunk(data, 48) {
			text.WriteString(base64.StdEncoding.EncodeToString(line) + "\r\n")
		}
		return text.String()
	}
	chunk := []byte(strings.Repeat(strings.Repeat("QUJD", 16)+"\r\n", 990))
	for name, test := range map[string]struct{ kind, encoding, start string }{
		"OpenPGP": {"text/plain", "7bit", armorHead + "\r\n\r\n" + encode(endless)},
		"base64":  {"application/pkcs7-mime", "base64", encode(object)},
		"binary":  {"application/pkcs7-mime", "binary", string(object)},
	} {
		d := New([]envelope.Field{{Name: "Content-Type", Value: test.kind}, {Name: "Content-Transfer-Encoding", Value: test.encoding}})
		d.Write([]byte(test.start))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for sent := 0; sent < streamed && d.form != nil; sent += len(chunk) {
			d.Write(chunk)
		}
		runtime.ReadMemStats(&after)
		if d.form == nil {
			t.Fatalf("%s: %s", name, d.found.Reason)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > most {
			t.Errorf("%s: %d bytes were allocated", name, grown)
		}
	}
}

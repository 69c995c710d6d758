package detect

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"reflect"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/cms"
)

// FuzzDetect: however the body of a message is cut, the verdict is the same;
// and where it is that the message is sealed, it has a reader, and others'
// parsers find an encrypted object in it and nothing else.
func FuzzDetect(f *testing.F) {
	for _, s := range samples(f) {
		if len(s.raw) < 10_000 {
			f.Add(s.raw, uint64(len(s.raw)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		header, body := split(raw)
		found := detect(header, body, whole)
		cuts := rand.New(rand.NewPCG(seed, 0))
		for what, next := range map[string]func() int{
			"an octet at a time": func() int { return 1 },
			"in pieces":          func() int { return cuts.IntN(100) },
		} {
			if again := detect(header, body, next); !reflect.DeepEqual(again, found) {
				t.Fatalf("%s: %+v, want %+v", what, again, found)
			}
		}
		if found.Sealed != (len(found.Readers) > 0) || found.Sealed != (found.Method != "") || found.Reason == "" {
			t.Fatalf("%+v", found)
		}
		switch found.Method {
		case keys.OpenPGP:
			block, err := armor.Decode(bytes.NewReader(body))
			if err != nil || block.Type != "PGP MESSAGE" {
				t.Fatalf("go-crypto finds no armor: %v", err)
			}
			agreesOnPackets(t, block.Body, len(found.Readers))
			agreesOnParts(t, header, body)
			saysLittle(t, body)
		case keys.SMIME:
			agreesOnObject(t, header, body)
		}
	})
}

// FuzzPackets is the same below the armor, whose checksum a fuzzer seldom hits.
func FuzzPackets(f *testing.F) {
	for _, test := range packetTests() {
		if len(test.message) < 10_000 {
			f.Add(test.message)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var p packets
		err := p.write(message)
		readers := p.readers
		if err == nil {
			readers, err = p.finish()
		}
		if err == nil {
			if len(readers) == 0 {
				t.Fatal("it is sealed to nobody")
			}
			agreesOnPackets(t, bytes.NewReader(message), len(readers))
		}
		if again := readPackets(message, 1); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Fatalf("an octet at a time the error is %v, else %v", again, err)
		}
	})
}

// agreesOnPackets counts the session keys that go-crypto finds in front of the
// encrypted packet at the end.
func agreesOnPackets(t *testing.T, message io.Reader, readers int) {
	t.Helper()
	packets := packet.NewOpaqueReader(message)
	count := 0
	for {
		p, err := packets.Next()
		if err != nil {
			t.Fatalf("go-crypto finds no encrypted packet: %v", err)
		}
		switch p.Tag {
		case tagPublicKeyESK:
			count++
			continue
		case tagSymmetricKeyESK, tagMarker, tagPadding:
			continue
		case tagProtected, tagGnuPGOCB:
		default:
			t.Fatalf("go-crypto finds a packet of type %d", p.Tag)
		}
		if p, err = packets.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("go-crypto finds a packet behind it: %+v, %v", p, err)
		}
		if count != readers {
			t.Fatalf("go-crypto finds %d readers, we %d", count, readers)
		}
		return
	}
}

// agreesOnParts lets the standard library find the two parts of PGP/MIME, and no
// third.
func agreesOnParts(t *testing.T, header []envelope.Field, body []byte) {
	t.Helper()
	e, err := readEntity(header)
	if err != nil {
		t.Fatal(err)
	}
	if e.kind != "multipart/encrypted" {
		return
	}
	parts := multipart.NewReader(bytes.NewReader(body), e.params["boundary"])
	for i, want := range []string{"application/pgp-encrypted", "application/octet-stream"} {
		part, err := parts.NextRawPart()
		if err != nil && strings.Contains(err.Error(), "malformed MIME header") {
			return // it knows the names of HTTP's fields alone, which have no braces
		}
		if err != nil {
			t.Fatalf("the standard library finds no part %d: %v", i+1, err)
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind != want {
			t.Fatalf("the standard library takes part %d for %q", i+1, kind)
		}
	}
	if _, err := parts.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Fatalf("the standard library finds a third part, or %v", err)
	}
}

// saysLittle counts what can be read beside the encrypted data: delimiters, the
// headers of two parts, a sentence for those who know no MIME, armor headers.
func saysLittle(t *testing.T, body []byte) {
	t.Helper()
	const delimiters = 3 * (70 + len("----"))
	const most = delimiters + 2*maxPartHeader + maxArmorHeader + 200
	words := 0
	armor, data := false, false
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		switch {
		case string(line) == armorHead:
			armor = true
		case string(line) == armorTail:
			armor, data = false, false
		case armor && len(line) == 0:
			data = true
		case !data:
			words += len(line)
		case bytes.ContainsAny(line, " \t:"):
			t.Fatalf("%q stands within the data", line)
		}
	}
	if words > most {
		t.Fatalf("%d octets can be read beside the encrypted data, want at most %d", words, most)
	}
}

// agreesOnObject lets our own reader of CMS take the object apart, which is
// written in another way. What it says without a key is that it has none; of
// authenticated encryption it knows nothing.
func agreesOnObject(t *testing.T, header []envelope.Field, body []byte) {
	t.Helper()
	e, err := readEntity(header)
	if err != nil {
		t.Fatal(err)
	}
	data := body
	if e.encoding == "base64" {
		text := bytes.Join(bytes.Fields(body), nil)
		if data, err = base64.StdEncoding.DecodeString(string(text)); err != nil {
			t.Fatal(err)
		}
	}
	oidAuth := []byte("\x06\x0B\x2A\x86\x48\x86\xF7\x0D\x01\x09\x10\x01\x17")
	if _, err := cms.Open(data, nil); !errors.Is(err, cms.ErrNotForUs) && !bytes.Contains(data[:min(len(data), 40)], oidAuth) {
		t.Fatalf("our own reader says: %v", err)
	}
}

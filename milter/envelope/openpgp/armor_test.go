package openpgp

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestArmor compares with go-crypto's armor, line by line, for messages of
// lengths around a line, written in pieces.
func TestArmor(t *testing.T) {
	key := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519}).Subkeys[0].PublicKey
	for name, mode := range modes {
		for size := range 100 {
			var body bytes.Buffer
			e, err := NewEncrypter(&body, AES256, mode)
			if err != nil {
				t.Fatal(err)
			}
			e.Write(make([]byte, size))
			e.Close()
			prefix, err := e.Prefix([]*packet.PublicKey{key}, size%2 == 0)
			if err != nil {
				t.Fatal(err)
			}
			message := append(prefix, body.Bytes()...)
			for _, piece := range []int{1, 7, 48, 1000} {
				var ours, theirs bytes.Buffer
				w := e.Armor(prefix).Writer(&ours, "\n")
				for rest := message; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
					w.Write(rest[:min(piece, len(rest))])
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				a, err := armor.EncodeWithChecksumOption(&theirs, "PGP MESSAGE", nil, mode == NoAEAD)
				if err != nil {
					t.Fatal(err)
				}
				a.Write(message)
				a.Close()
				if want := theirs.String() + "\n"; ours.String() != want {
					t.Fatalf("%s, size %d, pieces of %d:\n%s\nwant\n%s", name, size, piece, ours.String(), want)
				}
			}
		}
	}
}

// TestChecksum holds that the checksum is that of the copy also where the body
// went out in several pieces while it was encrypted.
func TestChecksum(t *testing.T) {
	key := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519}).Subkeys[0].PublicKey
	for _, size := range []int{partialSize - 6, partialSize, 5*partialSize + 17} {
		var body bytes.Buffer
		e, err := NewEncrypter(&body, AES256, NoAEAD)
		if err != nil {
			t.Fatal(err)
		}
		e.Write(make([]byte, size))
		e.Close()
		prefix, err := e.Prefix([]*packet.PublicKey{key}, false)
		if err != nil {
			t.Fatal(err)
		}
		sum := slowCRC(append(prefix, body.Bytes()...))
		if want := "=" + base64.StdEncoding.EncodeToString(sum); e.Armor(prefix).checksum != want {
			t.Errorf("%d octets: %s, want %s", size, e.Armor(prefix).checksum, want)
		}
	}
}

// slowCRC is the code of RFC 9580, section 6.1.1, in Go.
func slowCRC(p []byte) []byte {
	crc := uint32(0xB704CE)
	for _, octet := range p {
		crc ^= uint32(octet) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864CFB
			}
		}
	}
	return []byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}
}

func TestCRC24(t *testing.T) {
	content := make([]byte, 100)
	rand.Read(content)
	for size := range content {
		if got := NewCRC24().Update(content[:size]).Octets(); !bytes.Equal(got[:], slowCRC(content[:size])) {
			t.Errorf("%d octets: %x, want %x", size, got, slowCRC(content[:size]))
		}
		for cut := range size {
			joined := NewCRC24().Update(content[:cut]).join(NewCRC24().Update(content[cut:size]), int64(size-cut)).Octets()
			if !bytes.Equal(joined[:], slowCRC(content[:size])) {
				t.Fatalf("%d octets behind %d: %x, want %x", size-cut, cut, joined, slowCRC(content[:size]))
			}
		}
	}
}

func TestArmorSize(t *testing.T) {
	for _, armor := range []Armor{{}, {checksum: "=abcd"}} {
		for _, eol := range []string{"\n", "\r\n"} {
			for _, size := range []int{0, 1, 2, 3, 47, 48, 49, 95, 96, 97, 40_000, 100_000} {
				var text bytes.Buffer
				w := armor.Writer(&text, eol)
				w.Write(make([]byte, size))
				w.Close()
				if got := armor.Size(int64(size), len(eol)); got != int64(text.Len()) {
					t.Errorf("the size of %d octets with %d at a line's end is %d, armored it is %d", size, len(eol), got, text.Len())
				}
			}
		}
	}
}

// TestArmorFails holds that nothing is lost in silence.
func TestArmorFails(t *testing.T) {
	content := make([]byte, 100_000)
	length := int(Armor{}.Size(int64(len(content)), 1))
	for _, room := range []int{0, 1, 100, length / 2, length - 1} {
		w := Armor{}.Writer(&failing{room}, "\n")
		_, err := io.Copy(w, bytes.NewReader(content))
		if err == nil {
			err = w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "short write") {
			t.Errorf("room for %d bytes of %d: error %v", room, length, err)
		}
	}
}

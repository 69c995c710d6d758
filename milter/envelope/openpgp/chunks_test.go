package openpgp

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestPublishedChunks makes the packets of RFC 9580, appendices A.10.3 and
// A.11.3, whose salt and session key are known.
func TestPublishedChunks(t *testing.T) {
	for name, c := range map[string]struct {
		mode                       AEAD
		key, salt, plain, expected string
	}{
		"OCB": {
			OCB, "28e79ab82397d3c63de24ac217d7b791",
			"20a661f731fc9a3032b5623326027e3a5d8db5748ebeff0b0c5910d09ecdd641",
			"cb1362000000000048656c6c6f2c20776f726c6421d50eae6aa1649b56aa835b2613902bd2",
			"ff9fd38562758035bc49754ce1bf3fffa7dad0a3b8104f5133cf42a4100a83eef4ca1b4801a8846bf42bcda7c8ce9d65e212f301cbcd98fdcade694a877ad4247323f6e857",
		},
		"GCM": {
			GCM, "1936fc8568980274bb900d8319360c77",
			"fcb94490bcb98bbdc9d106c6090266940f72e89edc21b5596b1576b101ed0f9f",
			"cb1362000000000048656c6c6f2c20776f726c6421d50e1ce2269a9eddef81032172b7ed7c",
			"fc6fc6d65bbfd24dcd0790966e6d1e85a30053784cb1d8b6a0699ef12155a7b2ad6258531b57651fd7777912fa95e35d9b40216f69a4c248db28ff4331f1632907399e6ff9",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			sealer := &chunks{w: &out, about: []byte{newFormat | tagSEIPD, seipdVersion2, byte(AES128), byte(c.mode), 6}}
			if err := sealer.start(c.mode, octets(t, c.key), octets(t, c.salt)); err != nil {
				t.Fatal(err)
			}
			if err := sealer.finish(octets(t, c.plain)); err != nil {
				t.Fatal(err)
			}
			if want := octets(t, c.expected); !bytes.Equal(out.Bytes(), want) {
				t.Errorf("got\n%x, want\n%x", out.Bytes(), want)
			}
		})
	}
}

func octets(t *testing.T, text string) []byte {
	t.Helper()
	p, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

package cms

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

func unhex(t *testing.T, digits string) []byte {
	t.Helper()
	octets, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// TestKeyWrapVectors is section 4 of RFC 3394, all of it.
func TestKeyWrapVectors(t *testing.T) {
	const (
		wrapping = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
		key      = "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F"
	)
	for _, v := range []struct {
		section           string
		wrapping, wrapped int // lengths in octets
		want              string
	}{
		{"4.1", 16, 16, "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"4.2", 24, 16, "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"},
		{"4.3", 32, 16, "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"4.4", 24, 24, "031D33264E15D33268F24EC260743EDCE1C6C7DDEE725A936BA814915C6762D2"},
		{"4.5", 32, 24, "A8F9BC1612C68B3FF6E6F4FBE30E71E4769C8B80A32CB8958CD5D17D6B254DA1"},
		{"4.6", 32, 32, "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		got, err := wrapKey(unhex(t, wrapping[:2*v.wrapping]), unhex(t, key[:2*v.wrapped]))
		if err != nil {
			t.Fatalf("section %s: %v", v.section, err)
		}
		if want := unhex(t, v.want); !bytes.Equal(got, want) {
			t.Errorf("section %s: %X\nwant %X", v.section, got, want)
		}
	}
}

func TestKeyWrapRefuses(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 15, 17, 31} {
		if _, err := wrapKey(make([]byte, 16), make([]byte, size)); err == nil {
			t.Errorf("a key of %d octets was wrapped", size)
		}
	}
	if _, err := wrapKey(make([]byte, 5), make([]byte, 16)); err == nil {
		t.Error("a key was wrapped with one of 5 octets")
	}
}

// TestKeyDerivationVectors has vectors of NIST's validation program (component
// testing, ansx963_2001, SHA-256): less than a hash, and four of them.
func TestKeyDerivationVectors(t *testing.T) {
	for _, v := range []struct{ secret, info, want string }{
		{"96c05619d56c328ab95fe84b18264b08725b85e33fd34f08", "", "443024c3dae66b95e6f5670601558f71"},
		{"96f600b73ad6ac5629577eced51743dd2c24c21b1ac83ee4", "", "b6295162a7804f5667ba9070f82fa522"},
		{"22518b10e70f2a3f243810ae3254139efbee04aa57c7af7d", "75eef81aa3041e33b80971203d2c0c52",
			"c498af77161cc59f2962b9a713e2b215152d139766ce34a776df11866a69bf2e" +
				"52a13d9c7c6fc878c50c5ea0bc7b00e0da2447cfd874f6cf92f30d0097111485" +
				"500c90c3af8b487872d04685d14c8d1dc8d7fa08beb0ce0ababc11f0bd496269" +
				"142d43525a78e5bc79a17f59676a5706dc54d54d4d1f0bd7e386128ec26afc21"},
	} {
		want := unhex(t, v.want)
		if got := deriveKey(sha256.New(), unhex(t, v.secret), unhex(t, v.info), len(want)); !bytes.Equal(got, want) {
			t.Errorf("secret %s: %x\nwant %x", v.secret, got, want)
		}
	}
}

package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestParseForms: however a key is written down, it is the same key.
func TestParseForms(t *testing.T) {
	ann, bob := newEntity(t, at(birth)), newEntity(t, at(birth))
	one, other := binary(t, ann), binary(t, bob)
	block, otherBlock := armorBlock(one), armorBlock(other)
	both := bytes.Join([][]byte{one, other}, nil)
	lines := strings.Split(block, "\n")
	for _, test := range []struct {
		name string
		data string
		keys int
	}{
		{"binary", string(one), 1},
		{"binary, two keys", string(both), 2},
		{"armored", block, 1},
		{"armored, two keys in a block", armorBlock(both), 2},
		{"armored, two blocks", block + otherBlock, 2},
		{"armored, text around", "Ann's key:\n\n" + block + "\nand Bob's:\n" + otherBlock + "\n-- \nBye\n", 2},
		{"armored, text that looks like a block", "put it between -----BEGIN PGP PUBLIC KEY BLOCK----- and\n" + block, 1},
		{"armored, text that begins with no ASCII", "Über Ann\n" + block, 1},
		{"armored, CRLF", strings.ReplaceAll(block, "\n", "\r\n"), 1},
		{"armored, BOM", "\ufeff" + block, 1},
		{"armored, BOM and CRLF", "\ufeff" + strings.ReplaceAll(block, "\n", "\r\n"), 1},
		{"armored, blanks at the line ends", strings.ReplaceAll(block, "\n", " \t\n"), 1},
		{"armored, no last line end", strings.TrimRight(block, "\n"), 1},
		{"armored, headers", strings.Replace(block, "\n", "\nVersion: GnuPG v2\nComment: https://example.org:80/\n", 1), 1},
		{"armored, no empty line", strings.Replace(block, "\n\n", "\n", 1), 1},
		{"armored, no checksum", lines[0] + "\n\n" + wrapped(one) + "\n-----END PGP PUBLIC KEY BLOCK-----", 1},
		{"armored, wrong checksum", strings.Replace(block, "\n=", "\n=AAAA", 1), 1},
		{"armored, long lines", lines[0] + "\n\n" + base64.StdEncoding.EncodeToString(one) + "\n-----END PGP PUBLIC KEY BLOCK-----", 1},
		{"base64", base64.StdEncoding.EncodeToString(one), 1},
		{"base64 in lines, two keys", wrapped(both), 2},
		{"base64 in lines, CRLF", strings.ReplaceAll(wrapped(one), "\n", "\r\n") + "\r\n", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			parsed, err := Parse([]byte(test.data))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{parseOne(t, one).Fingerprint, parseOne(t, other).Fingerprint}[:test.keys]
			if len(parsed) != len(want) {
				t.Fatalf("%d keys, want %d", len(parsed), len(want))
			}
			for i, key := range parsed {
				if key.Fingerprint != want[i] || key.State(noon) != Usable {
					t.Errorf("key %d is %s, %s; want %s, usable", i+1, key.Fingerprint, key.State(noon), want[i])
				}
			}
		})
	}
}

// throwaway is a certificate's head, enough to be recognised.
const throwaway = "MIIBszCCAVmgAwIBAgIUQqyr"

func pemBlock(kind string) string {
	return "-----BEGIN " + kind + "-----\n" + throwaway + "\n-----END " + kind + "-----\n"
}

// TestParseErrors: an administrator is told which block is wrong, and why.
func TestParseErrors(t *testing.T) {
	entity := newEntity(t, at(birth))
	key, der := binary(t, entity), must(base64.StdEncoding.DecodeString(throwaway))(t)
	block := armorBlock(key)
	begin, end := "-----BEGIN "+publicKey+"-----\n", "-----END "+publicKey+"-----\n"
	half := block[:len(block)/2]
	secretSubkey := append(bytes.Clone(key), secret(t, entity)[len(serialized(t, entity.PrivateKey)):]...)
	var userID bytes.Buffer
	entity.Identities["Ann <ann@example.org>"].UserId.Serialize(&userID)
	for _, test := range []struct {
		name, data, want string
		is               error
	}{
		{"empty", "", "there is no key in it: it is empty", nil},
		{"blank", " \r\n\t\n", "there is no key in it: it is empty", nil},
		{"only a BOM", "\ufeff", "there is no key in it: it is empty", nil},
		{"prose", "This is a letter and no key.", "there is no key in it: it is neither an armored OpenPGP block", nil},
		{"prose that begins with 0", "0 keys were found", "neither an armored OpenPGP block", nil},
		{"prose beyond ASCII", "Äpfel", "it is cut off in its first packet, or is not OpenPGP", nil},
		{"a picture", "\x89PNG\r\n\x1a\n", "it is cut off in its first packet, or is not OpenPGP", nil},
		{"UTF-16", "\xff\xfe-\x00-\x00-\x00", "it is UTF-16, as PowerShell writes files", nil},
		{"oversized", strings.Repeat("x", MaxKeySize+1), "262145 bytes are more than a key may have (262144)", nil},

		{"cut off", half, `block 1: the line "-----END PGP PUBLIC KEY BLOCK-----" is missing, the block is cut off`, nil},
		{"the second cut off", block + half, `block 2: the line "-----END PGP PUBLIC KEY BLOCK-----" is missing`, nil},
		{"the first cut off", half + "\n" + block, `block 1: the line "-----END PGP PUBLIC KEY BLOCK-----" is missing`, nil},
		{"a bare first line", "-----BEGIN PGP PUBL", "block 1: its first line is cut off", nil},
		{"an empty block", begin + "\n" + end, "block 1: there is no key in it: it is empty", nil},
		{"no base64", begin + "\n!!!!\n" + end, "block 1: what it holds is not base64, or is cut off", nil},
		{"a line missing", begin + "\n" + wrapped(key)[:150] + "\n" + end, "block 1: ", nil},
		{"line ends lost", strings.ReplaceAll(block, "\n", " "), `block 1: something follows "-----BEGIN PGP PUBLIC KEY BLOCK-----" in its line; are the line ends lost?`, nil},
		{"a packet cut off", armorBlock(key[:len(key)-20]), "block 1: it is cut off in packet 5", nil},
		{"binary, cut off", string(key[:len(key)-1]), "it is cut off in packet 5", nil},
		{"binary, the first byte only", string(key[:1]), "it is cut off in its first packet", nil},
		{"binary, something behind it", string(key) + "\n", "packet 6 is damaged, or this is not OpenPGP", nil},

		{"binary, version 3", "\x99\x00\x08\x03\x00\x00\x00\x00\x00\x00\x01", "key 1: keys of version 3 are not supported, only 4 and 6 are", nil},
		{"binary, an algorithm that nobody knows", "\x99\x00\x08\x04\x00\x00\x00\x00\x63\x00\x01", "key 1: it cannot be read: openpgp: unsupported feature: public key type: 99", nil},
		{"binary, an empty packet", "\x99\x00\x00", "key 1: it cannot be read: unexpected EOF", nil},

		{"armored secret key", inBlock("PGP PRIVATE KEY BLOCK", secret(t, entity)), "block 1: this is a secret key", ErrSecretKey},
		{"a secret key behind a public one", block + inBlock("PGP PRIVATE KEY BLOCK", nil), "block 2: this is a secret key", ErrSecretKey},
		{"a secret key that is cut off", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "block 1: this is a secret key", ErrSecretKey},
		{"a secret key in a public block", armorBlock(secret(t, entity)), "block 1: this is a secret key", ErrSecretKey},
		{"binary secret key", string(secret(t, entity)), "this is a secret key", ErrSecretKey},
		{"base64 secret key", wrapped(secret(t, entity)), "this is a secret key", ErrSecretKey},
		{"a secret subkey alone", string(secretSubkey), "this is a secret key", ErrSecretKey},
		{"a PEM secret key", pemBlock("ENCRYPTED PRIVATE KEY"), "block 1: this is a secret key", ErrSecretKey},
		{"a certificate and its secret key", block + pemBlock("RSA PRIVATE KEY"), "block 2: this is a secret key", ErrSecretKey},

		{"message", inBlock("PGP MESSAGE", nil), "block 1: this is a PGP MESSAGE, not a public key", nil},
		{"signature", inBlock("PGP SIGNATURE", nil), "block 1: this is a PGP SIGNATURE, not a public key", nil},
		{"signed message", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nHello\n", "block 1: this is a PGP SIGNED MESSAGE, not a public key", nil},
		{"binary message", "\xc1\x01x", "packet 1 is part of a message (type 1), which has no place in a key", nil},
		{"binary signature", "\xc2\x01x", "packet 1 is a signature, where a key should begin", nil},
		{"binary user id", userID.String(), "packet 1 is a user id, where a key should begin", nil},
		{"a type of packet that nobody knows", string(key) + "\xd9\x01x", "packet 6 is of type 25, which has no place in a key", nil},

		{"a damaged certificate", pemBlock("CERTIFICATE"), "block 1: reading the certificate: ", nil},
		{"a damaged certificate behind a key", block + pemBlock("TRUSTED CERTIFICATE"), "block 2: reading the certificate: ", nil},
		{"a damaged certificate, DER", string(der), "reading the certificate: ", nil},
		{"a damaged certificate, base64", throwaway, "reading the certificate: ", nil},
		{"a damaged bundle", pemBlock("PKCS7"), "block 1: reading the PKCS#7 bundle: ", nil},
		{"a bare PEM key", pemBlock("PUBLIC KEY"), `block 1: this is a "PUBLIC KEY", neither an OpenPGP key nor a certificate`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			parsed, err := Parse([]byte(test.data))
			if err == nil {
				t.Fatalf("%d keys and no error", len(parsed))
			}
			if got := err.Error(); !strings.Contains(got, test.want) {
				t.Errorf("error %q\nwant  %q", got, test.want)
			}
			if errors.Is(err, ErrSecretKey) != (test.is == ErrSecretKey) {
				t.Errorf("error %q, want one that is %v", err, test.is)
			}
		})
	}
}

// TestParseTruncated: no beginning of a key is taken for a whole one that has
// less in it than it should, but where it ends between its parts.
func TestParseTruncated(t *testing.T) {
	entity := newEntity(t, at(birth))
	key := binary(t, entity)
	addSubkey(t, entity, at(birth.Add(day)))
	whole := binary(t, entity)
	for length := range whole {
		parsed, err := Parse(whole[:length])
		if err == nil && len(parsed[0].OpenPGPKeys(noon)) != 1 {
			t.Errorf("%d of %d bytes: %d keys to encrypt to", length, len(whole), len(parsed[0].OpenPGPKeys(noon)))
		}
		if err == nil && length < len(key) {
			t.Errorf("%d of %d bytes: no error", length, len(whole))
		}
	}
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func serialized(t testing.TB, private *packet.PrivateKey) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := private.Serialize(&data); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// MaxKeySize is the most that Parse reads, in bytes: a key with many
// signatures has some 100 KiB, and what is larger is no key that anyone uses
// for mail.
const MaxKeySize = 256 << 10

// ErrSecretKey is in the chain of the error where secret key material was
// handed in. Whoever handed it in should hear that it was exposed.
var ErrSecretKey = errors.New("this is a secret key, which must never leave its owner: hand in the public key (gpg --export --armor), and consider the secret one exposed")

// ErrCertificate is in the chain of the error where an X.509 certificate was
// handed in.
var ErrCertificate = errors.New("this is an X.509 certificate, and S/MIME is not supported yet: hand in an OpenPGP key")

// Parse reads the keys in data: one or more armored OpenPGP blocks with any
// text around them, binary OpenPGP packets, or such packets in bare base64,
// as SQL's encode(…, 'base64') writes them. Any number of keys may stand in
// one block. Every key is verified; one that cannot be read, or that has no
// part to seal to, fails the whole, and the error names the block.
func Parse(data []byte) ([]*Key, error) {
	if len(data) > MaxKeySize {
		return nil, fmt.Errorf("%d bytes are more than a key may have (%d)", len(data), MaxKeySize)
	}
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	switch {
	case len(trimmed) == 0:
		return nil, errors.New("there is no key in it: it is empty")
	case bytes.Contains(trimmed, []byte(armorBegin)):
		return parseArmored(trimmed)
	case bytes.Contains(trimmed, []byte("-----BEGIN ")), trimmed[0] == derSequence:
		return nil, ErrCertificate
	case trimmed[0]&0x80 != 0: // RFC 9580, section 4.2: bit 7 of a packet's first octet is always set
		return parsePackets(data)
	}
	if packets, err := decodeBase64(trimmed); err == nil {
		return parsePackets(packets)
	}
	return nil, errors.New("there is no key in it: it is neither an armored OpenPGP block (-----BEGIN PGP PUBLIC KEY BLOCK-----) nor binary OpenPGP")
}

const (
	armorBegin  = "-----BEGIN PGP "
	armorEnd    = "-----END PGP "
	armorDashes = "-----"
	publicKey   = "PUBLIC KEY BLOCK"
	secretKey   = "PRIVATE KEY BLOCK"
	derSequence = 0x30
)

// parseArmored reads one block after the other. The blocks are cut apart here
// because go-crypto's decoder reads ahead of the block that it decodes.
func parseArmored(data []byte) ([]*Key, error) {
	var all []*Key
	for number := 1; ; number++ {
		begin := bytes.Index(data, []byte(armorBegin))
		if begin < 0 {
			return all, nil
		}
		data = data[begin:]
		kind, _, ok := strings.Cut(string(data[len(armorBegin):min(len(data), 80)]), armorDashes)
		if !ok {
			return nil, fmt.Errorf("block %d: its first line is cut off", number)
		}
		end := bytes.Index(data, []byte(armorEnd+kind+armorDashes))
		if end < 0 {
			return nil, fmt.Errorf("block %d: the line %q is missing, the block is cut off", number, armorEnd+kind+armorDashes)
		}
		end += len(armorEnd) + len(kind) + len(armorDashes)
		keys, err := parseBlock(kind, data[:end])
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", number, err)
		}
		all = append(all, keys...)
		data = data[end:]
	}
}

func parseBlock(kind string, data []byte) ([]*Key, error) {
	switch kind {
	case publicKey:
	case secretKey:
		return nil, ErrSecretKey
	default:
		return nil, fmt.Errorf("this is a PGP %s, not a public key", kind)
	}
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading the armor: %w", err)
	}
	packets, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the armor: %w", err)
	}
	return parsePackets(packets)
}

// decodeBase64 decodes text that is nothing but base64 and line ends, of
// something that begins as an OpenPGP packet does.
func decodeBase64(text []byte) ([]byte, error) {
	joined := bytes.Join(bytes.Fields(text), nil)
	packets, err := base64.StdEncoding.AppendDecode(nil, joined)
	if err != nil {
		return nil, err
	}
	if len(packets) == 0 || packets[0]&0x80 == 0 {
		return nil, errors.New("not OpenPGP")
	}
	return packets, nil
}

// armorBlock armors a public key. It cannot fail: it writes to memory.
func armorBlock(packets []byte) string {
	var text strings.Builder
	w, err := armor.Encode(&text, "PGP "+publicKey, nil)
	if err == nil {
		_, err = w.Write(packets)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("internal error: armoring a key in memory: " + err.Error())
	}
	return text.String() + "\n"
}

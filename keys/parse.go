package keys

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// MaxKeySize is the most that Parse reads, in bytes: a key with many
// signatures has some 100 KiB, and what is larger is no key that anyone uses
// for mail.
const MaxKeySize = 256 << 10

// ErrSecretKey is in the chain of the error where secret key material was
// handed in. Whoever handed it in should hear that it was exposed.
var ErrSecretKey error = &Refusal{Reason: ReasonSecret, Text: "this is a secret key, which must never leave its owner: hand in the public key (gpg --export --armor), and consider the secret one exposed: whoever has seen it can read what is sealed to it, so that its owner should make a new one"}

// Parse reads the keys in data: one or more armored OpenPGP blocks, or
// certificates and PKCS#7 bundles in PEM, with any text around them; binary
// OpenPGP packets, a certificate or a bundle in DER; or any of the binary forms
// in bare base64, as SQL's encode(…, 'base64') writes them. Any number of keys
// may stand in one block. Of several certificates the leaves are taken, and the
// authorities left aside. Every key is verified; one that cannot be read, or that has no
// part to seal to, fails the whole, and the error names the block. A revoked
// key is read: its State says that it is.
func Parse(data []byte) ([]*Key, error) {
	return readKeys(data, newVerifier(maxEffort))
}

func readKeys(data []byte, v *verifier) ([]*Key, error) {
	if len(data) > MaxKeySize {
		return nil, refuse(ReasonTooLarge, "%d bytes are more than a key may have (%d)", len(data), MaxKeySize)
	}
	keys, err := parse(data, v)
	if err == nil && len(keys) == 0 { // to a caller no keys would be nobody enrolled
		err = refuse(ReasonNoKey, "there is no key in it")
	}
	return keys, err
}

func parse(data []byte, v *verifier) ([]*Key, error) {
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	switch {
	case len(trimmed) == 0:
		return nil, refuse(ReasonNoKey, "there is no key in it: it is empty")
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return nil, refuse(ReasonNoKey, "there is no key in it: it is UTF-16, as PowerShell writes files; save it as plain text")
	case nextBlock(trimmed) >= 0:
		return parseArmored(trimmed, v)
	case isSecretDER(data):
		return nil, ErrSecretKey
	case isDER(data):
		return parseDER(data, v)
	case data[0]&0x80 != 0: // RFC 9580, section 4.2: bit 7 of a packet's first octet is always set
		return parsePackets(data, v)
	}
	switch packets, err := decodeBase64(bytes.Split(trimmed, []byte("\n"))); {
	case err == nil && isSecretDER(packets):
		return nil, ErrSecretKey
	case err == nil && isDER(packets):
		return parseDER(packets, v)
	case err == nil && packets[0]&0x80 != 0:
		return parsePackets(packets, v)
	}
	return nil, refuse(ReasonNoKey, "there is no key in it: it is neither an armored OpenPGP block (-----BEGIN PGP PUBLIC KEY BLOCK-----) nor a certificate (-----BEGIN CERTIFICATE-----), nor one of them in binary")
}

// isDER recognises what certificates are made of: a SEQUENCE of more than 127
// octets.
func isDER(data []byte) bool { return len(data) > 1 && data[0] == 0x30 && data[1]&0x80 != 0 }

const (
	armorBegin  = "-----BEGIN "
	armorEnd    = "-----END "
	armorDashes = "-----"
	publicKey   = "PGP PUBLIC KEY BLOCK"
	// trustedCertificate is OpenSSL's, which puts something of its own behind
	// the certificate.
	trustedCertificate = "TRUSTED CERTIFICATE"
)

// nextBlock is where the next armored block begins, at the beginning of a
// line; -1 where there is none.
func nextBlock(data []byte) int {
	if bytes.HasPrefix(data, []byte(armorBegin)) {
		return 0
	}
	if newline := bytes.Index(data, []byte("\n"+armorBegin)); newline >= 0 {
		return newline + 1
	}
	return -1
}

// parseArmored reads one block after the other, of whatever kind: what is not
// a public key must not go by unnoticed. Certificates are judged together:
// which of them are authorities shows in what the others say.
func parseArmored(data []byte, v *verifier) ([]*Key, error) {
	var all []*Key
	var certificates []*x509.Certificate
	for number := 1; len(data) > 0; number++ {
		begin := nextBlock(data)
		if begin < 0 {
			break
		}
		block := data[begin:]
		next := nextBlock(block[1:])
		if data = nil; next >= 0 {
			block, data = block[:next+1], block[next+1:]
		}
		kind, content, err := readBlock(block)
		if err == nil {
			var keys []*Key
			var found []*x509.Certificate
			keys, found, err = parseBlock(kind, content, v)
			all, certificates = append(all, keys...), append(certificates, found...)
		}
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", number, err)
		}
	}
	leaves, err := certificateKeys(certificates, v)
	return append(all, leaves...), err
}

// readBlock reads the block that text begins with.
func readBlock(text []byte) (kind string, content []byte, err error) {
	lines := bytes.Split(text, []byte("\n"))
	first := strings.TrimSpace(string(lines[0][len(armorBegin):]))
	kind, rest, whole := strings.Cut(first, armorDashes)
	if !whole {
		return "", nil, refuse(ReasonDamaged, "its first line is cut off")
	}
	if err := checkKind(kind); err != nil {
		return "", nil, err
	}
	if rest != "" {
		return "", nil, refuse(ReasonDamaged, "something follows %q in its line; are the line ends lost?", armorBegin+kind+armorDashes)
	}
	end := slices.IndexFunc(lines, func(line []byte) bool {
		return bytes.HasPrefix(line, []byte(armorEnd+kind+armorDashes))
	})
	if end < 0 {
		return "", nil, refuse(ReasonDamaged, "the line %q is missing, the block is cut off", armorEnd+kind+armorDashes)
	}
	content, err = decodeBase64(armored(lines[1:end]))
	return kind, content, err
}

// parseBlock reads what a block of one of the known kinds holds.
func parseBlock(kind string, content []byte, v *verifier) (keys []*Key, certificates []*x509.Certificate, err error) {
	switch {
	case kind == publicKey:
		keys, err = parsePackets(content, v)
	case isSecretDER(content): // whatever its first line says: "PKCS12" is what GnuTLS writes
		err = ErrSecretKey
	case isBundle(kind):
		certificates, err = readBundle(content)
	default:
		certificates, err = readCertificate(content, kind == trustedCertificate)
	}
	return keys, certificates, err
}

// isBundle says whether a block's first line names a PKCS#7 bundle.
func isBundle(kind string) bool { return strings.Contains(kind, "PKCS") || kind == "CMS" }

// checkKind refuses what is not a public key, by the words of its first line.
func checkKind(kind string) error {
	switch {
	case kind == publicKey, isBundle(kind), strings.HasSuffix(kind, "CERTIFICATE"):
		return nil
	case strings.Contains(kind, "PRIVATE KEY"): // PGP's, and all that OpenSSL writes
		return ErrSecretKey
	case strings.HasPrefix(kind, "PGP "):
		return refuse(ReasonNoKey, "this is a %.40s, not a public key", kind)
	}
	return refuse(ReasonNoKey, "this is a %.40q, neither an OpenPGP key nor a certificate", kind)
}

// armored is the base64 between the lines of armor. Header lines stand before
// it, with a colon, which base64 has not. The checksum behind it is not looked
// at: RFC 9580, section 6.1, lets nobody refuse a key for it, and each
// key is signed.
func armored(lines [][]byte) [][]byte {
	isHeader := func(line []byte) bool { return bytes.IndexByte(line, ':') >= 0 }
	for len(lines) > 0 && isHeader(lines[0]) {
		lines = lines[1:]
	}
	isChecksum := func(line []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(line), []byte("=")) }
	if checksum := slices.IndexFunc(lines, isChecksum); checksum >= 0 {
		lines = lines[:checksum]
	}
	return lines
}

// decodeBase64 decodes lines of base64.
func decodeBase64(lines [][]byte) ([]byte, error) {
	var joined []byte
	for _, line := range lines {
		joined = append(joined, bytes.Join(bytes.Fields(line), nil)...)
	}
	decoded, err := base64.StdEncoding.AppendDecode(nil, joined)
	switch {
	case err != nil:
		return nil, refuse(ReasonDamaged, "what it holds is not base64, or is cut off")
	case len(decoded) == 0:
		return nil, refuse(ReasonNoKey, "there is no key in it: it is empty")
	}
	return decoded, nil
}

// armorBlock armors a public key. It cannot fail: it writes to memory.
func armorBlock(packets []byte) string {
	var text strings.Builder
	w, err := armor.Encode(&text, publicKey, nil)
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

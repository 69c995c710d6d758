package hostile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	_ "crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	_ "golang.org/x/crypto/ripemd160" //lint:ignore SA1019 keys that are signed with it are to be refused
)

// Keys are put together octet by octet here, as no library would make them. The
// numbers are those of RFC 9580: sections 5 (packet types), 5.2.1 (signature
// types), 5.2.3.7 (subpacket types), 9.1 and 9.5 (algorithms).
const (
	tagSignature, tagSecretKey, tagPublicKey, tagCompressed, tagUserID, tagSubkey, tagPhoto = 2, 5, 6, 8, 13, 14, 17

	certification, binding, crossBinding, direct                  = 0x13, 0x18, 0x19, 0x1f
	revokesKey, revokesSubkey, revokesUserID                      = 0x20, 0x28, 0x30
	created, lifetime, keyLifetime, issuer, notation              = 2, 3, 9, 16, 20
	flags, embedded, issuerFingerprint, critical                  = 27, 32, 33, 0x80
	algorithmRSA, algorithmX25519, algorithmEd25519               = 1, 25, 27
	algorithmElGamal, algorithmDSA, algorithmECDH, algorithmECDSA = 16, 17, 18, 19
	md5, sha1sum, ripemd, sha256, sha512                          = 1, 2, 3, 8, 10
	canCertify, canSign, canEncrypt                               = 1, 2, 0x0c
)

var hashes = map[byte]crypto.Hash{md5: crypto.MD5, sha1sum: crypto.SHA1, ripemd: crypto.RIPEMD160, sha256: crypto.SHA256, sha512: crypto.SHA512}

// The moments: keys are made at birth, and it is noon now.
var (
	birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	noon  = birth.Add(100 * day)
)

const day = 24 * time.Hour

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func moment(t time.Time) []byte { return binary.BigEndian.AppendUint32(nil, uint32(t.Unix())) }

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}

// packet has a length of five octets where it is long.
func packet(tag byte, body []byte) []byte {
	if len(body) < 192 {
		return join([]byte{0xc0 | tag, byte(len(body))}, body)
	}
	return join(binary.BigEndian.AppendUint32([]byte{0xc0 | tag, 0xff}, uint32(len(body))), body)
}

func subpacket(kind byte, content []byte) []byte {
	if len(content) < 190 {
		return join([]byte{byte(len(content) + 1), kind}, content)
	}
	return join(binary.BigEndian.AppendUint32([]byte{0xff}, uint32(len(content)+1)), []byte{kind}, content)
}

func mpi(n *big.Int) []byte {
	return join(binary.BigEndian.AppendUint16(nil, uint16(n.BitLen())), n.Bytes())
}

// ones is a number of so many bits, all of them set.
func ones(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits)
	return n.Sub(n, big.NewInt(1))
}

// body is a key's, of any version and algorithm.
func body(version, algorithm byte, when time.Time, numbers ...[]byte) []byte {
	return join([]byte{version}, moment(when), []byte{algorithm}, join(numbers...))
}

// signer is a primary key, or a subkey that signs.
type signer struct {
	public []byte
	secret ed25519.PrivateKey
}

func newSigner() *signer { return signerOf(4, birth) }

func signerOf(version byte, when time.Time) *signer {
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &signer{body(version, algorithmEd25519, when, public), secret}
}

func newSubkey() []byte {
	secret, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return body(4, algorithmX25519, birth, secret.PublicKey().Bytes())
}

// forHash is how a key is hashed.
func forHash(public []byte) []byte {
	return join(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(public))), public)
}

func (s *signer) fingerprint() []byte {
	sum := sha1.Sum(forHash(s.public))
	return sum[:]
}

// sig is a signature to be: what is not set is as usual.
type sig struct {
	kind     byte
	hash     byte
	when     time.Time
	more     []byte // hashed subpackets
	unhashed []byte
	behind   []byte // what stands behind its numbers
	by       []byte // the fingerprint of whoever it says that it is by
}

// sign returns the body of a signature over data.
func (s *signer) sign(o sig, data ...[]byte) []byte {
	if o.hash == 0 {
		o.hash = sha512
	}
	if o.when.IsZero() {
		o.when = birth
	}
	if o.by == nil {
		o.by = s.fingerprint()
	}
	hashed := join(subpacket(created, moment(o.when)), o.more, subpacket(issuerFingerprint, join([]byte{4}, o.by)))
	head := join([]byte{4, o.kind, algorithmEd25519, o.hash}, binary.BigEndian.AppendUint16(nil, uint16(len(hashed))), hashed)
	h := hashes[o.hash].New()
	h.Write(join(data...))
	h.Write(join(head, binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head)))))
	sum := h.Sum(nil)
	return join(head, binary.BigEndian.AppendUint16(nil, uint16(len(o.unhashed))), o.unhashed, sum[:2], ed25519.Sign(s.secret, sum), o.behind)
}

// certify signs a user id, bind a subkey.
func (s *signer) certify(id string, o sig) []byte {
	if o.kind == 0 {
		o.kind = certification
	}
	if o.kind == certification && !bytes.Contains(o.more, subpacket(flags, []byte{canCertify | canSign})) {
		o.more = join(o.more, subpacket(flags, []byte{canCertify | canSign}))
	}
	return s.sign(o, forHash(s.public), binary.BigEndian.AppendUint32([]byte{0xb4}, uint32(len(id))), []byte(id))
}

func (s *signer) bind(sub []byte, o sig) []byte {
	if o.kind == 0 {
		o.kind = binding
	}
	if o.kind == binding && !bytes.Contains(o.more, []byte{2, flags}) {
		o.more = join(o.more, subpacket(flags, []byte{canEncrypt}))
	}
	return s.sign(o, forHash(s.public), forHash(sub))
}

// Short ways to write packets.
func userID(id string) []byte      { return packet(tagUserID, []byte(id)) }
func signature(body []byte) []byte { return packet(tagSignature, body) }
func subkey(body []byte) []byte    { return packet(tagSubkey, body) }
func (s *signer) primary() []byte  { return packet(tagPublicKey, s.public) }
func (s *signer) named(id string, o sig) []byte {
	return join(userID(id), signature(s.certify(id, o)))
}
func (s *signer) bound(sub []byte, o sig) []byte {
	return join(subkey(sub), signature(s.bind(sub, o)))
}

const ann = "Ann <ann@example.org>"

// good is a key with nothing wrong, and more packets behind it.
func good(s *signer, more ...[]byte) []byte {
	return join(s.primary(), s.named(ann, sig{}), s.bound(newSubkey(), sig{}), join(more...))
}

// onlySubkey is a key with one subkey of some kind.
func onlySubkey(sub []byte) []byte {
	s := newSigner()
	return join(s.primary(), s.named(ann, sig{}), s.bound(sub, sig{}))
}

// times calls make for each number.
func times(n int, make func(int) []byte) []byte {
	var parts [][]byte
	for i := range n {
		parts = append(parts, make(i))
	}
	return join(parts...)
}

// block is armor of any kind.
func block(kind string, data []byte, headers ...string) []byte {
	text := base64.StdEncoding.EncodeToString(data)
	var lines []string
	for line := range slices.Chunk([]byte(text), 64) {
		lines = append(lines, string(line))
	}
	return fmt.Appendf(nil, "-----BEGIN %s-----\n%s\n%s\n-----END %s-----\n", kind, strings.Join(append(headers, ""), "\n"), strings.Join(lines, "\n"), kind)
}

func armored(data []byte, headers ...string) []byte {
	return block("PGP PUBLIC KEY BLOCK", data, headers...)
}

func pem(data []byte) []byte {
	return bytes.Replace(block("CERTIFICATE", data), []byte("-----\n\n"), []byte("-----\n"), 1)
}

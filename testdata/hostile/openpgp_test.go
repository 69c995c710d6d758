package hostile_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
	"time"

	"sealmilter/keys"
)

// Curves as OpenPGP names them (RFC 9580, section 9.2).
var (
	oidP256       = []byte{8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	oidCurve25519 = []byte{10, 0x2b, 6, 1, 4, 1, 0x97, 0x55, 1, 5, 1}
	oidUnknown    = []byte{3, 1, 2, 3}
	kdf           = []byte{3, 1, sha256, 9}
)

func ecdhSubkey(oid, point []byte) []byte {
	return body(4, algorithmECDH, birth, oid, mpi(new(big.Int).SetBytes(point)), kdf)
}

func rsaSubkey(n *big.Int, e int64) []byte {
	return body(4, algorithmRSA, birth, mpi(n), mpi(big.NewInt(e)))
}

// openPGPRefused are whole keys with something wrong in them.
func openPGPRefused() (all []handed) {
	add := func(name string, reason keys.Reason, words string, data ...[]byte) {
		all = append(all, handed{name, join(data...), reason, words})
	}
	s := newSigner()
	primary, id := s.primary(), s.named(ann, sig{})
	other := newSigner()
	sub := newSubkey()
	claimed := sig{by: s.fingerprint()} // by another key, in the name of s

	// Who it is, and what holds it together.
	add("another address", keys.ReasonAddress, "does not name ann@example.org", primary, s.named("Bob <bob@example.org>", sig{}), s.bound(sub, sig{}))
	add("the address in the name only", keys.ReasonAddress, "does not name", primary, s.named("ann@example.org <bob@example.org>", sig{}), s.bound(sub, sig{}))
	add("a domain behind the address", keys.ReasonAddress, "does not name", primary, s.named("<ann@example.org.example.net>", sig{}), s.bound(sub, sig{}))
	add("NUL behind the address", keys.ReasonAddress, "does not name", primary, s.named("<ann@example.org\x00@example.net>", sig{}), s.bound(sub, sig{}))
	add("a letter that looks like one", keys.ReasonAddress, "does not name", primary, s.named("<аnn@example.org>", sig{}), s.bound(sub, sig{}))
	add("her user id without a signature", keys.ReasonAddress, "does not name", primary, s.named("<bob@example.org>", sig{}), userID(ann), s.bound(sub, sig{}))
	add("her user id signed by another", keys.ReasonAddress, "does not name", primary, s.named("<bob@example.org>", sig{}), userID(ann), signature(other.certify(ann, claimed)), s.bound(sub, sig{}))
	add("her user id revoked", keys.ReasonAddress, "does not name", primary, s.named("<bob@example.org>", sig{}), id,
		signature(s.certify(ann, sig{kind: revokesUserID, when: birth.Add(day)})), s.bound(sub, sig{}))
	add("the only user id revoked", keys.ReasonUnsigned, "or they are all revoked", primary, id, signature(s.certify(ann, sig{kind: revokesUserID, when: birth.Add(day)})), s.bound(sub, sig{}))
	add("no user id", keys.ReasonUnsigned, "a key server may have left the user ids out", primary, s.bound(sub, sig{}))
	add("a user id signed by another", keys.ReasonUnsigned, "valid self-signature", primary, userID(ann), signature(other.certify(ann, claimed)), s.bound(sub, sig{}))
	add("a user id's signature over another", keys.ReasonUnsigned, "valid self-signature", primary, userID(ann), signature(s.certify("Bob", sig{})), s.bound(sub, sig{}))
	add("no subkey", keys.ReasonPurpose, "no part of it is meant for encryption", primary, id)
	add("a subkey without a binding", keys.ReasonUnsigned, "signature on it is missing", primary, id, subkey(sub))
	add("a subkey bound by another", keys.ReasonUnsigned, "missing or does not hold", primary, id, subkey(sub), signature(other.bind(sub, sig{})))
	add("a subkey bound by another in its name", keys.ReasonUnsigned, "missing or does not hold", primary, id, subkey(sub), signature(other.bind(sub, claimed)))
	add("a binding of another subkey", keys.ReasonUnsigned, "missing or does not hold", primary, id, subkey(sub), signature(s.bind(newSubkey(), sig{})))
	signs := join(subpacket(flags, []byte{canSign | canEncrypt}))
	add("a subkey that signs and was never asked", keys.ReasonUnsigned, "missing or does not hold", primary, id, s.bound(sub, sig{more: signs}))
	add("a subkey for something else", keys.ReasonPurpose, "meant for encryption", primary, id, s.bound(sub, sig{more: subpacket(flags, []byte{0x20})}))
	add("the subkey revoked", keys.ReasonRevoked, "it is revoked", primary, id, s.bound(sub, sig{}), signature(s.bind(sub, sig{kind: revokesSubkey, when: birth.Add(day)})))
	add("revoked", keys.ReasonRevoked, "revoked by its holder", primary, signature(s.sign(sig{kind: revokesKey}, forHash(s.public))), id, s.bound(sub, sig{}))
	add("revoked, and nothing else in it", keys.ReasonRevoked, "revoked by its holder", primary, signature(s.sign(sig{kind: revokesKey}, forHash(s.public))))
	add("expired", keys.ReasonExpired, "expired on 2026-01-31", primary, s.named(ann, sig{more: subpacket(keyLifetime, seconds(30*day))}), s.bound(sub, sig{}))
	add("the subkey expired", keys.ReasonExpired, "expired on 2026-01-31", primary, id, s.bound(sub, sig{more: subpacket(keyLifetime, seconds(30*day))}))
	add("the signature on the user id expired", keys.ReasonExpired, "expired on 2026-01-31", primary, s.named(ann, sig{more: subpacket(lifetime, seconds(30*day))}), s.bound(sub, sig{}))
	late := signerOf(4, noon.Add(day))
	add("of tomorrow", keys.ReasonEarly, "is not valid before 2026-04-12", good(late))

	// What it is signed with.
	for hash, name := range map[byte]string{md5: "MD5", ripemd: "RIPEMD-160"} {
		add("a user id signed with "+name, keys.ReasonUnsigned, "valid self-signature", primary, s.named(ann, sig{hash: hash}), s.bound(sub, sig{}))
		add("a subkey bound with "+name, keys.ReasonUnsigned, "missing or does not hold", primary, id, s.bound(sub, sig{hash: hash}))
	}
	add("SHA-1 alone", keys.ReasonBrokenHash, "is signed with SHA-1 alone", primary, s.named(ann, sig{hash: sha1sum}), s.bound(sub, sig{hash: sha1sum}))
	add("a user id with SHA-1", keys.ReasonBrokenHash, "is signed with SHA-1 alone", primary, s.named(ann, sig{hash: sha1sum}), s.bound(sub, sig{}))
	add("a subkey with SHA-1", keys.ReasonBrokenHash, "its subkey", primary, id, s.bound(sub, sig{hash: sha1sum}))
	add("SHA-1 newer than SHA-512", keys.ReasonBrokenHash, "its subkey", primary, id, s.bound(sub, sig{}), signature(s.bind(sub, sig{hash: sha1sum, when: birth.Add(day)})))
	add("her user id with SHA-1, another with more", keys.ReasonAddress, "does not name", primary, s.named(ann, sig{hash: sha1sum}), s.named("Bob", sig{}), s.bound(sub, sig{}))
	unknown := subpacket(99|critical, []byte("must be understood"))
	add("an unknown critical subpacket", keys.ReasonUnsigned, "valid self-signature", primary, s.named(ann, sig{more: unknown}), s.bound(sub, sig{}))
	add("an unknown critical subpacket in a binding", keys.ReasonUnsigned, "missing or does not hold", primary, id, s.bound(sub, sig{more: unknown}))
	note := subpacket(notation|critical, join([]byte{0x80, 0, 0, 0, 0, 1, 0, 1}, []byte("nv")))
	add("an unknown critical notation", keys.ReasonUnsigned, "valid self-signature", primary, s.named(ann, sig{more: note}), s.bound(sub, sig{}))

	// Versions and algorithms.
	for _, version := range []byte{2, 3, 5, 7} {
		add(fmt.Sprintf("version %d", version), keys.ReasonUnsupported, fmt.Sprintf("keys of version %d are not supported", version), good(signerOf(version, birth)))
	}
	add("a subkey of version 3", keys.ReasonUnsupported, "keys of version 3", onlySubkey(body(3, algorithmX25519, birth, make([]byte, 32))))
	add("an unknown algorithm", keys.ReasonUnsupported, "public key type: 99", packet(tagPublicKey, body(4, 99, birth, make([]byte, 32))), userID(ann))
	add("a subkey of an unknown algorithm", keys.ReasonUnsupported, "public key type: 99", onlySubkey(body(4, 99, birth, make([]byte, 32))))
	add("DSA", keys.ReasonUnsupported, "DSA is out of use", packet(tagPublicKey, body(4, algorithmDSA, birth, mpi(ones(2048)), mpi(ones(256)), mpi(ones(2047)), mpi(ones(2046)))), userID(ann))
	add("ElGamal", keys.ReasonUnsupported, "ElGamal is out of use", onlySubkey(body(4, algorithmElGamal, birth, mpi(ones(2048)), mpi(big.NewInt(5)), mpi(ones(2047)))))
	add("RSA-1024", keys.ReasonWeak, "1024 bits is too short", onlySubkey(rsaSubkey(ones(1024), 65537)))
	add("RSA of no bits", keys.ReasonWeak, "too short", onlySubkey(rsaSubkey(new(big.Int), 65537)))
	add("RSA-16384", keys.ReasonUnsupported, "a key of 16384 bits is too long, the most is 8192", onlySubkey(rsaSubkey(ones(16384), 65537)))
	add("RSA-65535", keys.ReasonUnsupported, "a key of 65535 bits is too long", onlySubkey(rsaSubkey(ones(65535), 65537)))
	add("RSA with the exponent 1", keys.ReasonWeak, "not those of an RSA key", onlySubkey(rsaSubkey(ones(3072), 1)))
	add("RSA with the exponent 0", keys.ReasonWeak, "not those of an RSA key", onlySubkey(rsaSubkey(ones(3072), 0)))
	add("RSA with an even exponent", keys.ReasonWeak, "not those of an RSA key", onlySubkey(rsaSubkey(ones(3072), 65536)))
	add("RSA with an exponent of 4 octets", keys.ReasonUnsupported, "large public exponent", onlySubkey(rsaSubkey(ones(3072), 1<<31+1)))
	add("RSA with an even modulus", keys.ReasonWeak, "not those of an RSA key", onlySubkey(rsaSubkey(new(big.Int).Lsh(big.NewInt(1), 3071), 65537)))
	add("RSA, its length said wrongly", keys.ReasonWeak, "too short", onlySubkey(body(4, algorithmRSA, birth, join([]byte{0x0c, 0}, make([]byte, 320), ones(512).Bytes()), mpi(big.NewInt(65537)))))
	add("X25519, the zero point", keys.ReasonTrial, "low order", onlySubkey(body(4, algorithmX25519, birth, make([]byte, 32))))
	add("X25519, a point of order 8", keys.ReasonTrial, "low order", onlySubkey(body(4, algorithmX25519, birth, lowOrder)))
	add("Curve25519, the zero point", keys.ReasonTrial, "low order", onlySubkey(ecdhSubkey(oidCurve25519, join([]byte{0x40}, make([]byte, 32)))))
	add("P-256, a point beside the curve", keys.ReasonTrial, "invalid point", onlySubkey(ecdhSubkey(oidP256, join([]byte{4}, bytes.Repeat([]byte{1}, 64)))))
	add("P-256, a compressed point", keys.ReasonTrial, "invalid point", onlySubkey(ecdhSubkey(oidP256, join([]byte{2}, bytes.Repeat([]byte{1}, 32)))))
	add("P-256, half a point", keys.ReasonTrial, "invalid point", onlySubkey(ecdhSubkey(oidP256, join([]byte{4}, bytes.Repeat([]byte{1}, 32)))))
	add("an unknown curve", keys.ReasonUnsupported, "unknown oid", onlySubkey(ecdhSubkey(oidUnknown, join([]byte{4}, bytes.Repeat([]byte{1}, 64)))))

	// More of something than anybody has.
	add("21 subkeys", keys.ReasonTooLarge, "it has 21 subkeys, the most is 20", primary, id, times(21, func(int) []byte { return s.bound(newSubkey(), sig{}) }))
	add("21 user ids", keys.ReasonTooLarge, "it has 21 user ids, the most is 20", primary, times(21, func(i int) []byte { return s.named(fmt.Sprint(i, ann), sig{}) }), s.bound(sub, sig{}))
	add("a long user id", keys.ReasonTooLarge, "a user id has 3021 bytes", primary, s.named(strings.Repeat("n", 3000)+ann, sig{}), s.bound(sub, sig{}))
	add("201 signatures", keys.ReasonTooLarge, "the most is 200", primary, id, times(199, func(i int) []byte { return signature(other.certify(ann, sig{when: birth.Add(time.Duration(i) * day)})) }), s.bound(sub, sig{}))
	forged := s.certify(ann, sig{})
	flood := times(2000, func(i int) []byte {
		forged[len(forged)-1], forged[len(forged)-2] = byte(i), byte(i>>8)
		return signature(forged)
	})
	add("2,000 forged signatures", keys.ReasonTooLarge, "signatures, the most is 200", primary, userID(ann), flood[:len(flood)/2], s.bound(sub, sig{}))
	add("50,000 signatures of nothing", keys.ReasonTooLarge, "it has more than 4096 packets", primary, id, bytes.Repeat([]byte{0xc2, 2, 4, 0x13}, 50000))
	add("empty packets", keys.ReasonTooLarge, "it has more than 4096 packets", primary, id, bytes.Repeat([]byte{0xfc, 0}, 100000))
	add("4,000 keys", keys.ReasonDamaged, "key 1: it cannot be read", bytes.Repeat([]byte{0xc6, 1, 4}, 4000))
	add("a photograph of 300 KiB", keys.ReasonTooLarge, "bytes are more than a key may have", primary, id, packet(tagPhoto, make([]byte, 300<<10)))
	add("a signature full of subpackets", keys.ReasonUnsigned, "valid self-signature", primary, userID(ann), signature(other.certify(ann, sig{by: s.fingerprint(), unhashed: bytes.Repeat([]byte{1, 100}, 32000)})), s.bound(sub, sig{}))
	return all
}

// lowOrder is a point of order 8 on Curve25519.
var lowOrder = []byte{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
	0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00}

// openPGPTaken are keys that look like some of the above and are in order.
func openPGPTaken() (all []handed) {
	add := func(name string, data ...[]byte) { all = append(all, handed{name: name, data: join(data...)}) }
	s, other := newSigner(), newSigner()
	primary, id, sub := s.primary(), s.named(ann, sig{}), newSubkey()
	add("a key", good(s))
	add("20 subkeys", primary, id, times(20, func(int) []byte { return s.bound(newSubkey(), sig{}) }))
	add("20 user ids", primary, times(19, func(i int) []byte { return s.named(fmt.Sprint(i), sig{}) }), id, s.bound(sub, sig{}))
	add("200 signatures", primary, id, times(198, func(i int) []byte { return signature(other.certify(ann, sig{when: birth.Add(time.Duration(i) * day)})) }), s.bound(sub, sig{}))
	add("its user id before and behind", primary, s.named("Bob <bob@example.org>", sig{}), id, s.named("Carol", sig{}), s.bound(sub, sig{}))
	add("the address alone", primary, s.named("ann@example.org", sig{}), s.bound(sub, sig{}))
	add("the address in capitals", primary, s.named("Ann <Ann@EXAMPLE.ORG>", sig{}), s.bound(sub, sig{}))
	add("the address in quotes", primary, s.named(`Ann <"ann"@example.org.>`, sig{}), s.bound(sub, sig{}))
	add("a user id beyond UTF-8", primary, s.named("\xc4nn <ann@example.org>", sig{}), s.bound(sub, sig{}))
	add("a user id revoked and made again", primary, id, signature(s.certify(ann, sig{kind: revokesUserID, when: birth.Add(day)})), signature(s.certify(ann, sig{when: birth.Add(2 * day)})), s.bound(sub, sig{}))
	add("a revocation by another", primary, signature(other.sign(sig{kind: revokesKey, by: s.fingerprint()}, forHash(s.public))), id, s.bound(sub, sig{}))
	add("a subkey's revocation by another", primary, id, s.bound(sub, sig{}), signature(other.bind(sub, sig{kind: revokesSubkey, by: s.fingerprint()})))
	add("one of two subkeys revoked", primary, id, s.bound(sub, sig{}), s.bound(newSubkey(), sig{}), signature(s.bind(sub, sig{kind: revokesSubkey})))
	add("one of two subkeys expired", primary, id, s.bound(sub, sig{more: subpacket(keyLifetime, seconds(day))}), s.bound(newSubkey(), sig{}))
	add("prolonged", primary, s.named(ann, sig{more: subpacket(keyLifetime, seconds(30*day))}), signature(s.certify(ann, sig{when: birth.Add(day), more: subpacket(keyLifetime, seconds(300*day))})), s.bound(sub, sig{}))
	add("SHA-512 newer than SHA-1", primary, s.named(ann, sig{hash: sha1sum}), signature(s.certify(ann, sig{when: birth.Add(day)})),
		s.bound(sub, sig{hash: sha1sum}), signature(s.bind(sub, sig{when: birth.Add(day)})))
	add("another user id with SHA-1", primary, s.named("Bob", sig{hash: sha1sum}), id, s.bound(sub, sig{}))
	add("an expired subkey with SHA-1", primary, id, s.bound(sub, sig{hash: sha1sum, more: subpacket(keyLifetime, seconds(day))}), s.bound(newSubkey(), sig{}))
	add("an unknown subpacket", primary, s.named(ann, sig{more: subpacket(99, nil)}), s.bound(sub, sig{}))
	add("every packet twice", primary, id, id, s.bound(sub, sig{}), s.bound(sub, sig{}), id)
	add("a signing subkey that was asked", primary, id, s.bound(sub, sig{}), s.bound(other.public, sig{more: join(subpacket(flags, []byte{canSign}),
		subpacket(embedded, other.sign(sig{kind: crossBinding}, forHash(s.public), forHash(other.public))))}))
	add("a signing subkey that was never asked", primary, id, s.bound(sub, sig{}), s.bound(other.public, sig{more: subpacket(flags, []byte{canSign})}))
	add("a subkey of an unknown algorithm beside", primary, id, s.bound(body(4, 99, birth, make([]byte, 32)), sig{}), s.bound(sub, sig{}))
	add("RSA-8192", onlySubkey(rsaSubkey(ones(8192), 3)))
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	add("P-256", onlySubkey(ecdhSubkey(oidP256, p256.PublicKey().Bytes())))
	add("trust packets, and of an unknown kind", primary, packet(12, []byte{1, 2}), id, packet(60, []byte("x")), s.bound(sub, sig{}))
	add("a photograph", primary, id, packet(tagPhoto, make([]byte, 9000)), signature(s.sign(sig{kind: certification})), s.bound(sub, sig{}))
	return all
}

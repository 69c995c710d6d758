package hostile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	sha "crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"time"

	"sealmilter/keys"
)

// certificate is one to be, as RFC 5280, section 4.1, has it.
type certificate struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     pkix.RDNSequence
	Validity   validity
	Subject    pkix.RDNSequence
	Key        asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

type validity struct{ NotBefore, NotAfter time.Time }

var (
	ecdsaSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	ecdsaSHA1   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	rsaMD5      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}
	rsaSHA1     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	oidDSA      = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
	oidEC       = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	secp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	utf8Mailbox = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9}
	oidEmail    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// authority is what issues certificates here; its own key is on P-256.
type authority struct {
	secret *ecdsa.PrivateKey
	name   pkix.RDNSequence
}

func newAuthority(name string) *authority {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return &authority{secret, named(name)}
}

func named(name string) pkix.RDNSequence { return pkix.Name{CommonName: name}.ToRDNSequence() }

func marshal(value any) []byte {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return der
}

func spki(public any) asn1.RawValue {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	return asn1.RawValue{FullBytes: der}
}

// issue makes a certificate of Ann's for a public key, with one thing changed.
func (a *authority) issue(public any, change func(*certificate)) []byte {
	key, made := public.(asn1.RawValue)
	if !made {
		key = spki(public)
	}
	c := certificate{Version: 2, Serial: big.NewInt(7), Algorithm: pkix.AlgorithmIdentifier{Algorithm: ecdsaSHA256}, Issuer: a.name,
		Validity: validity{birth, birth.AddDate(1, 0, 0)}, Subject: named("Ann"), Key: key, Extensions: []pkix.Extension{mailbox("ann@example.org")}}
	if change != nil {
		change(&c)
	}
	tbs := marshal(c)
	sum := sha.Sum256(tbs)
	signed, err := ecdsa.SignASN1(rand.Reader, a.secret, sum[:])
	if err != nil {
		panic(err)
	}
	return marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, c.Algorithm, asn1.BitString{Bytes: signed, BitLength: 8 * len(signed)}})
}

// Extensions.
func extension(value []byte, isCritical bool, id ...int) pkix.Extension {
	return pkix.Extension{Id: id, Critical: isCritical, Value: value}
}

func alternative(names ...asn1.RawValue) pkix.Extension {
	return extension(marshal(names), false, 2, 5, 29, 17)
}

func mailbox(addresses ...string) pkix.Extension {
	var names []asn1.RawValue
	for _, address := range addresses {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte(address)})
	}
	return alternative(names...)
}

func smtpUTF8(address string) pkix.Extension {
	return alternative(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: join(marshal(utf8Mailbox),
		marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: marshal(asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(address)})}))})
}

func usage(bits byte) pkix.Extension { // keyEncipherment is 0x20, keyAgreement 0x08, digitalSignature 0x80
	return extension(marshal(asn1.BitString{Bytes: []byte{bits}, BitLength: 8}), true, 2, 5, 29, 15)
}

func purpose(last ...int) pkix.Extension { // 4 is emailProtection, 1 serverAuth
	var ids []asn1.ObjectIdentifier
	for _, number := range last {
		ids = append(ids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, number})
	}
	return extension(marshal(ids), false, 2, 5, 29, 37)
}

func isAuthority() pkix.Extension {
	return extension(marshal(struct{ CA bool }{true}), true, 2, 5, 29, 19)
}

func with(extensions ...pkix.Extension) func(*certificate) {
	return func(c *certificate) { c.Extensions = append(c.Extensions, extensions...) }
}

func instead(extensions ...pkix.Extension) func(*certificate) {
	return func(c *certificate) { c.Extensions = extensions }
}

// selfMade makes a certificate its own issuer.
func selfMade(c *certificate) { c.Issuer = c.Subject }

func rsaKey(n *big.Int, e int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: e} }

// certificatesRefused are certificates with something wrong in them.
func certificatesRefused() (all []handed) {
	add := func(name string, reason keys.Reason, words string, data ...[]byte) {
		all = append(all, handed{"certificate: " + name, join(data...), reason, words})
	}
	root, middle, stranger := newAuthority("Root"), newAuthority("Middle"), newAuthority("Middle")
	public := rsaKey(ones(3072), 65537)
	fine := middle.issue(public, nil)

	// Whose it is, and what for.
	add("another address", keys.ReasonAddress, "does not name", middle.issue(public, instead(mailbox("bob@example.org"))))
	add("no address", keys.ReasonAddress, "does not name", middle.issue(public, instead()))
	add("the address in the name only", keys.ReasonAddress, "does not name", middle.issue(public, func(c *certificate) { c.Subject, c.Extensions = named("ann@example.org"), nil }))
	add("NUL behind the address", keys.ReasonAddress, "does not name", middle.issue(public, instead(mailbox("ann@example.org\x00.example.net"))))
	add("another address beyond ASCII", keys.ReasonAddress, "does not name", middle.issue(public, instead(smtpUTF8("änn@example.org"))))
	add("an address beyond ASCII in rfc822Name", keys.ReasonDamaged, "reading the certificate", middle.issue(public, instead(mailbox("änn@example.org"))))
	add("signs only", keys.ReasonPurpose, "its key usage lacks keyEncipherment", middle.issue(public, with(usage(0x80))))
	add("agrees, and is RSA", keys.ReasonPurpose, "its key usage lacks keyEncipherment", middle.issue(public, with(usage(0x08))))
	add("enciphers, and is on a curve", keys.ReasonPurpose, "its key usage lacks keyAgreement", middle.issue(&root.secret.PublicKey, with(usage(0x20))))
	add("for a web server", keys.ReasonPurpose, "its extended key usage lacks emailProtection", middle.issue(public, with(purpose(1))))
	add("for a web server and code", keys.ReasonPurpose, "its extended key usage lacks emailProtection", middle.issue(public, with(purpose(1, 3))))
	add("an authority", keys.ReasonAuthority, "of an authority, not of a person", middle.issue(public, with(isAuthority())))
	rootDER := root.issue(&root.secret.PublicKey, func(c *certificate) { c.Subject, c.Extensions = root.name, []pkix.Extension{isAuthority()} })
	middleDER := root.issue(&middle.secret.PublicKey, func(c *certificate) { c.Subject, c.Extensions = middle.name, []pkix.Extension{isAuthority()} })
	add("authorities alone", keys.ReasonAuthority, "of an authority, not of a person", pem(middleDER), pem(rootDER))
	own := newAuthority("Ann")
	add("home-made, and may issue others", keys.ReasonAuthority, "may issue others", own.issue(&own.secret.PublicKey, with(isAuthority())))
	add("expired", keys.ReasonExpired, "expired on 2026-02-01", middle.issue(public, func(c *certificate) { c.Validity.NotAfter = birth.AddDate(0, 1, 0) }))
	add("expired in the year 1", keys.ReasonExpired, "expired on 0001-01-01", middle.issue(public, func(c *certificate) { c.Validity = validity{} }))
	add("of next year", keys.ReasonEarly, "is not valid before 2027", middle.issue(public, func(c *certificate) { c.Validity = validity{birth.AddDate(1, 0, 0), birth.AddDate(2, 0, 0)} }))

	// Its key.
	add("RSA-1024", keys.ReasonWeak, "1024 bits is too short", middle.issue(rsaKey(ones(1024), 65537), nil))
	add("RSA-16384", keys.ReasonUnsupported, "16384 bits is too long", middle.issue(rsaKey(ones(16384), 65537), nil))
	add("RSA with the exponent 1", keys.ReasonWeak, "the exponent 1", middle.issue(rsaKey(ones(3072), 1), nil))
	add("RSA with an even exponent", keys.ReasonWeak, "the exponent 65536", middle.issue(rsaKey(ones(3072), 65536), nil))
	add("RSA with an exponent of 60 bits", keys.ReasonWeak, "the exponent 1152921504606846977", middle.issue(rsaKey(ones(3072), 1<<60+1), nil))
	add("RSA with an even modulus", keys.ReasonWeak, "not those of an RSA key", middle.issue(rsaKey(new(big.Int).Lsh(big.NewInt(1), 3071), 65537), nil))
	add("Ed25519", keys.ReasonPurpose, "can sign, but nothing can be sealed to it", middle.issue(ed25519.PublicKey(make([]byte, 32)), nil))
	add("DSA", keys.ReasonPurpose, "can sign, but nothing can be sealed to it", middle.issue(dsaSPKI(), nil))
	add("X25519", keys.ReasonUnsupported, "of a kind that is not supported (1.3.101.110)", middle.issue(bareSPKI(asn1.ObjectIdentifier{1, 3, 101, 110}, make([]byte, 32)), nil))
	add("RSASSA-PSS", keys.ReasonUnsupported, "of a kind that is not supported (1.2.840.113549.1.1.10)",
		middle.issue(bareSPKI(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, marshal(rsa.PublicKey{N: ones(3072), E: 65537})), nil))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		panic(err)
	}
	add("P-224", keys.ReasonUnsupported, "the curve P-224 is not supported", middle.issue(&p224.PublicKey, nil))
	add("secp256k1", keys.ReasonUnsupported, "unsupported elliptic curve", middle.issue(ecSPKI(secp256k1, bytes.Repeat([]byte{4}, 65)), nil))
	add("a point beside the curve", keys.ReasonDamaged, "reading the certificate", middle.issue(ecSPKI(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, bytes.Repeat([]byte{4}, 65)), nil))

	// Its form.
	add("a negative serial number", keys.ReasonDamaged, "negative serial number", middle.issue(public, func(c *certificate) { c.Serial = big.NewInt(-7) }))
	add("version 1", keys.ReasonUnsupported, "it is of version 1", middle.issue(public, func(c *certificate) { c.Version, c.Extensions, c.Subject = 0, nil, withEmail("ann@example.org") }))
	add("version 9", keys.ReasonDamaged, "reading the certificate", middle.issue(public, func(c *certificate) { c.Version = 8 }))
	add("MD5", keys.ReasonBrokenHash, "is of a broken kind", middle.issue(public, func(c *certificate) {
		c.Algorithm = pkix.AlgorithmIdentifier{Algorithm: rsaMD5, Parameters: asn1.NullRawValue}
	}))
	add("SHA-1", keys.ReasonBrokenHash, "is of a broken kind", middle.issue(public, func(c *certificate) {
		c.Algorithm = pkix.AlgorithmIdentifier{Algorithm: rsaSHA1, Parameters: asn1.NullRawValue}
	}))
	add("home-made with SHA-1", keys.ReasonBrokenHash, "is of a broken kind", own.issue(&own.secret.PublicKey, func(c *certificate) { c.Algorithm.Algorithm = ecdsaSHA1 }))
	add("home-made, signed by another key", keys.ReasonUnsigned, "the signature on it does not hold", stranger.issue(public, selfMade))
	add("signed by another of its issuer's name", keys.ReasonUnsigned, "the signature on it does not hold", pem(stranger.issue(public, nil)), pem(middleDER))
	add("an unknown critical extension", keys.ReasonUnsupported, "which nobody may pass over", middle.issue(public, with(extension([]byte{5, 0}, true, 1, 2, 3, 4))))
	add("an extension twice", keys.ReasonDamaged, "duplicate extension", middle.issue(public, with(mailbox("ann@example.org"))))
	add("a huge name", keys.ReasonTooLarge, "its names have more than 4096 bytes", middle.issue(public, func(c *certificate) { c.Subject = named(strings.Repeat("Ann ", 5000)) }))
	add("a huge issuer", keys.ReasonTooLarge, "its names have more than 4096 bytes", middle.issue(public, func(c *certificate) { c.Issuer = named(strings.Repeat("Root ", 5000)) }))
	add("10,000 addresses", keys.ReasonTooLarge, "the most is 65536", middle.issue(public, instead(mailbox(many(10000)...))))
	add("1,000 addresses", keys.ReasonTooLarge, "it names 1000 addresses, the most is 20", middle.issue(public, instead(mailbox(many(1000)...))))
	add("21 addresses", keys.ReasonTooLarge, "it names 21 addresses", middle.issue(public, instead(mailbox(many(21)...))))
	add("an address of 30,000 bytes", keys.ReasonTooLarge, "one of its addresses has more than", middle.issue(public, instead(mailbox(strings.Repeat("a", 30000)+"@example.org"))))
	add("a picture of 200 KB", keys.ReasonTooLarge, "the most is 65536", middle.issue(public, with(extension(make([]byte, 190000), false, 1, 2, 3, 4))))
	add("DER, with something behind it", keys.ReasonDamaged, "bytes follow it", fine, []byte("\x00\x00"))
	add("DER, two of them", keys.ReasonDamaged, "bytes follow it", fine, fine)
	add("PEM, with something behind it", keys.ReasonDamaged, "bytes follow it", pem(join(fine, []byte("\x00\x00"))))
	for _, cut := range []int{4, 30, 200, len(fine) - 1} {
		add(fmt.Sprintf("cut off at byte %d", cut), keys.ReasonDamaged, "reading the certificate", fine[:cut])
	}
	add("nested 40,000 deep", keys.ReasonDamaged, "reading the certificate", deep(40000, 0x84))
	add("nested without lengths", keys.ReasonDamaged, "reading the certificate", bytes.Repeat([]byte{0x30, 0x80}, 100000))
	add("a bundle nested without lengths", keys.ReasonTooLarge, "nested more than 32 deep", block("PKCS7", bytes.Repeat([]byte{0x30, 0x80}, 90000)))
	add("a bundle nested 30,000 deep", keys.ReasonTooLarge, "nested more than 32 deep", block("PKCS7", deep(30000, 0x84)))
	add("a bundle of 80,000 nothings", keys.ReasonDamaged, "reading the PKCS#7 bundle", block("PKCS7", join([]byte{0x30, 0x83, 2, 0x71, 0}, bytes.Repeat([]byte{5, 0}, 80000))))
	add("a bundle that announces 2 GiB", keys.ReasonDamaged, "reading the PKCS#7 bundle", block("PKCS7", []byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0}))
	add("600 certificates, one of them Ann's", keys.ReasonAddress, "does not name", bytes.Repeat(pem(fine), 20), times(250, func(i int) []byte {
		return pem(middle.issue(&root.secret.PublicKey, instead(mailbox(fmt.Sprint(i, "@example.org")))))
	}))

	// Secret keys.
	exposed := "consider the secret one exposed"
	for name, der := range secretDER() {
		add(name, keys.ReasonSecret, exposed, der)
	}
	add("with its secret key", keys.ReasonSecret, exposed, pem(fine), block("PRIVATE KEY", make([]byte, 100)))
	return all
}

func many(n int) (addresses []string) {
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("a%05d@example.org", i))
	}
	return addresses
}

func withEmail(address string) pkix.RDNSequence {
	return pkix.RDNSequence{{{Type: oidEmail, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(address)}}}}
}

// deep is sequences in sequences, with lengths in so many octets.
func deep(depth int, form byte) (der []byte) {
	const each = 6
	size := depth * each
	for i := range depth {
		left := size - (i+1)*each
		der = append(der, 0x30, form, byte(left>>24), byte(left>>16), byte(left>>8), byte(left))
	}
	return der
}

func dsaSPKI() asn1.RawValue {
	return asn1.RawValue{FullBytes: marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: oidDSA, Parameters: asn1.RawValue{FullBytes: marshal(struct{ P, Q, G *big.Int }{ones(2048), ones(256), ones(2047)})}},
		bitString(marshal(ones(2046))),
	})}
}

func ecSPKI(curve asn1.ObjectIdentifier, point []byte) asn1.RawValue {
	return asn1.RawValue{FullBytes: marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: oidEC, Parameters: asn1.RawValue{FullBytes: marshal(curve)}}, bitString(point)})}
}

// bareSPKI is a public key of a kind that has no parameters.
func bareSPKI(kind asn1.ObjectIdentifier, key []byte) asn1.RawValue {
	return asn1.RawValue{FullBytes: marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: kind}, bitString(key)})}
}

func bitString(data []byte) asn1.BitString {
	return asn1.BitString{Bytes: data, BitLength: 8 * len(data)}
}

// secretDER are the binary forms of secret keys.
func secretDER() map[string][]byte {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	sec1, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		panic(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		panic(err)
	}
	cipher := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}}
	content := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}
	return map[string][]byte{
		"a secret key, SEC 1":  sec1,
		"a secret key, PKCS#1": marshal(struct{ Version, N, E, D *big.Int }{big.NewInt(0), ones(2048), big.NewInt(65537), ones(2047)}),
		"a secret key, PKCS#8": pkcs8,
		"a secret key, PKCS#8, encrypted": marshal(struct {
			Cipher  pkix.AlgorithmIdentifier
			Content []byte
		}{cipher, make([]byte, 200)}),
		"a secret key, PKCS#12": marshal(struct {
			Version int
			Content pkix.AlgorithmIdentifier
		}{3, content}),
	}
}

// certificatesTaken are in order.
func certificatesTaken() (all []handed) {
	add := func(name string, data ...[]byte) {
		all = append(all, handed{name: "certificate: " + name, data: join(data...)})
	}
	root, middle, own := newAuthority("Root"), newAuthority("Middle"), newAuthority("Ann")
	public := rsaKey(ones(3072), 65537)
	fine := middle.issue(public, with(usage(0xa0), purpose(4)))
	rootDER := root.issue(&root.secret.PublicKey, func(c *certificate) { c.Subject, c.Extensions = root.name, []pkix.Extension{isAuthority()} })
	middleDER := root.issue(&middle.secret.PublicKey, func(c *certificate) { c.Subject, c.Extensions = middle.name, []pkix.Extension{isAuthority()} })
	add("DER", fine)
	add("PEM", pem(fine))
	add("of any purpose", middle.issue(public, nil))
	add("on P-256", middle.issue(&own.secret.PublicKey, with(usage(0x88), purpose(4))))
	add("RSA-8192", middle.issue(rsaKey(ones(8192), 3), nil))
	add("its chain behind it", pem(fine), pem(middleDER), pem(rootDER))
	add("its chain before it", pem(rootDER), pem(middleDER), pem(fine))
	add("home-made", own.issue(&own.secret.PublicKey, nil))
	add("20 addresses", middle.issue(public, instead(mailbox(append(many(19), "ann@example.org")...))))
	add("the address in capitals", middle.issue(public, instead(mailbox("Ann@EXAMPLE.org"))))
	add("the address in its subject", middle.issue(public, func(c *certificate) { c.Subject, c.Extensions = withEmail("ann@example.org"), nil }))
	add("the address as SmtpUTF8Mailbox", middle.issue(public, instead(smtpUTF8("ann@example.org"))))
	add("a critical SmtpUTF8Mailbox", middle.issue(public, func(c *certificate) {
		c.Extensions = []pkix.Extension{smtpUTF8("ann@example.org")}
		c.Extensions[0].Critical = true
	}))
	add("an extension that nobody knows", middle.issue(public, with(extension([]byte{5, 0}, false, 1, 2, 3, 4))))
	add("a picture of 20 KB", middle.issue(public, with(extension(make([]byte, 20000), false, 1, 2, 3, 4))))
	add("one twice", pem(fine), pem(fine))
	return all
}

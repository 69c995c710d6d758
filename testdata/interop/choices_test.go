package interop_test

import (
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// choice is a row: a way to seal, and who it is sealed to.
type choice struct {
	name     string
	form     keys.Form
	to       string // the name of an owner
	options  keys.KeyOptions
	how      envelope.Addressing
	packets  int  // key packets, where they are more than one
	standard bool // what is done where nobody chose anything
	// experimental is why it is offered although no program that is not ours
	// opens it.
	experimental string
}

// The forms that most rows are of.
var (
	pgp256  = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256}
	pgp128  = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES128}
	pgpGCM  = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, AEAD: keys.GCM}
	pgpOCB  = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, AEAD: keys.OCB}
	pgpBase = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, Protection: keys.Baseline}
	pgpShy  = keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, Protection: keys.Shy}

	cms256    = keys.Form{Method: keys.SMIME, Cipher: keys.AES256}
	cms128    = keys.Form{Method: keys.SMIME, Cipher: keys.AES128}
	cmsGCM256 = keys.Form{Method: keys.SMIME, Cipher: keys.AES256, AEAD: keys.GCM}
	cmsGCM128 = keys.Form{Method: keys.SMIME, Cipher: keys.AES128, AEAD: keys.GCM}
	cmsBase   = keys.Form{Method: keys.SMIME, Cipher: keys.AES256, Protection: keys.Baseline}
	cmsShy    = keys.Form{Method: keys.SMIME, Cipher: keys.AES256, Protection: keys.Shy}
)

// choices are the rows.
var choices = []choice{
	{name: "OpenPGP v4 Curve25519", form: pgp256, to: "curve25519", standard: true},
	{name: "OpenPGP v4 RSA-3072", form: pgp256, to: "rsa3072", standard: true},
	{name: "OpenPGP v4 P-256", form: pgp256, to: "nistp256", standard: true},
	{name: "OpenPGP v4 P-384", form: pgp256, to: "nistp384", standard: true},
	{name: "OpenPGP v4 brainpoolP256r1", form: pgp256, to: "brainpoolP256r1"},
	{name: "OpenPGP v4, two subkeys", form: pgp256, to: "two subkeys", packets: 2},
	{name: "OpenPGP v4, AES-128", form: pgp128, to: "curve25519"},
	{name: "OpenPGP v4, hidden recipient", form: pgp256, to: "curve25519", how: envelope.Addressing{Hidden: true}},
	{name: "OpenPGP v4, header baseline", form: pgpBase, to: "curve25519"},
	{name: "OpenPGP v4, header shy", form: pgpShy, to: "curve25519"},
	{name: "OpenPGP v4, SEIPDv2 GCM", form: pgpGCM, to: "curve25519", options: keys.KeyOptions{AEAD: keys.GCM}},
	{name: "OpenPGP v4, SEIPDv2 OCB", form: pgpOCB, to: "curve25519", options: keys.KeyOptions{AEAD: keys.OCB}},
	{name: "OpenPGP v6 X25519", form: pgpOCB, to: "v6 X25519"},
	{name: "OpenPGP v6 X25519, GCM", form: pgpGCM, to: "v6 X25519", options: keys.KeyOptions{AEAD: keys.GCM}},
	{name: "OpenPGP v6 X25519, SEIPDv1", form: pgp256, to: "v6 X25519"},
	{name: "OpenPGP v6 X448", form: pgpOCB, to: "v6 X448"},
	{name: "OpenPGP ML-KEM-768+X25519", form: pgpOCB, to: "ML-KEM", options: keys.KeyOptions{MLKEM: true},
		experimental: "draft-ietf-openpgp-pqc is no RFC yet, and no program on this machine reads it"},

	{name: "S/MIME RSA-2048", form: cms256, to: "RSA-2048", standard: true},
	{name: "S/MIME RSA-4096", form: cms256, to: "RSA-4096", standard: true},
	{name: "S/MIME P-256", form: cms256, to: "P-256"},
	{name: "S/MIME P-384", form: cms256, to: "P-384"},
	{name: "S/MIME P-521", form: cms256, to: "P-521"},
	{name: "S/MIME RSA, OAEP", form: cms256, to: "RSA-2048", options: keys.KeyOptions{OAEP: true}},
	{name: "S/MIME RSA, AES-256-GCM", form: cmsGCM256, to: "RSA-2048", options: keys.KeyOptions{AEAD: keys.GCM}},
	{name: "S/MIME RSA, AES-128-GCM", form: cmsGCM128, to: "RSA-2048", options: keys.KeyOptions{AEAD: keys.GCM}},
	{name: "S/MIME P-256, AES-256-GCM", form: cmsGCM256, to: "P-256", options: keys.KeyOptions{AEAD: keys.GCM}},
	{name: "S/MIME RSA, AES-128-CBC", form: cms128, to: "RSA-2048"},
	{name: "S/MIME RSA, subjectKeyIdentifier", form: cms256, to: "RSA-2048", how: envelope.Addressing{SubjectKeyID: true}},
	{name: "S/MIME P-256, subjectKeyIdentifier", form: cms256, to: "P-256", how: envelope.Addressing{SubjectKeyID: true}},
	{name: "S/MIME RSA, header baseline", form: cmsBase, to: "RSA-2048"},
	{name: "S/MIME RSA, header shy", form: cmsShy, to: "RSA-2048"},
}

// makers make the owners' keys: gpg those that it can, for they are what people
// have.
var makers = map[string]func(t *testing.T, m *maker, address string) *owner{
	"curve25519":      byGnuPG("ed25519/cert,sign", "cv25519/encr"),
	"rsa3072":         byGnuPG("rsa3072/cert,sign", "rsa3072/encr"),
	"nistp256":        byGnuPG("nistp256/cert,sign", "nistp256/encr"),
	"nistp384":        byGnuPG("nistp384/cert,sign", "nistp384/encr"),
	"brainpoolP256r1": byGnuPG("brainpoolP256r1/cert,sign", "brainpoolP256r1/encr"),
	"two subkeys":     byGnuPG("ed25519/cert,sign", "cv25519/encr", "rsa3072/encr"),
	"v6 X25519":       byGoCrypto(packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true}),
	"v6 X448":         byGoCrypto(packet.Config{Algorithm: packet.PubKeyAlgoEd448, V6Keys: true}),
	"ML-KEM":          byGoCrypto(packet.Config{Algorithm: packet.PubKeyAlgoMldsa65Ed25519, V6Keys: true}),
	"RSA-2048":        byOpenSSL("RSA rsa_keygen_bits:2048"),
	"RSA-4096":        byOpenSSL("RSA rsa_keygen_bits:4096"),
	"P-256":           byOpenSSL("EC ec_paramgen_curve:P-256"),
	"P-384":           byOpenSSL("EC ec_paramgen_curve:P-384"),
	"P-521":           byOpenSSL("EC ec_paramgen_curve:P-521"),
}

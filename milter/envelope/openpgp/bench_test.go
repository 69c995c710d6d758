package openpgp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// sealArmored is the whole way of a message that is held in memory.
func sealArmored(b *testing.B, body *bytes.Buffer, content []byte, mode AEAD, key *packet.PublicKey) {
	body.Reset()
	e, err := NewEncrypter(body, AES256, mode)
	if err != nil {
		b.Fatal(err)
	}
	for rest := content; len(rest) > 0; {
		n := min(65535, len(rest))
		e.Write(rest[:n])
		rest = rest[n:]
	}
	e.Close()
	prefix, err := e.Prefix([]*packet.PublicKey{key}, false)
	if err != nil {
		b.Fatal(err)
	}
	w := e.Armor(prefix).Writer(io.Discard, "\r\n")
	w.Write(prefix)
	w.Write(body.Bytes())
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLarge measures a message of 10 MiB beside what it cannot go without:
// AES, which is CTR here because nothing waits in it, SHA-1 and base64, one
// after the other. Both are measured by turns, for the machine may be busy.
func BenchmarkLarge(b *testing.B) {
	key := newEntity(b, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}).Subkeys[0].PublicKey
	content := make([]byte, 10<<20)
	rand.Read(content)
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	ctr, sum, scratch := cipher.NewCTR(block, make([]byte, aes.BlockSize)), sha1.New(), make([]byte, 128<<10)
	limit := func() {
		for rest := content; len(rest) > 0; {
			n := min(48<<10, len(rest))
			ctr.XORKeyStream(scratch[:n], rest[:n])
			sum.Write(rest[:n])
			base64.StdEncoding.Encode(scratch, rest[:n])
			rest = rest[n:]
		}
	}
	for name, mode := range map[string]AEAD{"CFB": NoAEAD, "GCM": GCM, "OCB": OCB} {
		b.Run(name, func(b *testing.B) {
			var body bytes.Buffer
			b.SetBytes(int64(len(content)))
			compare(b, func() { sealArmored(b, &body, content, mode, key) }, limit)
		})
	}
}

// BenchmarkSmall measures a message of 4 KiB beside the public-key operations
// of the standard library: two scalar multiplications, or one of RSA.
func BenchmarkSmall(b *testing.B) {
	content := make([]byte, 4<<10)
	rand.Read(content)
	theirs, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	rsaEntity := newEntity(b, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	rsaKey := rsaEntity.Subkeys[0].PublicKey.PublicKey.(*rsa.PublicKey)
	for _, c := range []struct {
		name  string
		key   *packet.PublicKey
		limit func()
	}{
		{"Curve25519", newEntity(b, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}).Subkeys[0].PublicKey, func() {
			own, _ := ecdh.X25519().GenerateKey(rand.Reader)
			own.ECDH(theirs.PublicKey())
		}},
		{"X25519", newEntity(b, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519}).Subkeys[0].PublicKey, func() {
			own, _ := ecdh.X25519().GenerateKey(rand.Reader)
			own.ECDH(theirs.PublicKey())
		}},
		{"RSA-2048", rsaEntity.Subkeys[0].PublicKey, func() {
			//lint:ignore SA1019 it is the padding of RFC 9580, section 12.1
			rsa.EncryptPKCS1v15(rand.Reader, rsaKey, make([]byte, 35))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var body bytes.Buffer
			compare(b, func() { sealArmored(b, &body, content, NoAEAD, c.key) }, c.limit)
		})
	}
}

// compare measures ours by turns with the limit, and reports how many times the
// limit's time it takes, and the reverse, each from the fastest turn.
func compare(b *testing.B, ours, limit func()) {
	fastest := func(f func(), so time.Duration) time.Duration {
		start := time.Now()
		f()
		return min(so, time.Since(start))
	}
	own, bound := time.Hour, time.Hour
	for b.Loop() {
		own = fastest(ours, own)
		b.StopTimer()
		bound = fastest(limit, bound)
		b.StartTimer()
	}
	b.ReportMetric(float64(own)/float64(bound), "times-limit")
	b.ReportMetric(float64(bound)/float64(own), "of-limit")
}

package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"testing"

	"sealmilter/milter/envelope/lines"
)

// BenchmarkSeal makes whole messages in base64. BenchmarkLimit is what the
// cipher and the encoding alone cost, beside it.
func BenchmarkSeal(b *testing.B) {
	for _, kind := range []string{"rsa2048", "p256"} {
		to := certificatesOf(newReader(b, kind, certificateOptions{}))
		for _, size := range []int{4 << 10, 10 << 20} {
			content := make([]byte, size)
			ciphertext := bytes.NewBuffer(make([]byte, 0, size+bufferSize))
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					ciphertext.Reset()
					sealBase64(b, ciphertext, content, to)
				}
			})
		}
	}
}

func sealBase64(b *testing.B, ciphertext *bytes.Buffer, content []byte, to []*x509.Certificate) {
	e, err := NewEncrypter(ciphertext, AES256)
	if err != nil {
		b.Fatal(err)
	}
	const chunk = 65535 // as the milter protocol brings them
	for rest := content; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
		e.Write(rest[:min(chunk, len(rest))])
	}
	e.Close()
	prefix, err := e.Prefix(to)
	if err != nil {
		b.Fatal(err)
	}
	w := lines.New(io.Discard, 57, "\r\n")
	w.Write(prefix)
	w.Write(ciphertext.Bytes())
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLimit(b *testing.B) {
	for _, size := range []int{4 << 10, 10 << 20} {
		content, ciphertext := make([]byte, size), make([]byte, size)
		text := make([]byte, base64.StdEncoding.EncodedLen(size))
		block := must(aes.NewCipher(make([]byte, 32)))
		b.Run(fmt.Sprintf("cbc+base64/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(ciphertext, content)
				base64.StdEncoding.Encode(text, ciphertext)
			}
		})
		b.Run(fmt.Sprintf("cbc/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(ciphertext, content)
			}
		})
	}
	public := kinds["rsa2048"]().Public().(*rsa.PublicKey)
	b.Run("rsa2048", func(b *testing.B) {
		for b.Loop() {
			//lint:ignore SA1019 it is what the writer uses
			must(rsa.EncryptPKCS1v15(rand.Reader, public, make([]byte, 32)))
		}
	})
}

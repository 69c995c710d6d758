package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
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
		r := newReader(b, kind, certificateOptions{})
		for _, name := range everyForm {
			for _, size := range []int{4 << 10, 10 << 20, 25 << 20} {
				content := make([]byte, size)
				output := bytes.NewBuffer(make([]byte, 0, size+bufferSize))
				b.Run(fmt.Sprintf("%s/%s/%d", kind, name, size), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						output.Reset()
						sealBase64(b, output, forms[name], content, plain(r))
					}
				})
			}
		}
	}
}

func sealBase64(b *testing.B, output *bytes.Buffer, f form, content []byte, to []Recipient) {
	e, err := NewEncrypter(output, f.cipher, f.options)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Discard()
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
	w.Write(output.Bytes())
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLimit(b *testing.B) {
	for _, size := range []int{4 << 10, 10 << 20, 25 << 20} {
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

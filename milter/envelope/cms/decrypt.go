package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Content ciphers of other programs (RFC 3370, section 5.1; RFC 3565; RFC 5084),
// to be read only.
var (
	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES192GCM  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 26}
)

// keySize is the length of the content's key in octets, 0 for a cipher that is
// unknown, or that does not go with this kind of message: what GCM encrypted
// must not be read as if it were CBC, nor the other way round (RFC 9709,
// section 1, has the attack).
func (e *enveloped) keySize() int {
	id := e.algorithm.Algorithm
	if e.authenticated {
		switch {
		case id.Equal(oidAES128GCM):
			return 16
		case id.Equal(oidAES192GCM):
			return 24
		case id.Equal(oidAES256GCM):
			return 32
		}
		return 0
	}
	switch {
	case id.Equal(oidAES128CBC):
		return 16
	case id.Equal(oidAES192CBC), id.Equal(oidDESEDE3CBC):
		return 24
	case id.Equal(oidAES256CBC):
		return 32
	}
	return 0
}

// decrypt decrypts the content.
func (e *enveloped) decrypt(key []byte) ([]byte, error) {
	switch e.keySize() {
	case 0:
		return nil, fmt.Errorf("the content cipher %s is not supported here", e.algorithm.Algorithm)
	case len(key):
	default:
		return nil, errChanged
	}
	newCipher := aes.NewCipher
	if e.algorithm.Algorithm.Equal(oidDESEDE3CBC) {
		newCipher = des.NewTripleDESCipher
	}
	block, err := newCipher(key)
	if err != nil {
		return nil, err
	}
	if e.authenticated {
		return e.decryptGCM(block)
	}
	return e.decryptCBC(block)
}

// decryptCBC takes the padding off too (RFC 5652, section 6.3).
func (e *enveloped) decryptCBC(block cipher.Block) ([]byte, error) {
	size := block.BlockSize()
	var iv []byte
	if _, err := asn1.Unmarshal(e.algorithm.Parameters.FullBytes, &iv); err != nil || len(iv) != size {
		return nil, errors.New("the content has no initialization vector")
	}
	if len(e.ciphertext) == 0 || len(e.ciphertext)%size != 0 {
		return nil, errCutOff
	}
	content := make([]byte, len(e.ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(content, e.ciphertext)
	padding := int(content[len(content)-1])
	if padding == 0 || padding > size ||
		!bytes.Equal(content[len(content)-padding:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errChanged
	}
	return content[:len(content)-padding], nil
}

// decryptGCM authenticates the content and the attributes first. The mac is of
// the length that the parameters say, which is 12 to 16 octets (RFC 5084,
// section 3.2): a shorter one could be guessed.
func (e *enveloped) decryptGCM(block cipher.Block) ([]byte, error) {
	params := struct {
		Nonce     []byte
		ICVLength int `asn1:"optional,default:12"`
	}{}
	rest, err := asn1.Unmarshal(e.algorithm.Parameters.FullBytes, &params)
	if err != nil || len(rest) > 0 || len(params.Nonce) != nonceSize {
		return nil, errors.New("the content has no parameters of GCM, or a nonce of unusual length")
	}
	const leastICV = 12
	if n := params.ICVLength; n < leastICV || n > icvSize || n != len(e.mac) {
		return nil, fmt.Errorf("a check value of %d octets where %d are announced is not accepted", len(e.mac), n)
	}
	aead, err := cipher.NewGCMWithTagSize(block, params.ICVLength)
	if err != nil {
		return nil, fmt.Errorf("starting the cipher: %w", err)
	}
	sealed := make([]byte, 0, len(e.ciphertext)+len(e.mac))
	sealed = append(append(sealed, e.ciphertext...), e.mac...)
	content, err := aead.Open(sealed[:0], params.Nonce, sealed, e.attributes)
	if err != nil {
		return nil, errChanged
	}
	return content, nil
}

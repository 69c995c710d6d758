package cms

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// wrapAgreed wraps key with one of the same length that is derived from the
// secret of a key agreement. What is derived is bound to the algorithm and the
// length that it is for, by ECC-CMS-SharedInfo (RFC 5753, section 7.2).
func wrapAgreed(secret, algorithm, key []byte) ([]byte, error) {
	bits := binary.BigEndian.AppendUint32(nil, uint32(8*len(key)))
	info := enclose(tagSequence, 0, algorithm, enclose(tagContext|constructed|2, 0, enclose(asn1.TagOctetString, 0, bits)))
	return wrapKey(deriveKey(sha256.New(), secret, info, len(key)), key)
}

// deriveKey is the key derivation function of ANSI X9.63 (SEC 1, section
// 3.6.1): hashes of the secret, a counter and info, one after the
// other, until there are size octets.
func deriveKey(hash hash.Hash, secret, info []byte, size int) []byte {
	var key []byte
	for counter := uint32(1); len(key) < size; counter++ {
		hash.Reset()
		hash.Write(secret)
		hash.Write(binary.BigEndian.AppendUint32(nil, counter))
		hash.Write(info)
		key = hash.Sum(key)
	}
	return key[:size]
}

// semiblock is the unit of AES key wrap.
const semiblock = 8

// wrapKey is the AES key wrap of RFC 3394, section 2.2.1, with the initial
// value of section 2.2.3.1. It wraps two semiblocks or more.
func wrapKey(wrapping, key []byte) ([]byte, error) {
	count := len(key) / semiblock
	if len(key)%semiblock != 0 || count < 2 {
		return nil, fmt.Errorf("internal error: a key of %d octets cannot be wrapped", len(key))
	}
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		return nil, errors.New("internal error: no wrapping key")
	}
	// wrapped is A and R of the RFC, in their places in the output.
	wrapped := make([]byte, semiblock+len(key))
	for i := range semiblock {
		wrapped[i] = 0xA6
	}
	copy(wrapped[semiblock:], key)
	var b [aes.BlockSize]byte
	for step := range 6 * count {
		place := wrapped[semiblock*(1+step%count):][:semiblock]
		copy(b[:semiblock], wrapped)
		copy(b[semiblock:], place)
		block.Encrypt(b[:], b[:])
		var t [semiblock]byte
		binary.BigEndian.PutUint64(t[:], uint64(step+1))
		subtle.XORBytes(wrapped, b[:semiblock], t[:])
		copy(place, b[semiblock:])
	}
	return wrapped, nil
}

// unwrapKey is the inverse of wrapKey (RFC 3394, section 2.2.2).
func unwrapKey(wrapping, wrapped []byte) ([]byte, error) {
	count := len(wrapped)/semiblock - 1
	if len(wrapped)%semiblock != 0 || count < 2 {
		return nil, errors.New("the message's key is damaged")
	}
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		return nil, err
	}
	key := bytes.Clone(wrapped)
	var b [aes.BlockSize]byte
	for step := 6*count - 1; step >= 0; step-- {
		place := key[semiblock*(1+step%count):][:semiblock]
		copy(b[:], key[:semiblock])
		b[semiblock-1] ^= byte(step + 1) // 6 times the count is far below 256
		copy(b[semiblock:], place)
		block.Decrypt(b[:], b[:])
		copy(key, b[:semiblock])
		copy(place, b[semiblock:])
	}
	if subtle.ConstantTimeCompare(key[:semiblock], bytes.Repeat([]byte{0xA6}, semiblock)) != 1 {
		return nil, errChanged
	}
	return key[semiblock:], nil
}

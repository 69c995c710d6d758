package hostile_test

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"fmt"
	"strings"

	"sealmilter/keys"
)

// formsRefused are keys that are fine within, and written down in ways that
// are not; and what is no public key at all.
func formsRefused() (all []handed) {
	add := func(name string, reason keys.Reason, words string, data ...[]byte) {
		all = append(all, handed{name, join(data...), reason, words})
	}
	s := newSigner()
	key := good(s)
	armor := armored(key)

	// Sizes and lengths.
	add("nothing", keys.ReasonNoKey, "it is empty")
	add("262,145 bytes", keys.ReasonTooLarge, "262145 bytes are more than a key may have", make([]byte, keys.MaxKeySize+1))
	add("a gigabyte announced", keys.ReasonDamaged, "cut off in its first packet", []byte("\xc6\xff\x40\x00\x00\x00\x04"))
	add("4 GiB announced behind a key", keys.ReasonDamaged, "cut off in packet 6", key, []byte("\xcd\xff\xff\xff\xff\xff\x04"))
	add("a partial length of 1 GiB", keys.ReasonDamaged, "cut off in its first packet", []byte("\xc6\xfe\x04"))
	add("partial lengths of one octet", keys.ReasonDamaged, "cut off in its first packet", []byte{0xc6}, bytes.Repeat([]byte{0xe0, 4}, 100000))
	add("a key without a length", keys.ReasonUnsigned, "valid self-signature", []byte{0x9b}, s.public, s.named(ann, sig{}))
	add("a user id without a length behind it", keys.ReasonTooLarge, "a user id has 200021 bytes", s.primary(), []byte{0xb7}, []byte(ann), bytes.Repeat([]byte("x"), 200000))
	for _, cut := range []int{1, 2, 7, 39, 60, 100, len(key) - 130, len(key) - 60, len(key) - 1} {
		add(fmt.Sprintf("cut off at byte %d", cut), keys.ReasonDamaged, "cut off in", key[:cut])
	}
	add("a byte behind it", keys.ReasonDamaged, "packet 6 is damaged", key, []byte("\n"))
	add("compressed", keys.ReasonNoKey, "part of a message (type 8)", compressed(key))
	add("compressed a hundred times", keys.ReasonNoKey, "part of a message (type 8)", nested(key, 100))
	add("compressed zeros of 200 MB", keys.ReasonNoKey, "part of a message (type 8)", bomb())
	add("something compressed within", keys.ReasonNoKey, "packet 6 is part of a message (type 8)", key, bomb())
	add("a message", keys.ReasonNoKey, "part of a message (type 1)", packet(1, make([]byte, 20)), packet(18, make([]byte, 200)))
	add("a detached signature", keys.ReasonDamaged, "packet 1 is a signature", signature(s.certify(ann, sig{})))
	add("a subkey alone", keys.ReasonDamaged, "packet 1 is a subkey", s.bound(newSubkey(), sig{}))

	// Secret keys.
	secret := packet(tagSecretKey, join(s.public, make([]byte, 40)))
	exposed := "consider the secret one exposed"
	add("a secret key", keys.ReasonSecret, exposed, secret)
	add("a secret key, armored", keys.ReasonSecret, exposed, block("PGP PRIVATE KEY BLOCK", secret))
	add("a secret key that calls itself public", keys.ReasonSecret, exposed, armored(secret))
	add("a secret key, base64", keys.ReasonSecret, exposed, []byte(base64.StdEncoding.EncodeToString(secret)))
	add("a secret key behind a public one", keys.ReasonSecret, exposed, armor, block("PGP PRIVATE KEY BLOCK", secret))
	add("a secret key that is indented", keys.ReasonSecret, exposed, armor, []byte("  "), block("PGP PRIVATE KEY BLOCK", secret))
	add("a secret subkey", keys.ReasonSecret, exposed, key, packet(7, join(newSubkey(), make([]byte, 40))))
	for _, kind := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"} {
		add("PEM: "+kind, keys.ReasonSecret, exposed, block(kind, make([]byte, 100)))
	}

	// Armor.
	add("no line ends", keys.ReasonDamaged, "are the line ends lost?", bytes.ReplaceAll(armor, []byte("\n"), nil))
	add("blanks for line ends", keys.ReasonDamaged, "are the line ends lost?", bytes.ReplaceAll(armor, []byte("\n"), []byte(" ")))
	add("no last line", keys.ReasonDamaged, "is missing, the block is cut off", armor[:len(armor)-40])
	add("another last line", keys.ReasonDamaged, "is missing, the block is cut off", bytes.Replace(armor, []byte("END PGP PUBLIC"), []byte("END PGP PUBLIK"), 1))
	add("a block in a block", keys.ReasonDamaged, "block 1: the line", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"), armor, []byte("-----END PGP PUBLIC KEY BLOCK-----\n"))
	add("armor in armor", keys.ReasonDamaged, "packet 1 is damaged", armored(armor))
	add("10,000 headers and no key", keys.ReasonNoKey, "it is empty", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), bytes.Repeat([]byte("Comment: x\n"), 10000), []byte("\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	add("5,000 first lines", keys.ReasonDamaged, "block 1: ", bytes.Repeat([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), 5000))
	add("5,000 first lines of a certificate", keys.ReasonDamaged, "block 1: ", bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 5000))
	add("a first line without an end", keys.ReasonDamaged, "its first line is cut off", []byte("-----BEGIN "), bytes.Repeat([]byte("x"), 200000))
	add("a second block that is none", keys.ReasonDamaged, "block 2: what it holds is not base64", armor, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n%%%\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	for _, kind := range []string{"PGP MESSAGE", "PGP SIGNATURE", "CERTIFICATE REQUEST", "X509 CRL", "PUBLIC KEY", "SSH2 PUBLIC KEY", "DH PARAMETERS"} {
		add("a block of the kind "+kind, keys.ReasonNoKey, "this is a ", block(kind, key))
	}
	add("blanks", keys.ReasonNoKey, "it is empty", bytes.Repeat([]byte(" \n"), 100000))
	add("UTF-16", keys.ReasonNoKey, "it is UTF-16", []byte("\xff\xfe-\x00-\x00"))
	add("a web page", keys.ReasonNoKey, "neither an armored OpenPGP block", []byte("<!DOCTYPE html><html><body>404</body></html>"))
	return all
}

// compressed puts data into a compressed packet (RFC 9580, section 5.6): 1 is
// DEFLATE.
func compressed(data []byte) []byte {
	var out bytes.Buffer
	out.WriteByte(1)
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	w.Write(data)
	w.Close()
	return packet(tagCompressed, out.Bytes())
}

func nested(data []byte, depth int) []byte {
	for range depth {
		data = compressed(data)
	}
	return data
}

// bomb is small until it is opened.
func bomb() []byte {
	var out bytes.Buffer
	out.WriteByte(1)
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		panic(err)
	}
	for range 200 {
		w.Write(make([]byte, 1<<20))
	}
	w.Close()
	return packet(tagCompressed, compressed(out.Bytes()))
}

// formsTaken are the ways in which keys do come.
func formsTaken() (all []handed) {
	add := func(name string, data ...[]byte) { all = append(all, handed{name: name, data: join(data...)}) }
	key := good(newSigner())
	armor := armored(key)
	add("binary", key)
	add("armor", armor)
	add("armor with CRLF", bytes.ReplaceAll(armor, []byte("\n"), []byte("\r\n")))
	add("armor with a wrong checksum", bytes.Replace(armor, []byte("\n-----END"), []byte("\n=AAAA\n-----END"), 1))
	add("armor with 1,000 headers", armored(key, strings.Split(strings.Repeat("Comment: x\n", 999)+"Comment: x", "\n")...))
	add("two keys in two blocks", armor, armored(good(newSigner())))
	add("two keys in one block", armored(join(key, good(newSigner()))))
	add("text around it", []byte("My key:\n\n"), armor, []byte("\n-- \nAnn\n"))
	add("base64", []byte(base64.StdEncoding.EncodeToString(key)))
	add("a byte order mark", []byte("\ufeff"), armor)
	add("a marker before it", packet(10, []byte("PGP")), key)
	add("padding behind it", key, packet(21, make([]byte, 1000)))
	return all
}

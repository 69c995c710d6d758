package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"slices"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/openpgp"
	"sealmilter/testdata/report"
)

// The engine's spool as the daemon has it unless told otherwise, and one that
// holds the message.
const (
	defaultMemory = 1 << 20
	allMemory     = 1 << 30
)

// step is one thing that is done to each piece of a message: in is a piece of
// the content, out is where its ciphertext goes.
type step func(out, in []byte)

// inTurn does the steps piece by piece, while the piece is in the processor's
// cache: that is as fast as they can be together. A piece is whole blocks and
// whole groups of base64.
func inTurn(content []byte, steps ...step) func() error {
	const size = 48 << 10
	out := make([]byte, size)
	return func() error {
		for piece := range slices.Chunk(content, size) {
			piece = piece[:len(piece)&^(aes.BlockSize-1)]
			for _, do := range steps {
				do(out[:len(piece)], piece)
			}
		}
		return nil
	}
}

func newBlock() cipher.Block {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return block
}

func ctrStep() step { return cipher.NewCTR(newBlock(), make([]byte, aes.BlockSize)).XORKeyStream }

func cbcStep() step {
	return cipher.NewCBCEncrypter(newBlock(), make([]byte, aes.BlockSize)).CryptBlocks
}

func sha1Step() step {
	hash := sha1.New()
	return func(_, in []byte) { hash.Write(in) }
}

func base64Step() step {
	text := make([]byte, base64.StdEncoding.EncodedLen(64<<10))
	return func(out, _ []byte) { base64.StdEncoding.Encode(text, out) }
}

// inProcess: the engine with the spool in memory, which is what the ciphers
// beside it have too, is held to the bar; with a file behind it is shown.
func inProcess(b *bench) ([]report.Line, error) {
	size := (10 << 20) / b.scale
	body := newBody(size)
	var lines []report.Line
	for _, pair := range []struct {
		what    string
		f       keys.Form
		address string
		theirs  func() error
		memory  int64
		bar     float64
	}{
		{"OpenPGP AES-256 armored, in process, AES-CTR+SHA-1+base64", form(keys.OpenPGP, keys.NoAEAD), curveAddress,
			inTurn(body, ctrStep(), sha1Step(), base64Step()), allMemory, 0.55},
		{"the same, spool in a file", form(keys.OpenPGP, keys.NoAEAD), curveAddress,
			inTurn(body, ctrStep(), sha1Step(), base64Step()), defaultMemory, 0},
		{"S/MIME AES-256-CBC base64, in process, AES-CBC+base64", form(keys.SMIME, keys.NoAEAD), smimeAddress,
			inTurn(body, cbcStep(), base64Step()), allMemory, 0.85},
		{"the same, spool in a file", form(keys.SMIME, keys.NoAEAD), smimeAddress,
			inTurn(body, cbcStep(), base64Step()), defaultMemory, 0},
	} {
		l, err := b.duel(report.Line{What: pair.what, Kind: report.Speed, Size: size, Bar: pair.bar},
			contestant{name: "engine", do: b.sealTimes(pair.f, pair.address, pair.memory, body)},
			contestant{name: "limit", do: pair.theirs})
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// sealTimes seals a body whenever it is called.
func (b *bench) sealTimes(f keys.Form, address string, memory int64, body []byte) func() error {
	header := fields()
	return func() error {
		return seal(io.Discard, f, b.keys[address], envelope.Spool{Dir: b.dir, Memory: memory}, header, body)
	}
}

// smallMessages: what a small message costs is its public key operation, for
// Curve25519 one of X25519 with an ephemeral key: two scalar multiplications.
func smallMessages(b *bench) ([]report.Line, error) {
	const size = 4 << 10
	times := int(500 / b.scale)
	body := newBody(size)
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	public := private.PublicKey()
	x25519 := func() error {
		for range 2 {
			if _, err := private.ECDH(public); err != nil {
				return err
			}
		}
		return nil
	}
	session := make([]byte, 32)
	publicRSA := func() error {
		//lint:ignore SA1019 it is what readers open
		_, err := rsa.EncryptPKCS1v15(rand.Reader, b.publicRSA, session)
		return err
	}
	var lines []report.Line
	for _, pair := range []struct {
		what    string
		method  keys.Method
		address string
		theirs  func() error
		bar     float64
	}{
		{"4 KiB OpenPGP, key parsed, Curve25519, two X25519", keys.OpenPGP, curveAddress, x25519, 1.5},
		{"4 KiB OpenPGP, key parsed, RSA-2048, one public operation", keys.OpenPGP, rsaAddress, publicRSA, 2.5},
		{"4 KiB S/MIME, key parsed, RSA-2048, one public operation", keys.SMIME, smimeAddress, publicRSA, 2.5},
	} {
		l, err := b.duel(report.Line{What: pair.what, Kind: report.Cost, Size: size, Bar: pair.bar},
			contestant{"engine", b.sealTimes(form(pair.method, keys.NoAEAD), pair.address, defaultMemory, body), times},
			contestant{"public key operation", pair.theirs, times})
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// forms are other ways to seal, in process, beside the default of their method.
func forms(b *bench) ([]report.Line, error) {
	var lines []report.Line
	for _, f := range []struct {
		what    string
		form    keys.Form
		address string
	}{
		{"OpenPGP SEIPDv2 AES-256-GCM", form(keys.OpenPGP, keys.GCM), curveAddress},
		{"OpenPGP SEIPDv2 AES-256-OCB", form(keys.OpenPGP, keys.OCB), curveAddress},
		{"S/MIME AES-256-GCM", form(keys.SMIME, keys.GCM), smimeAddress},
	} {
		for _, size := range []int64{10 << 20, 1 << 20, 4 << 10} {
			times := int(max(1, (1<<20)/size/b.scale))
			if size > 1<<20 {
				size /= b.scale
			}
			l := report.Line{What: f.what + ", in process, the default form", Kind: report.Speed, Size: size}
			key := b.keys[f.address].With(keys.KeyOptions{AEAD: f.form.AEAD})
			if !supported(f.form, key) {
				l.Absent = "the engine has it not"
				lines = append(lines, l)
				continue
			}
			body, header := newBody(size), fields()
			where := envelope.Spool{Dir: b.dir, Memory: allMemory}
			l, err := b.duel(l,
				contestant{"engine", func() error { return seal(io.Discard, f.form, key, where, header, body) }, times},
				contestant{"engine", b.sealTimes(form(f.form.Method, keys.NoAEAD), f.address, allMemory, body), times})
			if err != nil {
				return nil, err
			}
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// limits are what the machine takes for each thing alone.
func limits(b *bench) ([]report.Line, error) {
	size := (10 << 20) / b.scale
	content := newBody(size)
	crc := openpgp.NewCRC24()
	var lines []report.Line
	for _, limit := range []struct {
		what string
		step step
	}{
		{"AES-256-CBC", cbcStep()},
		{"AES-256-CTR", ctrStep()},
		{"SHA-1", sha1Step()},
		{"base64", base64Step()},
		{"CRC-24 (the engine's own)", func(_, in []byte) { crc = crc.Update(in) }},
	} {
		medians, err := b.contest(ownTime, contestant{name: limit.what, do: inTurn(content, limit.step)})
		if err != nil {
			return nil, err
		}
		lines = append(lines, report.Line{What: "limit: " + limit.what, Kind: report.Speed, Size: size, Theirs: medians[0]})
	}
	return lines, nil
}

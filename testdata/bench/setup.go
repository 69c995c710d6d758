package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
)

// The addresses that mail is sealed to, each with a key of one kind.
const (
	curveAddress = "curve@example.org" // OpenPGP, Curve25519
	rsaAddress   = "rsa@example.org"   // OpenPGP, RSA-2048
	smimeAddress = "smime@example.org" // a certificate, RSA-2048
)

// bench is what all measurements share.
type bench struct {
	settings
	dir       string // for everything; in memory where the machine has such a folder
	store     string // as --store has it
	config    string // sealmilter's configuration
	keys      map[string]*keys.Key
	prepared  map[string][]string // arguments of the peers that are ready
	publicRSA *rsa.PublicKey      // of the certificate
}

// newBench makes keys, and a key store with them.
func newBench(s settings) (*bench, error) {
	parent := ""
	if f, err := os.Stat("/dev/shm"); err == nil && f.IsDir() {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "bench")
	if err != nil {
		return nil, err
	}
	b := &bench{
		settings: s, dir: dir,
		store: "sqlite:" + filepath.Join(dir, "keys.db"), config: filepath.Join(dir, "sealmilter.toml"),
		keys: make(map[string]*keys.Key), prepared: make(map[string][]string),
	}
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) prepare() error {
	// The others write no spool file. Ours is where their input is.
	config := fmt.Sprintf("[store]\nurl = %q\n[spool]\ndirectory = %q\n", b.store, b.dir)
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		return err
	}
	if _, err := b.ours("migrate", "--store", b.store); err != nil {
		return err
	}
	certificate, err := b.newCertificate()
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	public := map[string][]byte{smimeAddress: certificate}
	for address, algorithm := range map[string]packet.PublicKeyAlgorithm{curveAddress: packet.PubKeyAlgoEdDSA, rsaAddress: packet.PubKeyAlgoRSA} {
		if public[address], err = newOpenPGPKey(address, algorithm); err != nil {
			return fmt.Errorf("making an OpenPGP key: %w", err)
		}
	}
	for address, text := range public {
		if err := os.WriteFile(b.keyFile(address), text, 0o644); err != nil {
			return err
		}
		if _, err := b.ours("key", "add", "--store", b.store, address, b.keyFile(address)); err != nil {
			return err
		}
		parsed, err := keys.Parse(text)
		if err != nil {
			return err
		}
		b.keys[address] = parsed[0]
	}
	return nil
}

func (b *bench) close() { os.RemoveAll(b.dir) }

func (b *bench) keyFile(address string) string { return filepath.Join(b.dir, address) }

// ours runs a command of sealmilter.
func (b *bench) ours(args ...string) ([]byte, error) { return output(exec.Command(b.program, args...)) }

// output is what a command writes; what it says goes into the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, &said)
	}
	return out, nil
}

func newOpenPGPKey(address string, algorithm packet.PublicKeyAlgorithm) ([]byte, error) {
	entity, err := openpgp.NewEntity("", "", address, &packet.Config{Algorithm: algorithm, RSABits: 2048})
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	w, err := armor.Encode(&text, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		return nil, err
	}
	if err := entity.Serialize(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return append(text.Bytes(), '\n'), nil
}

func (b *bench) newCertificate() ([]byte, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	b.publicRSA = &private.PublicKey
	template := &x509.Certificate{
		SerialNumber:   big.NewInt(1),
		Subject:        pkix.Name{CommonName: smimeAddress},
		NotBefore:      time.Now().Add(-time.Hour),
		NotAfter:       time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:       x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		EmailAddresses: []string{smimeAddress},
		SubjectKeyId:   []byte("the bench's certificate"),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, crypto.PublicKey(b.publicRSA), private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// header is that of each message.
const header = "From: sender@example.net\r\nTo: reader@example.org\r\nSubject: a large file\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"

// newBody is an attachment as mail carries it. Nothing of it can be compressed
// away, and CRLF ends its lines, as a milter is shown them.
func newBody(size int64) []byte {
	random := make([]byte, 57)
	body := make([]byte, 0, size+78)
	for int64(len(body)) < size {
		rand.Read(random)
		body = append(base64.StdEncoding.AppendEncode(body, random), "\r\n"...)
	}
	return body[:size]
}

// mailFile writes a mail of about a size into a file.
func (b *bench) mailFile(size int64) (string, error) {
	name := filepath.Join(b.dir, fmt.Sprintf("mail-%d", size))
	mail := append([]byte(header+"\r\n"), newBody(size)...)
	return name, os.WriteFile(name, mail, 0o600)
}

//go:build ignore

// Packets makes what the programs at hand do not: keys and messages of RFC
// 9580's newest versions, and messages whose packets are not as they should be.
// Standard input is a binary OpenPGP message, or plaintext for encrypt.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "packets:", err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	if verb == "key" {
		return makeKey()
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	out, err := armor.EncodeWithChecksumOption(os.Stdout, "PGP MESSAGE", nil, verb != "encrypt")
	if err != nil {
		return err
	}
	if verb == "encrypt" {
		err = encrypt(out, in, args[0], len(args) > 1)
	} else {
		err = rewrite(out, in, verb)
	}
	if err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	_, err = fmt.Println()
	return err
}

// makeKey makes a key of version 6 that never expires.
func makeKey() error {
	entity, err := openpgp.NewEntity("Vera", "", "vera@example.org", &packet.Config{
		V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, AEADConfig: &packet.AEADConfig{}})
	if err != nil {
		return err
	}
	out, err := armor.Encode(os.Stdout, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		return err
	}
	if err := entity.Serialize(out); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	_, err = fmt.Println()
	return err
}

func encrypt(out io.Writer, plain []byte, file string, hidden bool) error {
	armored, err := os.Open(file)
	if err != nil {
		return err
	}
	defer armored.Close()
	to, err := openpgp.ReadArmoredKeyRing(armored)
	if err != nil {
		return err
	}
	var toHidden []*openpgp.Entity
	if hidden {
		to, toHidden = nil, to
	}
	w, err := openpgp.Encrypt(out, to, toHidden, nil, nil, &packet.Config{AEADConfig: &packet.AEADConfig{}})
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return w.Close()
}

// rewrite writes a message with another encrypted packet at its end.
func rewrite(out io.Writer, message []byte, verb string) error {
	packets := packet.NewOpaqueReader(bytes.NewReader(message))
	for {
		p, err := packets.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if p.Tag != 18 {
			if err := p.Serialize(out); err != nil {
				return err
			}
			continue
		}
		if err := rewritten(out, p.Contents, verb); err != nil {
			return err
		}
	}
}

func rewritten(out io.Writer, encrypted []byte, verb string) error {
	write := func(tag uint8, contents []byte) error {
		return (&packet.OpaquePacket{Tag: tag, Contents: contents}).Serialize(out)
	}
	switch verb {
	case "ocb": // version, AES-256, OCB, chunks of 4 MiB; what follows looks like nothing
		contents := make([]byte, 4+15+80+16)
		rand.Read(contents)
		copy(contents, []byte{1, 9, 2, 16})
		return write(20, contents)
	case "sed":
		return write(9, encrypted[1:])
	case "indeterminate": // an old header with four bits for the type
		_, err := out.Write(append([]byte{0x80 | 2<<2 | 3}, encrypted...))
		return err
	case "behind":
		if err := write(18, encrypted); err != nil {
			return err
		}
		return write(11, []byte("t\x00\x00\x00\x00\x00The words that nobody else should read."))
	case "twice":
		if err := write(18, encrypted); err != nil {
			return err
		}
		return write(18, encrypted)
	}
	return fmt.Errorf("%q is not known", verb)
}

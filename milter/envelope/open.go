package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/milter/envelope/cms"
)

// Open is the way back: it takes a sealed message, outer header and all, and
// gives back the message that was sealed, byte for byte as the filter was
// shown it. The line ends of the sealed message may be LF or CRLF. Of an
// OpenPGP message nothing is returned before the whole has been authenticated;
// S/MIME's usual ciphers do not authenticate.
func Open(message []byte, with *Secret) ([]byte, error) {
	header, body := splitHeader(message)
	kind, params, err := mime.ParseMediaType(fieldValue(header, "Content-Type"))
	switch {
	case err != nil:
	case kind == "multipart/encrypted" && strings.EqualFold(params["protocol"], "application/pgp-encrypted"):
		return openPGPMIME(body, params["boundary"], with.OpenPGP)
	case kind == "application/pkcs7-mime", kind == "application/x-pkcs7-mime":
		return openSMIME(header, body, with.SMIME)
	}
	return nil, errors.New("this is neither a PGP/MIME nor an S/MIME encrypted message")
}

func openPGPMIME(body []byte, boundary string, with openpgp.EntityList) ([]byte, error) {
	if len(with) == 0 {
		return nil, errors.New("this is an OpenPGP message, and the key is not an OpenPGP key")
	}
	armored, err := encryptedPart(body, boundary)
	if err != nil {
		return nil, err
	}
	block, err := armor.Decode(armored)
	if err != nil {
		return nil, fmt.Errorf("reading the armor: %w", err)
	}
	details, err := openpgp.ReadMessage(block.Body, with, nil, anyUse)
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	if !details.IsEncrypted {
		return nil, errors.New("this is armored, but not encrypted")
	}
	payload, err := io.ReadAll(details.UnverifiedBody)
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	return Original(payload), nil
}

// anyUse lets go-crypto decrypt with any key that the message names, whatever its
// flags say today. Mail is sealed to keys that have none, and their owner may
// have given them others since; by itself it takes those keys for signing keys,
// and says that the key is the wrong one.
var anyUse = &packet.Config{InsecureAllowDecryptionWithSigningKeys: true}

// openSMIME opens an entity whose body is a CMS message, in base64 as we write
// it or binary.
func openSMIME(header, body []byte, with []cms.Identity) ([]byte, error) {
	if len(with) == 0 {
		return nil, errors.New("this is an S/MIME message, and the key is an OpenPGP key")
	}
	if strings.EqualFold(fieldValue(header, "Content-Transfer-Encoding"), "base64") {
		decoded, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body)))
		if err != nil {
			return nil, fmt.Errorf("reading the base64: %w", err)
		}
		body = decoded
	}
	payload, err := cms.Open(body, with)
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	// S/MIME payloads never had an addedType: one that stands first is the sender's.
	return unmark(payload), nil
}

// splitHeader cuts a message at its first empty line. What a mail program
// would not take for header fields does no harm in it.
func splitHeader(message []byte) (header, body []byte) {
	for rest := message; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return message[:len(message)-len(rest)], after
		}
		rest = after
	}
	return message, nil
}

// fieldValue is the value of the only field of a name, unfolded. It is empty
// where there is none, or more than one: of two, nobody knows which counts.
func fieldValue(header []byte, name string) string {
	var values []string
	ours := false
	for line := range strings.Lines(string(header)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if ours {
				values[len(values)-1] += line
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		if ours = strings.EqualFold(strings.TrimSpace(field), name); ours {
			values = append(values, value)
		}
	}
	if len(values) != 1 {
		return ""
	}
	return strings.TrimSpace(values[0])
}

// encryptedPart finds the armored part of a PGP/MIME entity, which has exactly
// two parts (RFC 3156, section 4).
func encryptedPart(body []byte, boundary string) (io.Reader, error) {
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	var found [2][]byte
	for i, want := range []string{"application/pgp-encrypted", "application/octet-stream"} {
		part, err := parts.NextRawPart()
		if err != nil {
			return nil, fmt.Errorf("reading part %d of the encrypted message: %w", i+1, err)
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind != want {
			return nil, fmt.Errorf("part %d of the encrypted message is not %s", i+1, want)
		}
		if found[i], err = io.ReadAll(part); err != nil {
			return nil, fmt.Errorf("reading part %d of the encrypted message: %w", i+1, err)
		}
	}
	if _, err := parts.NextRawPart(); err != io.EOF {
		return nil, errors.New("there is something beside the encrypted part")
	}
	if strings.TrimSpace(string(found[0])) != "Version: 1" {
		return nil, errors.New("the version part does not say \"Version: 1\"")
	}
	return bytes.NewReader(found[1]), nil
}

package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Open is the way back: it takes a sealed message, outer header and all, and
// gives back the message that was sealed, byte for byte as the filter was
// shown it. The line ends of the sealed message may be LF or CRLF. Nothing is
// returned before the whole of it has been authenticated.
func Open(message []byte, with openpgp.KeyRing) ([]byte, error) {
	header, body := splitHeader(message)
	armored, err := encryptedPart(header, body)
	if err != nil {
		return nil, err
	}
	block, err := armor.Decode(armored)
	if err != nil {
		return nil, fmt.Errorf("reading the armor: %w", err)
	}
	details, err := openpgp.ReadMessage(block.Body, with, nil, nil)
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
func encryptedPart(header, body []byte) (io.Reader, error) {
	kind, params, err := mime.ParseMediaType(fieldValue(header, "Content-Type"))
	if err != nil || kind != "multipart/encrypted" || !strings.EqualFold(params["protocol"], "application/pgp-encrypted") {
		return nil, errors.New("this is not a PGP/MIME encrypted message")
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
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

package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// AEAD is the mode of authenticated encryption that a message is sealed with.
type AEAD string

// The modes. Without one a message is what every reader opens: OpenPGP's SEIPD
// version 1, and in S/MIME an EnvelopedData.
const (
	NoAEAD AEAD = ""    // no choice
	GCM    AEAD = "gcm" // SEIPD version 2 with GCM, or AuthEnvelopedData (RFC 5083)
	OCB    AEAD = "ocb" // SEIPD version 2 with OCB, which RFC 9580 asks every reader for
)

// HeaderProtection is what of a header is hidden from whoever stores a message
// (RFC 9788, section 3).
type HeaderProtection string

// The ways to protect a header, the stricter behind.
const (
	NoProtection HeaderProtection = ""         // the header stands outside as it came, and in the payload
	Baseline     HeaderProtection = "baseline" // hcp_baseline: Subject, Keywords and Comments are hidden
	Shy          HeaderProtection = "shy"      // hcp_shy: and display names and time zones
)

// Protections are the ways to protect a header by their strictness.
var Protections = []HeaderProtection{NoProtection, Baseline, Shy}

// Stricter is the one of two ways that hides more: who shares a copy with
// somebody who wants less hidden loses nothing by it.
func Stricter(a, b HeaderProtection) HeaderProtection {
	if slices.Index(Protections, b) > slices.Index(Protections, a) {
		return b
	}
	return a
}

// Form is how a message is encrypted, whoever reads it. Copies of one form
// share their ciphertext.
type Form struct {
	Method     Method
	Cipher     Cipher
	AEAD       AEAD
	Protection HeaderProtection
}

// KeyOptions are what the owner of a key, or its administrator, has chosen for
// what is sealed to it. The JSON names are those of the store's options.
type KeyOptions struct {
	AEAD  AEAD `json:"aead,omitempty"`   // where all readers of a message have chosen one
	OAEP  bool `json:"oaep,omitempty"`   // RSAES-OAEP with SHA-256 to a certificate (RFC 3560)
	MLKEM bool `json:"ml_kem,omitempty"` // only to the ML-KEM-768+X25519 subkeys; experimental
}

// keyOptions is the name under which a row's options hold those of its key.
const keyOptions = "key"

// UnmarshalJSON reads the options by their names as they are spelled, and no
// other: a database looks at the values of those names alone, so that what
// stands under "AEAD" may be anything.
func (o *KeyOptions) UnmarshalJSON(text []byte) error {
	*o = KeyOptions{}
	return readNamed(text, map[string]any{"aead": &o.AEAD, "oaep": &o.OAEP, "ml_kem": &o.MLKEM})
}

// readNamed reads the members of a JSON object by their names as they are spelled,
// where encoding/json would take them in any case.
func readNamed(text []byte, into map[string]any) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for name, into := range into {
		if value, there := all[name]; there {
			if err := json.Unmarshal(value, into); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseKeyOptions reads the options of a key, a JSON object. Names that it does
// not know are for others; a value that nobody knows is an error.
func ParseKeyOptions(text []byte) (o KeyOptions, err error) {
	if len(text) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return KeyOptions{}, errors.New("the options of a key are no JSON object with aead, oaep and ml_kem")
	}
	if !slices.Contains([]AEAD{NoAEAD, GCM, OCB}, o.AEAD) {
		return o, fmt.Errorf("a key's option aead is %q, which is neither %s nor %s", o.AEAD, GCM, OCB)
	}
	return o, nil
}

// Check says whether the options are such as a key of a method can have.
func (o KeyOptions) Check(method Method) error {
	switch {
	case method == SMIME && o.AEAD == OCB:
		return errors.New("S/MIME has no OCB, its mode is gcm")
	case method == SMIME && o.MLKEM:
		return errors.New("there is no ML-KEM in S/MIME yet")
	case method == OpenPGP && o.OAEP:
		return errors.New("OAEP is for certificates")
	}
	return nil
}

// SealTo settles how one message is sealed to all the accounts at the moment
// now, but for its header: in which form, and to which keys. Of each account it
// takes the keys that are in its best state, so that an old key stays out of use
// while a newer one is valid. Where several methods serve all of them, the first
// account that has chosen decides, and OpenPGP where none has. The cipher is the
// strongest that one of them has chosen. The error says why there is no such
// form.
func SealTo(accounts []*Account, now time.Time) (Form, []*Key, error) {
	count := make(map[Method]int)
	keys := make(map[Method][]*Key)
	form := Form{Cipher: AES128}
	for _, account := range accounts {
		use := account.best(now)
		if len(use) == 0 {
			return Form{}, nil, errors.New("an account has no key that can be sealed to")
		}
		for method, of := range use {
			count[method]++
			for _, key := range of { // two accounts may have their domain's
				if !slices.Contains(keys[method], key) {
					keys[method] = append(keys[method], key)
				}
			}
		}
		if form.Method == "" {
			form.Method = account.Method
		}
		if account.Cipher == AES256 {
			form.Cipher = AES256
		}
	}
	for _, method := range []Method{form.Method, OpenPGP, SMIME} {
		if count[method] > 0 && count[method] == len(accounts) {
			form.Method, form.AEAD = method, commonAEAD(keys[method], now)
			return form, keys[method], nil
		}
	}
	return Form{}, nil, errors.New("some of the accounts have OpenPGP keys and some certificates, and one message is sealed by one method")
}

// commonAEAD is the mode of a message to all these keys. Many programs cannot
// read SEIPD version 2 whose keys say that they can, so that a version 4 key
// must have chosen; a version 6 key came with RFC 9580, which has both. OCB is
// the mode that every reader of version 2 has.
func commonAEAD(all []*Key, now time.Time) AEAD {
	mode := GCM
	for _, key := range all {
		switch {
		case key.Options.AEAD == GCM:
		case key.Options.AEAD == OCB, key.readsSEIPD2(now):
			mode = OCB
		default:
			return NoAEAD
		}
	}
	return mode
}

package keys

import (
	"errors"
	"fmt"
)

// Reason is why a key is refused, in one word.
type Reason string

// The reasons.
const (
	ReasonNoKey       Reason = "no-key"      // there is none in what was handed in
	ReasonTooLarge    Reason = "too-large"   // more of something than a person's key has
	ReasonSecret      Reason = "secret"      // a secret key
	ReasonDamaged     Reason = "damaged"     // it cannot be read
	ReasonUnsupported Reason = "unsupported" // of a kind that is out of use, or that nobody here knows
	ReasonWeak        Reason = "weak"        // its numbers protect nothing
	ReasonUnsigned    Reason = "unsigned"    // what holds it together is not signed by itself
	ReasonBrokenHash  Reason = "broken-hash" // it is signed with SHA-1 or MD5 alone
	ReasonPurpose     Reason = "purpose"     // it is not for encrypting mail
	ReasonAuthority   Reason = "authority"   // a certificate of an authority
	ReasonExpired     Reason = "expired"     // its time is over
	ReasonEarly       Reason = "not-yet"     // its time has not come
	ReasonRevoked     Reason = "revoked"     // its holder has withdrawn it
	ReasonAddress     Reason = "address"     // it is somebody else's
	ReasonTrial       Reason = "trial"       // sealing to it fails
)

// advice says what whoever handed a key in can do. A secret key is in
// ErrSecretKey already.
var advice = map[Reason]string{
	ReasonNoKey:       "hand in the public key (gpg --armor --export ADDRESS) or the certificate",
	ReasonTooLarge:    "hand in one key at a time, and without what others have signed (gpg --armor --export-options export-minimal --export ADDRESS)",
	ReasonDamaged:     "export it anew, and hand the whole file in",
	ReasonUnsupported: "its owner should make a new one, with a program of today",
	ReasonWeak:        "its owner should make a new one: RSA with 3072 bits, or on a curve",
	ReasonUnsigned:    "its owner should export it anew from where the secret key is",
	ReasonBrokenHash:  "its owner should sign it anew (gpg --quick-set-expire FINGERPRINT 2y, and once more with '*' behind it), or ask for a new certificate",
	ReasonPurpose:     "its owner should add a subkey for encryption (gpg --quick-add-key FINGERPRINT), or ask for a certificate that is for encrypting mail",
	ReasonAuthority:   "hand in the person's own certificate, which is none of an authority (CA:FALSE)",
	ReasonExpired:     "its owner should prolong it (gpg --quick-set-expire FINGERPRINT 2y, and once more with its subkey's fingerprint behind it: '*' leaves out what has expired) or ask for a new certificate, and hand that in",
	ReasonEarly:       "hand it in again then, or look whether the clock was right where it was made",
	ReasonRevoked:     "hand in the key that its holder uses now",
	ReasonAddress:     "hand in the key of this address, or let its owner add the address to it (gpg --quick-add-uid FINGERPRINT ADDRESS)",
	ReasonTrial:       "its owner should make a new one, with a program of today",
}

// Refusal is the error of a key that is not taken, and a warning where it was
// taken nevertheless.
type Refusal struct {
	Reason Reason
	Text   string // what is wrong; from Validate, and what can be done
	cause  error
	todo   string // what can be done, where that is not what advice has
}

func (r *Refusal) Error() string { return r.Text }

func (r *Refusal) Unwrap() error { return r.cause }

// ReasonOf is the reason in an error of Parse or Validate, and "" in others.
func ReasonOf(err error) Reason {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		return ""
	}
	return refusal.Reason
}

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// refuseTo is refuse with something else to be done.
func refuseTo(todo string, reason Reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...), todo: todo}
}

// advised is an error of the parser as whoever handed the key in should see it.
func advised(err error) error {
	reason, text := ReasonOf(err), err.Error()
	if reason == "" {
		reason = ReasonDamaged
	}
	what := advice[reason]
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.todo != "" {
		what = refusal.todo
	}
	if what != "" {
		text += "; " + what
	}
	return &Refusal{Reason: reason, Text: text, cause: err}
}

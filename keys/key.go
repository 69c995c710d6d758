package keys

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// State says what a key is good for at a moment.
type State int

// The states of a key, from the best to the worst.
const (
	Usable   State = iota // mail can be sealed to it
	Expired               // its time is over; whoever holds the secret key can still read
	Revoked               // its holder has withdrawn it
	Unusable              // it has no part that mail can be sealed to
)

// String names the state in one word.
func (s State) String() string {
	switch s {
	case Usable:
		return "usable"
	case Expired:
		return "expired"
	case Revoked:
		return "revoked"
	}
	return "unusable"
}

// Key is one parsed and verified key. It is immutable and may be shared: all
// signatures were checked when it was parsed.
type Key struct {
	Method      Method
	Fingerprint string     // of the primary key, or SHA-256 of the certificate; upper-case hexadecimal
	UserIDs     []string   // those whose self-signature holds, or the certificate's addresses; sorted
	Algorithm   string     // of the newest encryption key, as "RSA-3072", "Curve25519" or "P-256"
	Created     time.Time  // the primary key's creation, or the beginning of the certificate's validity
	Expires     time.Time  // when the last encryption key ends; zero: never
	RevokedAt   time.Time  // when its holder withdrew it, by the revocation's own date
	Signed      time.Time  // the date of the newest signature by which its holder says what the key is; zero for a certificate
	Options     KeyOptions // what was chosen for it, see With

	withdrawn  bool // the primary key is revoked
	encryption []encryptionKey
	encoded    []byte // the transferable public key, or the certificate; binary
}

// encryptionKey is a primary key or subkey that mail can be sealed to, or a
// certificate. Revoked keys and those whose binding does not hold are left out
// by the parser.
type encryptionKey struct {
	public      *packet.PublicKey // OpenPGP's
	certificate *x509.Certificate // S/MIME's
	expires     time.Time         // zero: never
	postQuantum bool              // ML-KEM-768+X25519, which is sealed to where it was chosen only
	seipd2      bool              // version 6, and says that it reads SEIPD version 2
}

// With is the same key with options.
func (k *Key) With(options KeyOptions) *Key {
	if k.Options == options {
		return k
	}
	chosen := *k
	chosen.Options = options
	if use := chosen.chosen(); len(use) > 0 && k.Method == OpenPGP {
		chosen.Algorithm, chosen.Expires = algorithm(newest(use)), lastExpiry(use)
	}
	return &chosen
}

// IsPostQuantumOnly says whether all that could be sealed to is of a kind that
// must be chosen, see KeyOptions.
func (k *Key) IsPostQuantumOnly() bool {
	return len(k.encryption) > 0 && !slices.ContainsFunc(k.encryption, func(e encryptionKey) bool { return !e.postQuantum })
}

// State says what the key is good for at the moment now.
func (k *Key) State(now time.Time) State {
	switch {
	case k.withdrawn:
		return Revoked
	case len(k.chosen()) == 0:
		return Unusable
	case len(k.valid(now)) == 0:
		return Expired
	}
	return Usable
}

// OpenPGPKeys returns every encryption key that is valid at the moment now.
// Where none is, it returns those that expired last, which their holder can
// still read with. A revoked key has none.
func (k *Key) OpenPGPKeys(now time.Time) (public []*packet.PublicKey) {
	for _, e := range k.use(now) {
		if e.public != nil {
			public = append(public, e.public)
		}
	}
	return public
}

// Certificates returns the certificate of an S/MIME key, valid or expired.
func (k *Key) Certificates(now time.Time) (certificates []*x509.Certificate) {
	for _, e := range k.use(now) {
		if e.certificate != nil {
			certificates = append(certificates, e.certificate)
		}
	}
	return certificates
}

// Armored returns the key as text: an armored block without third parties'
// signatures, which no sealing needs, or the certificate in PEM.
func (k *Key) Armored() string {
	if k.Method == SMIME {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.encoded}))
	}
	return armorBlock(k.encoded)
}

// use is what is sealed to at the moment now.
func (k *Key) use(now time.Time) []encryptionKey {
	if k.withdrawn {
		return nil
	}
	if valid := k.valid(now); len(valid) > 0 {
		return valid
	}
	var last []encryptionKey
	all := k.chosen()
	end := lastExpiry(all)
	for _, e := range all {
		if e.expires.Equal(end) {
			last = append(last, e)
		}
	}
	return last
}

func (k *Key) valid(now time.Time) []encryptionKey {
	var valid []encryptionKey
	for _, e := range k.chosen() {
		if e.expires.IsZero() || now.Before(e.expires) {
			valid = append(valid, e)
		}
	}
	return valid
}

// chosen are the encryption keys that the options allow. Who has chosen ML-KEM
// is sealed to by nothing else: beside another way in it would protect nothing.
// Where the key has none, the choice changes nothing.
func (k *Key) chosen() []encryptionKey {
	var classic, postQuantum []encryptionKey
	for _, e := range k.encryption {
		if e.postQuantum {
			postQuantum = append(postQuantum, e)
		} else {
			classic = append(classic, e)
		}
	}
	if k.Options.MLKEM && len(postQuantum) > 0 {
		return postQuantum
	}
	return classic
}

// readsSEIPD2 says whether all that is sealed to is of version 6 and says that
// it reads SEIPD version 2 (RFC 9580, section 5.2.3.32).
func (k *Key) readsSEIPD2(now time.Time) bool {
	return !slices.ContainsFunc(k.use(now), func(e encryptionKey) bool { return !e.seipd2 })
}

// lastExpiry is the moment when the last of the encryption keys ends, zero
// where one of them never does.
func lastExpiry(encryption []encryptionKey) time.Time {
	if len(encryption) == 0 {
		return time.Time{}
	}
	last := slices.MaxFunc(encryption, func(a, b encryptionKey) int {
		switch {
		case a.expires.IsZero() && b.expires.IsZero():
			return 0
		case a.expires.IsZero():
			return 1
		case b.expires.IsZero():
			return -1
		}
		return a.expires.Compare(b.expires)
	})
	return last.expires
}

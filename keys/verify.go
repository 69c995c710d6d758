package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/bits"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxEffort bounds what checking the signatures of one file of keys may cost,
// in units of about 0.1 ms: keys come from SQL, a mail waits for them, and a
// file of MaxKeySize has room for a minute's worth of signatures.
const maxEffort = 1000

var errEffort = refuse(ReasonTooLarge, "checking its signatures takes too long: strip it (gpg --export-options export-minimal), or hand several keys in one by one")

// hashedPerEffort is how many bytes are hashed for one unit of effort: a
// signature over a user id of 100 KiB takes longer than its arithmetic.
const hashedPerEffort = 32 << 10

// verifier checks signatures until its effort is spent.
type verifier struct {
	effort       int
	certificates []*x509.Certificate // all that were read
	// entering are the keys as they were read, where they are to be stored; nil
	// where they come from the store.
	entering map[*Key]*transferable
}

func newVerifier(effort int) *verifier { return &verifier{effort: effort} }

// newest returns the newest signature of one of the types that holds, nil
// where there is none. Newer ones decide alone, whether they have expired or
// not: what they say of the key's life is the holder's last word.
func (v *verifier) newest(on *part, primary *packet.PublicKey, check func(*packet.Signature) error, types ...packet.SignatureType) (*packet.Signature, error) {
	for _, sig := range on.newestFirst(types...) {
		if !acceptable(sig) {
			continue
		}
		v.effort -= cost(primary) + (len(on.packet.Contents)+len(sig.HashSuffix))/hashedPerEffort
		if sig.SigType == packet.SigTypeSubkeyBinding && sig.FlagSign { // the subkey has signed too, within it
			v.effort -= cost(on.public)
		}
		if v.effort < 0 {
			return nil, errEffort
		}
		if check(sig) == nil {
			on.taken = append(on.taken, sig)
			return sig, nil
		}
	}
	return nil, nil
}

// acceptable refuses hash functions that are broken for good, and signatures
// that say something which must be understood (RFC 9580, section 5.2.3.24).
// SHA-1 is taken: no third party's word counts here, and there are keys of ten
// years ago that have nothing else. A revocation is always taken.
func acceptable(sig *packet.Signature) bool {
	switch sig.SigType {
	case packet.SigTypeKeyRevocation, packet.SigTypeSubkeyRevocation, packet.SigTypeCertificationRevocation:
		return true
	}
	critical := func(n *packet.Notation) bool { return n.IsCritical }
	return sig.Hash != crypto.MD5 && sig.Hash != crypto.RIPEMD160 && !slices.ContainsFunc(sig.Notations, critical)
}

// selfSignatures are what a key says of itself.
type selfSignatures struct {
	revocation *packet.Signature // of the whole key
	direct     *packet.Signature // over the primary key alone
	userID     *packet.Signature // over the user id that is the primary one
	userIDs    []string          // all that hold and are not revoked
}

// primary checks what stands on the primary key and the user ids.
func (v *verifier) primary(t *transferable) (s selfSignatures, err error) {
	public := t.primary.public
	s.revocation, err = v.newest(t.primary, public, public.VerifyRevocationSignature, packet.SigTypeKeyRevocation)
	if err != nil {
		return s, err
	}
	s.direct, err = v.newest(t.primary, public, public.VerifyDirectKeySignature, packet.SigTypeDirectSignature)
	if err != nil {
		return s, err
	}
	for _, id := range t.userIDs {
		sig, err := v.userID(id, public)
		if err != nil {
			return s, err
		}
		if sig != nil {
			s.userIDs = append(s.userIDs, string(id.packet.Contents))
			s.userID = preferred(s.userID, sig)
		}
	}
	slices.Sort(s.userIDs)
	return s, nil
}

// userID returns the newest signature on a user id, nil where there is none
// or where it has been revoked since.
func (v *verifier) userID(id *part, primary *packet.PublicKey) (*packet.Signature, error) {
	check := func(sig *packet.Signature) error {
		return primary.VerifyUserIdSignature(string(id.packet.Contents), primary, sig)
	}
	sig, err := v.newest(id, primary, check, packet.SigTypeGenericCert,
		packet.SigTypePersonaCert, packet.SigTypeCasualCert, packet.SigTypePositiveCert)
	if err != nil || sig == nil {
		return nil, err
	}
	revocation, err := v.newest(id, primary, check, packet.SigTypeCertificationRevocation)
	if err != nil || revocation != nil && !revocation.CreationTime.Before(sig.CreationTime) {
		return nil, err
	}
	return sig, nil
}

// preferred is the signature that speaks for the key: one that marks its user
// id as the primary one, then the newer one.
func preferred(a, b *packet.Signature) *packet.Signature {
	primary := func(s *packet.Signature) bool { return s.IsPrimaryId != nil && *s.IsPrimaryId }
	switch {
	case a == nil, primary(b) && !primary(a):
		return b
	case primary(a) && !primary(b), !b.CreationTime.After(a.CreationTime):
		return a
	}
	return b
}

var (
	errUnbound = refuse(ReasonUnsigned, "the primary key's signature on it is missing or does not hold")
	errRevoked = refuse(ReasonRevoked, "it is revoked")
)

// subkey returns the newest signature that binds a subkey to its primary key.
// A revoked subkey is none, whatever was said of it later.
func (v *verifier) subkey(sub *part, primary *packet.PublicKey) (*packet.Signature, error) {
	bind := func(sig *packet.Signature) error { return primary.VerifyKeySignature(sub.public, sig) }
	revoke := func(sig *packet.Signature) error { return primary.VerifySubkeyRevocationSignature(sig, sub.public) }
	binding, err := v.newest(sub, primary, bind, packet.SigTypeSubkeyBinding)
	if err != nil {
		return nil, err
	}
	if binding == nil {
		return nil, errUnbound
	}
	revocation, err := v.newest(sub, primary, revoke, packet.SigTypeSubkeyRevocation)
	if err == nil && revocation != nil {
		err = errRevoked
	}
	return binding, err
}

// cost is what checking one signature of a key takes, in the units of
// maxEffort, as it was measured. Go has fast code for few of the curves.
func cost(public *packet.PublicKey) int {
	curve, err := public.Curve()
	if err != nil {
		if length, err := public.BitLength(); err == nil && public.PubKeyAlgo == packet.PubKeyAlgoRSA {
			kilobits := int(length) / 1024
			return 1 + kilobits*kilobits/4
		}
		return 25 // SLH-DSA, the slowest of the rest
	}
	switch curve {
	case packet.Curve25519, packet.CurveNistP256:
		return 1
	case packet.Curve448:
		return 3
	case packet.CurveNistP384:
		return 10
	case packet.CurveNistP521:
		return 35
	case packet.CurveBrainpoolP256, packet.CurveSecP256k1:
		return 40
	}
	return 100
}

// sealingCost is what one message to a key takes, in the units of maxEffort, as
// it was measured.
func (k *Key) sealingCost(now time.Time) (sum int) {
	for _, public := range k.OpenPGPKeys(now) {
		if key, ok := public.PublicKey.(*rsa.PublicKey); ok {
			sum += sealingCostRSA(key)
			continue
		}
		curve, _ := public.Curve()
		switch curve {
		case packet.CurveSecP256k1:
			sum += 32
		case packet.CurveNistP384:
			sum += 8
		case packet.CurveNistP521, packet.CurveBrainpoolP384:
			sum += 60
		case packet.CurveBrainpoolP256:
			sum += 130
		case packet.CurveBrainpoolP512:
			sum += 215
		default: // Curve25519, Curve448, P-256, ML-KEM
			sum += 4
		}
	}
	for _, certificate := range k.Certificates(now) {
		switch public := certificate.PublicKey.(type) {
		case *rsa.PublicKey:
			sum += sealingCostRSA(public)
		case *ecdsa.PublicKey:
			switch public.Curve {
			case elliptic.P256():
				sum += 2
			case elliptic.P384():
				sum += 27
			default:
				sum += 60
			}
		}
	}
	return sum
}

// sealingCostRSA counts the multiplications that an exponent takes.
func sealingCostRSA(public *rsa.PublicKey) int {
	kilobits := public.N.BitLen() / 1024
	exponent := uint(public.E)
	return 1 + kilobits*kilobits*(bits.Len(exponent)+bits.OnesCount(exponent))/60
}

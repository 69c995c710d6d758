package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"slices"
)

const (
	maxCertificate = 64 << 10 // bytes; most have 2 KiB, those with logotypes (RFC 9399) more
	maxSubject     = 4 << 10  // bytes
	// maxNesting is how deep the parts of a bundle may be nested. Certificates
	// need some fifteen.
	maxNesting = 32
)

const smaller = "its owner should ask for one that names them alone"

// checkCertificate holds a certificate that is to be stored to more than
// Parse does.
func (v *verifier) checkCertificate(c *x509.Certificate, key *Key) error {
	switch {
	case len(c.Raw) > maxCertificate:
		return refuseTo(smaller, ReasonTooLarge, "it has %d bytes, the most is %d", len(c.Raw), maxCertificate)
	case len(c.RawSubject) > maxSubject || len(c.RawIssuer) > maxSubject:
		return refuseTo(smaller, ReasonTooLarge, "its names have more than %d bytes", maxSubject)
	case len(key.UserIDs) > maxUserIDs:
		return refuseTo(smaller, ReasonTooLarge, "it names %d addresses, the most is %d", len(key.UserIDs), maxUserIDs)
	case slices.ContainsFunc(key.UserIDs, func(id string) bool { return len(id) > maxUserID }):
		return refuseTo(smaller, ReasonTooLarge, "one of its addresses has more than %d bytes", maxUserID)
	case c.Version != 3:
		return refuse(ReasonUnsupported, "it is of version %d, which cannot say that it is for mail", c.Version)
	}
	for _, unknown := range c.UnhandledCriticalExtensions {
		if !unknown.Equal(oidSubjectAltName) { // there is a name in it that Go does not know, and addressesOf does
			return refuse(ReasonUnsupported, "it has the extension %s, which nobody may pass over (RFC 5280, section 4.2), and which is not known here", unknown)
		}
	}
	return v.checkIssuer(c)
}

// checkIssuer checks the signature on a certificate where its issuer is at
// hand, or where it has signed itself: a file in which one does not hold was
// put together by mistake or worse. Whom to trust is not asked here.
func (v *verifier) checkIssuer(c *x509.Certificate) error {
	if c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm || slices.Contains(brokenSignatures, c.SignatureAlgorithm) {
		return nil // nobody can tell, or it is judged apart
	}
	issuers := []*x509.Certificate{c}
	if !selfSigned(c) {
		issuers = slices.DeleteFunc(slices.Clone(v.certificates), func(other *x509.Certificate) bool { return !bytes.Equal(other.RawSubject, c.RawIssuer) })
	}
	for _, issuer := range issuers {
		if v.effort -= certificateCost(issuer); v.effort < 0 {
			return errEffort
		}
		if issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return nil
		}
	}
	if len(issuers) == 0 {
		return nil
	}
	return refuse(ReasonUnsigned, "the signature on it does not hold")
}

// certificateCost is what one signature takes, see cost.
func certificateCost(issuer *x509.Certificate) int {
	switch public := issuer.PublicKey.(type) {
	case *rsa.PublicKey:
		kilobits := public.N.BitLen() / 1024
		if kilobits > maxBits/1024 {
			return maxEffort
		}
		return 1 + kilobits*kilobits/4*(1+public.E>>20)
	case *ecdsa.PublicKey:
		return 1 + public.Params().BitSize/16
	}
	return 2
}

// checkNesting walks through the parts of a BER encoding, and refuses what the
// library's parser, which calls itself and copies at each depth, would choke on.
func checkNesting(ber []byte) error {
	const indefinite = -1
	var ends []int // of the parts that are open
	for at := 0; at == 0 || len(ends) > 0; {
		switch end := len(ends) - 1; {
		case end < 0:
		case ends[end] == at:
			ends = ends[:end]
			continue
		case ends[end] == indefinite && bytes.HasPrefix(ber[at:], []byte{0, 0}):
			at += 2
			ends = ends[:end]
			continue
		}
		h, ok := readHead(ber[at:])
		at += h.size
		end := at + h.length
		if limit := enclosing(ends, len(ber)); !ok || at > limit || end > limit {
			return refuse(ReasonDamaged, "reading the PKCS#7 bundle: it is damaged")
		}
		if !h.constructed {
			at = end
			continue
		}
		if h.length < 0 {
			end = indefinite
		}
		if ends = append(ends, end); len(ends) > maxNesting {
			return refuse(ReasonTooLarge, "reading the PKCS#7 bundle: its parts are nested more than %d deep", maxNesting)
		}
	}
	return nil
}

// enclosing is where the innermost part ends whose end is known.
func enclosing(ends []int, whole int) int {
	for _, end := range slices.Backward(ends) {
		if end >= 0 {
			return end
		}
	}
	return whole
}

// head is what stands before the content of a part: its length is negative
// where the end is marked instead.
type head struct {
	size, length int
	constructed  bool
}

// readHead reads a tag of one octet and a length.
func readHead(ber []byte) (h head, ok bool) {
	const longTag, long = 0x1f, 0x80
	if len(ber) < 2 || ber[0]&longTag == longTag {
		return h, false
	}
	h = head{size: 2, length: int(ber[1]), constructed: ber[0]&0x20 != 0}
	switch octets := h.length - long; {
	case octets < 0:
	case octets == 0:
		h.length = -1
		return h, h.constructed
	case octets > 4 || len(ber) < 2+octets:
		return h, false
	default:
		h.size, h.length = 2+octets, 0
		for _, octet := range ber[2:h.size] {
			h.length = h.length<<8 | int(octet)
		}
	}
	return h, true
}

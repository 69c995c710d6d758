package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.mozilla.org/pkcs7"
)

// certificateKeys makes keys of the certificates that mail can be sealed to.
// Those of the authorities that came with them are left aside: to seal to a
// whole chain would let the authorities read.
func certificateKeys(found []*x509.Certificate, v *verifier) ([]*Key, error) {
	if len(found) == 0 {
		return nil, nil
	}
	v.certificates = found
	leaves := leavesOf(found)
	if len(leaves) == 0 {
		return nil, refuse(ReasonAuthority, "%s: this is the certificate of an authority, not of a person", nameOf(found[0]))
	}
	var all []*Key
	for _, certificate := range leaves {
		key, err := certificateKey(certificate)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(certificate), err)
		}
		all = append(all, key)
	}
	return all, nil
}

// parseDER reads a certificate or a PKCS#7 bundle (.p7b, .p7c), which are told
// apart by what they hold.
func parseDER(data []byte, v *verifier) ([]*Key, error) {
	var bundle struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue `asn1:"optional"`
	}
	var found []*x509.Certificate
	var err error
	if _, notBundle := asn1.Unmarshal(data, &bundle); notBundle == nil {
		found, err = readBundle(data)
	} else {
		found, err = readCertificate(data, false)
	}
	if err != nil {
		return nil, err
	}
	return certificateKeys(found, v)
}

// isSecretDER recognises what secret keys are kept in: a number of a version
// stands before all else in PKCS#12 (RFC 7292, section 4), PKCS#8 (RFC 5958)
// and what OpenSSL writes for RSA and curves, and in encrypted PKCS#8 the
// cipher, with octets behind it.
func isSecretDER(data []byte) bool {
	var versioned struct {
		Version int
		Content asn1.RawValue
	}
	var encrypted struct {
		Cipher struct {
			Algorithm asn1.ObjectIdentifier
			Parameter asn1.RawValue `asn1:"optional"`
		}
		Content []byte
	}
	if _, err := asn1.Unmarshal(data, &versioned); err == nil {
		return versioned.Version <= 3
	}
	_, err := asn1.Unmarshal(data, &encrypted)
	return err == nil
}

// readCertificate reads one certificate; where it is a trusted one, what
// stands behind it is OpenSSL's own.
func readCertificate(der []byte, trusted bool) ([]*x509.Certificate, error) {
	var first asn1.RawValue
	rest, err := asn1.Unmarshal(der, &first)
	switch {
	case err == nil && trusted:
		der = first.FullBytes
	case err == nil && len(rest) > 0:
		return nil, refuse(ReasonDamaged, "reading the certificate: %d bytes follow it; several certificates go into one file as PEM", len(rest))
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(unreadableCertificate(err), "reading the certificate: %s", err)
	}
	return []*x509.Certificate{certificate}, nil
}

// unreadableCertificate is the reason of an error of the library, which has
// only words for it.
func unreadableCertificate(err error) Reason {
	if strings.Contains(err.Error(), "unsupported") {
		return ReasonUnsupported
	}
	return ReasonDamaged
}

// readBundle reads a PKCS#7 bundle, which is a signed message without content
// or signature (RFC 5652, section 5.1).
func readBundle(der []byte) (found []*x509.Certificate, err error) {
	defer func() {
		if recover() != nil { // the library's parser of BER is not hardened
			err = refuse(ReasonDamaged, "reading the PKCS#7 bundle: it is damaged")
		}
	}()
	if err := checkNesting(der); err != nil {
		return nil, err
	}
	bundle, err := pkcs7.Parse(der)
	if err != nil {
		return nil, refuse(ReasonDamaged, "reading the PKCS#7 bundle: %s", err)
	}
	if len(bundle.Certificates) == 0 {
		return nil, refuse(ReasonNoKey, "there is no certificate in the PKCS#7 bundle")
	}
	return bundle.Certificates, nil
}

// leavesOf leaves aside the authorities: those that say so of themselves, and
// those that have issued another certificate in the set.
func leavesOf(found []*x509.Certificate) []*x509.Certificate {
	var leaves []*x509.Certificate
	seen := make(map[string]bool)
	for _, c := range found {
		if seen[string(c.Raw)] {
			continue
		}
		seen[string(c.Raw)] = true
		issued := slices.ContainsFunc(found, func(other *x509.Certificate) bool {
			return !selfSigned(other) && bytes.Equal(other.RawIssuer, c.RawSubject)
		})
		if !issued && (selfSigned(c) && homeMade(c) || !selfSigned(c) && !c.IsCA) {
			leaves = append(leaves, c)
		}
	}
	return leaves
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// homeMade says whether a certificate that has signed itself is a person's.
// "openssl req -x509" makes such, and marks them as authorities; but those of
// true authorities name no mailbox, or at most in their subject, and their keys
// are for signing.
func homeMade(c *x509.Certificate) bool {
	if !c.IsCA {
		return len(addressesOf(c)) > 0
	}
	const encrypts = x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
	return len(c.EmailAddresses) > 0 && (c.KeyUsage == 0 || c.KeyUsage&encrypts != 0)
}

// certificateKey checks that mail can be sealed to a certificate. Whether it
// has expired is judged when it is used.
func certificateKey(c *x509.Certificate) (*Key, error) {
	algorithm, err := checkPublicKey(c)
	if err != nil {
		return nil, err
	}
	if err := checkExtendedUsage(c); err != nil {
		return nil, err
	}
	ends := c.NotAfter
	if ends.IsZero() { // which would be a key without an end
		ends = ends.Add(time.Second)
	}
	return &Key{
		Method:      SMIME,
		Fingerprint: fmt.Sprintf("%X", sha256.Sum256(c.Raw)),
		UserIDs:     addressesOf(c),
		Algorithm:   algorithm,
		Created:     c.NotBefore,
		Expires:     ends,
		encryption:  []encryptionKey{{certificate: c, expires: ends}},
		encoded:     c.Raw,
	}, nil
}

// keyKind names the kind of a certificate's key by its number, of which the
// standard library may know nothing: 1.3.101.110 is X25519, and
// 1.2.840.113549.1.1.10 an RSA key that signs by RSASSA-PSS alone.
func keyKind(c *x509.Certificate) string {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return "unknown"
	}
	return info.Algorithm.Algorithm.String()
}

// checkPublicKey checks the kind of key and what it may be used for (RFC 5280,
// section 4.2.1.3): RSA keys encipher the message's key, those on curves agree
// on one.
func checkPublicKey(c *x509.Certificate) (algorithm string, err error) {
	var use x509.KeyUsage
	var word string
	switch public := c.PublicKey.(type) {
	case *rsa.PublicKey:
		bits := public.N.BitLen()
		switch {
		case bits < minRSABits:
			return "", refuse(ReasonWeak, "an RSA key of %d bits is too short, the least is %d", bits, minRSABits)
		case bits > maxBits:
			return "", refuse(ReasonUnsupported, "an RSA key of %d bits is too long, the most is %d", bits, maxBits)
		case public.N.Bit(0) == 0:
			return "", refuse(ReasonWeak, "its numbers are not those of an RSA key")
		case public.E < 3 || public.E%2 == 0 || public.E > math.MaxInt32:
			return "", refuse(ReasonWeak, "an RSA key with the exponent %d is none that can be sealed to", public.E)
		}
		algorithm = fmt.Sprintf("RSA-%d", public.N.BitLen())
		use, word = x509.KeyUsageKeyEncipherment, "keyEncipherment"
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return "", refuse(ReasonUnsupported, "the curve %s is not supported, use P-256, P-384 or P-521", public.Params().Name)
		}
		algorithm = public.Params().Name
		use, word = x509.KeyUsageKeyAgreement, "keyAgreement"
	default:
		if c.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
			return "", refuse(ReasonUnsupported, "its key is of a kind that is not supported (%s), use RSA, or P-256, P-384 or P-521", keyKind(c))
		}
		return "", refuse(ReasonPurpose, "its key (%s) can sign, but nothing can be sealed to it", c.PublicKeyAlgorithm)
	}
	if c.KeyUsage != 0 && c.KeyUsage&use == 0 {
		return "", refuse(ReasonPurpose, "it is not meant for encryption: its key usage lacks %s", word)
	}
	return algorithm, nil
}

// checkExtendedUsage holds a certificate that says what it is for to mail (RFC
// 8550, section 4.4.4).
func checkExtendedUsage(c *x509.Certificate) error {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageEmailProtection) ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	return refuse(ReasonPurpose, "it is not meant for mail: its extended key usage lacks emailProtection")
}

// Object identifiers of what names an address in a certificate.
var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSMTPUTF8Mailbox = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9} // RFC 9598
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// addressesOf are the addresses that a certificate names, sorted: rfc822Name,
// SmtpUTF8Mailbox and, as old ones have it, emailAddress in the subject.
func addressesOf(c *x509.Certificate) []string {
	addresses := slices.Clone(c.EmailAddresses)
	for _, extension := range c.Extensions {
		if extension.Id.Equal(oidSubjectAltName) {
			addresses = append(addresses, utf8Mailboxes(extension.Value)...)
		}
	}
	for _, name := range c.Subject.Names {
		if address, ok := name.Value.(string); ok && name.Type.Equal(oidEmailAddress) {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// utf8Mailboxes reads the SmtpUTF8Mailbox names of a subject alternative name,
// which Go's parser passes over.
func utf8Mailboxes(extension []byte) (addresses []string) {
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(extension, &names); err != nil {
		return nil
	}
	for _, name := range names {
		const otherName = 0 // the tag of that choice in GeneralName
		var other struct {
			Type  asn1.ObjectIdentifier
			Value struct {
				Mailbox string `asn1:"utf8"`
			} `asn1:"tag:0"`
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != otherName {
			continue
		}
		content := append([]byte{asn1.TagSequence | 0x20}, name.FullBytes[1:]...)
		if _, err := asn1.Unmarshal(content, &other); err == nil && other.Type.Equal(oidSMTPUTF8Mailbox) {
			addresses = append(addresses, other.Value.Mailbox)
		}
	}
	return addresses
}

// nameOf names a certificate for an error.
func nameOf(c *x509.Certificate) string {
	const long = 100
	if name := c.Subject.String(); len(name) > long {
		return fmt.Sprintf("certificate of %q…", name[:long])
	} else if name != "" {
		return fmt.Sprintf("certificate of %q", name)
	}
	return fmt.Sprintf("certificate %X", c.SerialNumber)
}

package keys

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Limits of what Validate takes, beside MaxKeySize. A person's key has a few
// of each; they are looked at before a key is parsed.
const (
	maxSubkeys    = 20
	maxUserIDs    = 20
	maxSignatures = 200
	maxUserID     = 2048 // bytes, as GnuPG has it
	// maxValidationEffort is maxEffort where a key is new: it must be refused
	// in less time than one that is enrolled already may take.
	maxValidationEffort = 500
	// maxSealingEffort bounds what one message to all keys of a file may cost, in
	// the same units: the trial takes that long now, and each message later. Keys
	// on the slowest curves may have two parts to seal to, others twenty.
	maxSealingEffort = 500
)

// Allowance is what of a key Validate only warns of.
type Allowance uint

// What can be allowed.
const (
	AllowAddress   Allowance = 1 << iota // it names other addresses
	AllowExpired                         // its time is over
	AllowEarly                           // its time has not come
	AllowAuthority                       // a certificate that has signed itself, and may sign others
	AllowSHA1                            // it is signed with SHA-1, or a certificate with MD5

	// Administrator is what an administrator's word counts for.
	Administrator = AllowAddress | AllowExpired | AllowEarly | AllowAuthority
)

// Rules are what a key has to keep to.
type Rules struct {
	// Address is whose key it is to be, as Canonical spells it, or
	// "@example.org" for all of a domain; "" where that is not asked.
	Address string
	Now     time.Time
	Allow   Allowance
	Options func(*Key) KeyOptions // what is chosen for a key; nil where nothing is
	// Seal is the trial: it seals something to the key, in the way that mail
	// will be. It is the last thing done, and must be there.
	Seal func(*Key) error
}

// Validate reads keys that are handed in, from whatever side they come, and
// judges whether mail may be sealed to them from now on. Parse reads what is in
// the store already, and is more lenient. What it returns has been stripped:
// Armored gives what is to be stored, without photographs, third parties'
// signatures and whatever else the key does not need. Of each thing that rules
// allow there is a warning. One key that is refused refuses all, and the error
// is a *Refusal.
func Validate(data []byte, rules Rules) (accepted []*Key, warnings []*Refusal, err error) {
	v := newVerifier(maxValidationEffort)
	v.entering = make(map[*Key]*transferable)
	read, err := readKeys(data, v)
	if len(data) <= MaxKeySize && ReasonOf(err) != ReasonSecret && hasSecret(data) {
		err = ErrSecretKey
	}
	if err != nil {
		return nil, nil, advised(err)
	}
	j := &judge{rules: rules, verifier: v, sealing: maxSealingEffort}
	for _, key := range read {
		key, err := j.judge(key)
		if err != nil {
			return nil, nil, advised(err)
		}
		accepted = append(accepted, key)
	}
	return accepted, j.warnings, nil
}

// hasSecret finds the first line of a secret key anywhere: one that a parser
// passes over, for the blanks before it, was exposed all the same.
func hasSecret(data []byte) bool {
	for rest := data; ; {
		_, behind, found := bytes.Cut(rest, []byte(armorBegin))
		if !found {
			return false
		}
		kind, _, _ := bytes.Cut(behind[:min(len(behind), 80)], []byte(armorDashes))
		if bytes.Contains(kind, []byte("PRIVATE KEY")) {
			return true
		}
		rest = behind
	}
}

// judge looks at one key after the other.
type judge struct {
	rules    Rules
	verifier *verifier
	sealing  int // what is left of maxSealingEffort
	warnings []*Refusal
}

// judge returns the key as it is to be stored.
func (j *judge) judge(key *Key) (*Key, error) {
	t := j.verifier.entering[key]
	if j.rules.Options != nil {
		options := j.rules.Options(key)
		if err := options.Check(key.Method); err != nil {
			return nil, refuseTo("choose something else for it", ReasonPurpose, "key %s: %s", key.Fingerprint, err)
		}
		key = key.With(options)
	}
	checks := []func(*Key, *transferable) error{j.state, j.revokers, j.primary, j.signatures, j.certificate, j.address}
	for _, check := range checks {
		if err := check(key, t); err != nil {
			return nil, err
		}
	}
	if t != nil {
		if err := j.verifier.finish(t); err != nil {
			return nil, fmt.Errorf("key %s: %w", key.Fingerprint, err)
		}
		stripped := *key
		stripped.encoded = t.strip()
		stripped.UserIDs = j.believed(key, t)
		key = &stripped
	}
	if j.sealing -= key.sealingCost(j.rules.Now); j.sealing < 0 {
		return nil, refuse(ReasonTooLarge, "key %s: sealing to it, and to what stands before it in the file, takes too long", key.Fingerprint)
	}
	if err := j.rules.Seal(key); err != nil {
		return nil, refuse(ReasonTrial, "key %s: a message sealed to it on trial failed: %s", key.Fingerprint, err)
	}
	return key, nil
}

// doubt is a fault of a key: a warning where it is allowed, which says what
// comes of it, and a refusal otherwise.
func (j *judge) doubt(allow Allowance, reason Reason, comes, format string, args ...any) error {
	if j.rules.Allow&allow == 0 {
		return refuse(reason, format, args...)
	}
	j.warnings = append(j.warnings, &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...) + comes})
	return nil
}

// state refuses what its holder has withdrawn, and what mail cannot be sealed
// to at this time.
func (j *judge) state(key *Key, _ *transferable) error {
	now := j.rules.Now
	switch key.State(now) {
	case Revoked:
		return refuse(ReasonRevoked, "key %s has been revoked by its holder, mail must not be sealed to it", key.Fingerprint)
	case Unusable:
		return refuseTo("choose it (ml_kem=true), or let its owner add a subkey of another kind", ReasonPurpose,
			"key %s: only by ML-KEM can mail be sealed to it, which is experimental and has to be chosen", key.Fingerprint)
	case Expired:
		if err := j.doubt(AllowExpired, ReasonExpired, "; mail is sealed to it as long as there is no newer one",
			"key %s expired on %s", key.Fingerprint, date(key.Expires)); err != nil {
			return err
		}
	}
	if key.Created.After(now) {
		return j.doubt(AllowEarly, ReasonEarly, "; mail is sealed to it all the same",
			"key %s is not valid before %s", key.Fingerprint, date(key.Created))
	}
	return nil
}

func date(when time.Time) string { return when.UTC().Format(time.DateOnly) }

// primary refuses a key whose own word can be forged: whoever breaks a weak
// primary key binds a subkey of theirs to it, and hands it in as a newer copy.
// That it signs with it alone, and that mail is sealed to something stronger,
// protects nobody. What is in the store already stays good.
func (j *judge) primary(key *Key, t *transferable) error {
	if t == nil {
		return nil
	}
	if public, ok := t.primary.public.PublicKey.(*rsa.PublicKey); ok {
		if err := sealableRSA(public); err != nil {
			return fmt.Errorf("key %s: its primary key: %w", key.Fingerprint, err)
		}
	}
	return nil
}

// revokers refuses a key with a revocation in the name of somebody whom the key
// itself lets revoke it. Whether it holds nobody can tell without that key, and
// stored, the revocation would be stripped: who has put it there without having a
// right to, gains no more than by leaving the key out.
func (j *judge) revokers(key *Key, t *transferable) error {
	if t == nil || len(t.primary.foreign) == 0 {
		return nil
	}
	fingerprints, err := j.verifier.revokers(t)
	if err != nil {
		return fmt.Errorf("key %s: %w", key.Fingerprint, err)
	}
	for _, fingerprint := range fingerprints {
		if slices.ContainsFunc(t.primary.foreign, func(sig *packet.Signature) bool { return isBy(sig, fingerprint) }) {
			return refuse(ReasonRevoked, "key %s lets key %X revoke it, and has a revocation in that name, mail must not be sealed to it", key.Fingerprint, fingerprint)
		}
	}
	return nil
}

// signatures refuses a key whose own word is given with SHA-1: whoever can find
// collisions can put another's subkey under such a signature (RFC 9580, section
// 9.5). User ids with nothing better count for nothing, see address.
func (j *judge) signatures(key *Key, t *transferable) error {
	if t == nil {
		return nil
	}
	const warning = "; whoever can forge SHA-1 could read its mail"
	strong := len(t.userIDs) == 0 || slices.ContainsFunc(t.userIDs, func(id *part) bool { return id.isTaken() && !id.isSHA1() })
	if t.primary.isSHA1() || !strong && (!t.primary.isTaken() || t.primary.public.Version != 6) {
		return j.doubt(AllowSHA1, ReasonBrokenHash, warning, "key %s is signed with SHA-1 alone", key.Fingerprint)
	}
	for _, public := range key.OpenPGPKeys(j.rules.Now) {
		for _, sub := range t.subkeys {
			if sub.public == public && sub.isSHA1() {
				return j.doubt(AllowSHA1, ReasonBrokenHash, warning, "key %s: its subkey %s is signed with SHA-1 alone", key.Fingerprint, public.KeyIdString())
			}
		}
	}
	return nil
}

// certificate holds an S/MIME key to what a certificate for mail has to be.
func (j *judge) certificate(key *Key, _ *transferable) error {
	for _, c := range key.Certificates(j.rules.Now) {
		if err := j.verifier.checkCertificate(c, key); err != nil {
			return fmt.Errorf("%s: %w", nameOf(c), err)
		}
		if c.IsCA {
			if err := j.doubt(AllowAuthority, ReasonAuthority, "; it is taken for a person's, as it has signed itself",
				"%s: this is a certificate that may issue others", nameOf(c)); err != nil {
				return err
			}
		}
		if slices.Contains(brokenSignatures, c.SignatureAlgorithm) {
			return j.doubt(AllowSHA1, ReasonBrokenHash, "; anybody could have made it", "%s: its signature (%s) is of a broken kind", nameOf(c), c.SignatureAlgorithm)
		}
	}
	return nil
}

// brokenSignatures are those that can be forged.
var brokenSignatures = []x509.SignatureAlgorithm{x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1}

// address refuses a key of somebody else.
func (j *judge) address(key *Key, t *transferable) error {
	named := j.believed(key, t)
	if j.rules.Address == "" || namesAddress(named, j.rules.Address) {
		return nil
	}
	return j.doubt(AllowAddress, ReasonAddress, "", "key %s does not name %s, its user ids are %s",
		key.Fingerprint, j.rules.Address, quoteSome(named))
}

// believed are the user ids that count for something: not those that SHA-1 signs
// alone, nor those whose signature has expired, as that of somebody who had an
// address for a time, unless such is allowed. Nobody is given a key for the others'
// sake.
func (j *judge) believed(key *Key, t *transferable) []string {
	if t == nil {
		return key.UserIDs
	}
	return slices.DeleteFunc(slices.Clone(key.UserIDs), func(id string) bool {
		return j.rules.Allow&AllowSHA1 == 0 && t.isSHA1Only(id) || j.rules.Allow&AllowExpired == 0 && t.isOverOnly(id, j.rules.Now)
	})
}

// quoteSome quotes names, but no more than a reader wants to see.
func quoteSome(names []string) string {
	const some, long = 5, 100
	shown := slices.Clone(names[:min(some, len(names))])
	for i, name := range shown {
		if len(name) > long {
			shown[i] = strings.ToValidUTF8(name[:long], "") + "…"
		}
	}
	text := fmt.Sprintf("%q", shown)
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Names says whether one of the key's user ids is of an address, or of one in a
// domain where that is an entry as "@example.org".
func (k *Key) Names(address string) bool { return namesAddress(k.UserIDs, address) }

// Addresses are those that the key's user ids name, as Canonical spells them.
func (k *Key) Addresses() (addresses []string) {
	for _, id := range k.UserIDs {
		if address, ok := addressOf(id); ok && !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func namesAddress(userIDs []string, address string) bool {
	want := caseless(address)
	return slices.ContainsFunc(userIDs, func(id string) bool {
		named, ok := addressOf(id)
		if at := strings.LastIndexByte(named, '@'); ok && strings.HasPrefix(address, "@") {
			named = named[at:]
		}
		return ok && caseless(named) == want
	})
}

// caseless is a canonical address without regard to case.
func caseless(address string) string {
	local, domain := splitAddress(address)
	return Folded(local) + "@" + CanonicalDomain(domain)
}

// addressOf takes the address out of a user id such as "Ann <ann@example.org>".
func addressOf(userID string) (string, bool) {
	named := strings.TrimSpace(userID)
	if open := strings.LastIndexByte(named, '<'); open >= 0 {
		named, _, _ = strings.Cut(named[open+1:], ">")
	}
	address, ok := readAddress(named)
	at := strings.LastIndexByte(address, '@')
	isControl := func(r rune) bool { return r < ' ' || r == '\x7f' }
	return address, ok && at > 0 && !strings.ContainsFunc(address, isControl)
}

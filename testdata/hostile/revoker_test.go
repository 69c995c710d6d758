package hostile_test

import (
	"testing"

	"sealmilter/keys"
)

// TestDesignatedRevoker: what somebody has revoked whom the key lets do so is not
// taken, and a stranger's word counts for nothing.
func TestDesignatedRevoker(t *testing.T) {
	const directKey, revocationKey = 0x1f, 12
	s, revoker, stranger := newSigner(), newSigner(), newSigner()
	names := func(other *signer) []byte {
		more := subpacket(revocationKey, join([]byte{0x80, algorithmEd25519}, other.fingerprint()))
		return signature(s.sign(sig{kind: directKey, more: more}, forHash(s.public)))
	}
	revokes := func(other *signer) []byte {
		return signature(other.sign(sig{kind: revokesKey, when: birth.Add(day)}, forHash(s.public)))
	}
	forged := signature(stranger.sign(sig{kind: directKey, by: s.fingerprint(),
		more: subpacket(revocationKey, join([]byte{0x80, algorithmEd25519}, stranger.fingerprint()))}, forHash(s.public)))
	rest := join(s.named(ann, sig{}), s.bound(newSubkey(), sig{}))
	for name, test := range map[string]struct {
		data []byte
		want keys.Reason
	}{
		"named, and has not":          {join(s.primary(), names(revoker), rest), ""},
		"a stranger's revocation":     {join(s.primary(), names(revoker), revokes(stranger), rest), ""},
		"a stranger who names itself": {join(s.primary(), forged, revokes(stranger), rest), ""},
		"revoked":                     {join(s.primary(), revokes(revoker), names(revoker), rest), keys.ReasonRevoked},
		"another one named later":     {join(s.primary(), revokes(revoker), names(revoker), names(stranger), rest), keys.ReasonRevoked},
	} {
		rules := strict()
		rules.Allow = keys.Administrator
		if _, _, err := keys.Validate(test.data, rules); keys.ReasonOf(err) != test.want || (err != nil) != (test.want != "") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

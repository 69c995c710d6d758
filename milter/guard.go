package milter

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"sealmilter/milter/envelope"
)

// The guard against loops: where the re-injection's listener has the filter by
// mistake, a copy comes in again. A guard that is sound and fresh makes an error
// of that, if the copy would be sealed or split once more. It is a reason for
// nothing else: whoever gets mail can send its guard again.
const (
	guardField = "X-Sealmilter-Copy"
	guardLife  = time.Hour
)

// newGuard makes the value of a guard field for a copy to some recipients. It is
// bound to them: a copy that one of them has sent on, by a filter of their own,
// is no loop.
func newGuard(secret []byte, to []*recipient, now time.Time) (string, error) {
	nonce, err := random()
	if err != nil {
		return "", err
	}
	stamp := fmt.Sprintf("%x-%s", now.Unix(), nonce)
	return stamp + "-" + guardMAC(secret, stamp, to), nil
}

func guardMAC(secret []byte, stamp string, to []*recipient) string {
	var addresses []string
	for _, r := range to {
		addresses = append(addresses, r.address)
	}
	slices.Sort(addresses)
	mac := keyed(secret, "guard")
	for _, part := range append([]string{stamp}, slices.Compact(addresses)...) {
		fmt.Fprintf(mac, "%d:%s,", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// keyed is a hash with a key of its own for each purpose.
func keyed(secret []byte, purpose string) hash.Hash {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose))
	return hmac.New(sha256.New, mac.Sum(nil))
}

// hasGuard says whether a message is one of our copies.
func (m *message) hasGuard(now time.Time) bool {
	if m.settings.Reinjection == nil {
		return false
	}
	return slices.ContainsFunc(m.header, func(f envelope.Field) bool {
		return strings.EqualFold(f.Name, guardField) && isGuard(m.settings.Reinjection.Secret, strings.TrimSpace(f.Value), m.recipients, now)
	})
}

func isGuard(secret []byte, value string, to []*recipient, now time.Time) bool {
	at := strings.LastIndexByte(value, '-')
	if at < 0 {
		return false
	}
	stamp, mac := value[:at], value[at+1:]
	var made int64
	if _, err := fmt.Sscanf(stamp, "%x-", &made); err != nil {
		return false
	}
	age := now.Sub(time.Unix(made, 0))
	return hmac.Equal([]byte(mac), []byte(guardMAC(secret, stamp, to))) && age < guardLife && age > -guardLife
}

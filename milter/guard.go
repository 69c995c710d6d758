package milter

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// newGuard makes the value of a guard field.
func newGuard(secret []byte, now time.Time) (string, error) {
	nonce, err := random()
	if err != nil {
		return "", err
	}
	stamp := fmt.Sprintf("%x-%s", now.Unix(), nonce)
	return stamp + "-" + guardMAC(secret, stamp), nil
}

func guardMAC(secret []byte, stamp string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("guard:" + stamp))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// hasGuard says whether a message is one of our copies.
func (m *message) hasGuard(now time.Time) bool {
	if m.settings.Reinjection == nil {
		return false
	}
	return slices.ContainsFunc(m.header, func(f envelope.Field) bool {
		return strings.EqualFold(f.Name, guardField) && isGuard(m.settings.Reinjection.Secret, strings.TrimSpace(f.Value), now)
	})
}

func isGuard(secret []byte, value string, now time.Time) bool {
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
	return hmac.Equal([]byte(mac), []byte(guardMAC(secret, stamp))) && age < guardLife && age > -guardLife
}

package keys

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestGnuPG: the keys that GnuPG makes are read, and GnuPG takes back what is
// made of them.
func TestGnuPG(t *testing.T) {
	g := bed.NewGnuPG(t)
	for _, test := range []struct{ algorithm, want string }{
		{"rsa3072", "RSA-3072"},
		{"ed25519", "Curve25519"},
		{"nistp256", "P256"},
	} {
		address := test.algorithm + "@example.org"
		exported := g.Generate(t, "Ann <"+address+">", test.algorithm)
		key := parseOne(t, exported)
		if key.Algorithm != test.want || key.State(time.Now()) != Usable || !key.Expires.IsZero() {
			t.Errorf("%s: %s, %s, expires %v", test.algorithm, key.Algorithm, key.State(time.Now()), key.Expires)
		}
		if want := []string{"Ann <" + address + ">"}; !slices.Equal(key.UserIDs, want) {
			t.Errorf("%s: user ids %q, want %q", test.algorithm, key.UserIDs, want)
		}
		if _, err := Parse(g.ExportSecret(t, address)); err == nil || !strings.Contains(err.Error(), "this is a secret key") {
			t.Errorf("%s: the secret key: %v", test.algorithm, err)
		}
		fresh := bed.NewGnuPG(t)
		fresh.Import(t, []byte(key.Armored()))
		if got := fingerprint(t, fresh, address); got != key.Fingerprint {
			t.Errorf("%s: GnuPG imports it as %s, want %s", test.algorithm, got, key.Fingerprint)
		}
	}
}

// fingerprint is the primary key's, as GnuPG says.
func fingerprint(t testing.TB, g *bed.GnuPG, who string) string {
	t.Helper()
	for line := range strings.Lines(string(g.Run(t, nil, "--with-colons", "--list-keys", who))) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" {
			return fields[9]
		}
	}
	t.Fatalf("GnuPG knows no key of %s", who)
	return ""
}

// TestGnuPGLife: a key that ends, is prolonged, gets a second subkey and other
// user ids, and is revoked.
func TestGnuPGLife(t *testing.T) {
	g := bed.NewGnuPG(t)
	const ann = "ann@example.org"
	noon := time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
	var primary string
	for _, step := range []struct {
		args          []string
		days          int // later than noon
		state         State
		subkeys, uids int
	}{
		{[]string{"--quick-generate-key", ann, "future-default", "default", "30d"}, 0, Usable, 1, 1},
		{nil, 29, Usable, 1, 1},
		{nil, 31, Expired, 1, 1},
		{[]string{"--quick-set-expire", "KEY", "60d"}, 31, Usable, 1, 1},
		{[]string{"--quick-set-expire", "KEY", "20d", "*"}, 31, Expired, 1, 1},
		{[]string{"--quick-set-expire", "KEY", "60d", "*"}, 31, Usable, 1, 1},
		{[]string{"--quick-add-key", "KEY", "cv25519", "encrypt", "40d"}, 31, Usable, 2, 1},
		{nil, 41, Usable, 1, 1},
		{[]string{"--quick-add-uid", "KEY", "ann@example.net"}, 0, Usable, 2, 2},
		{[]string{"--quick-add-uid", "KEY", "ann@example.com"}, 0, Usable, 2, 3},
		{[]string{"--quick-revoke-uid", "KEY", "ann@example.net"}, 0, Usable, 2, 2},
		{[]string{"--import", "REVOCATION"}, 0, Revoked, 0, 2},
	} {
		args := []string{"--faked-system-time", "20200101T120000", "--passphrase", ""}
		for _, arg := range step.args {
			switch arg {
			case "KEY":
				arg = primary
			case "REVOCATION":
				arg = revocation(t, g, primary)
			}
			args = append(args, arg)
		}
		if step.args != nil {
			g.Run(t, nil, args...)
			primary = fingerprint(t, g, ann)
		}
		key := parseOne(t, g.Run(t, nil, "--export", ann))
		when := noon.Add(time.Duration(step.days) * day)
		if got := key.State(when); got != step.state || len(key.OpenPGPKeys(when)) != step.subkeys || len(key.UserIDs) != step.uids {
			t.Errorf("%v, on day %d: %s, %d keys to encrypt to, user ids %q; want %s, %d and %d", step.args, step.days,
				got, len(key.OpenPGPKeys(when)), key.UserIDs, step.state, step.subkeys, step.uids)
		}
	}
}

// revocation is the certificate that GnuPG makes with each key, taken out of
// the text that keeps it from being imported by mistake.
func revocation(t testing.TB, g *bed.GnuPG, primary string) string {
	t.Helper()
	name := filepath.Join(g.Home, "openpgp-revocs.d", primary+".rev")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), ":-----BEGIN", "-----BEGIN", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

package mta_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestThunderbird
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ SQLite
//	                   ║
//	                   ╚════ lmtp(8) ════▶ Dovecot ════ IMAP ════▶ Thunderbird
//
// A message with an attachment looks there as it was sent, whether it is sealed
// to an OpenPGP key, to a certificate or, Bob having no key, not at all.
func TestThunderbird(t *testing.T) {
	if os.Getenv("SEALMILTER_INTEROP") != "1" {
		t.Skip("make interop runs this")
	}
	t.Setenv("REQUIRE_SERVERS", "1")

	const rsa, ec = "rsa@bed.test", "ec@bed.test"
	gpg := bed.NewGnuPG(t)
	key := filepath.Join(bed.Dir(t), "ann.asc")
	if err := os.WriteFile(key, gpg.Generate(t, "Ann <"+ann+">", "default"), 0o600); err != nil {
		t.Fatal(err)
	}
	identities := map[string]bed.Identity{
		rsa: bed.NewIdentity(t, rsa, "RSA rsa_keygen_bits:2048"),
		ec:  bed.NewIdentity(t, ec, "EC ec_paramgen_curve:P-256"),
	}
	store := "sqlite:" + filepath.Join(bed.Dir(t), "keys.db")
	runProgram(t, "migrate", "--store", store)
	runProgram(t, "key", "add", "--store", store, ann, key)
	for address, identity := range identities {
		runProgram(t, "key", "add", "--store", store, address, identity.Certificate)
	}

	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\ngroup = \"postfix\"\n[store]\nurl = %q\n", store))
	dovecot := bed.StartDovecot(t, ann, rsa, ec, bob)
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: dovecot.Users,
		Milters:   []string{"unix:" + filepath.Join(daemon.Dir, "sock")},
		Main:      []string{"virtual_transport = " + dovecot.Transport()},
	})
	s := &site{daemon: daemon, postfix: postfix, gpg: gpg}
	for _, address := range dovecot.Users {
		s.sent(t, message(t, "multipart.eml"), address)
		stored := readFile(t, dovecot.WaitDelivered(t, address, 1, 20*time.Second)[0])
		if address != bob {
			holdsNone(t, "the mail of "+address, []byte(stored), "the seedlings have made it")
		}
	}

	thunderbird := bed.StartThunderbird(t, dovecot)
	thunderbird.ImportOpenPGP(t, gpg.ExportSecret(t, ann))
	for _, identity := range identities {
		thunderbird.ImportIdentity(t, identity)
	}
	encryption := map[string]string{ann: "OpenPGP", rsa: "S/MIME", ec: "S/MIME", bob: ""}
	for _, address := range dovecot.Users {
		shown := thunderbird.Inbox(t, address, 1)[0]
		t.Logf("%s: %q, %q, %.80q, attachments %q", address, shown.Encryption, shown.Subject, shown.Text, shown.Attachments)
		if shown.Encryption != encryption[address] {
			t.Errorf("%s: it is shown as encrypted by %q, not %q", address, shown.Encryption, encryption[address])
		}
		if want := "Saturday: tomatoes, bärlauch and ¿who brings the coffee?"; shown.Subject != want {
			t.Errorf("%s: the subject shown is %q, not %q", address, shown.Subject, want)
		}
		for _, part := range []string{"the seedlings have made it through the cold nights.", "whatever José grew", "The kitty holds € 12.50."} {
			if !strings.Contains(shown.Text, part) {
				t.Errorf("%s: the text shown is %q, without %q", address, shown.Text, part)
			}
		}
		if want := []string{"seedling.png"}; !slices.Equal(shown.Attachments, want) {
			t.Errorf("%s: the attachments shown are %q, not %q", address, shown.Attachments, want)
		}
	}
}

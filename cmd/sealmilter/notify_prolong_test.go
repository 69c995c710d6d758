package main

import (
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// TestProlong: what a notice tells the owner of an expired key to do in GnuPG is
// done there, and then mail can be sealed to the key again.
func TestProlong(t *testing.T) {
	g := bed.NewGnuPG(t)
	const ann = "ann@example.org"
	past := func(args ...string) {
		g.Run(t, nil, append([]string{"--faked-system-time", "20200101T120000", "--passphrase", ""}, args...)...)
	}
	past("--quick-generate-key", ann, "ed25519", "cert", "30d")
	var primary string
	for line := range strings.Lines(string(g.Run(t, nil, "--with-colons", "--list-keys", ann))) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" {
			primary = fields[9]
		}
	}
	past("--quick-add-key", primary, "cv25519", "encrypt", "30d")
	now := time.Now()
	read := func() *keys.Key {
		parsed, err := keys.Parse(g.Run(t, nil, "--export", ann))
		if err != nil || len(parsed) != 1 {
			t.Fatalf("%d keys, error %v", len(parsed), err)
		}
		return parsed[0]
	}
	key := read()
	if key.State(now) != keys.Expired {
		t.Fatalf("it is %s", key.State(now))
	}
	cfg := defaultConfig()
	template, err := cfg.noticeTemplate()
	if err != nil {
		t.Fatal(err)
	}
	fields := newNoticeFields(notice{row: enrolledRow{Enrolled: keys.Enrolled{Address: ann}}, key: key, kind: warnedExpired}, "postmaster@example.org", now)
	message, err := writeNotice(template, fields, ann, now)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(message.body) {
		if command, is := strings.CutPrefix(line, "  gpg --quick-set-expire "); is {
			words := strings.Fields(strings.ReplaceAll(command, "'", ""))
			g.Run(t, nil, append([]string{"--passphrase", "", "--quick-set-expire"}, words...)...)
		}
	}
	if state := read().State(now); state != keys.Usable {
		t.Errorf("after all of it the key is %s:\n%s", state, message.body)
	}
}

package mta_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// policyCase is a message and what becomes of it.
type policyCase struct {
	name    string
	site    string // the name of a policy in policySites
	to      string
	from    string // sender@example.net where it is empty, the null sender where it is <>
	login   string // the user that the client is logged in as
	client  string // its address, 192.0.2.1 where it is empty
	other   bool   // by the other listener
	message string // one of policyMessages, "plain" where it is empty
	want    string // the outcome
	rule    string // that decides, if one does
	reason  string // some words of why
}

// policySites are the configurations, all on one store.
var policySites = map[string]string{
	"silent": ``,
	"strict": `
[policy]
no_key = "reject"
expired = "defer"
revoked = "reject"
partial = "seal"
always = true`,
	"lenient": `
[policy]
expired = "pass"
revoked_grace = "365d"
unusable = "reject"
partial = "pass"
hidden = true
[recipients]
delimiter = ""`,
	"global": `
[policy]
no_key = "global"
revoked = "global"
partial = "global"
global_keys = ["$KEYS/site.asc"]`,
	"escrow": `
[policy]
escrow = true
global_keys = ["$KEYS/site.asc"]`,
	"off": `
[storage.encryption]
enable = false`,
	"rules": `
[[policy.rules]]
name = "spam"
header = "X-Spam-Flag: YES"
outcome = "reject"
text = "550 5.7.1 We take no spam"
[[policy.rules]]
name = "newsletters in the clear"
header = ["List-Id", "X-Filtered: ours"]
key = ["usable", "expired"]
trust_header = true
outcome = "pass"
[[policy.rules]]
name = "board"
recipient = "@board.test"
outcome = "seal"
[[policy.rules]]
name = "archive"
recipient = ["archive@bed.test", "@*.archive.test"]
outcome = "pass"
[[policy.rules]]
name = "bounces"
null_sender = true
recipient = "quiet@bed.test"
outcome = "reject"
[[policy.rules]]
name = "staff"
authenticated = true
sender = "@bed.test"
key = "none"
outcome = "defer"
[[policy.rules]]
name = "the other door"
listener = "unix:$DIR/other"
key = ["none", "expired"]
outcome = "reject"
text = "Only for who has a key"
[[policy.rules]]
name = "neighbours"
client = ["198.51.100.0/24", "2001:db8::/32"]
key = ["none"]
outcome = "defer"
[[policy.rules]]
name = "large"
larger_than = "50KiB"
recipient = "small@bed.test"
outcome = "reject"
[[policy.rules]]
name = "sealed elsewhere"
sealed = true
recipient = "once@bed.test"
outcome = "reject"
[[policy.rules]]
name = "switched off"
enabled = false
recipient = "off@bed.test"
outcome = "seal"
[[policy.rules]]
name = "renew"
key = "expired"
recipient = "@bed.test"
outcome = "defer"`,
}

// policyCases are the cases. The store is made by policyStore.
var policyCases = []policyCase{
	// A site that says nothing.
	{site: "silent", name: "a key", to: "ann@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "a certificate", to: "cert@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "no key", to: "bob@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "silent", name: "an account without a key", to: "none@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "silent", name: "an expired key", to: "expired@bed.test", want: "seal", reason: "its holder can still open"},
	{site: "silent", name: "a key revoked yesterday", to: "revoked@bed.test", want: "defer", reason: "the key is revoked"},
	{site: "silent", name: "a key revoked a month ago", to: "gone@bed.test", want: "reject", reason: "for longer than 7 days"},
	{site: "silent", name: "a key that nobody can read", to: "unusable@bed.test", want: "defer", reason: "no enrolled key can be sealed to"},
	{site: "silent", name: "switched off", to: "off@bed.test", want: "pass", reason: "has switched sealing off"},
	{site: "silent", name: "switched off for the domain", to: "ann@off.test", want: "pass", reason: "has switched sealing off"},
	{site: "silent", name: "a bounce", to: "ann@bed.test", from: "<>", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "from somebody who is logged in", to: "ann@bed.test", from: "bob@bed.test", login: "bob", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "from loopback", to: "ann@bed.test", client: "127.0.0.1", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "spam", to: "ann@bed.test", message: "spam", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "large", to: "ann@bed.test", message: "large", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "sealed already", to: "ann@bed.test", message: "sealed", want: "pass", reason: "sealed to the recipient already"},
	{site: "silent", name: "sealed to another", to: "cert@bed.test", message: "sealed", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "sealed to a hidden reader", to: "ann@bed.test", message: "hidden", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "with plaintext behind what is sealed", to: "ann@bed.test", message: "beside", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "a plus-address", to: "ann+list@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "an alias", to: "info@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "a group", to: "both@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "a group of which one has no key", to: "some@bed.test", want: "defer", reason: "of which some cannot be sealed to"},
	{site: "silent", name: "a group of which one has switched sealing off", to: "half@bed.test", want: "defer", reason: "of which some cannot be sealed to"},
	{site: "strict", name: "a group of which one has switched sealing off", to: "half@bed.test", want: "seal", reason: "of which some cannot be sealed to"},
	{site: "silent", name: "a group without a common method", to: "mixed@bed.test", want: "defer", reason: "one message is sealed by one method"},
	{site: "silent", name: "aliases in a circle", to: "circle@bed.test", want: "defer", reason: "lead in a circle"},
	{site: "silent", name: "a domain's key", to: "whoever@whole.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "a key beside a domain's", to: "own@whole.test", want: "seal", reason: "a key is enrolled"},
	{site: "silent", name: "an account's choice", to: "choosy@bed.test", want: "reject", reason: "a choice of the account"},
	{site: "silent", name: "a domain's choice", to: "whoever@keyed.test", want: "defer", reason: "a choice of the account or its domain"},
	{site: "silent", name: "an account's choice before its domain's", to: "free@keyed.test", want: "pass", reason: "a choice of the account"},
	{site: "silent", name: "a choice nobody knows", to: "wrong@bed.test", want: "defer", reason: "the option no_key of an account"},
	{site: "silent", name: "an account that is always sealed to", to: "always@bed.test", message: "sealed-always", want: "seal", reason: "a key is enrolled"},

	// Other words for the states.
	{site: "strict", name: "no key", to: "bob@bed.test", want: "reject", reason: "no key is enrolled"},
	{site: "strict", name: "expired", to: "expired@bed.test", want: "defer", reason: "the key has expired"},
	{site: "strict", name: "revoked yesterday", to: "revoked@bed.test", want: "reject", reason: "the key is revoked"},
	{site: "strict", name: "some of a group", to: "some@bed.test", want: "seal", reason: "of which some cannot be sealed to"},
	{site: "strict", name: "sealed again", to: "ann@bed.test", message: "sealed", want: "seal", reason: "a key is enrolled"},
	{site: "strict", name: "an account's own word", to: "free@keyed.test", want: "pass", reason: "a choice of the account"},
	{site: "lenient", name: "expired", to: "expired@bed.test", want: "pass", reason: "the key has expired"},
	{site: "lenient", name: "a month is no year", to: "gone@bed.test", want: "defer", reason: "the key is revoked"},
	{site: "lenient", name: "unusable", to: "unusable@bed.test", want: "reject", reason: "no enrolled key can be sealed to"},
	{site: "lenient", name: "some of a group", to: "some@bed.test", want: "pass", reason: "of which some cannot be sealed to"},
	{site: "lenient", name: "a hidden reader counts", to: "ann@bed.test", message: "hidden", want: "pass", reason: "sealed to the recipient already"},
	{site: "lenient", name: "no delimiter", to: "ann+list@bed.test", want: "pass", reason: "no key is enrolled"},

	// The site's own keys.
	{site: "global", name: "no key", to: "bob@bed.test", want: "global", reason: "no key is enrolled"},
	{site: "global", name: "a key", to: "ann@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "global", name: "revoked", to: "revoked@bed.test", want: "global", reason: "the key is revoked"},
	{site: "global", name: "some of a group", to: "some@bed.test", want: "global", reason: "of which some cannot be sealed to"},
	{site: "global", name: "sealed to the site already", to: "bob@bed.test", message: "sealed-site", want: "pass", reason: "sealed to the recipient already"},
	{site: "escrow", name: "a key", to: "ann@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "escrow", name: "no key", to: "bob@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "escrow", name: "a certificate, for which the site has none", to: "cert@bed.test", want: "defer", reason: "one message is sealed by one method"},
	{site: "off", name: "a key", to: "ann@bed.test", want: "pass", reason: "switched off for all"},
	{site: "off", name: "revoked", to: "gone@bed.test", want: "pass", reason: "switched off for all"},

	// Rules.
	{site: "rules", name: "spam", to: "ann@bed.test", message: "spam", want: "reject", rule: "spam"},
	{site: "rules", name: "spam for who has no key", to: "bob@bed.test", message: "spam", want: "reject", rule: "spam"},
	{site: "rules", name: "a list", to: "ann@bed.test", message: "list", want: "pass", rule: "newsletters in the clear"},
	{site: "rules", name: "a list that nobody has filtered", to: "ann@bed.test", message: "half-list", want: "seal", reason: "a key is enrolled"},
	{site: "rules", name: "the board", to: "chair@board.test", want: "seal", rule: "board"},
	{site: "rules", name: "the board, without a key", to: "guest@board.test", want: "defer", rule: "board", reason: "but no key is enrolled"},
	{site: "rules", name: "the board, sealed already", to: "chair@board.test", message: "sealed-chair", want: "pass", rule: "board", reason: "sealed to the recipient already"},
	{site: "rules", name: "the archive, though it has a key", to: "archive@bed.test", want: "pass", rule: "archive"},
	{site: "rules", name: "below the archive's domain", to: "a@b.archive.test", want: "pass", rule: "archive"},
	{site: "rules", name: "the archive's domain itself", to: "a@archive.test", want: "pass", reason: "no key is enrolled"},
	{site: "rules", name: "a bounce to who wants none", to: "quiet@bed.test", from: "<>", want: "reject", rule: "bounces"},
	{site: "rules", name: "no bounce", to: "quiet@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "rules", name: "staff to who has no key", to: "bob@bed.test", from: "cleo@bed.test", login: "cleo", want: "defer", rule: "staff"},
	{site: "rules", name: "staff to who has one", to: "ann@bed.test", from: "cleo@bed.test", login: "cleo", want: "seal", reason: "a key is enrolled"},
	{site: "rules", name: "staff, not logged in", to: "bob@bed.test", from: "cleo@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "rules", name: "by the other listener", to: "bob@bed.test", other: true, want: "reject", rule: "the other door"},
	{site: "rules", name: "by the other listener, with a key", to: "ann@bed.test", other: true, want: "seal", reason: "a key is enrolled"},
	{site: "rules", name: "a neighbour", to: "bob@bed.test", client: "198.51.100.7", want: "defer", rule: "neighbours"},
	{site: "rules", name: "a neighbour, IPv6", to: "bob@bed.test", client: "2001:db8::7", want: "defer", rule: "neighbours"},
	{site: "rules", name: "too large", to: "small@bed.test", message: "large", want: "reject", rule: "large"},
	{site: "rules", name: "not too large", to: "small@bed.test", want: "pass", reason: "no key is enrolled"},
	{site: "rules", name: "sealed to who wants it sealed here", to: "once@bed.test", message: "sealed-once", want: "reject", rule: "sealed elsewhere"},
	{site: "rules", name: "not sealed", to: "once@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "rules", name: "an alias, by the name it leads to", to: "box@bed.test", want: "pass", rule: "archive"},
	{site: "rules", name: "a group of which one is the archive", to: "tray@bed.test", want: "seal", reason: "a key is enrolled"},
	{site: "rules", name: "who has no entry, with an extension", to: "quiet+x@bed.test", from: "<>", want: "reject", rule: "bounces"},
	{site: "rules", name: "switched off, and the rule says that it seals so", to: "off@bed.test", want: "seal", rule: "switched off"},
	{site: "rules", name: "expired", to: "expired@bed.test", want: "defer", rule: "renew"},
}

// TestPolicy
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ SQLite ◀── sealmilter policy explain
//
// The daemon does with each message what is expected, and "policy explain" says
// so beforehand, with the same reason and the same rule.
func TestPolicy(t *testing.T) {
	if len(policyCases) < 60 {
		t.Fatalf("%d cases", len(policyCases))
	}
	p := newPolicyStore(t)
	for site, config := range policySites {
		t.Run(site, func(t *testing.T) {
			config = strings.ReplaceAll(config, "$KEYS", p.dir)
			daemon := bed.StartDaemon(t, fmt.Sprintf(`
[milter]
listen = ["unix:$DIR/sock", "unix:$DIR/other"]
[store]
url = %q
[spool]
directory = "$DIR/spool"
[log]
level = "debug"
%s
`, p.store, config))
			for _, c := range policyCases {
				if c.site == site {
					t.Run(c.name, func(t *testing.T) { p.play(t, daemon, c) })
				}
			}
		})
	}
}

// play sends one message, and asks what would become of it.
func (p *policyStore) play(t *testing.T, daemon *bed.Daemon, c policyCase) {
	switch c.from {
	case "":
		c.from = "sender@example.net"
	case "<>":
		c.from = ""
	}
	listener := "unix:" + daemon.Dir + "/sock"
	if c.other {
		listener = "unix:" + daemon.Dir + "/other"
	}
	if c.client == "" {
		c.client = "192.0.2.1"
	}
	if c.message == "" {
		c.message = "plain"
	}
	before := len(daemon.Log())
	s, err := client.Dial("unix", strings.TrimPrefix(listener, "unix:"), client.Options{ClientAddr: c.client})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw := []byte(readFile(t, filepath.Join(p.dir, c.message+".eml")))
	result, err := s.Send(client.Envelope{From: c.from, To: client.To(c.to), Login: c.login}, client.ParseMessage(raw))
	if err != nil {
		t.Fatal(err)
	}
	log := daemon.Log()[before:]
	if did := p.outcome(t, result); did != c.want {
		t.Errorf("the daemon's outcome is %s, want %s\n%s", did, c.want, log)
	}
	args := []string{"policy", "explain", "--json", "--config", filepath.Join(daemon.Dir, "sealmilter.toml"), "--to", c.to, "--from", c.from,
		"--client", c.client, "--listener", listener, "--message", filepath.Join(p.dir, c.message+".eml")}
	if c.login != "" {
		args = append(args, "--authenticated")
	}
	var said struct{ Outcome, Reason, Rule string }
	out, err := exec.Command(bed.Program(t), args...).Output()
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("explain: %v: %q", err, out)
	}
	if said.Outcome != c.want || said.Rule != c.rule || !strings.Contains(said.Reason, c.reason) {
		t.Errorf("explain says %+v (%v), want %s by %q, %q", said, err, c.want, c.rule, c.reason)
	}
	// slog escapes the quotes around a rule's name.
	if !strings.Contains(strings.ReplaceAll(log, `\"`, `"`), said.Reason) {
		t.Errorf("explain's reason is %q, the daemon's log says\n%s", said.Reason, log)
	}
}

// outcome is what the filter did. What is sealed to the site and not to the
// recipient is told from other sealed mail by who can open it.
func (p *policyStore) outcome(t *testing.T, result client.Result) string {
	t.Helper()
	replies := append(result.Recipients, result.Final)
	for _, reply := range replies {
		switch reply.String()[0] {
		case '4':
			return "defer"
		case '5':
			return "reject"
		}
	}
	switch {
	case result.Queued == nil:
		return "lost"
	case !result.Queued.Replaced && len(result.Edits) == 0:
		return "pass"
	case bytes.Contains(result.Queued.Bytes(), []byte("pkcs7-mime")):
		return "seal"
	}
	readers := p.readers(t, result.Queued.Bytes())
	if strings.Contains(readers, p.siteKey) && result.Queued.Recipients[0] != "ann@bed.test" {
		return "global"
	}
	return "seal"
}

// policyStore is a store in which every state is to be found, and messages.
type policyStore struct {
	dir     string
	store   string
	siteKey string // the key id of the site's encryption subkey
	gpg     *bed.GnuPG
}

func (p *policyStore) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/policy"
)

// What is wrong with the policy is said with the place, and with the places of
// all rules that have a part in it.
func TestPolicyErrors(t *testing.T) {
	const rules = "policy.rules: "
	rule := func(lines string) string {
		return "[[policy.rules]]\n" + strings.ReplaceAll(lines, "; ", "\n") + "\n"
	}
	tests := []struct{ name, text, want string }{
		{"unknown key in a rule", rule(`sendr = "a@b.example"; outcome = "seal"`), `FILE:2:1: there is no key policy.rules.sendr, did you mean sender under [[policy.rules]]?`},
		{"unknown key far from any", rule(`wibble = 1`), `FILE:2:1: there is no key policy.rules.wibble, expected one of authenticated, client, enabled, header, key, larger_than, listener, name, null_sender, outcome, recipient, sealed, sender, smaller_than, text, trust_header under [[policy.rules]]`},
		{"key of a rule in the wrong table", "[policy]\noutcome = \"seal\"\n", `FILE:2:1: there is no key policy.outcome, did you mean outcome under [[policy.rules]]?`},
		{"one table", "[policy.rules]\noutcome = \"seal\"\n", `FILE:1:2: policy.rules is written as one table, expected a list of them, each under [[policy.rules]]`},
		{"dotted", "policy.rules.outcome = \"seal\"\n", `FILE:1:1: policy.rules is written as one table, expected a list of them, each under [[policy.rules]]`},
		{"no list", "policy.rules = 5\n", `FILE:1:1: policy.rules is the number 5, expected a list of tables, each under [[policy.rules]]`},
		{"list of texts", "policy.rules = [\"seal\"]\n", `FILE:1:1: policy.rules has the text "seal" in its list, expected tables`},
		{"inline", "policy.rules = [{outcome = \"seal\"}, {outcom = \"seal\"}]\n", `FILE:1:38: there is no key policy.rules.outcom, did you mean outcome under [[policy.rules]]?`},
		{"text for a truth value", rule(`sealed = "no"; outcome = "seal"`), `FILE:2:1: policy.rules.sealed is the text "no", expected true or false`},
		{"number for a list", rule(`sender = 5; outcome = "seal"`), `FILE:2:1: policy.rules.sender is the number 5, expected a text in quotes, or a list of them`},
		{"number in a list", rule(`client = ["local", 5]; outcome = "seal"`), `FILE:2:1: policy.rules.client has the number 5 in its list, expected a text in quotes, or a list of them`},
		{"unknown outcome", rule(`outcome = "drop"`), `FILE:2:1: policy.rules.outcome: "drop" is no outcome, expected seal, pass, defer, reject, global`},
		{"no outcome", rule(`name = "a"`), `FILE:1:3: policy.rules: the rule "a" has no outcome, expected seal, pass, defer, reject, global`},
		{"no outcome in the second", rule(`outcome = "seal"; sealed = true`) + rule(`sealed = true`), `FILE:4:3: policy.rules: the rule "rule 2" has no outcome, expected seal, pass, defer, reject, global`},
		{"key state", rule(`key = "lost"; outcome = "seal"`), `FILE:2:1: policy.rules.key: "lost" is no state of a key, expected none, usable, expired, revoked, unusable, partial`},
		{"no client", rule(`client = "mx.example.org"; outcome = "seal"`), `FILE:2:1: policy.rules.client: "mx.example.org" is no client, expected an address, a network such as "192.0.2.0/24", or "local"`},
		{"host in a network", rule(`client = "192.0.2.1/24"; outcome = "seal"`), `FILE:2:1: policy.rules.client: "192.0.2.1/24" is no network, expected 192.0.2.0/24 or one address`},
		{"listener", rule(`listener = "inet:127.0.0.1:1"; outcome = "seal"`), `FILE:2:1: policy.rules.listener: the daemon does not listen on "inet:127.0.0.1:1", expected "inet:127.0.0.1:8890" as under [milter]`},
		{"header", rule(`header = "X Spam: yes"; outcome = "defer"`), `FILE:2:1: policy.rules.header: "X Spam: yes" is no header field, expected "Name: value" or "Name"`},
		{"no bound", rule(`smaller_than = 0; outcome = "defer"`), `FILE:2:1: policy.rules.smaller_than: 0 bytes are no bound, expected 1 or more`},
		{"reply of two lines", rule(`outcome = "reject"; text = "a\r\n250 b"`), `FILE:3:1: policy.rules.text: it cannot stand in a reply, expected one line of ASCII without %, and at most 400 characters`},
		{"reply that is a format", rule(`outcome = "reject"; text = "full to 100%s"`), `FILE:3:1: policy.rules.text: it cannot stand in a reply, expected one line of ASCII without %, and at most 400 characters`},
		{"nothing to trust", rule(`outcome = "defer"; trust_header = true`), `FILE:3:1: policy.rules.trust_header: the rule has no header that could be trusted`},
		{"text without reject", rule(`outcome = "defer"; text = "no"`), `FILE:1:3: ` + rules + `the rule "rule 1": only a rule that rejects has a text`},
		{"pattern", rule(`recipient = "*@example.org"; outcome = "defer"`), `FILE:1:3: ` + rules + `the rule "rule 1": "*@example.org" is no pattern of addresses, expected ann@example.org, @example.org or @*.example.org`},
		{"empty list", rule(`sender = []; outcome = "defer"`), `FILE:1:3: ` + rules + `the rule "rule 1": it can never match: it has an empty list`},
		{"empty clients", rule(`client = []; outcome = "defer"`), `FILE:1:3: ` + rules + `the rule "rule 1": it can never match: it has an empty list`},
		{"contradiction", rule(`name = "a"; sealed = true; outcome = "seal"`) + rule(`name = "b"; sealed = true; outcome = "defer"`), `FILE:5:3: ` + rules + `the rules "a" and "b" contradict each other: they match the same mail, and say seal and defer (see FILE:1:3)`},
		{"unreachable", rule(`name = "a"; recipient = "@bücher.example"; outcome = "seal"`) + rule(`name = "b"; recipient = "ann@XN--BCHER-KVA.example"; outcome = "defer"`), `FILE:5:3: ` + rules + `the rule "b" can never match: all of its mail is taken by "a" before it (see FILE:1:3)`},
		{"two of a name", rule(`name = "rule 2"; sealed = true; outcome = "defer"`) + rule(`outcome = "defer"`), `FILE:5:3: ` + rules + `two rules have the name "rule 2" (see FILE:1:3)`},
		{"pass by sender", rule(`name = "friends"; sender = "@friends.example"; outcome = "pass"`), `FILE:1:3: ` + rules + `the rule "friends": it passes mail by sender to recipients who have a key: nothing about the sender exempts from sealing; add key = ["none"], or name the recipients instead`},
		{"pass by header", rule(`header = "X-Spam-Flag: YES"; outcome = "pass"`), `FILE:1:3: ` + rules + `the rule "rule 1": it passes mail by a header field to recipients who have a key, and whoever can write that field decides that mail is stored in the clear: say trust_header = true only if a filter before sealmilter takes out the sender's own`},
		{"rule without global keys", rule(`name = "g"; outcome = "global"`), `FILE:1:3: ` + rules + `the rule "g": it says global, and there are no global keys`},
		{"a choice that there is not", "[policy]\nno_key = \"seal\"\n", `FILE:2:1: policy.no_key: "seal" cannot be chosen, expected pass, defer, reject, global`},
		{"pass with a key", "[policy]\nrevoked = \"pass\"\n", `FILE:2:1: policy.revoked: "pass" cannot be chosen, expected defer, reject, global`},
		{"global without keys", "[policy]\nno_key = \"global\"\n", `FILE:2:1: policy.no_key: "global" means the site's own keys, and global_keys names none`},
		{"escrow without keys", "[policy]\nescrow = true\n", `FILE:2:1: policy.escrow: true seals every message to the site's own keys too, and global_keys names none`},
		{"negative grace", "[policy]\nrevoked_grace = \"-1s\"\n", `FILE:2:1: policy.revoked_grace: -1s is less than nothing, expected 0s (for ever) or more`},
		{"rules twice", "policy.rules = [{outcome = \"seal\"}]\n[[policy.rules]]\noutcome = \"pass\"\n", `FILE:2:3: policy.rules: key rules already exists as a value, but should be an array table`},
		{"table in a rule", rule(`outcome = "seal"`) + "[policy.rules.match]\n", `FILE:3:2: there is no table [policy.rules.match], expected one of authenticated, client, enabled, header, key, larger_than, listener, name, null_sender, outcome, recipient, sealed, sender, smaller_than, text, trust_header under [[policy.rules]]`},
		{"no length of time", "[policy]\nrevoked_grace = \"1w\"\n", `FILE:2:17: policy.revoked_grace: "1w" is no length of time, expected a length of time in quotes such as "60s", "5m" or "7d"`},
		{"relative key file", "[policy]\nglobal_keys = \"g.asc\"\n", `FILE:2:1: policy.global_keys: "g.asc" is no absolute path`},
		{"no key file", "[policy]\nglobal_keys = [\"/nonexistent/g.asc\"]\n", `FILE:2:1: policy.global_keys: /nonexistent/g.asc: no such file or directory`},
		{"delimiter", "[recipients]\ndelimiter = \"@\"\n", `FILE:2:1: recipients.delimiter: '@' cannot be the beginning of an extension, expected characters such as "+" or "+-"`},
		{"domain", "[recipients]\ndomain = \"a b\"\n", `FILE:2:1: recipients.domain: "a b" is no domain: the domain has a part "a b"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := writeConfig(t, test.text)
			_, err := load(t, nil, "--config", file, "--store", "sqlite:/k.db")
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), file, "FILE"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if code := exitCode(err); code != exitConfig {
				t.Errorf("exit code %d, want %d", code, exitConfig)
			}
		})
	}
}

// The site's own keys must be such that mail can be sealed to them.
func TestGlobalKeys(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range made.files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, files, want string }{
		{"one", `"DIR/ann.asc"`, ""},
		{"several, one of them twice", `["DIR/both.gpg", "DIR/ann.asc"]`, ""},
		{"revoked", `["DIR/ann.asc", "DIR/revoked.asc"]`, "DIR/revoked.asc: the key " + made.variables["GONE"] + " is revoked, mail must not be sealed to it"},
		{"a secret key", `"DIR/secret.asc"`, "DIR/secret.asc: "},
		{"two blocks, one damaged", `"DIR/second-bad.asc"`, "DIR/second-bad.asc: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := writeConfig(t, "[policy]\nno_key = \"global\"\nescrow = true\nglobal_keys = "+strings.ReplaceAll(test.files, "DIR", dir)+"\n")
			cfg, err := load(t, nil, "--config", file, "--store", "sqlite:/k.db")
			want := file + ":4:1: policy.global_keys: " + strings.ReplaceAll(test.want, "DIR", dir)
			if test.want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), want) || exitCode(err) != exitConfig {
					t.Errorf("got  %v\nwant %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			fingerprints := globalFingerprints(cfg.policy)
			if fingerprints[0] != made.variables["ANN"] || len(fingerprints) != strings.Count(test.files, ",")+1 {
				t.Errorf("the keys are %q", fingerprints)
			}
			if text := cfg.describeGlobalKeys(); !strings.Contains(text[len(text)-1], made.variables["ANN"]) {
				t.Errorf("the log says %q", text)
			}
			if lines := otherReaders(cfg.policy); len(lines) != 1 || !strings.HasPrefix(lines[0], "whoever holds the secret key of "+made.variables["ANN"]) {
				t.Errorf("the readers are %q", lines)
			}
			if lines := policyWarnings(cfg.policy, time.Now()); len(lines) != 2 || !strings.HasPrefix(lines[0], "ESCROW: whoever holds the secret key of ") {
				t.Errorf("the warnings are %q", lines)
			}
		})
	}
}

// What a rule's texts mean to policy.
func TestRuleValues(t *testing.T) {
	networks, local, err := clients(textList{"192.0.2.7", "local", "2001:db8::/32", "::ffff:192.0.2.8"})
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.8/32")}
	if err != nil || !local || !slices.Equal(networks, want) {
		t.Errorf("%v %v %v", networks, local, err)
	}
	if networks, local, _ := clients(nil); networks != nil || local {
		t.Error("no clients are a condition")
	}
	for pattern, want := range map[string]string{
		"@B\u00dccher.Example.":  "@b\u00fccher.example",
		"@*.xn--bcher-kva.test":  "@*.b\u00fccher.test",
		`"Ann"@Example.ORG`:      "Ann@example.org",
		"ann@xn--bcher-kva.test": "ann@b\u00fccher.test",
		"@":                      "@",
	} {
		if got := canonicalPattern(pattern); got != want {
			t.Errorf("%q becomes %q, want %q", pattern, got, want)
		}
	}
}

func TestDurationInDays(t *testing.T) {
	for text, want := range map[string]string{"7d": "7d", "168h": "7d", "0s": "0s", "36h": "36h0m0s", "0d": "0s", "1m": "1m0s"} {
		var d duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%q is %s, error %v", text, d, err)
		}
	}
	for _, text := range []string{"d", "-1d", "1.5d", "36501d", "99999999999d", "1d12h"} {
		if new(duration).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// A state of the keys that explain knows no setting for would be blamed on the
// wrong one.
func TestEveryStateHasItsSetting(t *testing.T) {
	for _, setting := range defaultPolicyConfig().stateSettings() {
		chosen := policy.Settings{}
		if err := chosen.Set(setting.state, setting.chosen); err != nil {
			t.Errorf("%s: %v", setting.name, err)
		}
		options, err := policy.ParseSettings([]byte(`{"` + setting.name + `": "` + setting.chosen + `"}`))
		if _, there := options.Outcomes[setting.state]; err != nil || !there {
			t.Errorf("%s is no option of that state: %v", setting.name, err)
		}
	}
}

// TestExpiredGlobalKey: its holder reads on, and the mail of everybody does not
// wait for a new one.
func TestExpiredGlobalKey(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "old.asc")
	if err := os.WriteFile(key, made.files["old.asc"], 0o600); err != nil {
		t.Fatal(err)
	}
	file := writeConfig(t, "[policy]\nno_key = \"global\"\nglobal_keys = \""+key+"\"\n")
	cfg, err := load(t, nil, "--config", file, "--store", "sqlite:/k.db")
	if err != nil {
		t.Fatal(err)
	}
	lines := policyWarnings(cfg.policy, time.Now())
	if want := "the global key " + made.variables["OLD"] + " has expired on "; len(lines) != 1 || !strings.HasPrefix(lines[0], want) {
		t.Errorf("the warnings are %q, want one that begins with %q", lines, want)
	}
}

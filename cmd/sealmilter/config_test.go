package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// load runs loadConfig as a command does, with the environment and arguments
// given.
func load(t *testing.T, environment map[string]string, args ...string) (Config, error) {
	t.Helper()
	t.Setenv(envStore, environment[envStore])
	t.Setenv(envListen, environment[envListen])
	var cfg Config
	probe := &cobra.Command{Use: "probe", RunE: func(cmd *cobra.Command, _ []string) (err error) {
		cfg, err = loadConfig(cmd)
		return err
	}}
	addListenFlag(probe)
	root := newRootCommand()
	root.AddCommand(probe)
	root.SetArgs(append([]string{"probe"}, args...))
	err := root.ExecuteContext(context.Background())
	return cfg, err
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Each error is given whole: it is all that an administrator has to go by.
func TestConfigErrors(t *testing.T) {
	const store = "[store]\nurl = \"sqlite:/k.db\"\n"
	tests := []struct{ name, text, want string }{
		{"unknown key", store + "tiemout = \"5s\"\n", `FILE:3:1: there is no key store.tiemout, did you mean timeout under [store]?`},
		{"unknown key far from any", store + "wibble = 1\n", `FILE:3:1: there is no key store.wibble, expected one of cache, timeout, url under [store]`},
		{"key in the wrong table", store + "listen = \"unix:/s\"\n", `FILE:3:1: there is no key store.listen, did you mean listen under [milter]?`},
		{"key in no table", "  listen = \"unix:/s\"\n", `FILE:1:3: there is no key listen, did you mean listen under [milter]?`},
		{"unknown table", store + "[milters]\n", `FILE:3:2: there is no table [milters], did you mean [milter]?`},
		{"unknown table far from any", "[wibble]\n", `FILE:1:2: there is no table [wibble], expected one of the tables log, milter, notify, policy, recipients, reinject, sealing, spool, storage, store`},
		{"half of a table's name", "[encryption]\nenable = true\n", `FILE:1:2: there is no table [encryption], did you mean [storage.encryption]?`},
		{"table for a key", "[milter.listen]\n", `FILE:1:2: milter.listen is written as a table, expected an address such as "inet:127.0.0.1:8890", or a list of them`},
		{"list of tables", "[[store]]\n", `FILE:1:3: store is written as a list of tables, expected one table [store]`},
		{"value for a table", "store = 5\n", `FILE:1:1: store is the number 5, expected a table [store]`},
		{"inline table", "store = {url = \"sqlite:/k.db\", tiemout = \"5s\"}\n", `FILE:1:32: there is no key store.tiemout, did you mean timeout under [store]?`},
		{"text for a number", store + "[milter]\nmax_connections = \"500\"\n", `FILE:4:1: milter.max_connections is the text "500", expected a whole number`},
		{"fraction for a number", store + "milter.max_connections = 1.5\n", `FILE:3:1: there is no key store.milter.max_connections, did you mean max_connections under [milter]?`},
		{"number for a duration", store + "timeout = 5\n", `FILE:3:1: store.timeout is the number 5, expected a length of time in quotes such as "60s", "5m" or "7d"`},
		{"no duration", store + "timeout = \"5 seconds\"\n", `FILE:3:11: store.timeout: "5 seconds" is no length of time, expected a length of time in quotes such as "60s", "5m" or "7d"`},
		{"number for a mode", "milter.mode = 660\n", `FILE:1:1: milter.mode is the number 660, expected an octal mode in quotes such as "0660"`},
		{"no mode", "milter.mode = \"rw\"\n", `FILE:1:15: milter.mode: "rw" is no file mode, expected an octal mode in quotes such as "0660"`},
		{"mode too large", "milter.mode = \"4660\"\n", `FILE:1:15: milter.mode: "4660" is no file mode, expected an octal mode in quotes such as "0660"`},
		{"negative size", "spool.memory = -1\n", `FILE:1:1: spool.memory is the number -1, expected a size such as "512KiB", "1MiB" or a plain number of bytes`},
		{"no size", "spool.memory = \"1 mega\"\n", `FILE:1:16: spool.memory: "1 mega" is no size, expected a size such as "512KiB", "1MiB" or a plain number of bytes`},
		{"size too large", "spool.memory = \"99999999999GiB\"\n", `FILE:1:16: spool.memory: "99999999999GiB" is no size, expected a size such as "512KiB", "1MiB" or a plain number of bytes`},
		{"plain size too large", store + "[spool]\nmemory = 9223372036854775807\n", `FILE:4:1: spool.memory: 9223372036854775807 bytes are more than any machine has, expected a size such as "512KiB", "1MiB" or a plain number of bytes`},
		{"no room in memory", store + "[spool]\ntotal = 0\n", `FILE:4:1: spool.total: 0 is less than one message may take, expected 1MiB or more`},
		{"hardly room in memory", store + "[spool]\ntotal = \"1023KiB\"\n", `FILE:4:1: spool.total: 1023KiB is less than one message may take, expected 1MiB or more`},
		{"too much room in memory", store + "[spool]\ntotal = 9223372036854775807\n", `FILE:4:1: spool.total: 9223372036854775807 bytes are more than any machine has, expected a size such as "512KiB", "1MiB" or a plain number of bytes`},
		{"header protection", store + "[sealing]\nheader_protection = \"strict\"\n", `FILE:4:1: sealing.header_protection: "strict" is no way to protect a header, expected off, baseline or shy`},
		{"text for a truth value", "log.addresses = \"no\"\n", `FILE:1:1: log.addresses is the text "no", expected true or false`},
		{"level", "log.level = \"verbose\"\n", `FILE:1:13: log.level: "verbose" is no level, expected "debug", "info", "warn" or "error"`},
		{"format", store + "[log]\nformat = \"xml\"\n", `FILE:4:1: log.format: "xml" is no format, expected "text" or "json"`},
		{"list with a number", "milter.listen = [\"unix:/s\", 5]\n", `FILE:1:1: milter.listen has the number 5 in its list, expected an address such as "inet:127.0.0.1:8890", or a list of them`},
		{"date", "milter.group = 2026-01-01\n", `FILE:1:1: milter.group is the date or time 2026-01-01, expected a text in quotes`},
		{"wrong type with a password", "store.url = [\"postgres://u:secret@h/d\"]\n", `FILE:1:1: store.url is a list, expected a text in quotes`},
		{"empty list", store + "milter = {listen = []}\n", `FILE:3:1: there is no key store.milter, did you mean [milter]?`},
		{"no address", "milter.listen = []\n" + store, `FILE:1:1: milter.listen: it names no address, expected at least one such as "inet:127.0.0.1:8890"`},
		{"address", "milter.listen = \"127.0.0.1:8890\"\n" + store, `FILE:1:1: milter.listen: "127.0.0.1:8890" is no address to listen on, expected inet:HOST:PORT, inet6:[ADDRESS]:PORT, systemd: or unix:/PATH`},
		{"no connections", "milter.max_connections = 0\n" + store, `FILE:1:1: milter.max_connections: 0 connections are too few, expected 1 or more`},
		{"no time", store + "timeout = \"0s\"\n", `FILE:3:1: store.timeout: 0s is no time to answer in, expected more than 0s`},
		{"negative shutdown", "milter.shutdown_timeout = \"-1s\"\n" + store, `FILE:1:1: milter.shutdown_timeout: -1s is less than nothing, expected 0s or more`},
		{"no sender", "notify.from = \"postmaster\"\n" + store, `FILE:1:1: notify.from: "postmaster" is no sender, expected ADDRESS or NAME <ADDRESS>`},
		{"no postmaster", "notify.postmaster = \"a b\"\n" + store, `FILE:1:1: notify.postmaster: "a b" is no address: it has no @`},
		{"no program", "notify.command = []\n" + store, `FILE:1:1: notify.command: it names no program, expected a whole path and its arguments, such as "/usr/sbin/sendmail -t -i"`},
		{"relative program", "notify.command = \"sendmail -t\"\n" + store, `FILE:1:1: notify.command: it names no program, expected a whole path and its arguments, such as "/usr/sbin/sendmail -t -i"`},
		{"relative template", "notify.template = \"x.tmpl\"\n" + store, `FILE:1:1: notify.template: "x.tmpl" is no absolute path`},
		{"append", "storage.encryption.append = true\n" + store, `FILE:1:1: storage.encryption.append: true is not possible: sealing appended messages is not built yet, expected false`},
		{"store of another kind", "[store]\nurl = \"mysql://u:secret@h/d\"\n", `FILE:2:1: store.url: mysql: is no kind of key store that is known, expected postgres://…, a connection string such as "host=… dbname=…", or sqlite:/PATH`},
		{"relative path", "[store]\nurl = \"sqlite:keys.db\"\n", `FILE:2:1: store.url: sqlite:keys.db is no absolute path, expected sqlite:/PATH`},
		{"no store", "", `no key store is named: add 'url = "postgres://…"' under [store] in FILE, or set SEALMILTER_STORE, or give --store`},
		{"twice", store + "url = \"sqlite:/l.db\"\n", `FILE:3:1: url: key url is already defined`},
		{"syntax", store + "timeout =\n", `FILE:3:10: unexpected character U+000A at start of value`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := writeConfig(t, test.text)
			_, err := load(t, nil, "--config", file)
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

func TestConfigValues(t *testing.T) {
	cfg, err := load(t, nil, "--config", writeConfig(t, "\xef\xbb\xbf"+`
		[milter]
		listen = [
			"inet6:[::1]:8890", # a comment
			"unix:/run/s",
		]
		mode = "0600"
		group = "postfix"
		shutdown_timeout = "1m30s"
		max_connections = 7
		[store]
		url = "host=db dbname=mail"
		timeout = "1500ms"
		[store.cache]
		size = "1MiB"
		ttl = "5m"
		no_key_ttl = "1s"
		own_tables_ttl = "1m"
		[storage]
		encryption = {enable = false}
		[recipients]
		delimiter = "+-"
		domain = "example.org"
		split = "refuse"
		separate = "always"
		[policy]
		no_key = "reject"
		revoked_grace = "12h"
		[[policy.rules]]
		recipient = "@Bücher.example"
		outcome = "seal"
		[[policy.rules]]
		larger_than = "1MiB"
		sealed = false
		key = ["none", "expired"]
		outcome = "defer"
		[reinject]
		address = "127.0.0.1:10026"
		protocol = "lmtp"
		timeout = "1s"
		secret = "/secret"
		copies = "/copies.db"
		[sealing]
		header_protection = "shy"
		hidden_recipients = true
		oaep = true
		subject_key_identifier = true
		[notify]
		from = "Postmaster <postmaster@example.org>"
		postmaster = "postmaster@example.org"
		command = ["/usr/bin/msmtp", "-t", "--account=seal mail"]
		template = "/etc/notice.tmpl"
		[spool]
		directory = "/spool"
		memory = "512KiB"
		total = "1GiB"
		[log]
		level = "debug"
		format = "json"
		addresses = true
	`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Milter: MilterConfig{Listen: listenList{"inet6:[::1]:8890", "unix:/run/s"}, Mode: 0o600, Group: "postfix",
			ShutdownTimeout: duration(90 * time.Second), MaxConnections: 7},
		Store: StoreConfig{URL: "host=db dbname=mail", Timeout: duration(1500 * time.Millisecond), Cache: CacheConfig{
			Size: 1 << 20, TTL: duration(5 * time.Minute), NoKeyTTL: duration(time.Second), OwnTablesTTL: duration(time.Minute)}},
		Recipients: RecipientsConfig{Delimiter: "+-", Domain: "example.org", Split: "refuse", Separate: "always"},
		Policy: PolicyConfig{NoKey: "reject", Expired: "seal", Revoked: "defer", RevokedGrace: duration(12 * time.Hour), Unusable: "defer", Partial: "defer",
			GlobalKeys: textList{}, Rules: []RuleConfig{{Recipient: textList{"@Bücher.example"}, Outcome: "seal"},
				{LargerThan: 1 << 20, Sealed: new(bool), Key: textList{"none", "expired"}, Outcome: "defer"}}},
		Reinject: ReinjectConfig{Address: "127.0.0.1:10026", Protocol: "lmtp", Timeout: duration(time.Second), Secret: "/secret", Copies: "/copies.db"},
		Sealing:  SealingConfig{HeaderProtection: "shy", HiddenRecipients: true, OAEP: true, SubjectKeyIdentifier: true},
		Notify: NotifyConfig{From: "Postmaster <postmaster@example.org>", Postmaster: "postmaster@example.org",
			Command: textList{"/usr/bin/msmtp", "-t", "--account=seal mail"}, Template: "/etc/notice.tmpl"},
		Spool: SpoolConfig{Directory: "/spool", Memory: 512 << 10, Total: 1 << 30},
		Log:   LogConfig{Level: logLevel(slog.LevelDebug), Format: "json", Addresses: true},
	}
	cfg.File, cfg.origins = "", nil
	if len(cfg.policy.Rules) != 2 || cfg.policy.Settings.Outcomes[policy.NoKey] != policy.Reject || cfg.policy.Enable ||
		*cfg.policy.Settings.Protection != keys.Shy || cfg.addressing() != (envelope.Addressing{Hidden: true, OAEP: true, SubjectKeyID: true}) {
		t.Errorf("the policy is %+v", cfg.policy)
	}
	cfg.policy, cfg.globalFiles = policy.Policy{}, nil
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestPrecedence(t *testing.T) {
	file := writeConfig(t, "[store]\nurl = \"sqlite:/file\"\n[milter]\nlisten = \"unix:/file\"\n")
	environment := map[string]string{envStore: "sqlite:/environment", envListen: "unix:/environment inet:127.0.0.1:1"}
	tests := []struct {
		name        string
		environment map[string]string
		args        []string
		store       string
		listen      listenList
	}{
		{"file", nil, nil, "sqlite:/file", listenList{"unix:/file"}},
		{"environment", environment, nil, "sqlite:/environment", listenList{"unix:/environment", "inet:127.0.0.1:1"}},
		{"flag", environment, []string{"--store", "sqlite:/flag", "--listen", "unix:/flag", "--listen", "unix:/other"},
			"sqlite:/flag", listenList{"unix:/flag", "unix:/other"}},
		{"one flag", environment, []string{"--store", "sqlite:/flag"}, "sqlite:/flag", listenList{"unix:/environment", "inet:127.0.0.1:1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := load(t, test.environment, append(test.args, "--config", file)...)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Store.URL != test.store || !reflect.DeepEqual(cfg.Milter.Listen, test.listen) {
				t.Errorf("store %q, listen %q", cfg.Store.URL, cfg.Milter.Listen)
			}
		})
	}
}

// What comes from the environment or a flag is blamed on it.
func TestOriginInErrors(t *testing.T) {
	file := writeConfig(t, "[store]\nurl = \"sqlite:/file\"\n")
	_, err := load(t, map[string]string{envListen: "tcp:1"}, "--config", file)
	if err == nil || !strings.HasPrefix(err.Error(), "SEALMILTER_LISTEN: \"tcp:1\" is no address") {
		t.Errorf("environment: %v", err)
	}
	_, err = load(t, nil, "--config", file, "--store", "ldap:x")
	if err == nil || !strings.HasPrefix(err.Error(), "--store: ldap: is no kind") {
		t.Errorf("flag: %v", err)
	}
}

func TestParseListen(t *testing.T) {
	tests := []struct{ address, network, target, problem string }{
		{"inet:127.0.0.1:8890", "tcp4", "127.0.0.1:8890", ""},
		{"inet:localhost:0", "tcp4", "localhost:0", ""},
		{"inet6:[::1]:8890", "tcp6", "[::1]:8890", ""},
		{"unix:/run/s s", "unix", "/run/s s", ""},
		{"unix:run/s", "", "", "is no absolute path"},
		{"unix:/" + strings.Repeat("x", 107), "", "", "at most 107"},
		{"inet:8890@127.0.0.1", "", "", "this is how Sendmail writes it, expected inet:127.0.0.1:8890"},
		{"inet::8890", "", "", "the host is missing"},
		{"inet:127.0.0.1", "", "", "no host and port"},
		{"inet:127.0.0.1:smtp", "", "", `"smtp" is no port`},
		{"inet:127.0.0.1:65536", "", "", `"65536" is no port`},
		{"inet:[::1]:8890", "", "", "expected inet6:"},
		{"inet6:127.0.0.1:8890", "", "", "expected inet:HOST:PORT"},
		{"systemd:", "systemd", "", ""},
		{"systemd:milter", "systemd", "milter", ""},
		{"systemd", "", "", "expected systemd: or systemd:NAME"},
		{"systemd:a b", "", "", "names no sockets of systemd"},
		{"", "", "", "no address to listen on"},
	}
	for _, test := range tests {
		network, target, err := parseListen(test.address)
		if network != test.network || target != test.target {
			t.Errorf("%q: %q %q", test.address, network, target)
		}
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%q: error %v, want %q", test.address, err, test.problem)
		}
	}
}

// The effective configuration is logged whole and without the password, in
// both formats, and whoever logs a Config by itself gets the same.
func TestLoggedConfig(t *testing.T) {
	cfg := defaultConfig()
	cfg.Store.URL = "postgres://u:hunter2@h/d"
	cfg.Policy.Rules = []RuleConfig{{Name: "spam", Header: textList{"X-Spam-Flag: YES"}, LargerThan: 1 << 20, Outcome: "defer"}}
	for _, format := range logFormats {
		cfg.Log.Format = format
		var out bytes.Buffer
		newLogger(cfg, &out).Info("configuration", "config", cfg)
		newLogger(cfg, &out).LogAttrs(context.Background(), slog.LevelInfo, "configuration", cfg.Attrs()...)
		if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "postgres://u:***@h/d") {
			t.Errorf("%s: %s", format, out.String())
		}
	}
	var out bytes.Buffer
	newLogger(cfg, &out).Info("configuration", "config", cfg)
	var line struct{ Config json.RawMessage }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	const want = `{"milter":{"listen":["inet:127.0.0.1:8890"],"mode":"0660","group":"","shutdown_timeout":"1m0s","max_connections":500,"size_limit":"0"},` +
		`"store":{"url":"postgres://u:***@h/d","timeout":"5s","cache":{"size":"64MiB","ttl":"1h0m0s","no_key_ttl":"10s","own_tables_ttl":"0s"}},"storage":{"encryption":{"enable":true,"append":false}},` +
		`"recipients":{"delimiter":"+","case_sensitive":false,"domain":"","split":"","separate":"undisclosed"},` +
		`"policy":{"no_key":"pass","expired":"seal","revoked":"defer","revoked_grace":"7d","unusable":"defer","partial":"defer","always":false,"hidden":false,"global_keys":[],"escrow":false,` +
		`"rules":["{name = \"spam\", header = [\"X-Spam-Flag: YES\"], larger_than = \"1MiB\", outcome = \"defer\"}"]},` +
		`"reinject":{"address":"","protocol":"smtp","timeout":"1m0s","secret":"","copies":""},` +
		`"sealing":{"header_protection":"off","hidden_recipients":false,"oaep":false,"subject_key_identifier":false},` +
		`"notify":{"from":"","postmaster":"","command":["/usr/sbin/sendmail -t -i"],"template":""},"spool":{"directory":"","memory":"1MiB","total":"256MiB"},"log":{"level":"info","format":"json","addresses":false}}`
	if string(line.Config) != want {
		t.Errorf("got  %s\nwant %s", line.Config, want)
	}
}

func TestLogLevel(t *testing.T) {
	cfg := defaultConfig()
	cfg.Log.Level = logLevel(slog.LevelWarn)
	var out bytes.Buffer
	log := newLogger(cfg, &out)
	log.Info("quiet")
	log.Warn("loud")
	if strings.Contains(out.String(), "quiet") || !strings.Contains(out.String(), "loud") {
		t.Error(out.String())
	}
}

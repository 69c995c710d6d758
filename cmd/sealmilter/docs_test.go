package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/testdata/bed"
)

const (
	sampleConfig = "../../contrib/sealmilter.toml"
	manProgram   = "../../contrib/man/sealmilter.8.scd"
	manConfig    = "../../contrib/man/sealmilter.toml.5.scd"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// settings lists every setting's key.
func settings() []string {
	var found []string
	for key, field := range configFields(reflect.TypeFor[Config](), "") {
		if field.Kind() != reflect.Struct && !isTableList(field) {
			found = append(found, key)
		}
	}
	return found
}

// commentedOut matches a setting that the sample leaves at its default, and
// the header of an example of a rule.
var commentedOut = regexp.MustCompile(`(?m)^#(\[\[|[a-z_]+ = )`)

// exampleRule matches a rule that the sample shows, all of it behind a #.
var exampleRule = regexp.MustCompile(`(?m)^#\[\[policy\.rules\]\]\n(#[a-z_]+ = .*\n)+`)

// parseSample reads a text with the sample's settings.
func parseSample(t *testing.T, name, text string) Config {
	t.Helper()
	cfg := defaultConfig()
	cfg.origins = make(map[string]string)
	if err := cfg.parse("sample", []byte(text)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return cfg
}

// The sample has every setting there is and no other, each at its default,
// behind a # or not.
func TestSampleConfig(t *testing.T) {
	sample := read(t, sampleConfig)
	for name, text := range map[string]string{
		"as it is":     sample,
		"all taken in": commentedOut.ReplaceAllString(exampleRule.ReplaceAllString(sample, ""), "$1"),
	} {
		cfg := parseSample(t, name, text)
		origins := cfg.origins
		cfg.origins = nil
		if want := defaultConfig(); !reflect.DeepEqual(cfg, want) {
			t.Errorf("%s: the sample says\n%+v\nthe defaults are\n%+v", name, cfg, want)
		}
		if name == "as it is" {
			continue
		}
		for _, key := range settings() {
			if origins[key] == "" && !strings.HasPrefix(key, keyRules+".") {
				t.Errorf("the sample has no %s", key)
			}
		}
	}
}

// The sample's rules are rules: they make sense together, and show every
// condition that there is.
func TestSampleRules(t *testing.T) {
	text := commentedOut.ReplaceAllString(read(t, sampleConfig), "$1")
	cfg := parseSample(t, "with its rules", text)
	if len(cfg.Policy.Rules) < 4 {
		t.Errorf("the sample has %d rules", len(cfg.Policy.Rules))
	}
	if err := cfg.makePolicy(time.Now()); err != nil {
		t.Error(err)
	}
	for _, key := range settings() {
		_, leaf, isRule := strings.Cut(key, keyRules+".")
		if isRule && !slices.ContainsFunc(slices.Collect(maps.Keys(cfg.origins)), func(origin string) bool {
			return strings.HasPrefix(origin, keyRules+"[") && strings.HasSuffix(origin, "]."+leaf)
		}) {
			t.Errorf("no rule of the sample has %s", leaf)
		}
	}
}

// flagName matches a flag where cobra describes it.
var flagName = regexp.MustCompile(`(?m)^ +(?:-[a-z], )?(--[a-z-]+)`)

// The manual names every command, every flag and every setting.
func TestManualIsComplete(t *testing.T) {
	program := read(t, manProgram)
	mustHave := func(text string) {
		t.Helper()
		if !strings.Contains(program, text) {
			t.Errorf("%s has no %q", manProgram, text)
		}
	}
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.HasParent() && command.Runnable() && !command.HasSubCommands() {
			mustHave("*" + strings.TrimPrefix(command.CommandPath(), "sealmilter ") + "*")
		}
		for _, flag := range flagName.FindAllStringSubmatch(command.LocalFlags().FlagUsages(), -1) {
			mustHave("*" + flag[1] + "*")
		}
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand())
	mustHave(envStore)
	mustHave(envListen)

	config := read(t, manConfig)
	for _, key := range settings() {
		table, leaf := splitKey(key)
		_, section, found := strings.Cut(config, "\n# "+brackets(table, configFields(reflect.TypeFor[Config](), ""))+"\n")
		section, _, _ = strings.Cut(section, "\n# ")
		if !found || !strings.Contains(section, "\n*"+leaf+"* = ") {
			t.Errorf("%s has no *%s* under # [%s]", manConfig, leaf, table)
		}
	}
}

// The manual pages are pages: scdoc takes them and mandoc finds no error.
func TestManualRenders(t *testing.T) {
	scdoc, mandoc := bed.Need(t, "scdoc"), bed.Need(t, "mandoc")
	for _, source := range []string{manProgram, manConfig} {
		var problems bytes.Buffer
		render := exec.Command(scdoc)
		render.Stdin, render.Stderr = strings.NewReader(read(t, source)), &problems
		page, err := render.Output()
		if err != nil {
			t.Errorf("%s: %v: %s", source, err, problems.String())
			continue
		}
		lint := exec.Command(mandoc, "-T", "lint", "-W", "error")
		lint.Stdin = bytes.NewReader(page)
		if said, err := lint.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", source, err, said)
		}
	}
}

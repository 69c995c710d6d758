package main

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

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
		if field.Kind() != reflect.Struct {
			found = append(found, key)
		}
	}
	return found
}

// commentedOut matches a setting that the sample leaves at its default.
var commentedOut = regexp.MustCompile(`(?m)^#([a-z_]+ = )`)

// The sample has every setting there is and no other, each at its default,
// behind a # or not.
func TestSampleConfig(t *testing.T) {
	sample := read(t, sampleConfig)
	for name, text := range map[string]string{
		"as it is":     sample,
		"all taken in": commentedOut.ReplaceAllString(sample, "$1"),
	} {
		cfg := defaultConfig()
		cfg.origins = make(map[string]string)
		if err := cfg.parse("sample", []byte(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		origins := cfg.origins
		cfg.origins = nil
		if want := defaultConfig(); !reflect.DeepEqual(cfg, want) {
			t.Errorf("%s: the sample says\n%+v\nthe defaults are\n%+v", name, cfg, want)
		}
		if name == "as it is" {
			continue
		}
		for _, key := range settings() {
			if origins[key] == "" {
				t.Errorf("the sample has no %s", key)
			}
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
		_, section, found := strings.Cut(config, "\n# ["+table+"]\n")
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

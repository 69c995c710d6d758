package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

// The options that a key can have, by the names that the store gives them.
const (
	optionAEAD  = "aead"
	optionOAEP  = "oaep"
	optionMLKEM = "ml_kem"
)

// keyOptionValues are the values of each, in the order in which they are shown.
var keyOptionValues = []struct {
	name   string
	values []string
}{
	{optionAEAD, []string{string(keys.GCM), string(keys.OCB)}},
	{optionOAEP, []string{"true", "false"}},
	{optionMLKEM, []string{"true", "false"}},
}

// keyOptionsHelp explains them under the commands that set them.
const keyOptionsHelp = `aead=gcm or aead=ocb seals in that mode of authenticated encryption where all
readers of a message have chosen one (of S/MIME: gcm). oaep=true seals to a
certificate by RSAES-OAEP. ml_kem=true, which is experimental, seals to the
ML-KEM-768+X25519 subkeys of an OpenPGP key, and to nothing else of it.`

func addKeyOptionFlag(command *cobra.Command) {
	command.Flags().StringArray("option", nil, "`name=value` of an option; may be given several times")
}

// keyChoice is what one --option says. An empty value takes the option away.
type keyChoice struct{ name, value string }

type keyChoices []keyChoice

// readKeyChoices reads --option. Whether a key can have what is chosen, only the
// key can tell.
func readKeyChoices(cmd *cobra.Command) (choices keyChoices, err error) {
	given, _ := cmd.Flags().GetStringArray("option") // cannot fail: addKeyOptionFlag made it
	for _, option := range given {
		choice, err := parseKeyChoice(option)
		if err != nil {
			return nil, err
		}
		choices = append(choices, choice)
	}
	return choices, nil
}

// keyOptionNames are the options that a key can have.
func keyOptionNames() (names []string) {
	for _, known := range keyOptionValues {
		names = append(names, known.name)
	}
	return names
}

func parseKeyChoice(option string) (keyChoice, error) {
	name, value, hasValue := strings.Cut(option, "=")
	names := keyOptionNames()
	for _, known := range keyOptionValues {
		switch {
		case known.name != name:
		case !hasValue: // who writes "ml_kem" hardly means to take it away
			return keyChoice{}, usageError("--option %s has no value, expected %s=%s, or %s= to take it away", name, name, known.values[0], name)
		case value != "" && !slices.Contains(known.values, value):
			return keyChoice{}, usageError("%q is no value of %s, expected %s", value, name, quotedList(known.values))
		default:
			return keyChoice{name, value}, nil
		}
	}
	if near := nearest(name, names); near != "" {
		return keyChoice{}, usageError("there is no option %q of a key, did you mean %s?", name, near)
	}
	return keyChoice{}, usageError("there is no option %q of a key, expected %s", name, quotedList(names))
}

// on are the options that become of those of a key.
func (c keyChoices) on(options keys.KeyOptions) keys.KeyOptions {
	for _, choice := range c {
		switch choice.name {
		case optionAEAD:
			options.AEAD = keys.AEAD(choice.value)
		case optionOAEP:
			options.OAEP = choice.value == "true"
		case optionMLKEM:
			options.MLKEM = choice.value == "true"
		}
	}
	return options
}

// has says whether an option was given a value.
func (c keyChoices) has(name string) bool {
	return slices.ContainsFunc(c, func(choice keyChoice) bool { return choice.name == name && choice.value != "" })
}

// optionsText writes options as --option takes them.
func optionsText(options keys.KeyOptions) string {
	var chosen []string
	if options.AEAD != keys.NoAEAD {
		chosen = append(chosen, optionAEAD+"="+string(options.AEAD))
	}
	if options.OAEP {
		chosen = append(chosen, optionOAEP+"=true")
	}
	if options.MLKEM {
		chosen = append(chosen, optionMLKEM+"=true")
	}
	return strings.Join(chosen, ", ")
}

// checkSealable refuses a key that with its options cannot be sealed to.
func checkSealable(key *keys.Key, now time.Time) error {
	if err := unsealable(key, now); err != nil {
		return fmt.Errorf("key %s: %w", key.Fingerprint, err)
	}
	return nil
}

// unsealable says why mail cannot be sealed to a key with its options.
func unsealable(key *keys.Key, now time.Time) error {
	err := key.Options.Check(key.Method)
	switch {
	case err != nil || key.State(now) != keys.Unusable:
		return err
	case withMLKEM(key).State(now) != keys.Unusable:
		return errors.New("only by ML-KEM can mail be sealed to it, which is experimental and is chosen by --option " + optionMLKEM + "=true")
	}
	return errors.New("it has no part that mail can be sealed to")
}

// withMLKEM is the key as if ML-KEM were chosen for it.
func withMLKEM(key *keys.Key) *keys.Key {
	options := key.Options
	options.MLKEM = true
	return key.With(options)
}

// warnOfChoices says what the choices that were just made for a key cost.
func warnOfChoices(key *keys.Key, choices keyChoices, now time.Time) (warnings []error) {
	public := key.OpenPGPKeys(now)
	if choices.has(optionAEAD) && key.Options.AEAD != keys.NoAEAD && len(public) > 0 && public[0].Version == 4 {
		warnings = append(warnings, fmt.Errorf("key %s is sealed to with %s=%s: many programs cannot read it, GnuPG none; see make interop", key.Fingerprint, optionAEAD, key.Options.AEAD))
	}
	if choices.has(optionMLKEM) && key.Options.MLKEM {
		without := key.Options
		without.MLKEM = false
		if slices.Equal(public, key.With(without).OpenPGPKeys(now)) {
			warnings = append(warnings, fmt.Errorf("key %s has no ML-KEM-768+X25519 subkey, %s=true changes nothing", key.Fingerprint, optionMLKEM))
		} else {
			warnings = append(warnings, fmt.Errorf("key %s: ML-KEM is experimental, and mail is sealed to that subkey alone", key.Fingerprint))
		}
	}
	return warnings
}

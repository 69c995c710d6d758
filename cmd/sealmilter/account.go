package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/policy"
)

func accountCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "account",
		Short: "Show and set the choices of an account",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,
	}
	command.PersistentFlags().Bool("json", false, "write JSON, one object on each line")
	addActorFlag(command)
	show := &cobra.Command{
		Use:   "show ADDRESS",
		Short: "Show an account, its choices and who can read its mail",
		Args:  positional(cobra.ExactArgs(1)),
		RunE:  runAccountShow,
	}
	set := &cobra.Command{
		Use:   "set ADDRESS",
		Short: "Set choices of an account, or of a domain",
		Long: `set changes the choices that are named and leaves the others as they are. It
makes the account where there is none. @DOMAIN has the choices for all accounts
of the domain that have made none.

The options are ` + strings.Join(optionNames(), ", ") + `,
with the same values as under [policy] and [sealing] in the configuration; an
option without a value is taken away.`,
		Args: positional(func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && (args[1] == "true" || args[1] == "false") { // a switch takes no word of its own
				return fmt.Errorf("write --enabled=%s, with a sign of equality", args[1])
			}
			return cobra.ExactArgs(1)(cmd, args)
		}),
		RunE: runAccountSet,
	}
	set.Flags().Bool("enabled", true, "whether mail for the account is sealed")
	set.Flags().String("method", "", "`method` where there are keys for several: openpgp, smime, or none for no choice")
	set.Flags().String("cipher", "", "`cipher`: aes256 or aes128")
	set.Flags().StringArray("option", nil, "`name=value` of an option; may be given several times")
	command.AddCommand(show, set)
	return command
}

// optionNames are the options that an account can have.
func optionNames() (names []string) {
	for _, setting := range (PolicyConfig{}).stateSettings() {
		names = append(names, setting.name)
	}
	return append(names, optionAlways, optionProtection)
}

const (
	optionAlways     = "always"
	optionProtection = "header_protection"
)

// accountRecord is an account as the commands show it. The JSON names are an
// interface: they are added to, never changed.
type accountRecord struct {
	Address string                     `json:"address"`
	Enabled bool                       `json:"enabled"`
	Method  string                     `json:"method,omitempty"`
	Cipher  string                     `json:"cipher"`
	Options map[string]json.RawMessage `json:"options,omitempty"`
	Created *time.Time                 `json:"created,omitempty"`
	Keys    []keyRecord                `json:"keys"`
	KeysOf  string                     `json:"keys_of,omitempty"` // the entry of its domain, where the account has that one's keys
	Escrow  []string                   `json:"escrow,omitempty"`  // the site's keys that can read what is sealed to the account
	Global  []string                   `json:"global,omitempty"`  // the site's keys that its mail is sealed to in place of its own
}

func runAccountShow(cmd *cobra.Command, args []string) error {
	address, err := parseEntry(args[0])
	if err != nil {
		return err
	}
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		return showAccount(ctx, cmd, cfg, st, address)
	})
}

// showAccount writes an account as the store has it.
func showAccount(ctx context.Context, cmd *cobra.Command, cfg Config, st store, address string) error {
	choices, err := st.Account(ctx, address)
	if errors.Is(err, keys.ErrNoSuchAccount) {
		return failure("nobody is enrolled under %s", address)
	}
	if err != nil {
		return err
	}
	record := accountRecord{Address: choices.Address, Enabled: choices.Enabled, Method: string(choices.Method),
		Cipher: string(choices.Cipher), Created: moment(choices.Created), Keys: []keyRecord{}}
	if record.Options, err = readOptions(choices.Options); err != nil {
		return failure("the account %s: %w", address, err)
	}
	rows, err := accountRows(ctx, st, address)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, row := range rows {
		record.Keys = append(record.Keys, row.records(now)...)
	}
	if cfg.policy.Enable && cfg.policy.Escrow {
		record.Escrow = globalFingerprints(cfg.policy)
	}
	v := decide(ctx, st, cfg, ordinaryMail(cfg), address, now)
	if v.decision.Outcome == policy.Global {
		record.Global = globalFingerprints(cfg.policy)
	}
	if len(v.found.Accounts) == 1 {
		record.KeysOf = v.found.Accounts[0].KeysOf
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetEscapeHTML(false)
		return encoder.Encode(record)
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), record.text(cfg.policy))
	return err
}

// text describes the account for a person.
func (r accountRecord) text(p policy.Policy) string {
	var text strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&text, "%-13s%s\n", label+":", printable(value))
		}
	}
	line("Address", r.Address)
	enabled := "yes"
	if !r.Enabled {
		enabled = "no: its mail is not sealed"
	}
	line("Enabled", enabled)
	line("Method", r.Method)
	line("Cipher", r.Cipher)
	for _, name := range slices.Sorted(maps.Keys(r.Options)) {
		line("Option", name+" = "+string(r.Options[name]))
	}
	line("Created", date(r.Created))
	for _, key := range r.Keys {
		line("Key", strings.TrimSpace(key.name()+" "+key.Algorithm)+", "+withOptions(key.stateText(), key.Options))
	}
	switch {
	case r.KeysOf != "":
		line("Key", "those of "+r.KeysOf+", whose holder can read its mail")
	case len(r.Keys) == 0:
		line("Key", "none")
	}
	if r.Global != nil {
		line("Global", holders(p)+" can read its mail, which is sealed to the site's own keys")
	}
	if r.Escrow != nil {
		line("ESCROW", holders(p)+" can read what is sealed to it")
	}
	return text.String()
}

func runAccountSet(cmd *cobra.Command, args []string) error {
	address, err := parseEntry(args[0])
	if err != nil {
		return err
	}
	flags := cmd.Flags()
	if !slices.ContainsFunc([]string{"enabled", "method", "cipher", "option"}, flags.Changed) {
		return usageError("nothing to set: name a choice with --enabled, --method, --cipher or --option")
	}
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		choices, err := st.Account(ctx, address)
		if errors.Is(err, keys.ErrNoSuchAccount) {
			choices, err = keys.Choices{Address: address, Enabled: true, Cipher: keys.AES256}, nil
		}
		if err != nil {
			return err
		}
		if err := choose(cmd, &choices); err != nil {
			return err
		}
		if err := st.SetAccount(ctx, choices); err != nil {
			return err
		}
		if said, err := policy.ParseSettings(choices.Options); err == nil && len(cfg.policy.GlobalKeys) == 0 {
			warnWithoutGlobal(cmd, said)
		}
		return showAccount(ctx, cmd, cfg, st, address)
	})
}

// warnWithoutGlobal says where a choice needs keys that the site has not.
func warnWithoutGlobal(cmd *cobra.Command, said policy.Settings) {
	for _, outcome := range said.Outcomes {
		if outcome == policy.Global {
			complain(cmd.ErrOrStderr(), "warning: ", errors.New("global means the site's own keys, and global_keys under [policy] names none: such mail is deferred"))
			return
		}
	}
}

// choose changes the choices that flags name.
func choose(cmd *cobra.Command, choices *keys.Choices) error {
	flags := cmd.Flags()
	if flags.Changed("enabled") {
		choices.Enabled, _ = flags.GetBool("enabled")
	}
	if method, _ := flags.GetString("method"); flags.Changed("method") {
		if choices.Method = keys.Method(method); method == "none" {
			choices.Method = ""
		} else if choices.Method != keys.OpenPGP && choices.Method != keys.SMIME {
			return usageError("%q is no method, expected openpgp, smime or none", method)
		}
	}
	if cipher, _ := flags.GetString("cipher"); flags.Changed("cipher") {
		if choices.Cipher = keys.Cipher(cipher); choices.Cipher != keys.AES256 && choices.Cipher != keys.AES128 {
			return usageError("%q is no cipher, expected aes256 or aes128", cipher)
		}
	}
	options, _ := flags.GetStringArray("option")
	all, err := readOptions(choices.Options)
	if err != nil {
		return failure("the account %s: %w", choices.Address, err)
	}
	for _, option := range options {
		if err := setOption(all, option); err != nil {
			return err
		}
	}
	choices.Options, err = json.Marshal(all)
	return err
}

// readOptions reads the options of an account, of which there may be others
// than this command knows.
func readOptions(text json.RawMessage) (all map[string]json.RawMessage, err error) {
	all = make(map[string]json.RawMessage)
	if len(text) == 0 {
		return all, nil
	}
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return nil, errors.New("its options in the store are no JSON object")
	}
	return all, nil
}

// setOption takes "name=value" over, or takes the option away where the value
// is empty.
func setOption(all map[string]json.RawMessage, option string) error {
	name, value, _ := strings.Cut(option, "=")
	if names := optionNames(); !slices.Contains(names, name) {
		if near := nearest(name, names); near != "" {
			return usageError("there is no option %q, did you mean %s?", name, near)
		}
		return usageError("there is no option %q, expected %s", name, quotedList(names))
	}
	if value == "" {
		delete(all, name)
		return nil
	}
	encoded, _ := json.Marshal(value) // a text
	if name == optionAlways && (value == "true" || value == "false") {
		encoded = []byte(value)
	}
	chosen, _ := json.Marshal(map[string]json.RawMessage{name: encoded})
	if _, err := policy.ParseSettings(chosen); err != nil {
		return usageError("%w", err)
	}
	all[name] = encoded
	return nil
}

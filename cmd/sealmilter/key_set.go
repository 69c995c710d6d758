package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keySetCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "set ADDRESS [FINGERPRINT…]",
		Short: "Set options of enrolled keys",
		Long: `set changes the options of the keys of an address that are named: by
fingerprint, by the last 16 digits of it or more, or as row:NUMBER. With --all
it changes those of every key. An option that is not named stays as it is, and
one without a value, as in --option aead=, is taken away.

` + keyOptionsHelp + `

Nothing is changed when one of those named is not there, or cannot have what is
chosen.`,
		Args: positional(cobra.MinimumNArgs(1)),
		RunE: runKeySet,
	}
	command.Flags().Bool("all", false, "set options of every key of the address")
	addKeyOptionFlag(command)
	return command
}

func runKeySet(cmd *cobra.Command, args []string) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	choices, err := readKeyChoices(cmd)
	if err != nil {
		return err
	}
	all, _ := cmd.Flags().GetBool("all")
	switch {
	case len(choices) == 0:
		return usageError("nothing to set: name an option with --option")
	case all && len(names) > 0:
		return usageError("--all means every key, and some are named: give one or the other")
	case !all && len(names) == 0:
		return usageError("no key is named: give the fingerprints of those to change, or --all for every key of %s", address)
	}
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := namedRows(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		changes, warnings, err := judgeChoices(rows, names, choices, now)
		if err != nil {
			return failure("%w", err)
		}
		for _, warning := range warnings {
			complain(cmd.ErrOrStderr(), "warning: ", warning)
		}
		return errors.Join(changeOptions(ctx, st, changes, now, out), out.close())
	})
}

// optionChange is a row, and the keys of it whose options are set.
type optionChange struct {
	row     enrolledRow
	options keys.KeyOptions // that they get
	named   []*keys.Key     // with them
}

// judgeChoices finds the keys that are named, or all where none is, and refuses
// what they cannot have.
func judgeChoices(rows []enrolledRow, names []keyName, choices keyChoices, now time.Time) (changes []optionChange, warnings []error, err error) {
	for _, row := range rows {
		change := optionChange{row: row, options: choices.on(row.Options)}
		for i, record := range row.records(now) {
			if len(names) > 0 && !isNamed(names, record) {
				continue
			}
			if row.problem != nil {
				return nil, nil, failure("the options of row:%d of %s cannot be set: %w", row.ID, row.Address, row.problem)
			}
			key := row.keys[i].With(change.options)
			if err := checkSealable(key, now); err != nil {
				return nil, nil, err
			}
			change.named = append(change.named, key)
			warnings = append(warnings, warnOfChoices(key, choices, now)...)
		}
		if len(change.named) > 0 {
			changes = append(changes, change)
		}
	}
	return changes, warnings, nil
}

// changeOptions sets the options. They are those of a row: where an
// administrator has written several keys into one by SQL, and only some of them
// are named, each gets a row of its own.
func changeOptions(ctx context.Context, registry keys.Registry, changes []optionChange, now time.Time, out recordWriter) error {
	for _, change := range changes {
		row, action := change.row, "changed"
		ids := make([]int64, len(change.named))
		for i := range ids {
			ids[i] = row.ID
		}
		switch {
		case change.options == row.Options:
			action = "unchanged"
		case len(change.named) == len(row.keys):
			if err := registry.SetKeyOptions(ctx, row.ID, change.options); err != nil {
				return err
			}
		default:
			for i, key := range change.named {
				id, err := registry.AddKey(ctx, keys.NewKey{Address: row.Address, Key: key.Armored(), Options: change.options, State: row.State, Fingerprint: key.Fingerprint})
				switch {
				case err == nil:
					ids[i] = id
				case !enrolledAlready(err): // its own row is among the changes
					return err
				}
			}
			gone := func(_ enrolledRow, key *keys.Key) bool {
				return slices.ContainsFunc(change.named, func(named *keys.Key) bool { return named.Fingerprint == key.Fingerprint })
			}
			if _, err := withdraw(ctx, registry, []enrolledRow{row}, gone); err != nil {
				return err
			}
		}
		for i, key := range change.named {
			record := newRecord(row.Address, ids[i], key, now)
			record.Action = action
			if err := out.write(record); err != nil {
				return err
			}
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyRotateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "rotate ADDRESS FILE",
		Short: "Let a new key take the place of the old ones",
		Long: `rotate enrols the key in the file, as key add does, and retires the other active
keys of the address that are of the same kind (OpenPGP or S/MIME), both at once:
there is no moment without a key, and none with two. The file - is standard
input. Where the new key is not good, everything stays as it is.`,
		Args: positional(cobra.ExactArgs(2)),
		RunE: runKeyRotate,
	}
	addKeyOptionFlag(command)
	return command
}

func runKeyRotate(cmd *cobra.Command, args []string) error {
	address, err := parseEntry(args[0])
	if err != nil {
		return err
	}
	files, err := readKeyFiles(cmd.InOrStdin(), args[1:])
	if err != nil {
		return err
	}
	choices, err := readKeyChoices(cmd)
	if err != nil {
		return err
	}
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, _ Config, st store) error {
		rows, err := accountRows(ctx, st, address)
		if err != nil {
			return err
		}
		// What a successor must not be: of somebody who cannot read with it.
		rules := keys.Rules{Address: address, Now: now, Allow: keys.Administrator &^ keys.AllowExpired, Seal: sealTrial(now)}
		rules.Options = func(key *keys.Key) keys.KeyOptions { return choices.on(optionsOf(rows, key)) }
		handed, warnings, err := judge(files, rules, choices)
		if err != nil {
			err = adviseRevoked(err, rows, files, now)
		}
		if err == nil && len(handed) != 1 {
			err = fmt.Errorf("%s: it holds %d keys, and one takes the place of the others", files[0].name, len(handed))
		}
		if err == nil {
			err = refuseRevoked(rows, handed)
		}
		if err != nil {
			return failure("%w", err)
		}
		for _, warning := range warnings {
			complain(cmd.ErrOrStderr(), "warning: ", warning)
		}
		return errors.Join(rotate(ctx, st, rows, address, handed[0].Key, now, out), out.close())
	})
}

// rotate lets a key take the place of others. A text that is there already
// cannot be enrolled once more: it becomes active first, and then the others are
// retired, so that there is no moment without a key either.
func rotate(ctx context.Context, st store, rows []enrolledRow, address string, key *keys.Key, now time.Time, out recordWriter) error {
	record := newRecord(address, 0, key, now)
	record.Action, record.Lifecycle = "added", string(keys.KeyActive)
	armored := key.Armored()
	var retired []int64
	var err error
	if same := slices.IndexFunc(rows, func(r enrolledRow) bool { return r.Key == armored }); same >= 0 {
		record.Action, record.Row = "changed", rows[same].ID
		if rows[same].State == keys.KeyActive {
			record.Action = "unchanged"
		} else if err := st.SetKeyState(ctx, record.Row, keys.KeyActive); err != nil {
			return err
		}
		if rows[same].Options != key.Options {
			if err := st.SetKeyOptions(ctx, record.Row, key.Options); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if row.ID != record.Row && row.State == keys.KeyActive && row.isOf(key.Method) {
				if err := st.SetKeyState(ctx, row.ID, keys.KeyRetired); err != nil {
					return err
				}
				retired = append(retired, row.ID)
			}
		}
	} else {
		record.Row, retired, err = st.Rotate(ctx, keys.NewKey{Address: address, Key: armored, Options: key.Options, Fingerprint: key.Fingerprint})
		if err != nil {
			return err
		}
	}
	if err := out.write(record); err != nil {
		return err
	}
	for _, row := range rows {
		if !slices.Contains(retired, row.ID) {
			continue
		}
		for _, old := range row.records(now) {
			old.Action, old.Lifecycle = string(keys.KeyRetired), string(keys.KeyRetired)
			if err := out.write(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// isOf says whether a row has a key of a method.
func (r enrolledRow) isOf(method keys.Method) bool {
	return slices.ContainsFunc(r.keys, func(k *keys.Key) bool { return k.Method == method })
}

func keyRetireCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "retire ADDRESS FINGERPRINT…",
		Short: "Seal no more to keys, and keep them",
		Long: `retire takes keys out of use: mail is sealed to them no more, and their address
still counts as one that has a key. Where no active key would be left, mail for
the address would wait, so that is refused without --force.`,
		Args: positional(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeyState(cmd, args, keys.KeyRetired) },
	}
	command.Flags().Bool("force", false, "retire even the last active key")
	return command
}

func keyActivateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "activate ADDRESS FINGERPRINT…",
		Short: "Let keys count that are pending, retired or revoked here",
		Long: `activate lets keys count: those that are pending, without the proof that key
challenge asks for, and those that were retired or revoked by this program. A key
that its holder has revoked, and one that cannot be sealed to, is refused.`,
		Args: positional(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeyState(cmd, args, keys.KeyActive) },
	}
}

func keyRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ADDRESS FINGERPRINT…",
		Short: "Withdraw keys, as if their holder had revoked them",
		Long: `revoke withdraws keys of which the secret part is lost or in other hands. Nothing
is sealed to them from then on; where the address has no other active key, its
mail is treated as revoked and revoked_grace under [policy] say.`,
		Args: positional(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeyState(cmd, args, keys.KeyRevoked) },
	}
}

// runKeyState brings the named keys into a state.
func runKeyState(cmd *cobra.Command, args []string, state keys.KeyState) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	force := true
	if flag := cmd.Flags().Lookup("force"); flag != nil {
		force, _ = cmd.Flags().GetBool("force")
	}
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := namedRows(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		var named, others []enrolledRow
		for _, row := range rows {
			switch some, all := row.named(names); {
			case !some:
				others = append(others, row)
			case !all:
				return failure("row:%d of %s holds several keys, which have one state: name them all, or let key set give each a row of its own", row.ID, row.Address)
			default:
				named = append(named, row)
			}
		}
		switch {
		case state == keys.KeyActive:
			err = checkActivated(named, now)
		case !slices.ContainsFunc(others, enrolledRow.isActive) && slices.ContainsFunc(named, enrolledRow.isActive):
			if !force {
				return failure("%s would have no active key left, and its mail would wait: add another one, or give --force", address)
			}
			complain(cmd.ErrOrStderr(), "warning: ", fmt.Errorf("%s has no active key left: its mail is not sealed, and is not delivered in the clear either, but as the policy says for %s keys", address, leftWith(state)))
		}
		if err != nil {
			return failure("%w", err)
		}
		return errors.Join(setStates(ctx, st, named, state, now, out), out.close())
	})
}

// leftWith is what the policy calls the keys of an account of which none is
// active.
func leftWith(state keys.KeyState) string {
	if state == keys.KeyRevoked {
		return "revoked"
	}
	return "unusable"
}

// named says whether some or all of a row's keys are among the names.
func (r enrolledRow) named(names []keyName) (some, all bool) {
	all = true
	for _, record := range r.plainRecords() {
		is := isNamed(names, record)
		some, all = some || is, all && is
	}
	return some, all
}

func (r enrolledRow) isActive() bool { return r.State == keys.KeyActive }

// checkActivated refuses keys that mail cannot be sealed to.
func checkActivated(rows []enrolledRow, now time.Time) error {
	for _, row := range rows {
		if row.problem != nil {
			return fmt.Errorf("row:%d of %s cannot be used: %w", row.ID, row.Address, row.problem)
		}
		for _, key := range row.keys {
			if key.State(now) == keys.Revoked {
				return fmt.Errorf("key %s has been revoked by its holder, mail must not be sealed to it", key.Fingerprint)
			}
			if err := checkSealable(key, now); err != nil {
				return err
			}
			if err := sealTrial(now)(key); err != nil {
				return fmt.Errorf("key %s: a message sealed to it on trial failed: %w", key.Fingerprint, err)
			}
		}
	}
	return nil
}

func setStates(ctx context.Context, st store, rows []enrolledRow, state keys.KeyState, now time.Time, out recordWriter) error {
	for _, row := range rows {
		action := string(state)
		if row.State == state {
			action = "unchanged"
		} else if err := st.SetKeyState(ctx, row.ID, state); err != nil {
			return err
		}
		row.State = state
		for _, record := range row.records(now) {
			record.Action = action
			if err := out.write(record); err != nil {
				return err
			}
		}
	}
	return nil
}

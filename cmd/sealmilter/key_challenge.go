package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyChallengeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "challenge ADDRESS [FINGERPRINT]",
		Short: "Ask the owner of a pending key for a proof",
		Long: `challenge makes a code, seals a message with it to a pending key and to nothing
else, and writes that message to standard output; --send hands it to the command
under [notify]. Whoever can read it has the code, and key confirm makes the key
count. The store keeps no more than a hash of the code.

The key need not be named where one key of the address is pending. A new challenge
takes the place of an earlier one.`,
		Args: positional(cobra.RangeArgs(1, 2)),
		RunE: runKeyChallenge,
	}
	command.Flags().String("from", "", "`address` that the message comes from (default: from under [notify])")
	command.Flags().Bool("send", false, "send the message to the address")
	command.Flags().String("valid", "2d", "`time` that the code is good, as 12h or 2d")
	return command
}

func runKeyChallenge(cmd *cobra.Command, args []string) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	from, _ := cmd.Flags().GetString("from")
	send, _ := cmd.Flags().GetBool("send")
	var valid duration
	text, _ := cmd.Flags().GetString("valid")
	if err := valid.UnmarshalText([]byte(text)); err != nil || valid <= 0 {
		return usageError("--valid %q is no time to answer in, expected one such as 12h or 2d", text)
	}
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		if from != "" {
			cfg.Notify.From = from
		}
		if err := cfg.needSender(); err != nil {
			return err
		}
		if send {
			if err := cfg.needProgram(); err != nil {
				return err
			}
		}
		row, key, err := pendingKey(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		now := time.Now()
		c := challengeMessage{from: cfg.Notify.From, to: row.Address, key: key, nonce: newNonce(), until: now.Add(time.Duration(valid)).Truncate(time.Second), now: now}
		c.advice = fmt.Sprintf("Send it to %s, and the key will be used.\n", cfg.Notify.From)
		sealed, err := c.begin(ctx, st, row.ID, cfg)
		if err != nil {
			return err
		}
		if !send {
			_, err = cmd.OutOrStdout().Write(sealed)
			return err
		}
		if err := warnOfOtherKeys(ctx, cmd.ErrOrStderr(), st, row); err != nil {
			return err
		}
		if err := sendMail(ctx, cfg.Notify.command(), sealed); err != nil {
			return tryAgain("sending the message: %w", err)
		}
		record := newRecord(row.Address, row.ID, key, now)
		record.Action, record.Lifecycle = "challenged", string(row.State)
		out := newRecordWriter(cmd, newSentences)
		return errors.Join(out.write(record), out.close())
	})
}

// warnOfOtherKeys says where a challenge may not be opened with the pending key
// alone. The daemon knows of no pending key: to its eyes the message is not sealed
// for its recipient, so that it seals it once more to the keys that count, or
// defers it where there are others and none of them does. Whoever has lost those
// never sees the code.
func warnOfOtherKeys(ctx context.Context, w io.Writer, st store, challenged enrolledRow) error {
	rows, err := accountRows(ctx, st, challenged.Address)
	if err != nil {
		return err
	}
	counts := func(row enrolledRow) bool { return row.State != keys.KeyPending }
	becomes := "deferred, as none of them counts"
	switch {
	case !slices.ContainsFunc(rows, counts):
		return nil
	case slices.ContainsFunc(rows, enrolledRow.isActive):
		becomes = "sealed to those as well, and opened only by who has one of them"
	}
	complain(w, "warning: ", fmt.Errorf("%s has other keys: where mail from sendmail(1) meets sealmilter (non_smtpd_milters), this message is %s; "+
		"let command under [notify] go around the filter, or hand over what key challenge writes without --send", challenged.Address, becomes))
	return nil
}

// pendingKey finds the pending key that is named, or the only one there is. A
// row with several keys, as SQL may have written it, is refused: who has shown
// that they can read with one of them has not shown it of the others.
func pendingKey(ctx context.Context, cfg Config, st store, address string, names []keyName) (enrolledRow, *keys.Key, error) {
	rows, err := namedRows(ctx, cfg, st, address, names)
	if err != nil {
		return enrolledRow{}, nil, err
	}
	var pending []enrolledRow
	for _, row := range rows {
		if some, _ := row.named(names); row.State == keys.KeyPending && (some || len(names) == 0) {
			pending = append(pending, row)
		}
	}
	switch {
	case len(pending) == 0 && len(names) > 0:
		return enrolledRow{}, nil, failure("the key %s of %s is not pending", names[0].text, address)
	case len(pending) == 0:
		return enrolledRow{}, nil, failure("no key of %s is pending", address)
	case len(pending) > 1:
		return enrolledRow{}, nil, failure("%d keys of %s are pending, name one: see key list", len(pending), address)
	case pending[0].problem != nil:
		return enrolledRow{}, nil, failure("the key in row:%d of %s cannot be used: %w", pending[0].ID, address, pending[0].problem)
	case len(pending[0].keys) != 1:
		return enrolledRow{}, nil, failure("row:%d of %s holds %d keys: each needs a row of its own", pending[0].ID, address, len(pending[0].keys))
	}
	return pending[0], pending[0].keys[0], nil
}

func keyConfirmCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "confirm ADDRESS CODE [FINGERPRINT]",
		Short: "Let a pending key count whose code has come back",
		Long: `confirm takes the code that key challenge has sealed to a pending key, and makes
the key active. The other active keys of the address that are of the same kind are
retired, unless --keep-others is given. After ten wrong codes the key must be
challenged anew.`,
		Args: positional(cobra.RangeArgs(2, 3)),
		RunE: runKeyConfirm,
	}
	command.Flags().Bool("keep-others", false, "leave the other active keys as they are")
	return command
}

func runKeyConfirm(cmd *cobra.Command, args []string) error {
	nonce, err := parseNonce(args[1])
	if err != nil {
		return usageError("%w", err)
	}
	address, names, err := parseKeyNames(append(args[:1:1], args[2:]...))
	if err != nil {
		return err
	}
	keep, _ := cmd.Flags().GetBool("keep-others")
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		row, key, err := pendingKey(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		// In the meantime its holder may have withdrawn nothing that is known
		// here, but an administrator may have put another text there.
		if err := checkActivated([]enrolledRow{row}, now); err != nil {
			return failure("%w", err)
		}
		hash := hashNonce(nonce)
		if err := st.Confirm(ctx, row.ID, hash[:], !keep); err != nil {
			return proofError(err)
		}
		record := newRecord(row.Address, row.ID, key, now)
		record.Action, record.Lifecycle = "confirmed", string(keys.KeyActive)
		return errors.Join(out.write(record), out.close())
	})
}

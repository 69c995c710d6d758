package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/policy"
)

func keyRemoveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "remove ADDRESS [FINGERPRINT…]",
		Short: "Remove keys of an address",
		Long: `remove removes the keys of an address that are named: by fingerprint, by the
last 16 digits of it or more, or as row:NUMBER. With --all it removes them all.

Nothing is removed when one of those named is not there. An address that has no
key left gets its mail as it is, not sealed.`,
		Args: positional(cobra.MinimumNArgs(1)),
		RunE: runKeyRemove,
	}
	command.Flags().Bool("all", false, "remove every key of the address")
	return command
}

func runKeyRemove(cmd *cobra.Command, args []string) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	all, _ := cmd.Flags().GetBool("all")
	switch {
	case all && len(names) > 0:
		return usageError("--all removes every key, and some are named: give one or the other")
	case !all && len(names) == 0:
		return usageError("no key is named: give the fingerprints of those to remove, or --all for every key of %s", address)
	}
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := namedRows(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		stay, err := remove(ctx, st, rows, names, now, out)
		if err == nil && stay == 0 {
			complain(cmd.ErrOrStderr(), "warning: ", fmt.Errorf("%s has no key left: %s", address, withoutKey(cfg)))
		}
		return errors.Join(err, out.close())
	})
}

// readBySite says whether the site's own keys read the mail for an account
// without a key.
func readBySite(cfg Config) bool {
	return cfg.policy.Enable && cfg.policy.Settings.Outcomes[policy.NoKey] == policy.Global
}

// withoutKey says what becomes of the mail for an account without a key, where
// neither a rule nor a choice of its own says otherwise.
func withoutKey(cfg Config) string {
	switch cfg.policy.Settings.Outcomes[policy.NoKey] {
	case policy.Pass:
		return "its mail is delivered as it is, not sealed"
	case policy.Global:
		return "its mail is sealed to the site's own keys, " + holders(cfg.policy) + " can read it"
	case policy.Reject:
		return "its mail is refused"
	}
	return "its mail is deferred"
}

// remove removes the named keys, or all where none is named, and returns how
// many stay.
func remove(ctx context.Context, registry keys.Registry, rows []enrolledRow, names []keyName, now time.Time, out recordWriter) (stay int, err error) {
	gone := func(row enrolledRow, key *keys.Key) bool {
		record := keyRecord{Row: row.ID}
		if key != nil {
			record.Fingerprint = key.Fingerprint
		}
		return len(names) == 0 || isNamed(names, record)
	}
	if stay, err = withdraw(ctx, registry, rows, gone); err != nil {
		return stay, err
	}
	for _, row := range rows {
		for _, record := range row.records(now) {
			if len(names) > 0 && !isNamed(names, record) {
				continue
			}
			record.Action = "removed"
			if err := out.write(record); err != nil {
				return stay, err
			}
		}
	}
	return stay, nil
}

// keyName names a key of an account: by row where that is not zero, else by
// the end of its fingerprint.
type keyName struct {
	text   string // as it was given
	suffix string
	row    int64
}

// minSuffix is a key id. Fewer digits are easily the same by chance or by
// intent.
const minSuffix = 16

// parseKeyNames reads an address and the names of keys behind it.
func parseKeyNames(args []string) (address string, names []keyName, err error) {
	if address, err = parseEntry(args[0]); err != nil {
		return "", nil, err
	}
	for _, arg := range args[1:] {
		name, err := parseKeyName(arg)
		if err != nil {
			return "", nil, err
		}
		names = append(names, name)
	}
	return address, names, nil
}

// parseKeyName takes a fingerprint as any program writes it, with spaces and a
// leading 0x.
func parseKeyName(text string) (keyName, error) {
	if number, ok := strings.CutPrefix(text, "row:"); ok {
		row, err := strconv.ParseInt(number, 10, 64)
		if err != nil || row <= 0 {
			return keyName{}, usageError("%q names no row, expected row:NUMBER as key list shows it", text)
		}
		return keyName{text: text, row: row}, nil
	}
	hex := strings.ToUpper(strings.ReplaceAll(text, " ", ""))
	hex = strings.TrimPrefix(hex, "0X")
	notHex := func(r rune) bool { return !strings.ContainsRune("0123456789ABCDEF", r) }
	if len(hex) < minSuffix || strings.ContainsFunc(hex, notHex) {
		return keyName{}, usageError("%q is no fingerprint, expected %d hexadecimal digits or more, or row:NUMBER", text, minSuffix)
	}
	return keyName{text: text, suffix: hex}, nil
}

func (n keyName) matches(r keyRecord) bool {
	if n.row != 0 {
		return r.Row == n.row
	}
	return strings.HasSuffix(r.Fingerprint, n.suffix)
}

func isNamed(names []keyName, record keyRecord) bool {
	return slices.ContainsFunc(names, func(n keyName) bool { return n.matches(record) })
}

// namedRows reads the account's rows and makes sure that every key that was
// named is there.
func namedRows(ctx context.Context, cfg Config, registry keys.Registry, address string, names []keyName) ([]enrolledRow, error) {
	rows, err := accountRows(ctx, registry, address)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 && readBySite(cfg) {
		return nil, failure("%s has no key: %s", address, withoutKey(cfg))
	}
	if len(rows) == 0 {
		return nil, failure("%s has no key", address)
	}
	var records []keyRecord
	for _, row := range rows {
		records = append(records, row.records(time.Time{})...)
	}
	for _, name := range names {
		if !slices.ContainsFunc(records, name.matches) {
			return nil, failure("%s has no key %s", address, name.text)
		}
	}
	return rows, nil
}

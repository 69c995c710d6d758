package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [ADDRESS]",
		Short: "List the keys of an address, or all",
		Args:  positional(cobra.MaximumNArgs(1)),
		RunE:  runKeyList,
	}
}

func runKeyList(cmd *cobra.Command, args []string) error {
	address := ""
	if len(args) > 0 {
		var err error
		if address, err = parseEntry(args[0]); err != nil {
			return err
		}
	}
	now := time.Now()
	out := newRecordWriter(cmd, newTable)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		count, err := list(st.Keys(ctx, address), now, withEscrow(out, cfg.policy))
		if line := escrowLine(cfg.policy); line != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), line) // the table has a line for each key and nothing else
		}
		if err == nil && count == 0 {
			said := "no key is enrolled"
			if address != "" && readBySite(cfg) {
				said += ": " + withoutKey(cfg)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), said)
		}
		return errors.Join(err, out.close())
	})
}

func keyShowCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "show ADDRESS [FINGERPRINT…]",
		Short: "Show the keys of an address in detail",
		Long: `show says all that is known of the keys of an address, or of those that are
named: by fingerprint, by the last 16 digits of it or more, or as row:NUMBER.

With --armor it writes the keys themselves, as gpg --import takes them.`,
		Args: positional(cobra.MinimumNArgs(1)),
		RunE: runKeyShow,
	}
	command.Flags().Bool("armor", false, "write the armored key itself")
	return command
}

func runKeyShow(cmd *cobra.Command, args []string) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	armor, _ := cmd.Flags().GetBool("armor")
	text := newDetails
	if armor {
		text = newArmored
	}
	now := time.Now()
	out := newRecordWriter(cmd, text)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := namedRows(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		return errors.Join(show(rows, names, armor, now, withEscrow(out, cfg.policy)), out.close())
	})
}

// list writes what the store yields, as it yields it, and returns how many
// keys those were.
func list(enrolled iter.Seq2[keys.Enrolled, error], now time.Time, out recordWriter) (count int, err error) {
	for e, err := range enrolled {
		if err != nil {
			return count, err
		}
		for _, record := range readRow(e).records(now) {
			if err := out.write(record); err != nil {
				return count, err
			}
			count++
		}
	}
	return count, nil
}

// show writes the named keys, or all where none is named.
func show(rows []enrolledRow, names []keyName, armor bool, now time.Time, out recordWriter) error {
	for _, row := range rows {
		for i, record := range row.records(now) {
			if len(names) > 0 && !isNamed(names, record) {
				continue
			}
			if armor && row.problem != nil {
				return failure("the key in row:%d of %s cannot be written: %w", row.ID, row.Address, row.problem)
			}
			if armor {
				record.Armor = row.keys[i].Armored()
			}
			if err := out.write(record); err != nil {
				return err
			}
		}
	}
	return nil
}

// detailRecords writes a paragraph for each key.
type detailRecords struct {
	w     io.Writer
	wrote bool
}

func newDetails(w io.Writer) recordWriter { return &detailRecords{w: w} }

func (d *detailRecords) write(r keyRecord) error {
	var text strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&text, "%-13s%s\n", label+":", printable(value))
		}
	}
	if d.wrote {
		text.WriteByte('\n')
	}
	d.wrote = true
	line("Address", r.Address)
	line("Fingerprint", r.Fingerprint)
	line("Algorithm", r.Algorithm)
	line("State", r.stateText())
	line("Lifecycle", r.Lifecycle)
	line("Options", optionsText(r.Options))
	for _, id := range r.UserIDs {
		line("User id", id)
	}
	line("Created", date(r.Created))
	if r.Fingerprint != "" {
		expires := date(r.Expires)
		if expires == "" {
			expires = "never"
		}
		line("Expires", expires)
	}
	line("Added", date(r.Added))
	line("Cipher", r.AccountCipher)
	if r.Escrow != nil {
		line("ESCROW", "sealed too to "+strings.Join(r.Escrow, ", ")+": whoever holds the secret key can read the mail")
	}
	line("Row", fmt.Sprint(r.Row))
	_, err := io.WriteString(d.w, text.String())
	return err
}

func (d *detailRecords) close() error { return nil }

func date(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// armoredRecords writes the keys and nothing else.
type armoredRecords struct{ w io.Writer }

func newArmored(w io.Writer) recordWriter { return armoredRecords{w} }

func (a armoredRecords) write(r keyRecord) error {
	_, err := io.WriteString(a.w, r.Armor)
	return err
}

func (a armoredRecords) close() error { return nil }

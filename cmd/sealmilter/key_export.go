package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func keyExportCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "export ADDRESS [FINGERPRINT…]",
		Short: "Write enrolled keys out",
		Long: `export writes the keys of an address, or those that are named, as they were
given: the text that the store has, whatever state they are in. --normal writes
them as this program reads them: one armored block or one PEM certificate for
each key. There are only public keys.`,
		Args: positional(cobra.MinimumNArgs(1)),
		RunE: runKeyExport,
	}
	command.Flags().StringP("output", "o", "", "`file` to write in place of standard output")
	command.Flags().Bool("normal", false, "write each key armored, or in PEM")
	return command
}

func runKeyExport(cmd *cobra.Command, args []string) error {
	address, names, err := parseKeyNames(args)
	if err != nil {
		return err
	}
	normal, _ := cmd.Flags().GetBool("normal")
	output, _ := cmd.Flags().GetString("output")
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := namedRows(ctx, cfg, st, address, names)
		if err != nil {
			return err
		}
		text, err := exported(rows, names, normal)
		if err != nil {
			return err
		}
		if output == "" || output == "-" {
			_, err = io.WriteString(cmd.OutOrStdout(), text)
		} else {
			err = writeWhole(output, text)
		}
		if err != nil {
			return failure("writing the keys: %w", err)
		}
		return nil
	})
}

// exported is the text of the named keys, or of all where none is named. A row
// may hold several keys, as SQL may have written it: where only some of them
// are named, those are written alone, and so not as they were given.
func exported(rows []enrolledRow, names []keyName, normal bool) (string, error) {
	var text strings.Builder
	for _, row := range rows {
		var chosen []int
		for i, record := range row.plainRecords() {
			if len(names) == 0 || isNamed(names, record) {
				chosen = append(chosen, i)
			}
		}
		switch {
		case len(chosen) == 0:
		case normal && row.problem != nil:
			return "", failure("the key in row:%d of %s cannot be written with --normal: %w", row.ID, row.Address, row.problem)
		case !normal && (row.problem != nil || len(chosen) == len(row.keys)):
			text.WriteString(strings.TrimRight(row.Key, "\r\n") + "\n")
		default:
			for _, i := range chosen {
				text.WriteString(row.keys[i].Armored())
			}
		}
	}
	return text.String(), nil
}

// plainRecords has the names of a row's keys.
func (r enrolledRow) plainRecords() (all []keyRecord) {
	for _, key := range r.keys {
		all = append(all, keyRecord{Row: r.ID, Fingerprint: key.Fingerprint})
	}
	if r.problem != nil {
		all = append(all, keyRecord{Row: r.ID})
	}
	return all
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(name, text string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails where it has its name
	_, err = file.WriteString(text)
	if err == nil {
		err = file.Chmod(0o644) // public keys
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return fmt.Errorf("giving it its name: %w", err)
	}
	return nil
}

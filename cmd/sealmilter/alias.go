package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func aliasCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "alias",
		Short: "Add, list and remove aliases",
		Long: `An alias is an address that leads to accounts, over other aliases if need be. To
several it is a group: its mail is sealed to the keys of all of them. @DOMAIN
stands for every address of the domain that has no other entry, and as a target
for the same local part there.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	command.PersistentFlags().Bool("json", false, "write JSON, one object on each line")
	addActorFlag(command)
	command.AddCommand(
		&cobra.Command{
			Use:   "add ADDRESS TARGET…",
			Short: "Let an address lead to others",
			Args:  positional(cobra.MinimumNArgs(2)),
			RunE:  runAliasAdd,
		},
		&cobra.Command{
			Use:   "remove ADDRESS [TARGET…]",
			Short: "Take targets off an alias, or remove it",
			Args:  positional(cobra.MinimumNArgs(1)),
			RunE:  runAliasRemove,
		},
		&cobra.Command{
			Use:   "list [ADDRESS]",
			Short: "List where an alias leads, or all aliases",
			Args:  positional(cobra.MaximumNArgs(1)),
			RunE:  runAliasList,
		},
	)
	return command
}

// aliasRecord is one way of an alias as the commands show it. The JSON names
// are an interface: they are added to, never changed.
type aliasRecord struct {
	Action  string `json:"action,omitempty"` // added or removed
	Address string `json:"address"`
	Target  string `json:"target"`
}

// aliasWriter writes what the alias commands have to say.
type aliasWriter struct {
	json    *json.Encoder // nil for text
	columns *tabwriter.Writer
}

func newAliasWriter(cmd *cobra.Command) aliasWriter {
	w := aliasWriter{columns: tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		w.json = json.NewEncoder(cmd.OutOrStdout())
		w.json.SetEscapeHTML(false)
	}
	return w
}

func (w aliasWriter) write(r aliasRecord) error {
	if w.json != nil {
		return w.json.Encode(r)
	}
	address, target := printable(r.Address), printable(r.Target)
	if r.Action == "" {
		_, err := fmt.Fprintf(w.columns, "%s\t%s\n", address, target)
		return err
	}
	verb := "leads to"
	if r.Action == "removed" {
		verb = "no longer leads to"
	}
	_, err := fmt.Fprintf(w.columns, "%s %s %s\n", address, verb, target)
	return err
}

func (w aliasWriter) close() error { return w.columns.Flush() }

// parseEntries reads the address of an alias and its targets.
func parseEntries(args []string) (entries []string, err error) {
	for _, arg := range args {
		entry, err := parseEntry(arg)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func runAliasAdd(cmd *cobra.Command, args []string) error {
	entries, err := parseEntries(args)
	if err != nil {
		return err
	}
	out := newAliasWriter(cmd)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		for _, target := range entries[1:] {
			if err := st.AddAlias(ctx, entries[0], target); err != nil {
				return errors.Join(err, out.close())
			}
			if err := out.write(aliasRecord{"added", entries[0], target}); err != nil {
				return err
			}
		}
		warnOfCircle(ctx, cfg, st, entries[0], cmd.ErrOrStderr())
		return out.close()
	})
}

// warnOfCircle says where an alias now leads to nobody: mail for it is deferred.
// That it could not be looked up is told by whoever asks next.
func warnOfCircle(ctx context.Context, cfg Config, st store, address string, w io.Writer) {
	found, err := keys.Lookup(ctx, st, cfg.naming(), []string{address})
	if err == nil && found[address].Unresolved != nil {
		complain(w, "warning: ", fmt.Errorf("%s: %w; its mail is deferred", address, found[address].Unresolved))
	}
}

func runAliasRemove(cmd *cobra.Command, args []string) error {
	entries, err := parseEntries(args)
	if err != nil {
		return err
	}
	out := newAliasWriter(cmd)
	return withStore(cmd, func(ctx context.Context, _ Config, st store) error {
		targets := entries[1:]
		if len(targets) == 0 {
			for way, err := range st.Aliases(ctx, entries[0]) {
				if err != nil {
					return err
				}
				targets = append(targets, way.Target)
			}
		}
		if len(targets) == 0 {
			return failure("%s is no alias", entries[0])
		}
		for _, target := range targets {
			removed, err := st.RemoveAlias(ctx, entries[0], target)
			if err == nil && removed == 0 {
				err = failure("%s does not lead to %s", entries[0], target)
			}
			if err == nil {
				err = out.write(aliasRecord{"removed", entries[0], target})
			}
			if err != nil {
				out.close()
				return err
			}
		}
		return out.close()
	})
}

func runAliasList(cmd *cobra.Command, args []string) error {
	entries, err := parseEntries(args)
	if err != nil {
		return err
	}
	address := ""
	if len(entries) > 0 {
		address = entries[0]
	}
	out := newAliasWriter(cmd)
	return withStore(cmd, func(ctx context.Context, _ Config, st store) error {
		count := 0
		for way, err := range st.Aliases(ctx, address) {
			if err == nil {
				err = out.write(aliasRecord{Address: way.Address, Target: way.Target})
			}
			if err != nil {
				return errors.Join(err, out.close())
			}
			if count++; count%tablePage == 0 {
				if err := out.close(); err != nil {
					return err
				}
			}
		}
		if count == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "there is no alias")
		}
		return out.close()
	})
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyEventsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "events [ADDRESS]",
		Short: "Show who did what to keys, accounts and aliases",
		Long: `events lists what was done to the keys, the account and the aliases of an address,
or to all, the newest first: when, by whom, what, and to which key. The store
writes it down itself, whichever way a change comes in.`,
		Args: positional(cobra.MaximumNArgs(1)),
		RunE: runKeyEvents,
	}
	command.Flags().String("since", "", "nothing older than this `time`: 2026-11-21, 2026-11-21T10:00:00Z, or 36h or 7d ago")
	return command
}

// eventRecord is an event as the command shows it. The JSON names are an
// interface: they are added to, never changed.
type eventRecord struct {
	ID          int64           `json:"id"`
	At          time.Time       `json:"at"`
	Who         string          `json:"who,omitempty"`
	Action      string          `json:"action"`
	Address     string          `json:"address,omitempty"`
	Row         int64           `json:"row,omitempty"`
	Fingerprint string          `json:"fingerprint,omitempty"`
	Detail      json.RawMessage `json:"detail,omitempty"`
}

func runKeyEvents(cmd *cobra.Command, args []string) error {
	address := ""
	if len(args) > 0 {
		var err error
		if address, err = parseEntry(args[0]); err != nil {
			return err
		}
	}
	text, _ := cmd.Flags().GetString("since")
	since, err := parseSince(text, time.Now())
	if err != nil {
		return err
	}
	columns := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	var encoder *json.Encoder
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		encoder = json.NewEncoder(cmd.OutOrStdout())
		encoder.SetEscapeHTML(false)
	}
	return withStore(cmd, func(ctx context.Context, _ Config, st store) error {
		count := 0
		for e, err := range st.Events(ctx, address) {
			if err != nil {
				return errors.Join(err, columns.Flush())
			}
			if e.At.Before(since) { // they come newest first
				break
			}
			if count++; encoder != nil {
				err = encoder.Encode(eventRecord{e.ID, e.At.UTC(), e.Who, e.Action, e.Address, e.KeyID, e.Fingerprint, e.Detail})
			} else {
				err = writeEvent(columns, e, count)
			}
			if err != nil {
				return err
			}
		}
		if count == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "there is no event")
		}
		return columns.Flush()
	})
}

func writeEvent(columns *tabwriter.Writer, e keys.Event, count int) error {
	if count == 1 {
		fmt.Fprintln(columns, "TIME\tWHO\tACTION\tADDRESS\tKEY")
	}
	key := e.Fingerprint
	if key == "" && e.KeyID != 0 {
		key = "row:" + strconv.FormatInt(e.KeyID, 10)
	}
	fmt.Fprintf(columns, "%s\t%s\t%s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), orDash(printable(e.Who)), printable(e.Action), orDash(printable(e.Address)), orDash(key))
	if count%tablePage == 0 {
		return columns.Flush()
	}
	return nil
}

// parseSince reads a date, a time, or a length of time before now.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	var ago duration
	if err := ago.UnmarshalText([]byte(text)); err != nil || ago < 0 {
		return time.Time{}, usageError("--since %q is no time, expected one such as 2026-11-21, 2026-11-21T10:00:00Z, 36h or 7d", text)
	}
	return now.Add(-time.Duration(ago)), nil
}

// addActorFlag adds --actor, which withStore reads where it is there.
func addActorFlag(command *cobra.Command) {
	command.PersistentFlags().String("actor", "", "`name` under which the store notes what was done (default: that of the user)")
}

// actorOf is who stands behind a command: the name that was given, or that of the
// user who runs it.
func actorOf(cmd *cobra.Command) string {
	if flag := cmd.Flag("actor"); flag != nil && flag.Value.String() != "" {
		return flag.Value.String()
	}
	me, err := user.Current()
	if err != nil {
		return ""
	}
	return me.Username
}

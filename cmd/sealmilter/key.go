package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/policy"
)

func keyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "key",
		Short: "Manage recipients' keys, from their enrolment to their end",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,
	}
	command.PersistentFlags().Bool("json", false, "write JSON, one object on each line")
	addActorFlag(command)
	command.AddCommand(
		keyAddCommand(), keyListCommand(), keyShowCommand(), keySetCommand(), keyRemoveCommand(),
		keyCheckCommand(), keyRotateCommand(), keyRetireCommand(), keyActivateCommand(), keyRevokeCommand(),
		keyExportCommand(), keyImportCommand(), keyChallengeCommand(), keyConfirmCommand(), keyEventsCommand(),
	)
	return command
}

// withStore runs a command with the store that the configuration names. An
// error for which the store's missing tables are the reason says so.
func withStore(cmd *cobra.Command, run func(ctx context.Context, cfg Config, st store) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	return withStoreOf(cmd, cfg, func(ctx context.Context, st store) error { return run(ctx, cfg, st) })
}

// withStoreOf does so where the configuration has been read.
func withStoreOf(cmd *cobra.Command, cfg Config, run func(ctx context.Context, st store) error) error {
	ctx := cmd.Context()
	cfg.actor = actorOf(cmd)
	interrupted := failure("interrupted: what was done until then stays done")
	st, err := openStore(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		return interrupted
	}
	if err != nil {
		return err
	}
	defer st.Close()
	err = run(ctx, st)
	var coded *exitError
	if err == nil || errors.As(err, &coded) || errors.Is(err, keys.ErrNoSuchAccount) {
		return err
	}
	if ctx.Err() != nil { // a signal: the store is not away
		return interrupted
	}
	name, _ := parseStoreURL(cfg.Store.URL) // loadConfig has read it
	if _, missing := st.Check(ctx); needsAdministrator(missing) {
		return storeError(name, missing)
	}
	return storeError(name, err)
}

// keyRecord is a key as the key commands show it. The JSON names are an
// interface: they are added to, never changed.
type keyRecord struct {
	Action        string          `json:"action,omitempty"` // what was done: added, replaced, changed, unchanged, removed or one of the states below
	Address       string          `json:"address"`
	Row           int64           `json:"row"`
	Method        string          `json:"method,omitempty"` // of the key: openpgp
	Fingerprint   string          `json:"fingerprint,omitempty"`
	Algorithm     string          `json:"algorithm,omitempty"`
	Lifecycle     string          `json:"lifecycle,omitempty"` // pending, active, retired or revoked, in the store
	State         string          `json:"state"`               // usable, expired, revoked or unusable, by the key itself
	Problem       string          `json:"problem,omitempty"`   // why it is unusable
	Options       keys.KeyOptions `json:"options,omitzero"`    // what was chosen for it
	UserIDs       []string        `json:"user_ids,omitempty"`
	Created       *time.Time      `json:"created,omitempty"`
	Expires       *time.Time      `json:"expires,omitempty"`         // left out where it never does
	ExpiresInDays *int            `json:"expires_in_days,omitempty"` // below zero where it has
	Added         *time.Time      `json:"added,omitempty"`
	Enabled       *bool           `json:"enabled,omitempty"` // the account's switch
	AccountMethod string          `json:"account_method,omitempty"`
	AccountCipher string          `json:"account_cipher,omitempty"`
	Armor         string          `json:"armor,omitempty"`
	Escrow        []string        `json:"escrow,omitempty"` // the site's keys that can read the same mail
}

// newRecord describes a parsed key.
func newRecord(address string, row int64, key *keys.Key, now time.Time) keyRecord {
	return keyRecord{
		Address:     address,
		Row:         row,
		Method:      string(key.Method),
		Fingerprint: key.Fingerprint,
		Algorithm:   key.Algorithm,
		State:       key.State(now).String(),
		Options:     key.Options,
		UserIDs:     key.UserIDs,
		Created:     moment(key.Created),
		Expires:     moment(key.Expires),
	}.withDays(now)
}

// withDays says how long the key is good.
func (r keyRecord) withDays(now time.Time) keyRecord {
	if r.Expires != nil {
		days := daysLeft(*r.Expires, now)
		r.ExpiresInDays = &days
	}
	return r
}

// moment is the time in UTC and in whole seconds, or nil for no time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// enrolledRow is a row of the store and the keys that were read from it.
type enrolledRow struct {
	keys.Enrolled
	keys    []*keys.Key
	problem error // why it cannot be read; it has no keys then
}

func readRow(e keys.Enrolled) enrolledRow {
	parsed, err := keys.Parse([]byte(e.Key))
	for i, key := range parsed {
		parsed[i] = key.With(e.Options)
	}
	return enrolledRow{e, parsed, err}
}

// accountRows reads all that one account has. It is small.
func accountRows(ctx context.Context, registry keys.Registry, address string) ([]enrolledRow, error) {
	var rows []enrolledRow
	for e, err := range registry.Keys(ctx, address) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, readRow(e))
	}
	return rows, nil
}

// records describes a row: one record for each of its keys, or one that says
// why it has none. An administrator may have written anything into it by SQL.
func (r enrolledRow) records(now time.Time) []keyRecord {
	var all []keyRecord
	for _, key := range r.keys {
		record := newRecord(r.Address, r.ID, key, now)
		if err := unsealable(key, now); err != nil && record.State != keys.Revoked.String() {
			record.State, record.Problem = keys.Unusable.String(), err.Error()
		}
		all = append(all, record)
	}
	if r.problem != nil {
		all = append(all, keyRecord{Address: r.Address, Row: r.ID, State: keys.Unusable.String(), Problem: r.problem.Error(), Options: r.Options})
	}
	for i := range all {
		all[i].Lifecycle = string(r.Enrolled.State)
		all[i].Added = moment(r.Added)
		all[i].Enabled = &r.Enabled
		all[i].AccountMethod, all[i].AccountCipher = string(r.Enrolled.Method), string(r.Cipher)
	}
	return all
}

// name is how remove is told which key is meant: by its fingerprint, or by
// its row where it has none.
func (r keyRecord) name() string {
	return cmp.Or(r.Fingerprint, fmt.Sprintf("row:%d", r.Row))
}

// stateText says how a key is, in words for the table.
func (r keyRecord) stateText() string {
	text := r.State
	switch {
	case r.Problem != "":
		text += ": " + r.Problem
	case r.Expires != nil && r.State == keys.Usable.String():
		text += " until " + r.Expires.Format(time.DateOnly) + r.daysText()
	case r.Expires != nil && r.State == keys.Expired.String():
		text += " since " + r.Expires.Format(time.DateOnly) + r.daysText()
	}
	if life := keys.KeyState(r.Lifecycle); life != "" && life != keys.KeyActive && r.Lifecycle != r.State {
		text = r.Lifecycle + ", " + text
	}
	if r.Enabled != nil && !*r.Enabled {
		text += ", account switched off"
	}
	return printable(text)
}

// daysText is how long until the end of the key, or since then.
func (r keyRecord) daysText() string {
	if r.ExpiresInDays == nil {
		return ""
	}
	return " (" + daysText(max(*r.ExpiresInDays, -*r.ExpiresInDays)) + ")"
}

// withOptions adds the options of a key to what is said of it.
func withOptions(text string, options keys.KeyOptions) string {
	if chosen := optionsText(options); chosen != "" {
		return text + ", " + chosen
	}
	return text
}

// recordWriter writes records as they come.
type recordWriter interface {
	write(keyRecord) error
	close() error
}

// newRecordWriter is JSON where --json was given, else the writer that text
// makes.
func newRecordWriter(cmd *cobra.Command, text func(io.Writer) recordWriter) recordWriter {
	out := cmd.OutOrStdout()
	if asJSON, _ := cmd.Flags().GetBool("json"); !asJSON {
		return text(out)
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false) // user ids are full of angle brackets
	return jsonRecords{encoder}
}

// escrowRecords puts down in every record who else can read.
type escrowRecords struct {
	recordWriter
	fingerprints []string
}

// withEscrow is the writer for records of what is there.
func withEscrow(out recordWriter, p policy.Policy) recordWriter {
	if !p.Escrow || !p.Enable {
		return out
	}
	return escrowRecords{out, globalFingerprints(p)}
}

func (e escrowRecords) write(r keyRecord) error {
	r.Escrow = e.fingerprints
	return e.recordWriter.write(r)
}

type jsonRecords struct{ encoder *json.Encoder }

func (j jsonRecords) write(r keyRecord) error { return j.encoder.Encode(r) }
func (j jsonRecords) close() error            { return nil }

// tableRecords writes columns. They are aligned a page at a time, so that a
// list of a million keys neither waits for its end nor fills the memory.
type tableRecords struct {
	columns *tabwriter.Writer
	lines   int
}

const tablePage = 500

func newTable(w io.Writer) recordWriter {
	return &tableRecords{columns: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (t *tableRecords) write(r keyRecord) error {
	if t.lines == 0 {
		fmt.Fprintln(t.columns, "ADDRESS\tFINGERPRINT\tALGORITHM\tSTATE\tUSER ID")
	}
	fmt.Fprintf(t.columns, "%s\t%s\t%s\t%s\t%s\n", printable(r.Address), r.name(),
		cmp.Or(r.Algorithm, "-"), withOptions(shorten(r.stateText()), r.Options), cmp.Or(printable(strings.Join(r.UserIDs, ", ")), "-"))
	if t.lines++; t.lines%tablePage == 0 {
		return t.columns.Flush()
	}
	return nil
}

// shorten keeps one long reason from pushing the columns apart; key show gives
// it whole.
func shorten(text string) string {
	const most = 48
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

func (t *tableRecords) close() error { return t.columns.Flush() }

// sentenceRecords says what was done, a line for each key.
type sentenceRecords struct{ w io.Writer }

func newSentences(w io.Writer) recordWriter { return sentenceRecords{w} }

func (s sentenceRecords) write(r keyRecord) error {
	what := r.name()
	if r.Algorithm != "" {
		what += " (" + r.Algorithm + ")"
	}
	_, err := fmt.Fprintf(s.w, "%s %s for %s\n", r.Action, what, withOptions(printable(r.Address), r.Options))
	return err
}

func (s sentenceRecords) close() error { return nil }

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyCheckCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "check [ADDRESS]",
		Short: "Find what is wrong with enrolled keys",
		Long: `check reads the keys of an address, or with --all every key there is, and finds
what only a parser sees, whoever wrote them: what cannot be read or sealed to,
what has expired or will within 30 days, what its holder has revoked, keys that
name other addresses, keys that are there twice, accounts whose addresses are
not spelled as mail is looked up or are aliases that lead elsewhere, and options
of keys and accounts that cannot be followed or that nobody reads.

--fix-status notes what it found beside each key, where SQL can see it, and puts
an active key that its holder has revoked into the state revoked. It changes nothing else:
nothing that it does lets mail pass that was sealed or deferred before.

Exit status 0: nothing was found; 1: something was; 75: the key store is away.`,
		Args: positional(cobra.MaximumNArgs(1)),
		RunE: runKeyCheck,
	}
	command.Flags().Bool("all", false, "check every key of the store")
	command.Flags().Bool("fix-status", false, "note what was found in the store")
	return command
}

func runKeyCheck(cmd *cobra.Command, args []string) error {
	all, _ := cmd.Flags().GetBool("all")
	fix, _ := cmd.Flags().GetBool("fix-status")
	address := ""
	switch {
	case all && len(args) > 0:
		return usageError("--all means every key, and an address is named: give one or the other")
	case !all && len(args) == 0:
		return usageError("nothing to check: name an address, or give --all for every key")
	case !all:
		var err error
		if address, err = parseEntry(args[0]); err != nil {
			return err
		}
	}
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		c := &keyChecker{st: st, naming: cfg.naming(), now: time.Now(), fix: fix, out: newFindingWriter(cmd), progress: newProgress(cmd.ErrOrStderr(), "keys checked"), counts: make(map[string]int)}
		err := c.run(ctx, address)
		c.progress.clear()
		if err != nil {
			return err
		}
		if c.keys == 0 && len(c.counts) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "no key is enrolled")
			return nil
		}
		fmt.Fprintln(cmd.ErrOrStderr(), c.summary())
		if len(c.counts) > 0 {
			return failure("key check found something")
		}
		return nil
	})
}

// finding is one thing that is wrong with an enrolled key, or with an account.
// The JSON names are an interface: they are added to, never changed.
type finding struct {
	Row         int64  `json:"row,omitempty"` // 0: it is the account's
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Finding     string `json:"finding"` // a word: a keys.Reason, or one of those below
	Text        string `json:"text"`
}

// What key check finds beyond the reasons for which a key is refused.
const (
	foundExpiring = "expiring"  // within warnWithin
	foundOptions  = "options"   // options that cannot be followed, or that nobody reads
	foundTwice    = "duplicate" // the account has it in another row, too
	foundSpelling = "spelling"  // mail is looked up by another spelling of its address
	foundAccounts = "accounts"  // several accounts are one by that spelling
	foundAlias    = "alias"     // an alias of the same name leads elsewhere
)

// keyChecker looks at one account after the other. It holds the keys of one.
type keyChecker struct {
	st       store
	naming   keys.Naming
	now      time.Time
	fix      bool
	out      *findingWriter
	progress *progress

	keys, accounts int
	counts         map[string]int // of findings, by their words
}

// run checks the keys of an address, or all where it is "".
func (c *keyChecker) run(ctx context.Context, address string) error {
	for rows, err := range perAccount(c.st.Keys(ctx, address), c.progress.step) {
		if err != nil {
			return err
		}
		c.keys, c.accounts = c.keys+len(rows), c.accounts+1
		found := judgeAccount(rows, c.now)
		spelled, err := judgeSpelling(ctx, c.st, rows[0].Enrolled)
		if err != nil {
			return err
		}
		found = append(found, spelled...)
		if err := c.tell(found); err != nil {
			return err
		}
		if c.fix {
			for _, row := range rows {
				if err := fixStatus(ctx, c.st, row, found, c.now); err != nil {
					return err
				}
			}
		}
	}
	if err := c.runAliases(ctx, address); err != nil {
		return err
	}
	return c.runAccounts(ctx, address)
}

// runAliases finds keys that are not used since an alias decides before them.
func (c *keyChecker) runAliases(ctx context.Context, address string) error {
	last := ""
	for way, err := range c.st.Aliases(ctx, address) {
		if err != nil {
			return err
		}
		if way.Address == last { // has more than one way
			continue
		}
		last = way.Address
		rows, err := accountRows(ctx, c.st, last)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(rows, enrolledRow.isActive) {
			continue
		}
		text, err := shadowed(ctx, c.st, c.naming, last)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // of an account that it leads to; a store that is away says so to the next question
			text = "nobody can tell where it leads, and its mail is deferred: " + err.Error()
		}
		if text == "" {
			continue
		}
		if err := c.tell([]finding{{Address: last, Finding: foundAlias, Text: text}}); err != nil {
			return err
		}
	}
	return nil
}

// runAccounts checks what an account has chosen, or all that have chosen
// something, whether they have keys or not.
func (c *keyChecker) runAccounts(ctx context.Context, address string) error {
	if address != "" {
		choices, err := c.st.Account(ctx, address)
		if errors.Is(err, keys.ErrNoSuchAccount) {
			return nil
		}
		if err != nil {
			return err
		}
		return c.tell(judgeAccountOptions(choices))
	}
	for choices, err := range c.st.WithOptions(ctx) {
		if err != nil {
			return err
		}
		if err := c.tell(judgeAccountOptions(choices)); err != nil {
			return err
		}
	}
	return nil
}

// tell counts findings and writes them.
func (c *keyChecker) tell(found []finding) error {
	for _, f := range found {
		c.counts[f.Finding]++
		c.progress.clear()
		if err := c.out.write(f); err != nil {
			return err
		}
	}
	return nil
}

// summary says in one line how much was looked at and what was found.
func (c *keyChecker) summary() string {
	var counted []string
	sum := 0
	for _, word := range slices.Sorted(maps.Keys(c.counts)) {
		counted = append(counted, fmt.Sprintf("%d %s", c.counts[word], word))
		sum += c.counts[word]
	}
	text := fmt.Sprintf("%d keys of %d accounts checked, %d findings", c.keys, c.accounts, sum)
	if sum > 0 {
		text += ": " + strings.Join(counted, ", ")
	}
	return text
}

// statusKeeper is a store as far as notes are made in it.
type statusKeeper interface {
	keys.Registry
	NoteKey(ctx context.Context, id int64, text, fingerprint, problem string) error
	SetKeyState(ctx context.Context, id int64, state keys.KeyState) error
}

// noteAnew is after what time it is noted once more that nothing has changed: a
// million keys need not be written every day.
const noteAnew = 7 * 24 * time.Hour

// fixStatus notes what a row's key is. Of several keys in one row, as SQL may
// have written them, the fingerprint is that of the first. An active key that
// its holder has revoked is put into the state revoked, which the daemon treats
// as it treats the revocation: no mail passes for it that did not before. One
// that is pending or retired does not count, and must not begin to.
func fixStatus(ctx context.Context, st statusKeeper, row enrolledRow, found []finding, now time.Time) error {
	fingerprint := ""
	if len(row.keys) > 0 {
		fingerprint = row.keys[0].Fingerprint
	}
	var problems []string
	for _, f := range found {
		if f.Row == row.ID {
			problems = append(problems, f.Finding+": "+oneLine(f.Text))
		}
	}
	problem := strings.Join(problems, "; ")
	known := row.Fingerprint == fingerprint && row.Problem == problem && now.Sub(row.Checked) < noteAnew
	if !known {
		if err := st.NoteKey(ctx, row.ID, row.Key, fingerprint, problem); err != nil && !errors.Is(err, keys.ErrNoSuchKey) {
			return err
		}
	}
	if !row.isRevoked() || row.State != keys.KeyActive {
		return nil
	}
	rows, err := accountRows(ctx, st, row.Address)
	if err != nil || !slices.ContainsFunc(rows, func(r enrolledRow) bool { return r.ID == row.ID && r.Key == row.Key }) {
		return err // somebody has put another key there since it was read
	}
	if err := st.SetKeyState(ctx, row.ID, keys.KeyRevoked); err != nil && !errors.Is(err, keys.ErrNoSuchKey) {
		return err
	}
	return nil
}

// isRevoked says whether all keys of a row were revoked by their holders.
func (r enrolledRow) isRevoked() bool {
	notRevoked := func(k *keys.Key) bool { return k.State(time.Time{}) != keys.Revoked }
	return len(r.keys) > 0 && !slices.ContainsFunc(r.keys, notRevoked)
}

// findingWriter writes findings as they come.
type findingWriter struct {
	w    io.Writer
	json *json.Encoder // nil for text
}

func newFindingWriter(cmd *cobra.Command) *findingWriter {
	w := &findingWriter{w: cmd.OutOrStdout()}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		w.json = json.NewEncoder(w.w)
		w.json.SetEscapeHTML(false)
	}
	return w
}

func (w *findingWriter) write(f finding) error {
	if w.json != nil {
		return w.json.Encode(f)
	}
	what := "account"
	if f.Row != 0 {
		what = fmt.Sprintf("row:%d", f.Row)
	}
	_, err := fmt.Fprintf(w.w, "%s %s %s %s: %s\n", what, printable(f.Address), orDash(f.Fingerprint), f.Finding, oneLine(f.Text))
	return err
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

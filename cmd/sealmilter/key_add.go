package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyAddCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "add ADDRESS FILE…",
		Short: "Enrol keys for an address",
		Long: `add reads OpenPGP public keys from files, armored or binary, any number of
them in each, and enrols them for the address. The file - is standard input.
Keys for @DOMAIN are for whoever has no key of their own in that domain.

Every key is read and checked before the first is stored: when one is not good,
none is stored. A key that the address has already is replaced, and keeps its
options, but for those that are named.

It counts at once, even one that was pending or retired. With --pending it does
not before key activate or key confirm. A key that key revoke has withdrawn is
refused.

` + keyOptionsHelp,
		Args: positional(cobra.MinimumNArgs(2)),
		RunE: runKeyAdd,
	}
	command.Flags().Bool("pending", false, "let the keys not count yet")
	addKeyOptionFlag(command)
	return command
}

func runKeyAdd(cmd *cobra.Command, args []string) error {
	address, err := parseEntry(args[0])
	if err != nil {
		return err
	}
	isStdin := func(name string) bool { return name == "-" }
	if first := slices.IndexFunc(args, isStdin); first >= 0 && slices.ContainsFunc(args[first+1:], isStdin) {
		return usageError("standard input (-) can be read only once")
	}
	files, err := readKeyFiles(cmd.InOrStdin(), args[1:])
	if err != nil {
		return err
	}
	choices, err := readKeyChoices(cmd)
	if err != nil {
		return err
	}
	state := keys.KeyActive
	if pending, _ := cmd.Flags().GetBool("pending"); pending {
		state = keys.KeyPending
	}
	now := time.Now()
	out := newRecordWriter(cmd, newSentences)
	return withStore(cmd, func(ctx context.Context, cfg Config, st store) error {
		rows, err := accountRows(ctx, st, address)
		if err != nil {
			return err
		}
		rules := keys.Rules{Address: address, Now: now, Allow: keys.Administrator, Seal: sealTrial(now)}
		rules.Options = func(key *keys.Key) keys.KeyOptions { return choices.on(optionsOf(rows, key)) }
		handed, warnings, err := judge(files, rules, choices)
		if err == nil {
			err = refuseRevoked(rows, handed)
		} else {
			err = adviseRevoked(err, rows, files, now)
		}
		if err != nil {
			return failure("%w", err)
		}
		for _, warning := range append(warnings, warnOfOlder(rows, handed)...) {
			complain(cmd.ErrOrStderr(), "warning: ", warning)
		}
		switch why, err := shadowed(ctx, st, cfg.naming(), address); {
		case err != nil: // as for an option that nobody can follow, which this key may mend; a store that is away takes no key
			complain(cmd.ErrOrStderr(), "warning: ", fmt.Errorf("nobody can tell where mail for the address goes: %w", err))
		case why != "":
			complain(cmd.ErrOrStderr(), "warning: ", errors.New(why))
		}
		return errors.Join(enrol(ctx, st, address, rows, handed, state, now, out), out.close())
	})
}

// optionsOf are the options that a key has in the store.
func optionsOf(rows []enrolledRow, key *keys.Key) (options keys.KeyOptions) {
	for _, row := range rows { // where it is enrolled twice, the later one counts
		if holdsKey([]enrolledRow{row}, key.Fingerprint) {
			options = row.Options
		}
	}
	return options
}

// keyFile is a file of keys, as it was handed in.
type keyFile struct {
	name string
	data []byte
}

// handedKey is a key and the file that it was handed in with.
type handedKey struct {
	*keys.Key
	file string
}

// readKeyFiles reads every file, or says which one cannot be read.
func readKeyFiles(stdin io.Reader, names []string) (files []keyFile, err error) {
	for _, name := range names {
		file := keyFile{name: name}
		if name == "-" {
			file.name = "standard input"
			file.data, err = readKeyData(stdin)
		} else {
			file.data, err = readKeyFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.name, err)
		}
		files = append(files, file)
	}
	return files, nil
}

func readKeyFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // the caller names the file
		}
		return nil, err
	}
	defer f.Close()
	return readKeyData(f)
}

func readKeyData(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, keys.MaxKeySize+1))
	if err == nil && len(data) > keys.MaxKeySize {
		err = fmt.Errorf("it is larger than the %d KiB that a file of keys may have", keys.MaxKeySize>>10)
	}
	return data, err
}

// judge refuses what must not be enrolled and warns of what may be a mistake.
// A key that was handed in twice is returned once, as the last file has it.
func judge(files []keyFile, rules keys.Rules, choices keyChoices) (unique []handedKey, warnings []error, err error) {
	for _, file := range files {
		accepted, doubts, err := keys.Validate(file.data, rules)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file.name, err)
		}
		for _, doubt := range doubts {
			warnings = append(warnings, fmt.Errorf("%s: %w", file.name, doubt))
		}
		for _, key := range accepted {
			same := func(other handedKey) bool { return other.Fingerprint == key.Fingerprint }
			if i := slices.IndexFunc(unique, same); i >= 0 {
				warnings = append(warnings, fmt.Errorf("key %s is in %s and again in %s, the latter is taken", key.Fingerprint, unique[i].file, file.name))
				unique[i] = handedKey{key, file.name}
				continue
			}
			unique = append(unique, handedKey{key, file.name})
		}
	}
	for _, key := range unique {
		for _, warning := range warnOfChoices(key.Key, choices, rules.Now) {
			warnings = append(warnings, fmt.Errorf("%s: %w", key.file, warning))
		}
	}
	return unique, warnings, nil
}

// refuseRevoked refuses keys that were revoked here: somebody had a reason, and
// a file that is handed in once more is none against it.
func refuseRevoked(rows []enrolledRow, handed []handedKey) error {
	for _, key := range handed {
		for _, row := range rows {
			if row.State == keys.KeyRevoked && holdsKey([]enrolledRow{row}, key.Fingerprint) {
				return fmt.Errorf("%s: key %s was revoked for %s; key activate takes that back", key.file, key.Fingerprint, row.Address)
			}
		}
	}
	return nil
}

// adviseRevoked adds to the refusal of a key that its holder has revoked that an
// older copy of it is enrolled, to which mail is sealed still.
func adviseRevoked(refused error, rows []enrolledRow, files []keyFile, now time.Time) error {
	if keys.ReasonOf(refused) != keys.ReasonRevoked {
		return refused
	}
	active := slices.DeleteFunc(slices.Clone(rows), func(r enrolledRow) bool { return r.State != keys.KeyActive })
	for _, file := range files {
		parsed, _ := keys.Parse(file.data) // it has none where it cannot be read
		for _, key := range parsed {
			if key.State(now) == keys.Revoked && holdsKey(active, key.Fingerprint) {
				return fmt.Errorf("%w; mail is still sealed to the copy that is enrolled: key revoke %s %s", refused, active[0].Address, key.Fingerprint)
			}
		}
	}
	return refused
}

// warnOfOlder speaks of copies that know less than what they replace: what its
// holder has taken back since is sealed to again.
func warnOfOlder(rows []enrolledRow, handed []handedKey) (warnings []error) {
	for _, key := range handed {
		for _, row := range rows {
			isOlder := func(enrolled *keys.Key) bool {
				return enrolled.Fingerprint == key.Fingerprint && enrolled.Signed.After(key.Signed)
			}
			if slices.ContainsFunc(row.keys, isOlder) {
				warnings = append(warnings, fmt.Errorf("%s: this copy of key %s is older than the one in row:%d: what its holder has changed since is lost", key.file, key.Fingerprint, row.ID))
			}
		}
	}
	return warnings
}

// keyStore is a store as enrolling keys needs it.
type keyStore interface {
	keys.Registry
	SetKeyState(ctx context.Context, id int64, state keys.KeyState) error
}

// enrol stores keys, one in each row, and takes away what they replace. A new
// key is stored before its predecessor goes: there is no moment at which the
// address has none, for in such a moment its mail would pass plaintext. So a key
// that does not count yet replaces none that does.
func enrol(ctx context.Context, registry keyStore, address string, rows []enrolledRow, handed []handedKey, state keys.KeyState, now time.Time, out recordWriter) error {
	var err error
	if state == keys.KeyPending {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r enrolledRow) bool {
			return r.State != keys.KeyPending && !isHanded(r, handed)
		})
	}
	replaced := make(map[string]bool)
	for i, key := range handed {
		record := newRecord(address, 0, key.Key, now)
		armored := key.Armored()
		same := slices.IndexFunc(rows, func(r enrolledRow) bool { return r.Key == armored })
		switch {
		case same < 0:
			record.Action, record.Lifecycle = "added", string(state)
			record.Row, err = registry.AddKey(ctx, keys.NewKey{Address: address, Key: armored, Options: key.Options, State: state, Fingerprint: key.Fingerprint})
		default:
			row := rows[same]
			record.Action, record.Row, record.Lifecycle = "unchanged", row.ID, string(row.State)
			if row.Options != key.Options {
				record.Action = "changed"
				err = registry.SetKeyOptions(ctx, row.ID, key.Options)
			}
			if state == keys.KeyActive && row.State != state && err == nil {
				record.Action, record.Lifecycle = "changed", string(state)
				err = registry.SetKeyState(ctx, row.ID, state)
			}
		}
		if err != nil {
			return fmt.Errorf("%d of %d keys stored: %w", i, len(handed), err)
		}
		if same >= 0 {
			rows = slices.Delete(rows, same, same+1)
		}
		if holdsKey(rows, key.Fingerprint) {
			record.Action = "replaced"
		}
		replaced[key.Fingerprint] = true
		if err := out.write(record); err != nil {
			return err
		}
	}
	if rows, err = asBefore(ctx, registry, address, rows); err == nil {
		_, err = withdraw(ctx, registry, rows, func(_ enrolledRow, key *keys.Key) bool {
			return key != nil && replaced[key.Fingerprint]
		})
	}
	return err
}

// asBefore are those of the rows of an account that are still as they were read.
// What somebody has decided about an older copy of a key meanwhile, as to revoke
// it, stays, and counts for the newer one too.
func asBefore(ctx context.Context, registry keys.Registry, address string, rows []enrolledRow) ([]enrolledRow, error) {
	now, err := accountRows(ctx, registry, address)
	return slices.DeleteFunc(slices.Clone(rows), func(old enrolledRow) bool {
		return !slices.ContainsFunc(now, func(r enrolledRow) bool { return r.ID == old.ID && r.State == old.State && r.Key == old.Key })
	}), err
}

// isHanded says whether a row has the very text of one of the keys.
func isHanded(row enrolledRow, handed []handedKey) bool {
	return slices.ContainsFunc(handed, func(key handedKey) bool { return row.Key == key.Armored() })
}

func holdsKey(rows []enrolledRow, fingerprint string) bool {
	return slices.ContainsFunc(rows, func(r enrolledRow) bool {
		return slices.ContainsFunc(r.keys, func(k *keys.Key) bool { return k.Fingerprint == fingerprint })
	})
}

// withdraw removes the keys that gone picks from rows, and returns how many
// stay. It is asked with a nil key for a row that cannot be read. The other
// keys of a row that holds several, as an administrator may write by SQL, get
// rows of their own first.
func withdraw(ctx context.Context, registry keys.Registry, rows []enrolledRow, gone func(enrolledRow, *keys.Key) bool) (stay int, err error) {
	for _, row := range rows {
		entries := row.keys
		if len(entries) == 0 {
			entries = []*keys.Key{nil}
		}
		kept := slices.DeleteFunc(slices.Clone(entries), func(key *keys.Key) bool { return gone(row, key) })
		stay += len(kept)
		if len(kept) == len(entries) {
			continue
		}
		for _, key := range kept {
			apart := keys.NewKey{Address: row.Address, Key: key.Armored(), Options: row.Options, State: row.State, Fingerprint: key.Fingerprint}
			_, err := registry.AddKey(ctx, apart)
			if enrolledAlready(err) {
				err = checkApart(ctx, registry, apart)
			}
			if err != nil {
				return stay, err
			}
		}
		// That somebody else has just removed it is no error.
		if err := registry.RemoveKey(ctx, row.ID); err != nil && !errors.Is(err, keys.ErrNoSuchKey) {
			return stay, err
		}
	}
	return stay, nil
}

// checkApart refuses to leave a key to the row of its own that it has already,
// unless it counts there for as much: where it is pending, its owner would have
// no key, and mail would pass.
func checkApart(ctx context.Context, registry keys.Registry, apart keys.NewKey) error {
	rows, err := accountRows(ctx, registry, apart.Address)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Key == apart.Key && row.State != apart.State {
			return failure("key %s of %s is in row:%d as well, where it is %s: make it %s or remove it there first",
				apart.Fingerprint, apart.Address, row.ID, row.State, apart.State)
		}
	}
	return nil
}

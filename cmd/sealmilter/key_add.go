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

` + keyOptionsHelp,
		Args: positional(cobra.MinimumNArgs(2)),
		RunE: runKeyAdd,
	}
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
	handed, err := readKeyFiles(cmd.InOrStdin(), args[1:])
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
		keepOptions(handed, rows, choices)
		handed, warnings, err := judge(handed, address, choices, now)
		if err != nil {
			return failure("%w", err)
		}
		for _, warning := range warnings {
			complain(cmd.ErrOrStderr(), "warning: ", warning)
		}
		return errors.Join(enrol(ctx, st, address, rows, handed, now, out), out.close())
	})
}

// keepOptions gives the keys the options that they have in the store, and those
// that were chosen.
func keepOptions(handed []handedKey, rows []enrolledRow, choices keyChoices) {
	for i, key := range handed {
		var options keys.KeyOptions
		for _, row := range rows { // where it is enrolled twice, the later one counts
			if holdsKey([]enrolledRow{row}, key.Fingerprint) {
				options = row.Options
			}
		}
		handed[i].Key = key.With(choices.on(options))
	}
}

// handedKey is a key and the file that it was handed in with.
type handedKey struct {
	*keys.Key
	file string
}

// readKeyFiles reads every key of every file, or says which file is not good.
func readKeyFiles(stdin io.Reader, names []string) ([]handedKey, error) {
	var all []handedKey
	for _, name := range names {
		file, data, err := name, []byte(nil), error(nil)
		if name == "-" {
			file = "standard input"
			data, err = readKeyData(stdin)
		} else {
			data, err = readKeyFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		parsed, err := keys.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, key := range parsed {
			all = append(all, handedKey{key, file})
		}
	}
	return all, nil
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
// An administrator's word counts: a key of another address is only warned of.
// A key that was handed in twice is returned once, as the last file has it.
func judge(handed []handedKey, address string, choices keyChoices, now time.Time) (unique []handedKey, warnings []error, err error) {
	for _, key := range handed {
		state := key.State(now)
		if state == keys.Revoked {
			return nil, nil, fmt.Errorf("%s: key %s has been revoked by its holder, mail must not be sealed to it", key.file, key.Fingerprint)
		}
		if err := checkSealable(key.Key, now); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key.file, err)
		}
		if state == keys.Expired {
			warnings = append(warnings, fmt.Errorf("%s: key %s expired on %s; mail is sealed to it as long as there is no newer one", key.file, key.Fingerprint, key.Expires.UTC().Format(time.DateOnly)))
		}
		if key.Created.After(now) {
			warnings = append(warnings, fmt.Errorf("%s: key %s is not valid before %s; mail is sealed to it all the same", key.file, key.Fingerprint, key.Created.UTC().Format(time.DateOnly)))
		}
		if !slices.ContainsFunc(key.UserIDs, func(id string) bool { return namesAddress(id, address) }) {
			warnings = append(warnings, fmt.Errorf("%s: key %s does not name %s, its user ids are %q", key.file, key.Fingerprint, address, key.UserIDs))
		}
		same := func(other handedKey) bool { return other.Fingerprint == key.Fingerprint }
		if i := slices.IndexFunc(unique, same); i >= 0 {
			warnings = append(warnings, fmt.Errorf("key %s is in %s and again in %s, the latter is taken", key.Fingerprint, unique[i].file, key.file))
			unique[i] = key
			continue
		}
		unique = append(unique, key)
	}
	for _, key := range unique {
		for _, warning := range warnOfChoices(key.Key, choices, now) {
			warnings = append(warnings, fmt.Errorf("%s: %w", key.file, warning))
		}
	}
	return unique, warnings, nil
}

// enrol stores keys, one in each row, and takes away what they replace. A new
// key is stored before its predecessor goes: there is no moment at which the
// address has none, for in such a moment its mail would pass plaintext.
func enrol(ctx context.Context, registry keys.Registry, address string, rows []enrolledRow, handed []handedKey, now time.Time, out recordWriter) error {
	var err error
	replaced := make(map[string]bool)
	for i, key := range handed {
		record := newRecord(address, 0, key.Key, now)
		armored := key.Armored()
		same := slices.IndexFunc(rows, func(r enrolledRow) bool { return r.Key == armored })
		switch {
		case same < 0:
			record.Action = "added"
			record.Row, err = registry.AddKey(ctx, address, armored, key.Options)
		case rows[same].Options == key.Options:
			record.Action, record.Row = "unchanged", rows[same].ID
		default:
			record.Action, record.Row = "changed", rows[same].ID
			err = registry.SetKeyOptions(ctx, record.Row, key.Options)
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
	_, err = withdraw(ctx, registry, rows, func(_ enrolledRow, key *keys.Key) bool {
		return key != nil && replaced[key.Fingerprint]
	})
	return err
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
			// That it has a row of its own already is as well.
			if _, err := registry.AddKey(ctx, row.Address, key.Armored(), row.Options); err != nil && !enrolledAlready(err) {
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

package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func keyImportCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "import (--gnupg DIR|FILE | --folder DIR | --csv FILE)",
		Short: "Enrol the keys of a keyring, a folder or a table",
		Long: `import enrols many keys at once. Every key is checked as key add checks it; one
that is refused is reported, and the others go on. An expired key, or one whose
time has not come, is refused here.

--gnupg names a GnuPG home, a pubring.kbx or pubring.gpg, or a file that gpg
--export has written. --folder names a folder: all files below it that are called
as keys and certificates are. Such keys are enrolled for every address that they
name, or only for those in the domains that --domain names.

--csv names a table, with commas or semicolons: an address, and a file or the
text of a key in quotes. There the table says whose key it is, and that the key
does not name the address is only warned of. A line of headings is passed over.

A key that is there already, in whatever state, stays as it is; a newer copy of
it takes its place, and where its holder has revoked it, it is revoked. So the same import can be done again. The exit status is 1
where a key was refused.`,
		Args: positional(cobra.NoArgs),
		RunE: runKeyImport,
	}
	flags := command.Flags()
	flags.String("gnupg", "", "GnuPG home, keyring or exported `file`")
	flags.String("folder", "", "`folder` with files of keys")
	flags.String("csv", "", "table `file` of addresses and keys")
	flags.StringArray("domain", nil, "only addresses in this `domain`; may be given several times")
	flags.Bool("dry-run", false, "say what would be done, and store nothing")
	flags.Bool("pending", false, "let the keys not count yet, see key activate and key challenge")
	flags.String("report", "", "CSV `file` to write refusals and warnings to, in place of standard error")
	return command
}

func runKeyImport(cmd *cobra.Command, _ []string) error {
	flags := cmd.Flags()
	var sources []string
	for _, name := range []string{"gnupg", "folder", "csv"} {
		if flags.Changed(name) {
			sources = append(sources, name)
		}
	}
	if len(sources) != 1 {
		return usageError("nothing or too much to import: give one of --gnupg, --folder and --csv")
	}
	i := &importer{now: time.Now(), out: newRecordWriter(cmd, newSentences), progress: newProgress(cmd.ErrOrStderr(), "keys read"), said: cmd.ErrOrStderr()}
	i.dryRun, _ = flags.GetBool("dry-run")
	i.state = keys.KeyActive
	if pending, _ := flags.GetBool("pending"); pending {
		i.state = keys.KeyPending
	}
	if flags.Changed("csv") && flags.Changed("domain") { // who gives both believes that the table is filtered
		return usageError("--domain is for --gnupg and --folder: a table says itself whose its keys are")
	}
	domains, _ := flags.GetStringArray("domain")
	if flags.Changed("domain") && len(domains) == 0 { // one empty word: nobody means all domains by it
		return usageError("--domain names no domain")
	}
	for _, domain := range domains {
		entry, err := parseEntry("@" + strings.TrimPrefix(domain, "@"))
		if err != nil {
			return err
		}
		i.domains = append(i.domains, entry)
	}
	path, _ := flags.GetString(sources[0])
	report, _ := flags.GetString("report")
	return withStore(cmd, func(ctx context.Context, _ Config, st store) (err error) {
		i.st = st
		if report != "" {
			file, err := os.Create(report)
			if err != nil {
				return failure("making the report: %w", err)
			}
			defer file.Close()
			i.report = csv.NewWriter(file)
			i.report.Write([]string{"file", "place", "address", "fingerprint", "word", "text"})
		}
		switch sources[0] {
		case "gnupg":
			err = readGnuPG(ctx, path, func(h handedText) error { return i.take(ctx, h) })
		case "folder":
			err = readFolder(path, func(h handedText) error { return i.take(ctx, h) })
		default:
			err = readTable(path, func(h handedText) error { return i.take(ctx, h) })
		}
		if err == nil || !errors.Is(err, keys.ErrStore) { // what was read before it failed is stored
			err = errors.Join(err, i.flush(ctx))
		}
		return i.finish(err)
	})
}

// handedText is something that ought to be a key, with where it was found.
type handedText struct {
	file    string
	place   string // within the file, as "key 3" or "line 7"; "" for all of it
	address string // whose it is, where the source says so
	data    []byte
	problem error // why it could not even be read; there is no data then
	minimal bool  // gpg has left out of it what has expired
}

// importer enrols one key after the other and counts what became of them.
type importer struct {
	st       store
	now      time.Time
	dryRun   bool
	state    keys.KeyState
	domains  []string // as "@example.org"
	out      recordWriter
	progress *progress
	said     io.Writer
	report   *csv.Writer // nil for standard error

	queue []queuedKey // accepted, and not stored yet
	// planned is what a dry run would have stored by now, by address and
	// fingerprint: what isNewerCopy asks for, and not the keys themselves.
	planned map[string]*keys.Key
	// revoked are the fingerprints of keys that their holders have revoked, in what
	// was read so far: an older copy behind, as of another file, is none to be enrolled.
	revoked map[string]bool

	added, replaced, unchanged, passedOver, refused int
}

// queuedKey is a key that will be stored together with others.
type queuedKey struct {
	key    keys.NewKey
	record keyRecord
}

// importBatch is how many keys are stored at once.
const importBatch = 100

// take enrols what was found, or reports why not. An error is the store's.
func (i *importer) take(ctx context.Context, h handedText) error {
	i.progress.step()
	if h.problem != nil {
		i.refuse(h, h.address, "", h.problem)
		return nil
	}
	address := h.address
	if address != "" {
		entry, err := parseEntry(address)
		if err != nil {
			i.refuse(h, address, "", &keys.Refusal{Reason: keys.ReasonAddress, Text: err.Error()})
			return nil
		}
		address = entry
	}
	rules := keys.Rules{Address: address, Now: i.now, Allow: keys.AllowAuthority | keys.AllowAddress, Seal: sealTrial(i.now)}
	accepted, doubts, err := keys.Validate(h.data, rules)
	if h.minimal && keys.ReasonOf(err) == keys.ReasonPurpose {
		err = &keys.Refusal{Reason: keys.ReasonPurpose, Text: err.Error() + "; where it has expired, gpg has left out what was meant for that"}
	}
	if err != nil {
		i.refuse(h, address, "", err)
		if keys.ReasonOf(err) == keys.ReasonRevoked {
			return i.withdrawn(ctx, address, h.data)
		}
		return nil
	}
	for _, doubt := range doubts {
		i.tell("warning", h, address, "", doubt)
	}
	for _, key := range accepted {
		if i.revoked[key.Fingerprint] {
			i.refuse(h, address, key.Fingerprint, &keys.Refusal{Reason: keys.ReasonRevoked,
				Text: "key " + key.Fingerprint + " has been revoked by its holder, as another copy of it that was read before says"})
			continue
		}
		addresses := []string{address}
		if address == "" {
			addresses = i.named(h, key)
		}
		for _, address := range addresses {
			if err := i.enrol(ctx, address, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// withdrawn revokes what is enrolled of keys that their holders have revoked: the
// copy in the store does not know of it, and mail would go on being sealed to
// it. What does not count anyway stays as it is.
func (i *importer) withdrawn(ctx context.Context, address string, data []byte) error {
	handed, err := keys.Parse(data)
	if err != nil {
		return nil // it was refused, and its refusal says so
	}
	for _, key := range handed {
		if key.State(i.now) != keys.Revoked {
			continue
		}
		if i.revoked == nil {
			i.revoked = make(map[string]bool)
		}
		i.revoked[key.Fingerprint] = true
		addresses := []string{address}
		if address == "" {
			addresses = nil
			for _, named := range key.Addresses() {
				if entry, err := parseAddress(named); err == nil && i.isWanted(entry) {
					addresses = append(addresses, entry)
				}
			}
		}
		for _, address := range addresses {
			if err := i.revoke(ctx, address, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoke brings the active rows of a key into the state revoked. A row that
// holds other keys too stays as it is, and is spoken of.
func (i *importer) revoke(ctx context.Context, address string, key *keys.Key) error {
	if err := i.flush(ctx); err != nil { // an older copy may be waiting to be stored
		return err
	}
	rows, err := accountRows(ctx, i.st, address)
	if err != nil {
		return err
	}
	for _, row := range rows {
		switch {
		case row.State != keys.KeyActive || !holdsKey([]enrolledRow{row}, key.Fingerprint):
			continue
		case len(row.keys) > 1:
			i.progress.clear()
			complain(i.said, "warning: ", fmt.Errorf("key %s has been revoked by its holder and is still sealed to: row:%d of %s holds other keys too, see key remove",
				key.Fingerprint, row.ID, row.Address))
			continue
		}
		record := newRecord(row.Address, row.ID, key, i.now)
		record.Action, record.Lifecycle = string(keys.KeyRevoked), string(keys.KeyRevoked)
		if i.dryRun {
			record.Action = "would be " + record.Action
		} else if err := i.st.SetKeyState(ctx, row.ID, keys.KeyRevoked); err != nil && !errors.Is(err, keys.ErrNoSuchKey) {
			return err
		}
		i.progress.clear()
		if err := i.out.write(record); err != nil {
			return err
		}
	}
	return nil
}

// named are the addresses that a key is enrolled for, by its user ids.
func (i *importer) named(h handedText, key *keys.Key) (addresses []string) {
	outside := false
	for _, named := range key.Addresses() {
		entry, err := parseAddress(named)
		switch {
		case err != nil:
			i.tell("warning", h, named, key.Fingerprint, &keys.Refusal{Reason: keys.ReasonAddress, Text: err.Error()})
		case !i.isWanted(entry):
			outside = true
		case !slices.ContainsFunc(addresses, func(other string) bool { return strings.EqualFold(other, entry) }):
			addresses = append(addresses, entry)
		}
	}
	switch {
	case len(addresses) > 0:
	case outside:
		i.passedOver++
	default:
		i.refuse(h, "", key.Fingerprint, &keys.Refusal{Reason: keys.ReasonAddress, Text: "key " + key.Fingerprint + " names no address: use key add, or a table that says whose it is"})
	}
	return addresses
}

// isWanted says whether an address is in one of the domains.
func (i *importer) isWanted(address string) bool {
	domain := address[strings.LastIndexByte(address, '@'):]
	return len(i.domains) == 0 || slices.ContainsFunc(i.domains, func(d string) bool { return strings.EqualFold(d, domain) })
}

// enrol stores a key for an address, unless it is there already. What somebody
// has decided about it stays: a key that was retired or revoked is not brought
// back by the keyring that it came with.
func (i *importer) enrol(ctx context.Context, address string, key *keys.Key) error {
	if slices.ContainsFunc(i.queue, func(q queuedKey) bool { return strings.EqualFold(q.key.Address, address) }) {
		if err := i.flush(ctx); err != nil { // the store must know of the other first
			return err
		}
	}
	rows, err := accountRows(ctx, i.st, address)
	if err != nil {
		return err
	}
	record := newRecord(address, 0, key, i.now)
	record.Action, record.Lifecycle = "added", string(i.state)
	state := i.state
	armored := key.Armored()
	isInUse := slices.ContainsFunc(rows, func(row enrolledRow) bool {
		return row.State == keys.KeyActive && holdsKey([]enrolledRow{row}, key.Fingerprint)
	})
	for _, row := range rows {
		at := slices.IndexFunc(row.keys, func(k *keys.Key) bool { return k.Fingerprint == key.Fingerprint })
		switch {
		case at < 0:
		case row.State == keys.KeyRetired && isInUse && row.Key != armored: // an older copy, which a rotation has left
		case row.Key == armored, row.State == keys.KeyRetired, row.State == keys.KeyRevoked, !isNewerCopy(key, row.keys[at]):
			i.unchanged++
			return nil
		case record.Action == "replaced" && row.State != keys.KeyActive: // what counts goes on to count
		default:
			record.Action, state = "replaced", row.State
			key = key.With(row.Options)
		}
	}
	enrolled := queuedKey{keys.NewKey{Address: address, Key: armored, Options: key.Options, State: state, Fingerprint: key.Fingerprint}, record}
	switch {
	case i.dryRun:
		if !i.plan(address, key, &record) {
			i.unchanged++
			return nil
		}
		return i.enrolled(record)
	case record.Action == "added":
		if i.queue = append(i.queue, enrolled); len(i.queue) < importBatch {
			return nil
		}
		return i.flush(ctx)
	}
	if err := i.addOne(ctx, enrolled); err != nil {
		return err
	}
	// Where somebody else has stored the copy meanwhile, it may not count.
	now, err := accountRows(ctx, i.st, address)
	if err != nil || !slices.ContainsFunc(now, func(r enrolledRow) bool { return r.Key == armored && r.State == state }) {
		return err
	}
	if rows, err = asBefore(ctx, i.st, address, rows); err != nil {
		return err
	}
	_, err = withdraw(ctx, i.st, rows, func(_ enrolledRow, old *keys.Key) bool { return old != nil && old.Fingerprint == key.Fingerprint })
	return err
}

// plan notes in a dry run that a key would be stored, so that the same key found
// once more is judged as if it had been. It says whether it would be stored.
func (i *importer) plan(address string, key *keys.Key, record *keyRecord) bool {
	name := strings.ToLower(address) + " " + key.Fingerprint
	switch earlier := i.planned[name]; {
	case earlier == nil:
	case !isNewerCopy(key, earlier):
		return false
	default:
		record.Action = "replaced"
	}
	if i.planned == nil {
		i.planned = make(map[string]*keys.Key)
	}
	i.planned[name] = &keys.Key{Signed: key.Signed, Expires: key.Expires, Algorithm: key.Algorithm, UserIDs: key.UserIDs}
	return true
}

// flush stores what is queued: all at once, and one by one where something
// stands against one of them.
func (i *importer) flush(ctx context.Context) error {
	queue := i.queue
	i.queue = nil
	if len(queue) == 0 {
		return nil
	}
	var all []keys.NewKey
	for _, q := range queue {
		all = append(all, q.key)
	}
	ids, err := i.st.AddKeys(ctx, all)
	if errors.Is(err, keys.ErrStore) {
		return err
	}
	for at, q := range queue {
		if err != nil {
			if err := i.addOne(ctx, q); err != nil {
				return err
			}
			continue
		}
		q.record.Row = ids[at]
		if err := i.enrolled(q.record); err != nil {
			return err
		}
	}
	return nil
}

// addOne stores one key. That somebody else has just done so is as well.
func (i *importer) addOne(ctx context.Context, q queuedKey) (err error) {
	q.record.Row, err = i.st.AddKey(ctx, q.key)
	switch {
	case enrolledAlready(err):
		i.unchanged++
		return nil
	case err != nil:
		return err
	}
	return i.enrolled(q.record)
}

// enrolled counts a key and says so.
func (i *importer) enrolled(record keyRecord) error {
	if record.Action == "replaced" {
		i.replaced++
	} else {
		i.added++
	}
	if i.dryRun {
		record.Action = "would be " + record.Action
	}
	i.progress.clear()
	return i.out.write(record)
}

// isNewerCopy says whether a copy of a key is newer than the one that is
// enrolled. What its holder has signed last is the last word: it may take a
// subkey back, or end the key earlier. Only where nothing was signed later it
// counts that the copy ends later, or has more addresses.
func isNewerCopy(key, enrolled *keys.Key) bool {
	switch {
	case !key.Signed.Equal(enrolled.Signed):
		return key.Signed.After(enrolled.Signed)
	case !key.Expires.Equal(enrolled.Expires):
		return key.Expires.IsZero() || !enrolled.Expires.IsZero() && key.Expires.After(enrolled.Expires)
	case key.Algorithm != enrolled.Algorithm:
		return true
	}
	return len(key.UserIDs) > len(enrolled.UserIDs)
}

func (i *importer) refuse(h handedText, address, fingerprint string, err error) {
	i.refused++
	i.tell("refused", h, address, fingerprint, err)
}

// tell writes a line of the report.
func (i *importer) tell(what string, h handedText, address, fingerprint string, err error) {
	word := string(keys.ReasonOf(err))
	if word == "" {
		word = "unreadable"
	}
	if i.report != nil {
		if what == "warning" {
			word = "warning-" + word
		}
		i.report.Write([]string{cell(h.file), h.place, cell(address), fingerprint, word, cell(err.Error())})
		return
	}
	i.progress.clear()
	place := h.file
	for _, more := range []string{h.place, address} {
		if more != "" {
			place += ", " + more
		}
	}
	complain(i.said, what+": ", fmt.Errorf("%s: %s: %w", place, word, err))
}

// cell makes what others have written harmless in a table: on a terminal, and in
// a program that takes it for a formula where it begins like one. That a quote
// stands before it is what those programs take for plain text.
func cell(text string) string {
	text = oneLine(text)
	if text != "" && strings.ContainsRune("=+-@", rune(text[0])) {
		return "'" + text
	}
	return text
}

// finish says what became of everything.
func (i *importer) finish(err error) error {
	i.progress.clear()
	if i.report != nil {
		i.report.Flush()
		if failed := i.report.Error(); failed != nil && err == nil {
			err = failure("writing the report: %w", failed)
		}
	}
	would := ""
	if i.dryRun {
		would = "nothing is stored; it would be: "
	}
	fmt.Fprintf(i.said, "%s%d added, %d replaced, %d unchanged, %d of other domains, %d refused\n", would, i.added, i.replaced, i.unchanged, i.passedOver, i.refused)
	if err = errors.Join(err, i.out.close()); err == nil && i.refused > 0 {
		return failure("%d keys were refused", i.refused)
	}
	return err
}

package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Recipient is what a store knows of one address. With no accounts, nobody
// is enrolled under it.
type Recipient struct {
	Address string // as it was asked
	Name    string // the name by which the store knows it, as "@example.org"; "" where it does not
	// Names are the mailbox' own, the closest first: the address with its
	// domain, and without its extension unless the store knows it with that.
	Names    []string
	Accounts []*Account
	// Unresolved says why nobody can tell who is meant: aliases that lead in a
	// circle. Such a recipient is deferred.
	Unresolved error
}

// Account is one mailbox owner behind an address.
type Account struct {
	Address string
	Known   bool   // false: an alias leads to this address, and nobody is enrolled under it
	KeysOf  string // the domain entry whose keys those are, "" where they are the account's own
	Enabled bool
	Method  Method // "" where the owner chose none
	Cipher  Cipher // AES256 where the owner chose none
	Options json.RawMessage
	Keys    []*Key
	Unread  []error // why enrolled keys could not be read, one for each row

	enrolled bool // there is a row with something for a key
}

// Lookup asks the store for all addresses in one query and parses the keys it
// answers with; only where an alias leads to what is known by a name that was
// not asked, there is a second query, or for aliases behind it a further one.
// The result has an entry for every address asked. An address that the store
// says nothing of is a failed lookup, never an absent key: the error wraps
// ErrStore. An address that cannot be read is one that the MTA may read in
// another way, so that nobody can say that it has no key: an error too. No
// error here names an address: the daemon logs them, and it logs addresses
// only where the site wants them.
func Lookup(ctx context.Context, store Store, naming Naming, addresses []string) (map[string]*Recipient, error) {
	canonical := make([]string, len(addresses))
	for i, address := range addresses {
		plain, ok := readAddress(address)
		if !ok {
			return nil, errors.New("looking recipients up: one of the addresses is none by RFC 5321, section 4.1.2")
		}
		canonical[i] = naming.complete(plain)
	}
	d := newDirectory(naming)
	found := make(map[string]*Recipient, len(addresses))
	for range maxQueries {
		for i, address := range addresses {
			found[address] = d.recipient(canonical[i])
			found[address].Address = address
		}
		if len(d.missing) == 0 {
			return found, nil
		}
		if err := d.ask(ctx, store); err != nil {
			return nil, fmt.Errorf("looking recipients up: %w", err)
		}
	}
	return nil, fmt.Errorf("looking recipients up: %w: aliases lead on and on, after %d queries", ErrStore, maxQueries)
}

// readAccounts reads the store's rows for one name.
func readAccounts(rows []Row) (accounts []*Account, err error) {
	byAddress := make(map[string]*Account)
	for _, row := range rows {
		if row.Account == "" && row.Key == "" {
			continue
		}
		if row.Account == "" { // a site's own function may leave it out; a key is never overlooked
			row.Account = row.Address
			row.Known = true
		}
		var ofKey json.RawMessage
		if row.Options, ofKey, err = splitOptions(row.Options); err != nil {
			return nil, err
		}
		chosen, err := newAccount(row)
		if err != nil {
			return nil, err
		}
		account := byAddress[row.Account]
		if account == nil {
			account = chosen
			byAddress[row.Account] = account
			accounts = append(accounts, account)
		}
		if account.Enabled != chosen.Enabled || account.Method != chosen.Method || account.Cipher != chosen.Cipher ||
			account.Known != chosen.Known || !bytes.Equal(account.Options, chosen.Options) {
			return nil, errors.New("its rows for one account differ in enabled, method, cipher or options")
		}
		if err := account.read(row.Key, ofKey); err != nil {
			return nil, err
		}
	}
	for _, account := range accounts {
		account.spreadRevocations()
	}
	return accounts, nil
}

// newAccount takes an account's choices from one of its rows. A choice that
// nobody knows is an answer that cannot be acted upon.
func newAccount(row Row) (*Account, error) {
	account := &Account{Address: row.Account, Known: row.Known, Enabled: row.Enabled || !row.Known,
		Method: row.Method, Cipher: row.Cipher, Options: row.Options}
	switch row.Cipher {
	case AES256, AES128:
	case "":
		account.Cipher = AES256
	default:
		return nil, fmt.Errorf("an account's cipher %q is neither %s nor %s", row.Cipher, AES256, AES128)
	}
	switch row.Method {
	case OpenPGP, SMIME, "":
		return account, nil
	}
	return nil, fmt.Errorf("an account's method %q is neither %s nor %s", row.Method, OpenPGP, SMIME)
}

// splitOptions takes those of a row's key out of the options of its account.
// What is left is written anew: the rows of one account are compared.
func splitOptions(options json.RawMessage) (account, key json.RawMessage, err error) {
	if len(options) == 0 {
		return nil, nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(options, &all); err != nil {
		return nil, nil, errors.New("the options of an account are no JSON object")
	}
	key = all[keyOptions]
	delete(all, keyOptions)
	if len(all) == 0 {
		return nil, key, nil
	}
	account, err = json.Marshal(all)
	return account, key, err
}

// keyStanding is what has become of a row's key, in the same object as its
// options: it is no choice, and what the site has written there as "State" is none
// of it. A site's own function that says nothing means an active key.
type keyStanding struct {
	State KeyState
	Since time.Time // of a revoked key
}

func readStanding(text json.RawMessage) (standing keyStanding, err error) {
	if len(text) > 0 {
		if err := readNamed(text, map[string]any{"state": &standing.State, "since": &standing.Since}); err != nil {
			return standing, errors.New("the state of a key is no text, or since is no time as RFC 3339 has it")
		}
	}
	switch standing.State {
	case KeyPending, KeyActive, KeyRetired, KeyRevoked, "":
		return standing, nil
	}
	return standing, fmt.Errorf("a key's state %q is none of %s, %s, %s and %s", standing.State, KeyPending, KeyActive, KeyRetired, KeyRevoked)
}

// read adds the keys of one row. A pending key is none yet. A retired one says
// no more than that the account is enrolled: what its owner had sealed must not
// come in the clear because a key has had its time.
func (a *Account) read(text string, ofKey json.RawMessage) error {
	options, err := ParseKeyOptions(ofKey)
	if err != nil {
		return err
	}
	standing, err := readStanding(ofKey)
	if err != nil || text == "" || standing.State == KeyPending {
		return err
	}
	a.enrolled = true
	if standing.State == KeyRetired {
		return nil
	}
	keys, err := Parse([]byte(text))
	if err != nil {
		a.Unread = append(a.Unread, fmt.Errorf("an enrolled key cannot be read: %w", err))
	}
	for _, key := range keys {
		if err := options.Check(key.Method); err != nil {
			return err
		}
		if standing.State == KeyRevoked {
			key = key.withdrawnSince(standing.Since)
		}
		a.Keys = append(a.Keys, key.With(options))
	}
	return nil
}

// withdrawnSince is the key as its administrator has revoked it. Where its
// holder has done so before, that is when nobody could seal to it any more.
func (k *Key) withdrawnSince(since time.Time) *Key {
	if k.withdrawn && !k.RevokedAt.IsZero() && (since.IsZero() || k.RevokedAt.Before(since)) {
		return k
	}
	revoked := *k
	revoked.withdrawn, revoked.RevokedAt = true, since
	return &revoked
}

// spreadRevocations: where a key is enrolled twice, before and after its
// holder revoked it, it is revoked. A row that nobody deleted must not keep
// such a key in use.
func (a *Account) spreadRevocations() {
	revoked := make(map[string]*Key)
	for _, key := range a.Keys {
		if key.withdrawn {
			revoked[key.Fingerprint] = key
		}
	}
	for i, key := range a.Keys {
		if newer := revoked[key.Fingerprint]; newer != nil {
			a.Keys[i] = newer.With(key.Options)
		}
	}
}

// Enrolled says whether the account has a key at all, readable or not.
func (a *Account) Enrolled() bool { return a.enrolled || len(a.Keys)+len(a.Unread) > 0 }

// State is the best state that one of the account's keys is in. An account
// that has none, or none that can be read, is Unusable.
func (a *Account) State(now time.Time) State {
	best := Unusable
	for _, key := range a.Keys {
		best = min(best, key.State(now))
	}
	return best
}

// RevokedAt is when the last of the account's revoked keys was withdrawn: from
// then on nobody could seal to it.
func (a *Account) RevokedAt() (last time.Time) {
	for _, key := range a.Keys {
		if key.RevokedAt.After(last) {
			last = key.RevokedAt
		}
	}
	return last
}

// best are the account's keys in its best state, by method; none where none can
// be sealed to.
func (a *Account) best(now time.Time) map[Method][]*Key {
	state := a.State(now)
	if state > Expired {
		return nil
	}
	use := make(map[Method][]*Key)
	for _, key := range a.Keys {
		if key.State(now) == state {
			use[key.Method] = append(use[key.Method], key)
		}
	}
	return use
}

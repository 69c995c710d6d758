package keys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Recipient is what a store knows of one address. With no accounts, nobody
// is enrolled under it.
type Recipient struct {
	Address  string // as it was asked
	Accounts []*Account
}

// Account is one mailbox owner behind an address.
type Account struct {
	Address string
	Enabled bool
	Method  Method // "" where the owner chose none
	Cipher  Cipher // AES256 where the owner chose none
	Keys    []*Key
	Unread  []error // why enrolled keys could not be read, one for each row

	enrolled bool // there is a row with something for a key
}

// Lookup asks the store for all addresses in one query and parses the keys it
// answers with. The result has an entry for every address asked. An address
// that the store says nothing of is a failed lookup, never an absent key: the
// error wraps ErrStore. An address that cannot be read is one that the MTA may
// read in another way, so that nobody can say that it has no key: an error
// too. No error here names an address: the daemon logs them, and it logs
// addresses only where the site wants them.
func Lookup(ctx context.Context, store Store, addresses []string) (map[string]*Recipient, error) {
	var asked []string
	spelled := make(map[string][]string, len(addresses)) // by what is asked for them
	for _, address := range addresses {
		canonical, ok := readAddress(address)
		if !ok {
			return nil, errors.New("looking recipients up: one of the addresses is none by RFC 5321, section 4.1.2")
		}
		if spelled[canonical] == nil {
			asked = append(asked, canonical)
		}
		spelled[canonical] = append(spelled[canonical], address)
	}
	rows, err := store.RecipientKeys(ctx, asked)
	if err != nil {
		return nil, fmt.Errorf("looking recipients up: %w", err)
	}
	answered := make(map[string][]Row, len(asked))
	for _, row := range rows {
		answered[row.Address] = append(answered[row.Address], row)
	}
	found := make(map[string]*Recipient, len(addresses))
	for _, canonical := range asked {
		accounts, err := readAccounts(answered[canonical])
		if err != nil {
			return nil, fmt.Errorf("looking recipients up: %w: %w", ErrStore, err)
		}
		for _, address := range spelled[canonical] {
			found[address] = &Recipient{Address: address, Accounts: accounts}
		}
	}
	return found, nil
}

// readAccounts reads the store's rows for one address.
func readAccounts(rows []Row) (accounts []*Account, err error) {
	if len(rows) == 0 {
		return nil, errors.New("its answer has no row for one of the addresses")
	}
	byAddress := make(map[string]*Account)
	for _, row := range rows {
		if row.Account == "" && row.Key == "" {
			continue
		}
		if row.Account == "" { // a site's own function may leave it out; a key is never overlooked
			row.Account = row.Address
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
		if account.Enabled != chosen.Enabled || account.Method != chosen.Method || account.Cipher != chosen.Cipher {
			return nil, errors.New("its rows for one account differ in enabled, method or cipher")
		}
		account.read(row.Key)
	}
	for _, account := range accounts {
		account.spreadRevocations()
	}
	return accounts, nil
}

// newAccount takes an account's choices from one of its rows. A choice that
// nobody knows is an answer that cannot be acted upon.
func newAccount(row Row) (*Account, error) {
	account := &Account{Address: row.Account, Enabled: row.Enabled, Method: row.Method, Cipher: row.Cipher}
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

// read adds the keys of one row.
func (a *Account) read(text string) {
	if text == "" {
		return
	}
	a.enrolled = true
	keys, err := Parse([]byte(text))
	if err != nil {
		a.Unread = append(a.Unread, fmt.Errorf("an enrolled key cannot be read: %w", err))
	}
	a.Keys = append(a.Keys, keys...)
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
			a.Keys[i] = newer
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

// SealTo settles how one message is sealed to all the accounts at the moment
// now: by which method, and to which keys. Of each account it takes the keys
// that are in its best state, so that an old key stays out of use while a newer
// one is valid. Where several methods serve all of them, the first account that
// has chosen decides, and OpenPGP where none has. The error says why there is
// no such method.
func SealTo(accounts []*Account, now time.Time) (Method, []*Key, error) {
	count := make(map[Method]int)
	keys := make(map[Method][]*Key)
	var choice Method
	for _, account := range accounts {
		use := account.best(now)
		if len(use) == 0 {
			return "", nil, errors.New("an account has no key that can be sealed to")
		}
		for method, of := range use {
			count[method]++
			keys[method] = append(keys[method], of...)
		}
		if choice == "" {
			choice = account.Method
		}
	}
	for _, method := range []Method{choice, OpenPGP, SMIME} {
		if count[method] > 0 && count[method] == len(accounts) {
			return method, keys[method], nil
		}
	}
	return "", nil, errors.New("some of the accounts have OpenPGP keys and some certificates, and one message is sealed by one method")
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

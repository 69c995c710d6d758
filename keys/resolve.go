package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxQueries bounds how often one lookup may ask the store. The first query
// has all names that the addresses themselves can have; a further one is for
// what aliases lead to.
const maxQueries = 8

// directory is what one lookup has heard from the store so far.
type directory struct {
	naming   Naming
	accounts map[string][]*Account // by the name asked; shared, and changed by nobody
	missing  map[string]bool       // names that would have to be known, and were not asked yet
}

func newDirectory(naming Naming) *directory {
	return &directory{naming, make(map[string][]*Account), make(map[string]bool)}
}

// ask asks the store for the missing names, and with them once more for those that
// it has asked for before: an alias and what it leads to may be changed together
// between two questions, and what was true of the one before and of the other
// after was never true of both.
func (d *directory) ask(ctx context.Context, store Store) error {
	for name := range d.accounts {
		d.missing[name] = true
	}
	names := slices.Sorted(maps.Keys(d.missing))
	ask := func() (map[string][]*Account, error) { return accountsOf(ctx, store, names) }
	if cache, ok := store.(*Cache); ok {
		ask = func() (map[string][]*Account, error) { return cache.accounts(ctx, names) }
	}
	answer, err := ask()
	if err != nil {
		return err
	}
	maps.Copy(d.accounts, answer)
	clear(d.missing)
	return nil
}

// accountsOf asks a store for names and reads its answer, which has an entry
// for each of them.
func accountsOf(ctx context.Context, store Store, names []string) (map[string][]*Account, error) {
	answer, err := store.RecipientKeys(ctx, names)
	if err != nil {
		return nil, err
	}
	rows := make(map[string][]Row, len(names))
	for _, row := range answer {
		rows[row.Address] = append(rows[row.Address], row)
	}
	accounts := make(map[string][]*Account, len(names))
	for _, name := range names {
		if rows[name] == nil {
			return nil, fmt.Errorf("%w: its answer has no row for one of the addresses", errAnswer)
		}
		if accounts[name], err = readAccounts(rows[name]); err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	return accounts, nil
}

// errAnswer: the store has answered, and of one of the names nobody can tell what
// the answer means. For other names it may be as good as any.
var errAnswer = fmt.Errorf("%w as it should", ErrStore)

// entry is what the store says of a name. It is not ok where that is not known
// yet; the name is asked for then.
func (d *directory) entry(name string) (accounts []*Account, ok bool) {
	accounts, ok = d.accounts[name]
	if !ok {
		d.missing[name] = true
	}
	return accounts, ok
}

// recipient resolves one address, with what is known so far.
func (d *directory) recipient(canonical string) *Recipient {
	w := walk{directory: d, under: make(map[string]bool), meantBy: make(map[string][]*Account)}
	name, accounts, err := w.meant(canonical)
	if w.circle { // who is in it cannot be told, and may have a key
		err = errCircle
	}
	slices.SortStableFunc(accounts, func(a, b *Account) int { return strings.Compare(a.Address, b.Address) })
	return &Recipient{Name: name, Names: w.naming.names(canonical, name), Accounts: accounts, Unresolved: err}
}

// errCircle: there is no end where mail could arrive.
var errCircle = errors.New("the aliases of the address lead in a circle")

// walk follows one address through the aliases.
type walk struct {
	*directory
	under   map[string]bool       // addresses that are being followed
	meantBy map[string][]*Account // those that were
	circle  bool
}

// meant is whom an address stands for: the first of its candidates that leads
// to anybody decides. It returns that candidate's name and the accounts. The
// error is errCircle where the address is being followed already.
func (w *walk) meant(canonical string) (name string, accounts []*Account, err error) {
	if w.under[canonical] {
		w.circle = true
		return "", nil, errCircle
	}
	if known, ok := w.meantBy[canonical]; ok {
		return "", known, nil
	}
	w.under[canonical] = true
	name, accounts = w.firstOf(canonical, w.naming.candidates(canonical))
	delete(w.under, canonical)
	w.meantBy[canonical] = accounts
	return name, accounts, nil
}

// firstOf asks for all candidates at once and takes the first.
func (w *walk) firstOf(canonical string, candidates [][]string) (string, []*Account) {
	complete := true
	for _, name := range slices.Concat(candidates...) {
		_, ok := w.entry(name)
		complete = complete && ok
	}
	if !complete {
		return "", nil
	}
	for _, spellings := range candidates {
		name, accounts := w.bestOf(canonical, spellings)
		// What comes after a circle is for who has no entry.
		if len(accounts) > 0 || w.circle {
			return name, accounts
		}
	}
	return "", nil
}

// bestOf takes the first spelling of one name that leads to anybody. Where that is
// an account without a key of its own, an account that has been entered under
// another spelling comes before it, the one with a key of its own first: that a
// name has been entered once more, as for a key that is still pending, must not
// hide the key that it has. An alias decides for its own spelling alone: those it
// leads to have nothing to do with the others.
func (w *walk) bestOf(canonical string, spellings []string) (name string, best []*Account) {
	for _, spelling := range spellings {
		entry, _ := w.entry(spelling) // all are known
		if len(best) > 0 && !isOwn(spelling, entry) {
			continue
		}
		accounts := w.ends(spelling, canonical, entry)
		if len(accounts) == 0 && w.circle {
			return "", nil
		}
		if len(accounts) > 0 && (len(best) == 0 || standing(accounts) > standing(best)) {
			name, best = spelling, accounts
		}
		if len(best) > 0 && (!isOwn(spelling, entry) || standing(best) == 2) {
			break
		}
	}
	return name, best
}

// isOwn says whether a name is that of an account, and no alias.
func isOwn(name string, entry []*Account) bool {
	return len(entry) > 0 && !slices.ContainsFunc(entry, func(a *Account) bool { return !a.Known || !strings.EqualFold(a.Address, name) })
}

// standing is 2 where one of the accounts has a key of its own, 1 where one has
// its domain's, and else 0.
func standing(accounts []*Account) (most int) {
	for _, account := range accounts {
		switch {
		case account.Enrolled() && account.KeysOf == "":
			return 2
		case account.Enrolled():
			most = 1
		}
	}
	return most
}

// ends are the accounts that a name leads to in the end.
func (w *walk) ends(name, canonical string, entry []*Account) (ends []*Account) {
	for _, account := range entry {
		for _, end := range w.end(name, canonical, account) {
			if !slices.ContainsFunc(ends, func(other *Account) bool { return other.Address == end.Address && other.KeysOf == end.KeysOf }) {
				ends = append(ends, end)
			}
		}
	}
	return ends
}

// end follows one way out of a name.
func (w *walk) end(name, canonical string, account *Account) []*Account {
	local, _ := splitAddress(canonical)
	own := strings.EqualFold(account.Address, name)
	switch {
	case isCircle(account):
		w.circle = true
		return nil
	case own && !w.naming.isOneName(account.Address, name):
		return nil
	case strings.HasPrefix(account.Address, "@") && !own && local != "": // the same local part there
		_, accounts, _ := w.meant(Entered(local + account.Address))
		return accounts
	case strings.HasPrefix(name, "@") && Entered(account.Address) == canonical: // a catch-all's own target
	case !account.Known && !own:
		if _, accounts, err := w.meant(Entered(account.Address)); len(accounts) > 0 || err != nil {
			return accounts
		}
	}
	return []*Account{w.withDomainKeys(account)}
}

// withDomainKeys gives an account that has no key of its own those of its
// domain, if that has any.
func (w *walk) withDomainKeys(account *Account) *Account {
	_, domain := splitAddress(Entered(account.Address))
	if account.Enrolled() || !account.Enabled || domain == "" || strings.HasPrefix(account.Address, "@") {
		return account
	}
	for _, name := range w.naming.spellings("", domain) {
		entry, _ := w.entry(name)
		for _, whole := range entry {
			if strings.EqualFold(whole.Address, name) && whole.Enrolled() {
				lent := *whole
				lent.Address, lent.KeysOf, lent.Options = account.Address, whole.Address, account.Options
				return &lent
			}
		}
	}
	return account
}

// isCircle says whether the store found aliases that lead in a circle.
func isCircle(account *Account) bool {
	if account.Known || len(account.Options) == 0 {
		return false
	}
	var said struct {
		Circle bool `json:"circle"`
	}
	return json.Unmarshal(account.Options, &said) == nil && said.Circle
}

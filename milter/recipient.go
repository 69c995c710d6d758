package milter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope/detect"
	"sealmilter/policy"
)

// recipient is one recipient and what may become of its copy.
type recipient struct {
	address  string   // as the sender wrote it, without angle brackets
	args     []string // ESMTP arguments
	resolved string   // as the MTA understood it, "" where it does not say
	accounts []*keys.Account
	facts    policy.Facts
	ways     []*way // what can still be decided; one where nothing to come changes it
}

// way is a decision that can come about and, where it seals, how.
type way struct {
	policy.Decision
	form keys.Form
	to   []*keys.Key
}

func (w *way) seals() bool { return w.Outcome == policy.Seal || w.Outcome == policy.Global }

// settled is the decision, nil where what is still to come may change it.
func (r *recipient) settled() *way {
	if len(r.ways) == 1 {
		return r.ways[0]
	}
	return nil
}

// passes says whether it is settled that the recipient gets the message as it
// is.
func (r *recipient) passes() bool { return r.settled() != nil && r.settled().Outcome == policy.Pass }

// mailbox is what tells recipients apart: Sendmail takes two RCPT commands that
// it resolves to one mailbox for one recipient, and deletes both with one. Where
// Ann and ann are two mailboxes each has a copy, as it has without the filter.
func (r *recipient) mailbox(naming keys.Naming) string {
	address := r.resolved
	if address == "" {
		address = r.address
	}
	return folded(address, naming)
}

// maySeal says whether the message may have to be sealed for the recipient.
func (r *recipient) maySeal() bool {
	return slices.ContainsFunc(r.ways, (*way).seals)
}

// names are the addresses under which the recipient is looked up. A sender can
// write one mailbox in many ways (ann, ann%example.org, example.org!ann), and
// which of them are one only the MTA's configuration says: it tells by the
// macro {rcpt_addr} what it made of the address. Where it does not tell, an
// address that it may understand in another way than we do cannot be decided.
//
// An address within the local part is one of them: Postfix looks a mailbox up
// without its domain too where that is $myorigin, so that virtual(8) delivers
// "ann@example.org"@example.org to ann.
func (r *recipient) names(naming keys.Naming) ([]string, error) {
	switch {
	case r.resolved != "" && !keys.Readable(r.address): // the MTA is more lenient than we are
		return within(r.resolved), nil
	case r.resolved != "" && r.resolved != r.address:
		return append(within(r.resolved), r.address), nil
	}
	local, _, hasDomain := strings.Cut(r.address, "@")
	if r.resolved == "" && (!hasDomain && naming.Domain == "" || strings.ContainsAny(local, "%!")) {
		return nil, errors.New("the address may mean another one, and the MTA does not say what it made of it: let it send the macro {rcpt_addr}")
	}
	return within(r.address), nil
}

// within is an address, and those that its local part is.
func within(address string) []string {
	all := []string{address}
	local := keys.Canonical(address)
	for {
		at := strings.LastIndexByte(local, '@')
		if at < 0 || !strings.Contains(local[:at], "@") {
			return all
		}
		local = local[:at]
		all = append(all, local)
	}
}

// meet takes what the store says of the recipient by its names. The first that
// leads to a key counts, or to an account: nobody escapes sealing by writing an
// address oddly. The error says why nobody can tell what is to become of it.
func (r *recipient) meet(found map[string]*keys.Recipient, names []string, naming keys.Naming, now time.Time) error {
	var all []string
	best := 0
	for _, name := range names {
		var facts policy.Facts
		if err := facts.Look(found[name], now); err != nil {
			return err
		}
		if name == r.resolved || !r.routed() {
			all = append(all, facts.Names...)
		}
		worth := 1
		switch {
		case facts.Key != policy.NoKey:
			worth = 3
		case len(found[name].Accounts) > 0:
			worth = 2
		}
		if worth > best {
			best = worth
			r.accounts = found[name].Accounts
			r.facts.Key, r.facts.RevokedFor, r.facts.Enabled = facts.Key, facts.RevokedFor, facts.Enabled
			r.facts.Account, r.facts.LeftToSite, r.facts.Members = facts.Account, facts.LeftToSite, facts.Members
		}
	}
	r.facts.Names = all
	if r.facts.Key == policy.NoKey && r.resolved != "" && !strings.Contains(r.resolved, "@") && naming.Domain == "" {
		// Sendmail's local mailer makes "ann" of every spelling of hers.
		return errors.New("the MTA says that the recipient is a user of its own and not in which domain, and may have a key there: name the domain with domain under [recipients]")
	}
	return nil
}

// routed says whether the sender's spelling is one that the MTA has turned into
// another: then the domain in it is not the recipient's, and no rule knows it.
func (r *recipient) routed() bool {
	local := r.address[:max(0, strings.LastIndexByte(r.address, '@'))]
	return r.resolved != "" && strings.ContainsAny(local, "%!@")
}

// weigh lists what can be decided with what is known now.
func (r *recipient) weigh(p policy.Policy, now time.Time) error {
	r.ways = nil
	for _, decision := range p.Possible(r.facts) {
		w := &way{Decision: decision}
		if w.seals() {
			if err := w.prepare(p, r, now); err != nil {
				return err
			}
		}
		r.ways = append(r.ways, w)
	}
	return nil
}

// prepare settles how the message would be sealed.
func (w *way) prepare(p policy.Policy, r *recipient, now time.Time) (err error) {
	w.form, w.to, err = keys.SealTo(p.Readers(w.Decision, r.accounts, now), now)
	if err != nil {
		return fmt.Errorf("choosing what to seal to: %w", err)
	}
	w.form.Protection = p.Protection(r.facts)
	return nil
}

// came notes whether the message came sealed to whom it would be sealed to.
// That the site could read it too is not asked for.
func (r *recipient) came(sealed detect.Found, p policy.Policy, hidden bool, now time.Time) {
	own := slices.DeleteFunc(p.Readers(policy.Decision{Outcome: policy.Seal}, r.accounts, now), policy.IsSite)
	r.facts.Sealed = sealed.SealedTo(own, hidden)
	if len(p.GlobalKeys) > 0 {
		r.facts.SealedGlobal = sealed.SealedTo(p.Readers(policy.Decision{Outcome: policy.Global}, r.accounts, now), hidden)
	}
}

// unread says why keys of the recipient cannot be read.
func (r *recipient) unread() (unread []error) {
	for _, account := range r.accounts {
		unread = append(unread, account.Unread...)
	}
	return unread
}

// because puts causes behind a reason, on one line.
func because(causes []error) string {
	var text strings.Builder
	for _, cause := range causes {
		text.WriteString("; " + cause.Error())
	}
	return text.String()
}

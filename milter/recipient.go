package milter

import (
	"errors"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/policy"
)

// recipient is one recipient and what was decided for it.
type recipient struct {
	address  string // as the sender wrote it, without angle brackets
	resolved string // as the MTA understood it, "" where it does not say
	accounts []*keys.Account
	decision policy.Decision
}

// names are the addresses under which the recipient is looked up. A sender can
// write one mailbox in many ways (ann, ann%example.org, example.org!ann), and
// which of them are one only the MTA's configuration says: it tells by the
// macro {rcpt_addr} what it made of the address. Where it does not tell, an
// address that it may understand in another way than we do cannot be decided.
func (r *recipient) names() ([]string, error) {
	switch {
	case r.resolved != "" && !keys.Readable(r.address): // the MTA is more lenient than we are
		return []string{r.resolved}, nil
	case r.resolved != "" && r.resolved != r.address:
		return []string{r.resolved, r.address}, nil
	}
	local, _, hasDomain := strings.Cut(r.address, "@")
	if r.resolved == "" && (!hasDomain || strings.ContainsAny(local, "%!")) {
		return nil, errors.New("the address may mean another one, and the MTA does not say what it made of it: let it send the macro {rcpt_addr}")
	}
	return []string{r.address}, nil
}

// decide decides by what was found under the names. Where one of them is due
// for sealing, that counts: nobody escapes it by writing an address oddly.
func (r *recipient) decide(p policy.Policy, names []string, found map[string]*keys.Recipient, now time.Time) {
	for i, name := range names {
		decision := p.DecideRecipient(found[name], now)
		if i == 0 || decision.Outcome == policy.Defer || r.decision.Outcome == policy.Pass {
			r.decision, r.accounts = decision, found[name].Accounts
		}
		if decision.Outcome == policy.Defer {
			return
		}
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

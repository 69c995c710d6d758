package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/milter/envelope/detect"
	"sealmilter/policy"
)

// question is a message for which the commands ask what the daemon would do.
type question struct {
	facts policy.Facts // of the message; those of the recipient are filled in
	came  func(readers []*keys.Account) bool
}

// The message of those who ask without one: from somebody whom no rule knows,
// by a client in a network that nobody has (RFC 5737), and of usual size.
const (
	strangerSender = "stranger@sender.invalid"
	strangerSize   = 10 << 10
)

var strangerClient = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// ordinaryMail is that message. It came unsealed, and by the first listener.
func ordinaryMail(cfg Config) question {
	return question{
		facts: policy.Facts{Sender: strangerSender, Client: strangerClient, Listener: cfg.Milter.Listen[0], Size: strangerSize},
		came:  func([]*keys.Account) bool { return false },
	}
}

// show puts a message into the question as the daemon is shown it.
func (q *question) show(header []envelope.Field, body io.Reader, hidden bool) error {
	q.showHeader(header)
	detector := detect.New(header)
	size, err := copyBody(detector, body)
	q.showBody(size, detector.Finish(), hidden)
	return err
}

// showHeader puts a header into the question.
func (q *question) showHeader(header []envelope.Field) {
	q.facts.Header, q.facts.Size = nil, 0
	for _, f := range header {
		q.facts.Header = append(q.facts.Header, policy.Field{Name: f.Name, Value: f.Value})
		q.facts.Size += int64(len(f.Name) + len(":") + len(f.Value) + strings.Count(f.Value, "\n") + len("\r\n"))
	}
}

// showBody puts the size of the body that belongs to the header into the
// question, and to whom it came sealed.
func (q *question) showBody(size int64, found detect.Found, hidden bool) {
	q.facts.Size += size
	q.came = func(readers []*keys.Account) bool { return found.SealedTo(readers, hidden) }
}

// verdict is what becomes of a message for one recipient.
type verdict struct {
	to       string
	naming   keys.Naming
	found    *keys.Recipient // without accounts where the lookup failed
	facts    policy.Facts
	decision policy.Decision
	failed   error // why the store's word was not to be had

	// Where it is sealed:
	readers []*keys.Account
	form    keys.Form
	keys    []*keys.Key
}

func (v *verdict) seals() bool {
	return v.decision.Outcome == policy.Seal || v.decision.Outcome == policy.Global
}

// decide looks one recipient up and decides as the daemon does.
func decide(ctx context.Context, st keys.Store, cfg Config, q question, to string, now time.Time) *verdict {
	p := cfg.policy
	v := &verdict{to: to, naming: cfg.naming(), found: &keys.Recipient{Address: to}, facts: q.facts}
	v.facts.Names = []string{keys.Canonical(to)}
	v.facts.Enabled = true
	found, err := keys.Lookup(ctx, st, v.naming, []string{to})
	if err == nil {
		v.found = found[to]
		err = v.facts.Look(v.found, now)
	} else if p.Enable { // else the daemon does not ask
		v.failed = err
	}
	own := slices.DeleteFunc(p.Readers(policy.Decision{Outcome: policy.Seal}, v.found.Accounts, now), policy.IsSite)
	v.facts.Sealed = q.came(own)
	if len(p.GlobalKeys) > 0 {
		v.facts.SealedGlobal = q.came(p.Readers(policy.Decision{Outcome: policy.Global}, v.found.Accounts, now))
	}
	v.decision = p.Decide(v.facts)
	if err != nil && p.Enable {
		v.decision.Reason = err.Error()
		return v
	}
	v.prepare(p, now)
	return v
}

// prepare settles how the message is sealed. The daemon wants to know so before
// it has seen the message: where one of the decisions that are possible then
// would seal and cannot, it defers.
func (v *verdict) prepare(p policy.Policy, now time.Time) {
	facts := v.facts
	facts.Stage = policy.AtRecipient
	for _, d := range p.Possible(facts) {
		if _, _, err := keys.SealTo(p.Readers(d, v.found.Accounts, now), now); err != nil && (d.Outcome == policy.Seal || d.Outcome == policy.Global) {
			v.decision = policy.Decision{Outcome: policy.Defer, Reason: "choosing what to seal to: " + err.Error(), Rule: d.Rule}
			return
		}
	}
	if v.seals() {
		v.readers = p.Readers(v.decision, v.found.Accounts, now)
		v.form, v.keys, _ = keys.SealTo(v.readers, now) // one of those above
		v.form.Protection = p.Protection(v.facts)
	}
}

// reader is the account that a key of the verdict belongs to.
func (v *verdict) reader(key *keys.Key) *keys.Account {
	at := slices.IndexFunc(v.readers, func(a *keys.Account) bool { return slices.Contains(a.Keys, key) })
	return v.readers[at]
}

// unread says why keys that are enrolled cannot be read.
func (v *verdict) unread() (all []error) {
	for _, account := range v.found.Accounts {
		all = append(all, account.Unread...)
	}
	return all
}

// The ways in which an address leads to whom it means.
const (
	byExtension = "extension" // by what stands before the delimiter
	byDomain    = "domain"    // by the entry of its domain
	byAlias     = "alias"
	byAccount   = "account"
	byGlobal    = "global" // the site, in place of a key of the recipient's own
)

// meant says how the address leads to those accounts, way after way. It is
// empty where nobody is enrolled under it.
func (v *verdict) meant() (ways []string) {
	name := v.found.Name
	switch local, _, _ := strings.Cut(name, "@"); {
	case name == "":
	case local == "":
		ways = append(ways, byDomain)
	case len(local) < strings.LastIndexByte(keys.Canonical(v.to), '@') && v.naming.Delimiter != "" && v.isExtended(local):
		ways = append(ways, byExtension)
	}
	switch accounts := v.found.Accounts; {
	case len(accounts) == 1 && strings.EqualFold(keys.Canonical(accounts[0].Address), keys.Canonical(name)):
		if len(ways) == 0 || ways[0] != byDomain {
			ways = append(ways, byAccount)
		}
	case len(accounts) > 0:
		ways = append(ways, byAlias)
	}
	for _, account := range v.found.Accounts {
		if account.KeysOf != "" && !slices.Contains(ways, byDomain) {
			ways = append(ways, byDomain)
		}
	}
	if v.decision.Outcome == policy.Global {
		ways = append(ways, byGlobal)
	}
	return ways
}

// isExtended says whether the address is a local part with something behind a
// delimiter.
func (v *verdict) isExtended(local string) bool {
	address := keys.Canonical(v.to)
	return strings.ContainsRune(v.naming.Delimiter, rune(address[len(local)]))
}

// exit is the error of a command that has asked for the verdict: the store's,
// if that is why the message is deferred.
func (v *verdict) exit() error {
	switch {
	case v.failed == nil:
		return nil
	case errors.Is(v.failed, keys.ErrStore):
		return v.failed
	}
	return tryAgain("%w", v.failed)
}

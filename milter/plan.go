package milter

import (
	"crypto/ecdsa"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// Split is what becomes of recipients who cannot share one copy of a message.
type Split int

// The ways to split.
const (
	// SplitDefer asks for them in transactions of their own: 452 at RCPT makes
	// the sender keep them (RFC 5321, section 4.5.3.1.10).
	SplitDefer Split = iota
	// SplitReinject takes them all, and hands the copies that cannot stay in
	// the transaction to another service of the MTA.
	SplitReinject
	// SplitRefuse refuses all but the first for good.
	SplitRefuse
)

// Separate says who gets a copy of their own, since whoever shares one can see
// from its key packets who the others are.
type Separate int

// The choices.
const (
	// SeparateUndisclosed: all who are not named in To or Cc.
	SeparateUndisclosed Separate = iota
	// SeparateAlways: everybody.
	SeparateAlways
	// SeparateNever: nobody but for whom the message is encrypted differently.
	SeparateNever
)

// group are recipients who share one copy.
type group struct {
	recipients []*recipient
	way        *way // of the first; the others' differ only in their keys
	to         []*keys.Key
	sealed     *envelope.Copy // nil for the copy that is left as it came
}

// plan says which recipients share which copy.
type plan struct {
	stays group        // what becomes of this transaction; without a way where nobody is left in it
	leave []group      // what is handed to another
	had   []*recipient // who have had their copy by an earlier attempt
}

// has says whether a recipient is one of the message's already.
func (m *message) has(r *recipient) bool {
	return slices.ContainsFunc(m.recipients, func(other *recipient) bool {
		return other.address == r.address && other.resolved == r.resolved
	})
}

// admits says whether one more recipient can share the transaction.
//
// Without re-injection a message that may be sealed goes to one recipient, and
// those whose copy stays as it is go together. With it all go together, but for
// local submission, where Postfix's cleanup shows addresses as it has rewritten
// them and deletes them by what stood there before, which nobody is shown; for
// those for whom the whole message may still be refused or deferred, which
// cannot be said for one of several; and for those whose address may not be found
// again where it is to be deleted. All of it needs an MTA that is known to delete
// recipients, see macroDeletes: where it silently does not, somebody would be
// delivered another's copy too, in the clear or with another's key ids.
func (m *message) admits(r *recipient) bool {
	return !slices.ContainsFunc(m.recipients, func(other *recipient) bool {
		return !m.mayShare(r, other)
	})
}

func (m *message) mayShare(a, b *recipient) bool {
	switch {
	case a.passes() && b.passes():
		return true
	case m.settings.Split != SplitReinject, m.local, a.mayBeRefused(), b.mayBeRefused(), !a.maySplit(), !b.maySplit():
		return false
	}
	return m.deletes
}

// maySplit says whether the recipient need not leave the transaction, or can.
func (r *recipient) maySplit() bool { return !r.maySeal() || r.isDeletable() }

// isDeletable says whether the MTA reads the address as it stands when it is
// told to delete it. Of a source route Postfix remembers the mailbox alone and
// does not take the route off when it deletes: it finds nobody, says nothing,
// and delivers the copy that stays. What it does to comments, quotes and white
// space is not relied on either.
func (r *recipient) isDeletable() bool {
	local, domain, hasDomain := strings.Cut(r.address, "@")
	return isDotAtom(local) && (!hasDomain || isDotAtom(domain))
}

// isDotAtom knows RFC 5322, section 3.2.3, with what RFC 6532 adds to it.
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return r <= ' ' || r == 0x7F || strings.ContainsRune(`()<>[]:;@\,"`, r) }) {
			return false
		}
	}
	return true
}

// mayBeRefused says whether the end of the message may bring a refusal.
func (r *recipient) mayBeRefused() bool {
	return slices.ContainsFunc(r.ways, func(w *way) bool { return w.Outcome == policy.Defer || w.Outcome == policy.Reject })
}

// plan groups the recipients, all of whom are settled. The copy that is left as
// it came stays in the transaction, or else the one that the most share.
func (m *message) plan() plan {
	var p plan
	var groups []group
	for _, same := range m.mailboxes() {
		// One copy serves a mailbox that was named twice, and the sealed one if
		// its spellings lead to different decisions.
		r := same[0]
		if m.sent[r.mailbox(m.settings.Naming)] {
			p.had = append(p.had, same...)
			continue
		}
		if i := slices.IndexFunc(same, func(r *recipient) bool { return r.settled().seals() }); i >= 0 {
			r = same[i]
		}
		if w := r.settled(); w.seals() {
			groups = m.join(groups, r, w)
		} else {
			p.stays.recipients = append(p.stays.recipients, r)
			p.stays.way = w
		}
	}
	if p.stays.way == nil && len(groups) > 0 {
		largest := 0
		for i := range groups {
			if len(groups[i].recipients) > len(groups[largest].recipients) {
				largest = i
			}
		}
		p.stays = groups[largest]
		groups = slices.Delete(groups, largest, largest+1)
	}
	p.leave = groups
	return p
}

// mailboxes are the recipients, those together that are one mailbox.
func (m *message) mailboxes() (all [][]*recipient) {
	at := make(map[string]int)
	for _, r := range m.recipients {
		i, known := at[r.mailbox(m.settings.Naming)]
		if !known {
			i = len(all)
			at[r.mailbox(m.settings.Naming)] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], r)
	}
	return all
}

// leaving are the addresses that leave the transaction, in every spelling that
// the sender used, byte for byte.
func (m *message) leaving(p plan) (addresses []string) {
	gone := make(map[string]bool)
	for _, g := range append(p.leave, group{recipients: p.had}) {
		for _, r := range g.recipients {
			gone[r.mailbox(m.settings.Naming)] = true
		}
	}
	for _, r := range m.recipients {
		if gone[r.mailbox(m.settings.Naming)] && !slices.Contains(addresses, r.address) {
			addresses = append(addresses, r.address)
		}
	}
	return addresses
}

// join adds a recipient to the group that it may share a copy with.
func (m *message) join(groups []group, r *recipient, w *way) []group {
	alone := m.settings.Separate == SeparateAlways || m.settings.Separate == SeparateUndisclosed && !m.isDisclosed(r)
	if !alone {
		for i := range groups {
			first := groups[i].recipients[0]
			open := m.settings.Separate == SeparateNever || m.isDisclosed(first)
			// Whose mail the site reads does not make it a reader of another's.
			alike := groups[i].way.Outcome == w.Outcome && groups[i].way.form == w.form && hasCurve(groups[i].to) == hasCurve(w.to)
			if open && alike {
				groups[i].recipients = append(groups[i].recipients, r)
				groups[i].to = append(groups[i].to, w.to...)
				return groups
			}
		}
	}
	return append(groups, group{recipients: []*recipient{r}, way: w, to: slices.Clone(w.to)})
}

// hasCurve says whether some of the keys are on curves, in certificates. NSS 3.87
// rejects a message that has such a reader, for the others too, so that they
// get a copy of their own.
func hasCurve(to []*keys.Key) bool {
	return slices.ContainsFunc(to, func(k *keys.Key) bool {
		return slices.ContainsFunc(k.Certificates(time.Now()), func(c *x509.Certificate) bool {
			_, ec := c.PublicKey.(*ecdsa.PublicKey)
			return ec
		})
	})
}

// isDisclosed says whether the header names a recipient to all readers, and the
// accounts behind an alias or a group too: key packets name those.
func (m *message) isDisclosed(r *recipient) bool {
	if m.disclosed == nil {
		m.disclosed = make(map[string]bool)
		for _, f := range m.header {
			if strings.EqualFold(f.Name, "To") || strings.EqualFold(f.Name, "Cc") {
				m.disclose(f.Value)
			}
		}
	}
	if !m.disclosed[m.folded(r.address)] && (r.resolved == "" || !m.disclosed[m.folded(r.resolved)]) {
		return false
	}
	return !slices.ContainsFunc(r.facts.Members, func(member string) bool {
		isMember := func(name string) bool { return m.folded(name) == m.folded(member) }
		return !m.disclosed[m.folded(member)] && !slices.ContainsFunc(r.facts.Names, isMember)
	})
}

// disclose takes every address out of a field. What stands in a comment or in a
// display name is shown to the reader just as well.
func (m *message) disclose(value string) {
	for _, word := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\r\n<>,;:()[]", r) }) {
		if strings.Contains(word, "@") {
			m.disclosed[m.folded(word)] = true
		}
	}
}

func (m *message) folded(address string) string { return folded(address, m.settings.Naming) }

// folded is an address in the form in which two are compared.
func folded(address string, naming keys.Naming) string {
	if naming.CaseSensitive {
		return keys.Canonical(address)
	}
	return strings.ToLower(keys.Canonical(address))
}

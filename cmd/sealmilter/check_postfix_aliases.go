package main

import (
	"context"
	"slices"
	"strings"
)

// Where aliases are expanded decides whose keys a message is sealed to. There
// are two ways that work, and contrib/postfix has both: the filter first, and
// the store knows the aliases; or the aliases first, and a second smtpd, which
// expands nothing any more, has the filter.

// topology says which of the two a service with sealmilter belongs to.
func (p *postfixCheck) topology(ctx context.Context, s *postfixService) {
	var expanding, handing []string
	for _, front := range p.fronts(ctx, s) {
		if p.expands(front) {
			expanding = append(expanding, front.name)
			p.handover(front)
		}
		handing = append(handing, front.name)
	}
	switch {
	case slices.Contains(handing, s.name):
		p.wrong("postfix: %s: content_filter = %s hands its mail to itself, round and round; set -o content_filter= there", s.name, p.conf.value(s, "content_filter"))
	case p.expands(s) && len(expanding) > 0:
		p.warning("postfix: %s: aliases are expanded here although they were in front (%s), and automatic copies made twice; set -o receive_override_options=no_address_mappings here", s.name, strings.Join(expanding, ", "))
	case p.expands(s):
		p.ok("postfix: %s: filter first: sealmilter sees addresses as the sender wrote them, and aliases are expanded behind it", s.name)
		p.behind(s)
	case len(expanding) > 0:
		p.ok("postfix: %s: aliases first: %s expand them, and sealmilter sees the addresses that mail is delivered to", s.name, strings.Join(expanding, ", "))
	case len(handing) == 0 && p.handedOn && onLoopback(s):
		p.ok("postfix: %s: aliases first: they are expanded in front of the filter that hands mail back here", s.name)
	default:
		p.warning("postfix: %s: receive_override_options=no_address_mappings, and nothing in front expands aliases either: they lead nowhere, and automatic copies are not made", s.name)
	}
}

// expands says whether what a service takes has its aliases expanded by the
// cleanup behind it. With smtpd_proxy_filter there is none.
func (p *postfixCheck) expands(s *postfixService) bool {
	return !contains(p.conf.value(s, "receive_override_options"), "no_address_mappings") && (s.program != "smtpd" || p.conf.value(s, "smtpd_proxy_filter") == "")
}

// fronts lists the services whose content_filter leads to a service.
func (p *postfixCheck) fronts(ctx context.Context, s *postfixService) (found []*postfixService) {
	for _, program := range []string{"smtpd", "pickup", "qmqpd"} {
		for _, front := range p.conf.running(program) {
			if _, address := splitFilter(p.conf.value(front, "content_filter")); address != "" && s.listensAt(ctx, address) {
				found = append(found, front)
			}
		}
	}
	return found
}

// handover looks at the transport that takes mail from the first smtpd to the
// second.
func (p *postfixCheck) handover(front *postfixService) {
	filter := p.conf.value(front, "content_filter")
	name, _ := splitFilter(filter)
	transport := p.conf.service(name + "/unix")
	if transport == nil {
		p.once(p.wrong, "postfix: content_filter = %s: master.cf has no service %s: mail is deferred", filter, name)
		return
	}
	if relay := p.conf.value(transport, "smtp_fallback_relay"); relay != "" && transport.program == "smtp" {
		p.once(p.wrong, "postfix: %s: smtp_fallback_relay = %s: while sealmilter is away mail goes there unsealed; set -o smtp_fallback_relay= here", transport.name, relay)
	}
	limit := name + "_destination_recipient_limit"
	value, ok := p.conf.main[limit]
	if !ok {
		value = p.conf.main["default_destination_recipient_limit"]
	}
	if value != "1" {
		p.once(p.warning, "postfix: %s = %s: of several recipients with a key, all but the first wait in the queue (452 4.5.3), for as long as minimal_backoff_time; set it to 1", limit, value)
	}
}

// redirections and copies are the parameters by which cleanup(8) changes a
// recipient or adds one.
var (
	redirections = []struct{ maps, classes string }{
		{"virtual_alias_maps", ""},
		{"recipient_canonical_maps", "recipient_canonical_classes"},
		{"canonical_maps", "canonical_classes"},
	}
	copies = []string{"always_bcc", "recipient_bcc_maps", "sender_bcc_maps"}
)

// behind names the maps that change recipients after sealmilter has seen them.
func (p *postfixCheck) behind(s *postfixService) {
	cleanup := p.conf.service(p.conf.value(s, "cleanup_service_name") + "/unix")
	if cleanup == nil {
		return // Postfix would not work
	}
	for _, r := range redirections {
		maps := p.conf.value(cleanup, r.maps)
		if maps == "" || r.classes != "" && !contains(p.conf.value(cleanup, r.classes), "envelope_recipient") {
			continue
		}
		p.once(p.warning, "postfix: %s = %s is looked up behind sealmilter: mail to an address in it is sealed only where the store has the address too (INSERT INTO sealmilter.aliases (address, target) …); or let Postfix expand it first, see aliases-first in contrib/postfix", r.maps, maps)
	}
	for _, parameter := range copies {
		if value := p.conf.value(cleanup, parameter); value != "" {
			p.once(p.warning, "postfix: %s = %s adds copies behind sealmilter: they are sealed to whom the message was for, or not at all; see aliases-first in contrib/postfix, which seals them to their own recipients", parameter, value)
		}
	}
}

// atDelivery names what local(8) makes of recipients, which no milter sees.
func (p *postfixCheck) atDelivery() {
	transport, _, _ := strings.Cut(p.conf.main["local_transport"], ":")
	agent := p.conf.service(transport + "/unix")
	if p.conf.main["mydestination"] == "" || agent == nil || agent.program != "local" {
		return
	}
	if maps := p.conf.value(agent, "alias_maps"); maps != "" {
		p.warning("postfix: alias_maps = %s (aliases(5)) and .forward are looked up at delivery, behind every milter: what they send on is stored unsealed unless the same alias is in the store (sealmilter.aliases), or in virtual_alias_maps where aliases go first", maps)
	}
	if relay := p.conf.value(agent, "luser_relay"); relay != "" {
		p.warning("postfix: luser_relay = %s is looked up at delivery, behind every milter: what it takes is stored unsealed unless the store has @DOMAIN as an alias too (sealmilter.aliases), or virtual_alias_maps where aliases go first", relay)
	}
}

// delimiter holds the characters at which Postfix cuts an address against
// those at which sealmilter does.
func (p *postfixCheck) delimiter(ours string) {
	theirs := p.conf.main["recipient_delimiter"]
	without := func(set, other string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(other, r) {
				return -1
			}
			return r
		}, set)
	}
	if only := without(theirs, ours); only != "" {
		p.warning("postfix: recipient_delimiter = %q, and delimiter = %q under [recipients]: mail to ann%clist@ goes to ann's mailbox and is not sealed to ann's key; set both to the same", theirs, ours, []rune(only)[0])
	}
	if only := without(ours, theirs); only != "" {
		p.warning("postfix: recipient_delimiter = %q, and delimiter = %q under [recipients]: mail to ann%clist@ is sealed to ann's key, and to Postfix that is another mailbox; set both to the same, unless whatever delivers mail cuts addresses there", theirs, ours, []rune(only)[0])
	}
}

package main

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sealmilter/milter"
)

// What a message is split into comes back by a service of its own, and what
// leaves the message's first transaction must be sure to leave it.
// contrib/postfix has the lines, reinject.main.cf and reinject.master.cf.

// reinjection looks at both where messages are split.
func (p *postfixCheck) reinjection(ctx context.Context, cfg Config) {
	if cfg.split() != milter.SplitReinject {
		return
	}
	address := cfg.Reinject.Address
	if p.copies != nil {
		p.takes(ctx, p.copies)
	} else if cfg.Reinject.Protocol == protocols[1] {
		p.ok("postfix: copies leave by LMTP for %s, around Postfix: their aliases are expanded there or not at all, and it must have a mailbox for every address with a key", address)
	} else {
		p.wrong("postfix: no smtpd in master.cf listens at %s, the address under [reinject]: messages that must be split are deferred; see reinject.master.cf in contrib/postfix", address)
	}
	for _, s := range p.sealing {
		p.deletes(ctx, s)
	}
	p.submits(ctx)
}

// submits looks at mail from sendmail(1): cleanup shows its addresses as they
// were rewritten, and deletes them by what they were before.
func (p *postfixCheck) submits(ctx context.Context) {
	for _, pickup := range p.conf.running("pickup") {
		cleanup := p.cleanupOf(pickup)
		filtered := cleanup != nil && p.find(ctx, parseMilters(p.conf.value(cleanup, "non_smtpd_milters"))) >= 0
		if filtered && !contains(p.conf.value(pickup, "receive_override_options"), "no_milters") {
			p.warning("postfix: %s: mail from sendmail(1) to several recipients of whom some have a key waits in the maildrop folder, since %s shows other addresses than it deletes; let it go by SMTP, see submitted.master.cf in contrib/postfix", pickup.name, cleanup.name)
		}
	}
}

// taker is the service that the address of [reinject] leads to, nil where
// master.cf has none.
func (p *postfixCheck) taker(ctx context.Context, address string) *postfixService {
	for _, s := range p.conf.running("smtpd") {
		if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
			name, served := strings.CutSuffix(s.name, "/unix")
			for _, folder := range []string{"public", "private"} {
				if served && samePath(path, filepath.Join(p.queue, folder, name)) {
					return s
				}
			}
		} else if s.listensAt(ctx, address) {
			return s
		}
	}
	return nil
}

// takes looks at the service that takes copies.
func (p *postfixCheck) takes(ctx context.Context, s *postfixService) {
	before := p.problems
	milters := parseMilters(p.conf.value(s, "smtpd_milters"))
	switch {
	case contains(p.conf.value(s, "receive_override_options"), "no_milters"), len(milters) == 0:
	case p.find(ctx, milters) >= 0:
		p.wrong("postfix: %s takes the copies of split messages and has sealmilter itself: they go round, and are deferred; set -o smtpd_milters= there", s.name)
	default:
		p.warning("postfix: %s takes the copies of split messages and has milters, which have seen the message and see it sealed there; set -o smtpd_milters=", s.name)
	}
	if !strings.HasSuffix(s.name, "/unix") && !onLoopback(s) {
		p.wrong("postfix: %s takes the copies of split messages, without sealmilter, and is not on loopback: mail that others send there is stored unsealed; write 127.0.0.1 in front of its port", s.name)
	}
	for _, parameter := range []string{"content_filter", "smtpd_proxy_filter"} {
		if filter := p.conf.value(s, parameter); filter != "" {
			p.warning("postfix: %s: %s = %s gets the sealed copies of split messages; set -o %s= there", s.name, parameter, filter, parameter)
		}
	}
	if p.conf.value(s, "smtpd_authorized_xforward_hosts") == "" {
		p.warning("postfix: %s: smtpd_authorized_xforward_hosts is empty: its log does not tell the client of a copy; set -o smtpd_authorized_xforward_hosts=127.0.0.0/8", s.name)
	}
	p.expandsOnce(s)
	p.room(s)
	if p.problems == before {
		p.ok("postfix: %s takes the copies of split messages", s.name)
	}
}

// expandsOnce holds what becomes of a copy's recipients against what becomes of
// those of the message.
func (p *postfixCheck) expandsOnce(s *postfixService) {
	for _, front := range p.sealing {
		switch {
		case p.expands(front) && !p.expands(s):
			p.once(p.wrong, "postfix: %s: receive_override_options=no_address_mappings: aliases of split messages lead nowhere; take it out", s.name)
		case !p.expands(front) && p.expands(s):
			p.once(p.warning, "postfix: %s: aliases are expanded there although they were in front of %s; set -o receive_override_options=no_address_mappings", s.name, front.name)
		}
	}
	if cleanup := p.cleanupOf(s); cleanup != nil && p.expands(s) {
		for _, parameter := range copies {
			if value := p.conf.value(cleanup, parameter); value != "" {
				p.warning("postfix: %s: %s = %s copies split messages more than once; set -o %s= there", cleanup.name, parameter, value, parameter)
			}
		}
	}
}

// room says whether the largest copy fits. smtpd looks at the size too, which
// the client tells beforehand.
func (p *postfixCheck) room(s *postfixService) {
	services := []*postfixService{s}
	if cleanup := p.cleanupOf(s); cleanup != nil {
		services = append(services, cleanup)
	}
	for _, behind := range services {
		limit, err := strconv.ParseInt(p.conf.value(behind, "message_size_limit"), 10, 64)
		tight := slices.IndexFunc(p.sealing, func(front *postfixService) bool {
			taken, err2 := strconv.ParseInt(p.conf.value(front, "message_size_limit"), 10, 64)
			return err == nil && err2 == nil && limit > 0 && (taken == 0 || limit < sealedLimit(taken))
		})
		if tight >= 0 {
			p.warning("postfix: %s: message_size_limit = %d is too little for the sealed copies of what %s takes: large messages that must be split are deferred for ever; set -o message_size_limit=0 on %s", behind.name, limit, p.sealing[tight].name, behind.name)
		}
	}
}

// cleanupOf is the cleanup behind a service, nil where Postfix would not work.
func (p *postfixCheck) cleanupOf(s *postfixService) *postfixService {
	return p.conf.service(p.conf.value(s, "cleanup_service_name") + "/unix")
}

// deletes says whether sealmilter hears, and hears rightly, that recipients can
// be taken out of a message.
func (p *postfixCheck) deletes(ctx context.Context, s *postfixService) {
	const macro, yes = "{sealmilter_deletes}", "sealmilter_deletes=yes"
	cleanup := p.cleanupOf(s)
	if cleanup == nil {
		return
	}
	sent := contains(p.conf.value(s, "milter_connect_macros"), macro)
	switch {
	case p.conf.value(s, "enable_original_recipient") == "no":
		p.warning("postfix: %s: enable_original_recipient = no: recipients beside one who is sealed to are answered 452", s.name)
	case !sent || !contains(p.conf.value(s, "milter_macro_defaults"), macro+"=yes"):
		p.warning("postfix: %s does not send the macro %s: recipients beside one who is sealed to are answered 452; set milter_macro_defaults and milter_connect_macros as in reinject.main.cf of contrib/postfix", s.name, macro)
	case p.conf.value(cleanup, "enable_original_recipient") == "no":
		p.wrong("postfix: %s: enable_original_recipient = no, and %s says otherwise: messages to recipients with and without a key are deferred for ever; set it to yes", cleanup.name, s.name)
	case !strings.HasSuffix(p.conf.value(cleanup, "milter_macro_v"), yes) || !contains(p.conf.value(s, "milter_end_of_data_macros"), "v"):
		p.wrong("postfix: %s does not say at the end of a message that it deletes recipients: messages to recipients with and without a key are deferred for ever; set milter_macro_v and milter_end_of_data_macros as in reinject.main.cf of contrib/postfix", cleanup.name)
	default:
		p.ok("postfix: %s: several recipients share a transaction%s", s.name, p.inFront(ctx, s))
	}
}

// inFront names the milters that must not change recipients.
func (p *postfixCheck) inFront(ctx context.Context, s *postfixService) string {
	milters := parseMilters(p.conf.value(s, "smtpd_milters"))
	var names []string
	for _, ref := range milters[:max(0, p.find(ctx, milters))] {
		names = append(names, ref.endpoint)
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "; none of these may change recipients, which sealmilter would not see: " + strings.Join(names, ", ")
}

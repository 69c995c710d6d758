package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"sealmilter/milter"
)

// postfixCheck holds a Postfix's configuration against what sealing needs.
//
// A problem is what stores mail unsealed although nobody chose that, or keeps
// mail out. A warning is what hurts some mail, or what may have been chosen.
type postfixCheck struct {
	*report
	conf  *postfixConf
	queue string // queue_directory
	ours  []ourSocket
	user  account // that smtpd and cleanup run as

	splits   bool              // whether copies are re-injected
	copies   *postfixService   // the smtpd that takes the copies of split messages, nil where none does
	sealing  []*postfixService // the other smtpd services that have sealmilter
	handedOn bool              // an smtpd without it hands its mail to a filter
	said     map[string]bool   // what is the same for several services is said once
}

// postfix checks the Postfix whose configuration is in a folder, or the
// machine's own.
func (r *report) postfix(ctx context.Context, cfg Config, dir string) {
	conf, err := readPostfix(ctx, dir)
	if err != nil {
		r.problem(exitConfig, "postfix: %v", err)
		return
	}
	p := &postfixCheck{report: r, conf: conf, queue: conf.main["queue_directory"], said: make(map[string]bool)}
	r.ok("postfix: Postfix %s, configured in %s", conf.main["mail_version"], conf.main["config_directory"])
	if p.user, err = lookupAccount(conf.main["mail_owner"]); err != nil {
		r.problem(exitConfig, "postfix: mail_owner is %q: %v", conf.main["mail_owner"], err)
		return
	}
	for _, address := range cfg.Milter.Listen {
		if network, target, err := parseListen(address); err == nil && network != networkSystemd {
			p.ours = append(p.ours, ourSocket{address, network, target})
		}
	}
	if len(p.ours) == 0 {
		p.warning("postfix: listen names the sockets of systemd and not where they are, so nobody can tell which milter is ours: give their addresses with --listen")
	} else {
		if p.splits = cfg.split() == milter.SplitReinject; p.splits {
			p.copies = p.taker(ctx, cfg.Reinject.Address)
		}
		p.incoming(ctx)
		for _, s := range p.sealing {
			p.topology(ctx, s)
		}
		p.local(ctx)
		p.atDelivery()
		p.sizes()
		p.reinjection(ctx, cfg)
	}
	p.delimiter(cfg.Recipients.Delimiter)
	p.instance(ctx)
}

// once says what is true of several services one time.
func (p *postfixCheck) once(say func(format string, args ...any), format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !p.said[text] {
		p.said[text] = true
		say("%s", text)
	}
}

// wrong is problem with the exit code that everything here deserves.
func (p *postfixCheck) wrong(format string, args ...any) { p.problem(exitConfig, format, args...) }

// incoming looks at every service that takes mail by SMTP.
func (p *postfixCheck) incoming(ctx context.Context) {
	for _, s := range p.conf.running("smtpd") {
		if s == p.copies {
			continue
		}
		milters := parseMilters(p.conf.value(s, "smtpd_milters"))
		at := p.find(ctx, milters)
		overridden := contains(p.conf.value(s, "receive_override_options"), "no_milters")
		if at >= 0 && !overridden {
			p.sealing = append(p.sealing, s)
			p.hasMilter(ctx, s, milters, at)
			p.filters(s)
			continue
		}
		p.handedOn = p.lacksMilter(s, overridden) || p.handedOn
	}
	switch {
	case len(p.conf.running("smtpd")) == 0:
		p.warning("postfix: no service takes mail by SMTP (smtpd in master.cf)")
	case len(p.sealing) == 0:
		p.wrong("postfix: no service that takes mail has sealmilter: nothing is sealed; put %s at the end of smtpd_milters", p.endpoints(false))
	case p.handedOn && !slices.ContainsFunc(p.sealing, onLoopback):
		p.wrong("postfix: no smtpd behind the filter has sealmilter: what the filter hands back is stored unsealed; put %s into the -o smtpd_milters of the smtpd that takes it back", p.endpoints(false))
	}
	if maps := p.conf.main["smtpd_milter_maps"]; maps != "" {
		p.warning("postfix: smtpd_milter_maps = %s gives some clients other milters: what comes from those without sealmilter is stored unsealed", maps)
	}
}

// lacksMilter says what it means that a service has not got sealmilter. It
// tells whether the service hands its mail to a filter that hands it back.
func (p *postfixCheck) lacksMilter(s *postfixService, overridden bool) (handsOn bool) {
	for _, parameter := range []string{"smtpd_proxy_filter", "content_filter"} {
		if filter := p.conf.value(s, parameter); filter != "" {
			p.ok("postfix: %s: has no sealmilter, which belongs on the smtpd behind its %s = %s", s.name, parameter, filter)
			return true
		}
	}
	_, ownMilters := s.own["smtpd_milters"]
	_, ownOverride := s.own["receive_override_options"]
	cause := "-o smtpd_milters"
	if overridden {
		cause = "receive_override_options=no_milters"
	}
	switch chosen := ownMilters || ownOverride && overridden; {
	case chosen && onLoopback(s):
		p.ok("postfix: %s: takes mail on loopback without sealmilter (%s), as is right for what comes back from a filter", s.name, cause)
	case chosen:
		p.warning("postfix: %s: %s leaves sealmilter out: mail that comes in there is stored unsealed", s.name, cause)
	case overridden:
		p.wrong("postfix: %s: %s in main.cf switches off every milter: mail is stored unsealed; set it with -o, on the services that need it alone", s.name, cause)
	default:
		p.wrong("postfix: %s: sealmilter is not in smtpd_milters: mail that comes in there is stored unsealed; put %s at the end", s.name, p.endpoints(s.chroot))
	}
	return false
}

// filters says what a filter on the same service does to sealing.
func (p *postfixCheck) filters(s *postfixService) {
	if filter := p.conf.value(s, "smtpd_proxy_filter"); filter != "" {
		p.wrong("postfix: %s: with smtpd_proxy_filter = %s a milter never sees the message, and mail is stored unsealed; put sealmilter on the smtpd that takes it back from the filter, and -o smtpd_milters= here", s.name, filter)
	}
	if filter := p.conf.value(s, "content_filter"); filter != "" {
		p.warning("postfix: %s: the filter behind content_filter = %s sees sealed mail; put sealmilter on the smtpd that takes it back from the filter, and -o smtpd_milters= here", s.name, filter)
	}
}

// local looks at what comes by sendmail(1), which pickup hands to a cleanup,
// and that to a filter where there is one.
func (p *postfixCheck) local(ctx context.Context) {
	for _, pickup := range p.conf.running("pickup") {
		cleanup := p.conf.service(p.conf.value(pickup, "cleanup_service_name") + "/unix")
		if cleanup == nil {
			continue // Postfix would not work
		}
		milters := parseMilters(p.conf.value(cleanup, "non_smtpd_milters"))
		at := p.find(ctx, milters)
		filter, overridden := p.conf.value(pickup, "content_filter"), contains(p.conf.value(pickup, "receive_override_options"), "no_milters")
		switch {
		case filter != "" && slices.ContainsFunc(p.sealing, onLoopback) && (at < 0 || overridden):
			p.ok("postfix: %s: mail from sendmail(1) goes through content_filter = %s", pickup.name, filter)
		case filter != "" && at >= 0 && !overridden:
			p.warning("postfix: %s: mail from sendmail(1) meets sealmilter in %s (non_smtpd_milters) and then goes through content_filter = %s, which sees sealed mail; leave sealmilter out of non_smtpd_milters where that leads to an smtpd with sealmilter", pickup.name, cleanup.name, filter)
		case at < 0:
			p.warning("postfix: %s: sealmilter is not in non_smtpd_milters: mail from sendmail(1) on this machine is stored unsealed; put %s at the end", cleanup.name, p.endpoints(cleanup.chroot))
		case overridden:
			p.warning("postfix: %s: receive_override_options=no_milters leaves sealmilter out: mail from sendmail(1) on this machine is stored unsealed", pickup.name)
		default:
			p.hasMilter(ctx, cleanup, milters, at)
		}
	}
}

// instance looks at what is set for the whole of Postfix.
func (p *postfixCheck) instance(ctx context.Context) {
	for _, s := range append([]*postfixService{{name: "main.cf"}}, p.conf.running("cleanup")...) {
		if p.conf.value(s, "enable_original_recipient") == "no" && !p.said["original"] {
			p.said["original"] = true
			p.warning("postfix: enable_original_recipient = no: a recipient whose address Postfix has rewritten cannot be taken out of a message that goes to several; set it to yes")
		}
	}
	p.bounces(ctx)
}

// bounces looks at what Postfix writes itself. It knows no content_filter.
func (p *postfixCheck) bounces(ctx context.Context) {
	for _, s := range p.conf.running("bounce") {
		cleanup := p.conf.service(p.conf.value(s, "cleanup_service_name") + "/unix")
		if cleanup == nil || len(p.ours) == 0 {
			continue
		}
		sendsOn := strings.Contains(p.conf.value(cleanup, "header_checks"), "FILTER ")
		if !sendsOn && p.find(ctx, parseMilters(p.conf.value(cleanup, "non_smtpd_milters"))) < 0 {
			p.once(p.warning, "postfix: Postfix's own bounces, which may quote a message, go through %s, which has no sealmilter in non_smtpd_milters, and no header check that sends them to it (FILTER, see aliases-first in contrib/postfix): they are stored unsealed", cleanup.name)
		}
	}
	if !contains(p.conf.main["internal_mail_filter_classes"], "bounce") {
		p.warning("postfix: Postfix's own bounces, which may quote a message, meet no milter and are stored unsealed; set internal_mail_filter_classes = bounce")
	}
}

// find is the place of sealmilter in a list of milters, or -1.
func (p *postfixCheck) find(ctx context.Context, milters []milterRef) int {
	return slices.IndexFunc(milters, func(ref milterRef) bool {
		return slices.ContainsFunc(p.ours, func(o ourSocket) bool { return o.is(ctx, ref.endpoint, p.queue) })
	})
}

// endpoints are the ways to name sealmilter in smtpd_milters.
func (p *postfixCheck) endpoints(chroot bool) string {
	var names []string
	for _, o := range p.ours {
		if name := o.endpoint(p.queue, chroot); name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "unix:sealmilter/sealmilter.sock (sealmilter must listen at unix:" + p.queue + "/sealmilter/sealmilter.sock for that, inside the chroot)"
	}
	return strings.Join(names, " or ")
}

// onLoopback says whether nobody but this machine reaches a service.
func onLoopback(s *postfixService) bool {
	name, isInet := strings.CutSuffix(s.name, "/inet")
	host, _, err := net.SplitHostPort(name)
	if !isInet || err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// contains looks for a word in a list as main.cf has it.
func contains(list, word string) bool {
	return slices.Contains(splitBraced(list), word)
}

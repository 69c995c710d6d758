package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"time"
)

// What Postfix has to wait for. A recipient is answered when the key store
// was asked, which may take 8 seconds; at the end of a message progress is
// told every 4 seconds.
const (
	leastCommandTimeout = 10 * time.Second
	leastContentTimeout = 30 * time.Second
)

// hasMilter looks at the way in which a service has sealmilter: whether it can
// reach it, and what it does when it cannot.
func (p *postfixCheck) hasMilter(ctx context.Context, s *postfixService, milters []milterRef, at int) {
	ours := milters[at]
	before := p.problems
	p.reach(ctx, s, ours)
	p.action(s, ours)
	p.version(s, ours)
	p.patience(s, ours, "command_timeout", leastCommandTimeout, "the key store may take 8 s to answer for a recipient")
	p.patience(s, ours, "content_timeout", leastContentTimeout, "a large message takes its time")
	if behind := milters[at+1:]; len(behind) > 0 {
		var names []string
		for _, ref := range behind {
			names = append(names, ref.endpoint)
		}
		if p.splits {
			p.wrong("postfix: %s: the milters behind sealmilter see sealed mail, and what they refuse or defer has been re-injected by then: %s; put sealmilter last", s.name, strings.Join(names, ", "))
		} else {
			p.warning("postfix: %s: the milters behind sealmilter see sealed mail: %s; put sealmilter last", s.name, strings.Join(names, ", "))
		}
	} else if p.problems == before {
		p.ok("postfix: %s: has sealmilter (%s) as its last milter", s.name, ours.endpoint)
	}
}

// setting is what a parameter is for one milter: what stands in its braces
// goes before the service's milter_NAME.
func (p *postfixCheck) setting(s *postfixService, ref milterRef, name string) (value, where string) {
	if value, ok := ref.options[name]; ok {
		return value, name + " in the braces of " + ref.endpoint
	}
	return p.conf.value(s, "milter_"+name), "milter_" + name
}

// action is what happens to mail while sealmilter is away.
func (p *postfixCheck) action(s *postfixService, ref milterRef) {
	action, where := p.setting(s, ref, "default_action")
	switch action {
	case "tempfail", "shutdown": // the second ends the SMTP connection, with 421
	case "reject":
		p.warning("postfix: %s: %s = reject: while sealmilter is away mail is refused for good, and its senders get it back; set it to tempfail", s.name, where)
	case "accept":
		p.wrong("postfix: %s: %s = accept: while sealmilter is away mail is stored unsealed, and where the connection breaks in the middle of a message, half of it; set it to tempfail", s.name, where)
	case "quarantine":
		p.wrong("postfix: %s: %s = quarantine: while sealmilter is away mail is kept unsealed in the hold queue, and is delivered unsealed from there; set it to tempfail", s.name, where)
	default:
		p.wrong("postfix: %s: %s = %s is not an action that is known, set it to tempfail", s.name, where, action)
	}
}

// version wants the protocol in which header fields come as they are.
func (p *postfixCheck) version(s *postfixService, ref milterRef) {
	protocol, where := p.setting(s, ref, "protocol")
	number, _, _ := strings.Cut(protocol, " ") // options may follow
	if version, err := strconv.Atoi(strings.TrimRight(number, ",")); err != nil || version < 6 {
		p.warning("postfix: %s: %s = %s: below 6 the white space in front of header fields is lost to the filter, so that a sealed message is not quite what was sent; set it to 6", s.name, where, protocol)
	}
}

// patience wants a time-out that is long enough for what it waits for.
func (p *postfixCheck) patience(s *postfixService, ref milterRef, name string, least time.Duration, because string) {
	text, where := p.setting(s, ref, name)
	if value, ok := seconds(text); ok && value < least {
		p.warning("postfix: %s: %s = %s is short: %s, and after that the message is deferred; set it to %s or more", s.name, where, text, because, least)
	}
}

// reach says whether the service's process can connect to us.
func (p *postfixCheck) reach(ctx context.Context, s *postfixService, ref milterRef) {
	transport, address, _ := strings.Cut(ref.endpoint, ":")
	if transport == "inet" {
		p.dial(ctx, address)
		return
	}
	for _, o := range p.ours {
		if !o.is(ctx, ref.endpoint, p.queue) {
			continue
		}
		if sees := seenAt(address, p.queue, s.chroot); samePath(sees, o.target) {
			p.socket(o.target)
			return
		} else if advice := o.endpoint(p.queue, s.chroot); advice != "" {
			p.wrong("postfix: %s: %s leads to %s, where sealmilter does not listen%s: mail is deferred; write %s", s.name, ref.endpoint, sees, inChroot(s), advice)
		} else {
			p.wrong("postfix: %s: %s leads to %s%s, which is not where sealmilter listens: mail is deferred; let sealmilter listen at unix:%s/sealmilter/sealmilter.sock and write unix:sealmilter/sealmilter.sock", s.name, ref.endpoint, sees, inChroot(s), p.queue)
		}
		return
	}
}

func inChroot(s *postfixService) string {
	if s.chroot {
		return " (the service runs in a chroot)"
	}
	return ""
}

// socket says whether Postfix's user may connect to a unix socket of ours.
func (p *postfixCheck) socket(path string) {
	obstacle, err := p.user.obstacle(path)
	switch {
	case obstacle != "":
		p.once(p.wrong, "postfix: unix:%s: %s: mail is deferred; see group and mode under [milter], and the mode of the folder", path, obstacle)
	case errors.Is(err, fs.ErrNotExist):
		p.once(p.warning, "postfix: unix:%s is not there: mail is deferred until sealmilter runs", path)
	case err != nil:
		p.once(p.warning, "postfix: unix:%s cannot be looked at, run this check as root: %v", path, err)
	default:
		p.once(p.ok, "postfix: unix:%s can be reached by the user %s", path, p.user.name)
	}
}

// dial tries the address as Postfix has it.
func (p *postfixCheck) dial(ctx context.Context, address string) {
	conn, err := (&net.Dialer{Timeout: resolveTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		p.once(p.warning, "postfix: inet:%s does not answer: mail is deferred until sealmilter runs (%v)", address, err)
		return
	}
	conn.Close()
	p.once(p.ok, "postfix: inet:%s answers", address)
}

// sizes holds what smtpd takes against what cleanup will write: a sealed
// message is larger than it was, and what exceeds cleanup's limit is refused
// for good at the end of the message, when the sender has sent it all.
func (p *postfixCheck) sizes() {
	for _, s := range p.sealing {
		cleanup := p.conf.service(p.conf.value(s, "cleanup_service_name") + "/unix")
		if cleanup == nil {
			continue
		}
		taken, err := strconv.ParseInt(p.conf.value(s, "message_size_limit"), 10, 64)
		written, err2 := strconv.ParseInt(p.conf.value(cleanup, "message_size_limit"), 10, 64)
		if err != nil || err2 != nil {
			continue // Postfix would not work
		}
		need := sealedLimit(taken)
		switch {
		case written == 0, taken > 0 && written >= need:
			p.once(p.ok, "postfix: message_size_limit: smtpd takes %s, cleanup has room for it sealed", limitText(taken))
		case taken == 0:
			p.once(p.warning, "postfix: message_size_limit: smtpd takes any size, %s no more than %d bytes: what is larger when it is sealed is refused for good; set -o message_size_limit=0 on %s in master.cf, or limit what %s takes",
				cleanup.name, written, cleanup.name, s.name)
		default:
			p.once(p.warning, "postfix: message_size_limit: smtpd takes %s, and %s no more than %d bytes: messages above %d bytes are refused for good when they are sealed, which makes them larger; set -o message_size_limit=%d on %s in master.cf",
				limitText(taken), cleanup.name, written, takenFor(written), need, cleanup.name)
		}
	}
}

// A queue file with a sealed body is up to 1.375 times as large as the
// message: base64 in lines of 64 characters, with two bytes that Postfix keeps
// for each line. Rounded up; the header stays, and keys take some room.
const (
	growthPercent = 140
	growthFixed   = 256 << 10
)

func sealedLimit(taken int64) int64 { return taken/100*growthPercent + growthFixed }

// takenFor is the other way round: the size that fits a limit once sealed.
func takenFor(written int64) int64 { return max(0, (written-growthFixed)/growthPercent*100) }

func limitText(limit int64) string {
	if limit == 0 {
		return "any size"
	}
	return fmt.Sprintf("up to %d bytes", limit)
}

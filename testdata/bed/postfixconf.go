package bed

import (
	"fmt"
	"slices"
	"strings"
)

// mainCF is the configuration. Nothing is looked up in the DNS and nothing
// leaves the machine.
func (p *Postfix) mainCF(opts PostfixOptions, uid, gid uint32) string {
	var domains []string
	for _, a := range opts.Addresses {
		domains = append(domains, a[strings.LastIndexByte(a, '@')+1:])
	}
	slices.Sort(domains)
	action := opts.DefaultAction
	if action == "" {
		action = "tempfail"
	}
	lines := []string{
		"compatibility_level = 3.6",
		"config_directory = " + p.etc(),
		"queue_directory = " + p.Dir + "/queue",
		"data_directory = " + p.Dir + "/data",
		"command_directory = /usr/sbin",
		"daemon_directory = /usr/lib/postfix/sbin",
		"mail_owner = postfix",
		"setgid_group = postdrop",
		"maillog_file_prefixes = " + p.Dir,
		"maillog_file = " + p.Dir + "/log/mail.log",
		"multi_instance_enable = yes",
		"multi_instance_name = -",
		"inet_interfaces = loopback-only",
		"inet_protocols = ipv4",
		"myhostname = mx.bed.test",
		"mydomain = bed.test",
		"mydestination =",
		"local_recipient_maps =",
		"local_transport = error:no local delivery",
		"alias_maps =",
		"alias_database =",
		"mynetworks = 127.0.0.0/8",
		"smtpd_relay_restrictions = permit_mynetworks, reject",
		"smtpd_peername_lookup = no",
		"smtpd_client_connection_rate_limit = 0",
		"smtpd_client_connection_count_limit = 0",
		"smtp_dns_support_level = disabled",
		// The SMTP client of a test is a stranger, though it comes from
		// 127.0.0.1: else Postfix would add header fields before the filter.
		"local_header_rewrite_clients =",
		"message_size_limit = 104857600",
		"virtual_mailbox_domains = " + strings.Join(slices.Compact(domains), " "),
		"virtual_mailbox_base = " + p.Dir + "/mail",
		"virtual_mailbox_maps = texthash:" + p.etc() + "/mailboxes",
		"virtual_mailbox_limit = 0",
		"virtual_minimum_uid = 1",
		fmt.Sprintf("virtual_uid_maps = static:%d", uid),
		fmt.Sprintf("virtual_gid_maps = static:%d", gid),
		"milter_protocol = 6",
		"milter_default_action = " + action,
		"smtpd_milters = " + strings.Join(opts.Milters, ", "),
		"non_smtpd_milters = " + strings.Join(opts.NonSMTPDMilters, ", "),
	}
	return merge(append(lines, opts.Main...), parameterName)
}

// parameterName is what a line of main.cf sets.
func parameterName(line string) string {
	name, _, _ := strings.Cut(line, "=")
	return strings.TrimSpace(name)
}

// masterCF is the stock list of services, none in a chroot.
func (p *Postfix) masterCF(opts PostfixOptions) string {
	lines := []string{
		fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd", p.Port),
		"pickup unix n - n 60 1 pickup",
		"cleanup unix n - n - 0 cleanup",
		"qmgr unix n - n 300 1 qmgr",
		"tlsmgr unix - - n 1000? 1 tlsmgr",
		"rewrite unix - - n - - trivial-rewrite",
		"bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce",
		"trace unix - - n - 0 bounce",
		"verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush",
		"proxymap unix - - n - - proxymap",
		"proxywrite unix - - n - 1 proxymap",
		"smtp unix - - n - - smtp",
		"relay unix - - n - - smtp",
		"showq unix n - n - - showq",
		"error unix - - n - - error",
		"retry unix - - n - - error",
		"discard unix - - n - - discard",
		"local unix - n n - - local",
		"virtual unix - n n - - virtual",
		"lmtp unix - - n - - lmtp",
		"anvil unix - - n - 1 anvil",
		"scache unix - - n - 1 scache",
		"postlog unix-dgram n - n - 1 postlogd",
	}
	return merge(append(lines, opts.Master...), serviceName)
}

// serviceName is what a service is known by: its name and its type.
func serviceName(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(2, len(fields))], " ")
}

// merge puts texts together in which an entry is a line and those behind it
// that begin with white space. A later entry takes the place of an earlier one
// of the same name. Postfix itself takes the last one too, but warns, each of
// its processes anew; and postlogd(8), which writes the warnings of all and
// has its own to send to itself, blocks for ever when ten are waiting.
func merge(texts []string, name func(line string) string) string {
	var order []string
	entries := make(map[string]string)
	last := ""
	for line := range strings.Lines(strings.Join(texts, "\n") + "\n") {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			entries[last] += line
		default:
			if last = name(line); entries[last] == "" {
				order = append(order, last)
			}
			entries[last] = line
		}
	}
	var merged strings.Builder
	for _, name := range order {
		merged.WriteString(entries[name])
	}
	return merged.String()
}

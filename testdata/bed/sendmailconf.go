package bed

import (
	"fmt"
	"net"
	"strings"
)

// sendmailName is the host's name. Sendmail asks the kernel for it and looks it
// up, which is why it runs in namespaces of its own.
const sendmailName = "sm.bed.test"

// sendmailScript becomes Sendmail, which with -bD stays in the foreground. It
// makes a /dev with nothing in it but what is needed and the test's end of the
// log.
const sendmailScript = `
mount --make-rprivate /
echo ` + sendmailName + ` >/proc/sys/kernel/hostname
mount --bind "$I/hosts" /etc/hosts
mount --bind "$I/nsswitch.conf" /etc/nsswitch.conf
for device in null random urandom; do
	: >>"$I/dev/$device"
	mount --bind "/dev/$device" "$I/dev/$device"
done
mount --rbind "$I/dev" /dev
cd "$I"
for table in virtual mailers; do
	"$LIBEXEC/makemap" -C "$I/sendmail.cf" hash "$table.db" <"$table"
done
"$LIBEXEC/sendmail" -C "$I/sendmail.cf" -bi </dev/null
exec "$LIBEXEC/sendmail" -C "$I/sendmail.cf" -bD -q1s </dev/null
`

// files are what Sendmail is set up by, by their names.
func (s *Sendmail) files(opts SendmailOptions) map[string]string {
	return map[string]string{
		"hosts":          "127.0.0.1 " + sendmailName + " localhost\n",
		"nsswitch.conf":  "hosts: files\npasswd: files\ngroup: files\n",
		"service.switch": "hosts files\naliases files\n",
		"sendmail.mc":    s.mc(opts),
		"aliases":        opts.Aliases, // without the file all local mail waits in the queue
		"virtual":        opts.Virtual,
		"mailers":        opts.Table,
	}
}

// mc is sendmail.mc. Nothing is looked up in the DNS, nothing leaves the
// machine, and the client of a test may send wherever it likes.
func (s *Sendmail) mc(opts SendmailOptions) string {
	if len(opts.Domains) == 0 {
		opts.Domains = []string{"bed.test"}
	}
	lines := []string{
		"OSTYPE(`linux')dnl",
		"define(`confDOMAIN_NAME', `" + sendmailName + "')dnl",
		"define(`QUEUE_DIR', `$I/queue')dnl",
		"define(`confPID_FILE', `$I/sendmail.pid')dnl",
		"define(`STATUS_FILE', `$I/statistics')dnl",
		"define(`ALIAS_FILE', `$I/aliases')dnl",
		"define(`HELP_FILE', `')dnl",
		"define(`confCW_FILE', `')dnl",
		"define(`confHOST_STATUS_DIRECTORY', `')dnl",
		"define(`confSERVICE_SWITCH_FILE', `$I/service.switch')dnl",
		"define(`confDONT_PROBE_INTERFACES', `true')dnl",
		"define(`confBIND_OPTS', `-DNSRCH -DEFNAMES')dnl",
		"define(`confTO_IDENT', `0')dnl",
		// The folder is below /tmp.
		"define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe,TrustStickyBit')dnl",
		// A machine that is busy with other tests takes mail all the same.
		"define(`confQUEUE_LA', `1000')dnl",
		"define(`confREFUSE_LA', `1000')dnl",
		"FEATURE(`nocanonify')dnl",
		"FEATURE(`accept_unqualified_senders')dnl",
		"FEATURE(`accept_unresolvable_domains')dnl",
		"FEATURE(`promiscuous_relay')dnl",
		"FEATURE(`no_default_msa')dnl",
		"FEATURE(`mailertable', `hash -o $I/mailers')dnl",
		"FEATURE(`virtusertable', `hash -o $I/virtual')dnl",
		"VIRTUSER_DOMAIN(`" + strings.Join(opts.Domains, " ") + "')dnl",
		fmt.Sprintf("DAEMON_OPTIONS(`Family=inet, Name=MTA, Port=%d, Addr=127.0.0.1')dnl", s.Port),
	}
	lines = append(lines, opts.Filters...)
	lines = append(lines, delivery(opts)...)
	lines = append(lines, "MAILER(`local')dnl", "MAILER(`smtp')dnl")
	lines = append(lines, opts.Mailers...)
	return strings.ReplaceAll(strings.Join(lines, "\n"), "$I", s.Dir) + "\n"
}

// delivery are the lines that say where mail goes.
func delivery(opts SendmailOptions) (lines []string) {
	if opts.Relay != "" {
		host, port := mustSplit(opts.Relay)
		lines = append(lines,
			"define(`RELAY_MAILER_ARGS', `TCP $h "+port+"')dnl",
			"define(`SMART_HOST', `relay:["+host+"]')dnl",
		)
	}
	if opts.Local != "" {
		host, port := mustSplit(opts.Local)
		lines = append(lines,
			"FEATURE(`local_lmtp', `[IPC]', `TCP "+host+" "+port+"')dnl",
			// The users are the store's, and need not be in /etc/passwd.
			"MODIFY_MAILER_FLAGS(`LOCAL', `-w')dnl",
			"LOCAL_DOMAIN(`"+strings.Join(opts.Domains, " ")+"')dnl",
		)
	}
	return lines
}

func mustSplit(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic("internal error: a test's address: " + err.Error())
	}
	return host, port
}

package mta_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// The base for what contrib/postfix ships: the services that it replaces are
// left out.
const (
	aliasMain = `compatibility_level = 3.6
queue_directory = $DIR/queue
mail_owner = postfix
recipient_delimiter = +
alias_maps =
`
	aliasMaster = `smtp inet n - y - - smtpd
pickup unix n - y 60 1 pickup
local unix - n n - - local
`
	plainServices = `cleanup unix n - y - 0 cleanup
`
)

// shippedPostfix is a file of contrib/postfix for the port that $PORT stands for.
func shippedPostfix(t *testing.T, name string) string {
	t.Helper()
	return strings.ReplaceAll(readFile(t, "../../contrib/postfix/"+name), "8890", "$PORT")
}

// TestCheckAliases
//
//	sealmilter check --postfix ──▶ postconf ──▶ contrib/postfix/*, and the same with maps behind the milter, or a mistake
func TestCheckAliases(t *testing.T) {
	c := newChecked(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	first := [2]string{aliasMain + shippedPostfix(t, "filter-first.main.cf"), aliasMaster + shippedPostfix(t, "filter-first.master.cf") + "bounce unix - - n - 0 bounce\n"}
	second := [2]string{aliasMain + shippedPostfix(t, "aliases-first.main.cf"), aliasMaster + plainServices + shippedPostfix(t, "aliases-first.master.cf")}
	const way = " is looked up behind sealmilter: mail to an address in it is sealed only where the store has the address too (INSERT INTO sealmilter.aliases (address, target)"
	tests := []struct {
		name         string
		site         [2]string
		main, master []string // old text, new text; a lone text is added
		word, want   string   // a line that must be there
		faults       int      // lines that are not ok
		code         int
	}{
		{"filter first", first, nil, nil, "ok", "smtp/inet: filter first: ", 0, 0},
		{"aliases first", second, nil, nil, "ok", "127.0.0.1:10026/inet: aliases first: smtp/inet, pickup/unix expand them", 0, 0},
		{"aliases first, sendmail(1)", second, nil, nil, "ok", "pickup/unix: mail from sendmail(1) goes through content_filter = sealing:[127.0.0.1]:10026", 0, 0},

		{"virtual aliases", first, []string{"virtual_alias_maps = hash:/etc/postfix/virtual\n"}, nil, "warning", "virtual_alias_maps = hash:/etc/postfix/virtual" + way, 1, 0},
		{"canonical", first, []string{"canonical_maps = hash:/c\n"}, nil, "warning", "canonical_maps = hash:/c" + way, 1, 0},
		{"canonical senders", first, []string{"canonical_maps = hash:/c\ncanonical_classes = envelope_sender\nsender_canonical_maps = hash:/s\n"}, nil, "ok", "smtp/inet: filter first", 0, 0},
		{"canonical recipients", first, []string{"recipient_canonical_maps = hash:/r\n"}, nil, "warning", "recipient_canonical_maps = hash:/r" + way, 1, 0},
		{"maps of one cleanup", first, nil, []string{"  -o message_size_limit", "  -o virtual_alias_maps=hash:/one\n  -o message_size_limit"}, "warning", "virtual_alias_maps = hash:/one" + way, 1, 0},
		{"maps twice", first, []string{"virtual_alias_maps = hash:/v\n"}, []string{"submission inet n - y - - smtpd\n"}, "warning", "virtual_alias_maps = hash:/v" + way, 1, 0},
		{"copies", first, []string{"always_bcc = a@bed.test\nrecipient_bcc_maps = hash:/b\nsender_bcc_maps = hash:/s\n"}, nil, "warning", "recipient_bcc_maps = hash:/b adds copies behind sealmilter", 3, 0},
		{"aliases(5)", first, []string{"alias_maps =\n", "alias_maps = hash:/etc/aliases\n"}, nil, "warning", "alias_maps = hash:/etc/aliases (aliases(5)) and .forward are looked up at delivery, behind every milter", 1, 0},
		{"aliases(5) and nothing local", first, []string{"alias_maps =\n", "alias_maps = hash:/etc/aliases\nmydestination =\n"}, nil, "ok", "smtp/inet: filter first", 0, 0},
		{"aliases(5) and no local(8)", first, []string{"alias_maps =\n", "alias_maps = hash:/etc/aliases\nlocal_transport = lmtp:unix:/dovecot\n"}, nil, "ok", "smtp/inet: filter first", 0, 0},
		{"luser_relay", first, []string{"luser_relay = ann@bed.test\n"}, nil, "warning", "luser_relay = ann@bed.test is looked up at delivery", 1, 0},
		{"delimiters", first, []string{"recipient_delimiter = +\n", "recipient_delimiter = +-\n"}, nil, "warning", `recipient_delimiter = "+-", and delimiter = "+" under [recipients]: mail to ann-list@`, 1, 0},
		{"bounces without the class", first, []string{"internal_mail_filter_classes = bounce\n", ""}, nil, "warning", "Postfix's own bounces, which may quote a message, meet no milter", 1, 0},
		{"bounces without the filter", first, nil, []string{"0 bounce\n", "0 bounce -o cleanup_service_name=bare\nbare unix n - y - 0 cleanup -o non_smtpd_milters=\n"}, "warning", "Postfix's own bounces, which may quote a message, go through bare/unix", 1, 0},
		{"an amavis that expands nothing", first, []string{"smtpd_milters = inet:127.0.0.1:$PORT\n", ""},
			[]string{"- - smtpd\n", "- - smtpd -o content_filter=scan:[127.0.0.1]:10024 -o receive_override_options=no_address_mappings\n127.0.0.1:10025 inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:$PORT\n"},
			"ok", "127.0.0.1:10025/inet: filter first: ", 0, 0},
		{"an amavis that expands", first, []string{"smtpd_milters = inet:127.0.0.1:$PORT\n", "virtual_alias_maps = hash:/v\n"},
			[]string{"- - smtpd\n", "- - smtpd -o content_filter=scan:[127.0.0.1]:10024\n127.0.0.1:10025 inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:$PORT -o receive_override_options=no_address_mappings\n"},
			"ok", "127.0.0.1:10025/inet: aliases first: they are expanded in front of the filter", 0, 0},
		{"nobody expands", first, nil, []string{"- - smtpd\n", "- - smtpd -o receive_override_options=no_address_mappings\n"},
			"warning", "smtp/inet: receive_override_options=no_address_mappings, and nothing in front expands aliases either", 1, 0},

		{"maps in front", second, []string{"virtual_alias_maps = hash:/v\nalways_bcc = a@bed.test\ncanonical_maps = hash:/c\n"}, nil, "ok", "127.0.0.1:10026/inet: aliases first: ", 0, 0},
		{"aliases(5) behind both", second, []string{"alias_maps =\n", "alias_maps = hash:/etc/aliases\n"}, nil, "warning", "alias_maps = hash:/etc/aliases (aliases(5)) and .forward", 1, 0},
		{"several at once", second, []string{"recipient_limit = 1\n", "recipient_limit = 50\n"}, nil, "warning", "sealing_destination_recipient_limit = 50: of several recipients with a key", 1, 0},
		{"several by default", second, []string{"sealing_destination_recipient_limit = 1\n", ""}, nil, "warning", "sealing_destination_recipient_limit = 50: ", 1, 0},
		{"fallback", second, []string{"smtp_fallback_relay = [192.0.2.1]\n"}, []string{"  -o smtp_fallback_relay=\n", ""}, "problem", "sealing/unix: smtp_fallback_relay = [192.0.2.1]: while sealmilter is away mail goes there unsealed", 1, 78},
		{"no transport", second, nil, []string{"sealing   unix", "another   unix"}, "problem", "content_filter = sealing:[127.0.0.1]:10026: master.cf has no service sealing", 1, 78},
		{"loop", second, nil, []string{"  -o content_filter=\n", ""}, "problem", "127.0.0.1:10026/inet: content_filter = sealing:[127.0.0.1]:10026 hands its mail to itself", 2, 78},
		{"twice", second, nil, []string{"no_address_mappings,", ""}, "warning", "127.0.0.1:10026/inet: aliases are expanded here although they were in front (smtp/inet, pickup/unix)", 1, 0},
		{"sealed too early", second, []string{"non_smtpd_milters = inet:127.0.0.1:$PORT\nmilter_default_action = tempfail\nmilter_protocol = 6\n"}, nil, "warning", "pickup/unix: mail from sendmail(1) meets sealmilter in cleanup/unix", 1, 0},
		{"bounces past the filter", second, nil, []string{"bounce\n  -o cleanup_service_name=notices\n", "bounce\n"}, "warning", "Postfix's own bounces, which may quote a message, go through cleanup/unix", 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := [2]string{}
			for i, edit := range [][]string{test.main, test.master} {
				switch changed[i] = test.site[i]; len(edit) {
				case 1:
					changed[i] += edit[0]
				case 2:
					changed[i] = change(t, changed[i], edit[0], edit[1])
				}
			}
			lines, code := c.run(t, changed[0], changed[1], "inet:127.0.0.1:$PORT", port)
			faults := strings.Count(lines, "\n") - strings.Count("\n"+lines, "\nok ")
			if !strings.Contains(lines, fmt.Sprintf("%-8s postfix: %s", test.word, test.want)) || faults != test.faults || code != test.code {
				t.Errorf("want %s %q among %d faults, exit code %d; got %d and\n%s", test.word, test.want, test.faults, test.code, code, lines)
			}
		})
	}
}

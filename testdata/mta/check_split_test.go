package mta_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestCheckSplit
//
//	sealmilter check --postfix ──▶ postconf ──▶ filter-first.*, reinject.* and submitted.* of contrib/postfix, and the same with one mistake each
func TestCheckSplit(t *testing.T) {
	c := newChecked(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	goodMain := aliasMain + shippedPostfix(t, "filter-first.main.cf") + shippedPostfix(t, "reinject.main.cf")
	const pickup = "pickup unix n - y 60 1 pickup\n"
	goodMaster := change(t, aliasMaster, pickup, shippedPostfix(t, "submitted.master.cf")) + shippedPostfix(t, "filter-first.master.cf") + shippedPostfix(t, "reinject.master.cf") + "bounce unix - - n - 0 bounce\n"
	const inet, unix = "address = \"127.0.0.1:10026\"", "address = \"unix:$DIR/queue/public/copies-in\""
	const copies = "127.0.0.1:10026/inet"
	atSocket := []string{"127.0.0.1:10026 inet  n", "copies-in unix n"}
	tests := []struct {
		name         string
		address      string
		main, master []string // old text, new text; a lone text is added
		word, want   string   // a line that must be there
		faults       int      // lines that are not ok
		code         int
	}{
		{"as shipped", inet, nil, nil, "ok", copies + " takes the copies of split messages", 0, 0},
		{"as shipped, deleting", inet, nil, nil, "ok", "smtp/inet: several recipients share a transaction", 0, 0},
		{"as shipped, sendmail(1)", inet, nil, nil, "ok", "pickup/unix: mail from sendmail(1) goes through content_filter = submitted:[127.0.0.1]:10027", 0, 0},
		{"sendmail(1) by its cleanup", inet, nil, []string{"  -o content_filter=submitted:[127.0.0.1]:10027\n  -o receive_override_options=no_address_mappings,no_milters\n", ""},
			"warning", "pickup/unix: mail from sendmail(1) to several recipients of whom some have a key waits in the maildrop folder", 1, 0},
		{"at a socket", unix, nil, atSocket, "ok", "copies-in/unix takes the copies of split messages", 0, 0},
		{"not at that socket", unix, nil, nil, "problem", "no smtpd in master.cf listens at unix:$DIR/queue/public/copies-in, the address under [reinject]", 1, 78},
		{"another port", inet, nil, []string{"127.0.0.1:10026 inet", "127.0.0.1:10027 inet"}, "problem", "no smtpd in master.cf listens at 127.0.0.1:10026", 1, 78},
		{"lmtp", inet + "\nprotocol = \"lmtp\"", nil, []string{"127.0.0.1:10026 inet", "127.0.0.1:10027 inet"}, "ok", "copies leave by LMTP for 127.0.0.1:10026, around Postfix", 0, 0},
		{"split elsewhere", "[recipients]\nsplit = \"defer\"", nil, []string{"127.0.0.1:10026 inet", "127.0.0.1:10027 inet"}, "ok", "smtp/inet: filter first", 0, 0},
		{"a loop", inet, nil, []string{"-o smtpd_milters=\n", "-o smtpd_milters=inet:127.0.0.1:$PORT\n", "no_milters,", ""}, "problem", copies + " takes the copies of split messages and has sealmilter itself", 1, 78},
		{"another milter", inet, nil, []string{"-o smtpd_milters=\n", "-o smtpd_milters=inet:127.0.0.1:12301\n", "no_milters,", ""}, "warning", copies + " takes the copies of split messages and has milters", 1, 0},
		{"for the world", inet, nil, []string{"127.0.0.1:10026 inet", "10026 inet"}, "problem", "10026/inet takes the copies of split messages, without sealmilter, and is not on loopback", 1, 78},
		{"content filter", inet, nil, []string{"-o smtpd_milter_maps=\n  -o content_filter=\n  -o smtpd_proxy_filter=\n  -o receive_override_options=no_milters", "-o content_filter=scan:[127.0.0.1]:10024\n  -o receive_override_options=no_milters"}, "warning", copies + ": content_filter = scan:[127.0.0.1]:10024 gets the sealed copies", 1, 0},
		{"no XFORWARD", inet, nil, []string{"100000\n  -o mynetworks=127.0.0.0/8\n  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n", "100000\n"}, "warning", copies + ": smtpd_authorized_xforward_hosts is empty", 1, 0},
		{"no aliases", inet, nil, []string{"no_milters,no_unknown", "no_address_mappings,no_unknown"}, "problem", copies + ": receive_override_options=no_address_mappings: aliases of split messages lead nowhere", 1, 78},
		{"copied twice", inet, []string{"always_bcc = a@bed.test\n"}, []string{"  -o always_bcc=\n", ""}, "warning", "copies/unix: always_bcc = a@bed.test copies split messages more than once", 2, 0},
		{"no room in smtpd", inet, nil, []string{"  -o message_size_limit=0\n  -o smtpd_recipient_limit", "  -o smtpd_recipient_limit"}, "warning", copies + ": message_size_limit = 10240000 is too little for the sealed copies of what smtp/inet takes", 1, 0},
		{"no room in cleanup", inet, nil, []string{"  -o message_size_limit=0\n  -o always", "  -o message_size_limit=14000000\n  -o always"}, "warning", "copies/unix: message_size_limit = 14000000 is too little", 1, 0},
		{"no macro", inet, []string{"milter_macro_defaults", "another"}, nil, "warning", "smtp/inet does not send the macro {sealmilter_deletes}", 2, 0},
		{"macro not sent", inet, []string{"_ {sealmilter_deletes}", "_"}, nil, "warning", "smtp/inet does not send the macro {sealmilter_deletes}", 2, 0},
		{"nothing deleted", inet, []string{"enable_original_recipient = no\n"}, nil, "warning", "smtp/inet: enable_original_recipient = no: recipients beside one who is sealed to are answered 452", 3, 0},
		{"cleanup deletes nothing", inet, nil, []string{"-o message_size_limit=14598144", "-o message_size_limit=14598144 -o enable_original_recipient=no"}, "problem", "cleanup/unix: enable_original_recipient = no, and smtp/inet says otherwise", 3, 78},
		{"cleanup does not say", inet, []string{"milter_end_of_data_macros = i v", "milter_end_of_data_macros = i"}, nil, "problem", "cleanup/unix does not say at the end of a message that it deletes recipients", 2, 78},
		{"cleanup says nothing of it", inet, []string{", sealmilter_deletes=$", ", deletes=$"}, nil, "problem", "cleanup/unix does not say at the end", 2, 78},
		{"a milter behind", inet, []string{"\nsmtpd_milters = inet:127.0.0.1:$PORT", "\nsmtpd_milters = inet:127.0.0.1:$PORT inet:127.0.0.1:12301"}, nil, "problem", "smtp/inet: the milters behind sealmilter see sealed mail, and what they refuse or defer has been re-injected by then: inet:127.0.0.1:12301", 1, 78},
		{"a milter in front", inet, []string{"smtpd_milters = ", "smtpd_milters = inet:127.0.0.1:12301 "}, nil, "ok", "smtp/inet: several recipients share a transaction; none of these may change recipients, which sealmilter would not see: inet:127.0.0.1:12301", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.config = "[reinject]\nsecret = \"/etc/sealmilter/secret\"\n" + test.address + "\n"
			lines, code := c.run(t, edited(t, goodMain, test.main), edited(t, goodMaster, test.master), "inet:127.0.0.1:$PORT", port)
			faults := strings.Count(lines, "\n") - strings.Count("\n"+lines, "\nok ")
			if !strings.Contains(lines, fmt.Sprintf("%-8s postfix: %s", test.word, test.want)) || faults != test.faults || code != test.code {
				t.Errorf("want %s %q among %d faults, exit code %d; got %d and\n%s", test.word, test.want, test.faults, test.code, code, lines)
			}
		})
	}
}

// edited is a text with old texts replaced by new ones, in pairs, or with one
// added to it.
func edited(t *testing.T, text string, edits []string) string {
	t.Helper()
	if len(edits) == 1 {
		return text + edits[0]
	}
	for i := 0; i+1 < len(edits); i += 2 {
		text = change(t, text, edits[i], edits[i+1])
	}
	return text
}

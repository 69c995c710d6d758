package mta_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// The twelve recipients of one transaction, and their mailboxes. Ann, Bea and
// Kim are named in To and Cc and share a copy; the certificates are of two kinds
// and so in two copies; the team is two members of one copy; whoever is named
// nowhere has a copy of their own.
const (
	dora = "dora@bed.test"
	eve  = "eve@bed.test" // has no key
	fay  = "fay@bed.test"
	gus  = "gus@bed.test"
	hal  = "hal@bed.test"
	ivy  = "ivy@bed.test"
	jan  = "jan@bed.test" // has a key that has expired
	kim  = "kim@xn--bcher-kva.test"
)

var twelve = []string{
	"<" + ann + "> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann@first.example",
	"<" + bob + "> NOTIFY=SUCCESS ORCPT=rfc822;bob@first.example",
	"<" + bea + ">",
	"<" + cid + "> NOTIFY=NEVER",
	"<" + carl + ">",
	"<" + dora + "> NOTIFY=SUCCESS ORCPT=rfc822;dora+2Bx@first.example",
	"<" + eve + ">",
	"<info@bed.test>",
	"<team@bed.test>",
	"<ivy+list@bed.test> NOTIFY=FAILURE",
	"<" + jan + ">",
	"<" + kim + ">",
}

// twelveBoxes says who opens the copy in each mailbox, nil where it is in the
// clear.
var twelveBoxes = map[string][]string{
	ann: {ann, bea, kim}, bea: {ann, bea, kim}, kim: {ann, bea, kim}, cid: {cid}, fay: {fay}, gus: {gus, hal}, hal: {gus, hal},
	ivy: {ivy}, jan: {jan}, carl: {carl}, dora: {dora}, bob: nil, eve: nil,
}

const twelveHeader = "From: Sender <sender@bed.test>\r\nTo: Ann <" + ann + ">,\r\n bea@bed.test\r\nCc: \"Carl\" <" + carl + ">, dora@bed.test, " + kim + "\r\n"

// newTwelve is a site with all of them, and with a mailbox for the notices.
func newTwelve(t *testing.T, opts splitOptions) (*splitSite, map[string]bed.Identity) {
	t.Helper()
	opts.addresses = []string{"sender@bed.test"}
	for address := range twelveBoxes {
		opts.addresses = append(opts.addresses, address)
	}
	opts.main = append(opts.main, "recipient_delimiter = +", "virtual_alias_maps = inline:{ { info@bed.test = "+fay+" } { team@bed.test = gus@bed.test, hal@bed.test } }")
	s := newSplitSite(t, opts)
	for _, address := range []string{cid, fay, gus, hal, ivy, "kim@bücher.test"} {
		s.enrol(t, address, string(s.gpg.Generate(t, "Somebody <"+strings.Replace(address, "bücher", "xn--bcher-kva", 1)+">", "default")))
	}
	s.gpg.Run(t, []byte("Key-Type: EDDSA\nKey-Curve: Ed25519\nSubkey-Type: ECDH\nSubkey-Curve: Curve25519\nName-Email: "+jan+"\nExpire-Date: 1y\n%no-protection\n%commit\n"),
		"--faked-system-time", "20200101T000000", "--full-generate-key")
	s.enrol(t, jan, string(s.gpg.Run(t, nil, "--armor", "--export", jan)))
	certificates := map[string]bed.Identity{carl: s.carl, dora: bed.NewIdentity(t, dora, "RSA rsa_keygen_bits:2048")}
	s.enrol(t, dora, readFile(t, certificates[dora].Certificate))
	s.db.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES ('info@bed.test', 'fay@bed.test'), ('team@bed.test', 'gus@bed.test'), ('team@bed.test', 'hal@bed.test');`)
	return s, certificates
}

// boxes are all mailboxes of a site with the twelve.
func boxes() []string {
	all := []string{"sender@bed.test"}
	for address := range twelveBoxes {
		all = append(all, address)
	}
	return all
}

// TestSplitTwelve
//
//	SMTP client, to twelve in one transaction ──▶ smtpd ──milter──▶ sealmilter ──▶ PostgreSQL
//	                                                │                    ║
//	                                                │                    ╚════▶ smtpd for copies, eight of them ════▶ queue ┐
//	                                                └─▶ queue, what stays for bob and eve                                  ║
//	                                                      └──LMTP──▶ Dovecot: 13 mailboxes, and the sender's  ◀════LMTP════╝
func TestSplitTwelve(t *testing.T) {
	s, certificates := newTwelve(t, splitOptions{dovecot: true})
	token := newToken()
	raw := []byte(twelveHeader + "Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + token + "\r\n.\r\nend\r\n")
	for _, reply := range s.transact(t, "127.0.0.2", "<sender@bed.test> RET=HDRS ENVID=QQ314159", twelve, raw) {
		if !reply.OK() {
			t.Fatal(reply)
		}
	}
	to := boxes()[1:]
	for range 3 { // notices: of the copies of ann and of dora, and of the one that stayed
		s.got["sender@bed.test"]++
	}
	waitFor(t, "the notices", func() bool { return len(s.files("sender@bed.test")) == 3 })
	for address, message := range s.arrives(t, boxes(), to...) {
		s.holds(t, certificates, address, message, raw, token)
	}
	s.noticed(t, map[string]string{"ann@first.example": ann, "bob@first.example": bob, "dora+x@first.example": dora}, "relayed", "QQ314159") // Dovecot knows no DSN
	log := s.postfix.Log()
	if n := strings.Count(log, ", orig_client=unknown[127.0.0.2]"); n != 8 {
		t.Errorf("%d copies know the client, not 8\n%s", n, log)
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "warning: ") || strings.Contains(line, "status=deferred") {
			t.Error(line)
		}
	}
}

// holds checks what a mailbox has got.
func (s *splitSite) holds(t *testing.T, certificates map[string]bed.Identity, address string, message, raw []byte, token string) {
	t.Helper()
	want := twelveBoxes[address]
	if want == nil {
		untouched(t, message, raw)
		return
	}
	holdsNone(t, "the mailbox of "+address, message, token)
	if !regexp.MustCompile(`(?m)^Received: from client.bed.test \(\[127.0.0.2\] \[127.0.0.2\]\)\n\tby mx.bed.test \(sealmilter\) with ESMTP id [0-9A-F]+;`).Match(message) {
		t.Errorf("the copy of %s does not tell of the client:\n%.1500s", address, message)
	}
	var opened []byte
	var readers []string
	if owner, has := certificates[address]; has {
		opened, readers = owner.OpenSSL(t, bed.DER(t, message)), bed.CMSReaders(t, message)
	} else {
		opened, readers = envelope.Original(s.gpg.Decrypt(t, message)), s.readers(t, message)
	}
	if shown := client.PostfixParser().Parse(raw).Shown(); string(opened) != string(shown) {
		t.Errorf("%s: opened it is\n%.1000q\nwant\n%.1000q", address, opened, shown)
	}
	if slices.Sort(readers); !slices.Equal(readers, want) {
		t.Errorf("the copy of %s is sealed to %q, want %q", address, readers, want)
	}
}

// readers are those whose keys an OpenPGP message names, in the order of their
// addresses, and each key id that nobody has.
func (s *splitSite) readers(t *testing.T, message []byte) (readers []string) {
	t.Helper()
	owners := make(map[string]string)
	owner := ""
	var subkeys []string
	for line := range strings.Lines(string(s.gpg.Run(t, nil, "--list-keys", "--with-colons"))) {
		switch fields := strings.Split(line, ":"); fields[0] {
		case "pub":
			subkeys = nil
		case "uid":
			_, owner, _ = strings.Cut(fields[9], "<")
			if owner = strings.TrimSuffix(owner, ">"); owner == "" {
				owner = fields[9]
			}
		case "sub":
			subkeys = append(subkeys, fields[4])
			owners[fields[4]] = owner
		}
	}
	for _, id := range regexp.MustCompile(`ENC_TO ([0-9A-F]+)`).FindAllSubmatch(s.gpg.Run(t, message, "--list-packets", "--list-only", "--status-fd", "1"), -1) {
		if name := owners[string(id[1])]; name != "" {
			readers = append(readers, name)
		} else {
			readers = append(readers, string(id[1]))
		}
	}
	return readers
}

// noticed checks that the sender was told of each recipient once, by the
// address that the sender had given, and of nobody else.
func (s *splitSite) noticed(t *testing.T, finals map[string]string, action, envelopeID string) {
	t.Helper()
	told := make(map[string]string)
	for _, file := range s.files("sender@bed.test") {
		notice := strings.ReplaceAll(readFile(t, file), "\r\n", "\n")
		if !strings.Contains(notice, "\nOriginal-Envelope-Id: "+envelopeID+"\n") {
			t.Errorf("a notice is not of the envelope %s:\n%s", envelopeID, notice)
		}
		for _, part := range regexp.MustCompile(`(?s)Final-Recipient: rfc822; (\S+)\nOriginal-Recipient: rfc822;(\S+)\nAction: (\w+)`).FindAllStringSubmatch(notice, -1) {
			if part[3] != action {
				t.Errorf("%s was told %s", part[2], part[3])
			}
			told[strings.TrimSpace(part[2])] = part[1]
		}
	}
	if fmt.Sprint(told) != fmt.Sprint(finals) {
		t.Errorf("notices tell of %v, want %v", told, finals)
	}
}

// TestSplitFailure
//
//	SMTP client, to gone, who has a key, and bob ──▶ the same; Dovecot knows no gone ──▶ notice to the sender
func TestSplitFailure(t *testing.T) {
	s, _ := newTwelve(t, splitOptions{dovecot: true, main: []string{"smtpd_reject_unlisted_recipient = no"}})
	s.enrol(t, "gone@bed.test", string(s.gpg.Generate(t, "Gone <gone@bed.test>", "default")))
	token := newToken()
	for _, reply := range s.transact(t, "127.0.0.1", "<sender@bed.test> RET=FULL ENVID=fails", []string{"<" + bob + ">", "<gone@bed.test> NOTIFY=FAILURE ORCPT=rfc822;gone@first.example"}, text(token)) {
		if !reply.OK() {
			t.Fatal(reply)
		}
	}
	notice := s.arrives(t, boxes(), bob, "sender@bed.test")["sender@bed.test"]
	holdsNone(t, "the notice, which has the whole message,", notice, token)
	s.noticed(t, map[string]string{"gone@first.example": "gone@bed.test"}, "failed", "fails")
}

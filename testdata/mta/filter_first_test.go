package mta_test

import (
	"bytes"
	"testing"
)

// TestFilterFirst
//
//	SMTP client ──▶ smtpd ──milter──▶ sealmilter ──▶ PostgreSQL: keys, and the aliases once more
//	sendmail(1) ──▶ pickup(8) ─▶ cleanup(8) ──milter──▶ ┘
//	                   ║
//	                   ╚════▶ cleanup(8): aliases ════▶ queue ════▶ maildir
//
// With contrib/postfix/filter-first.* as it is shipped. A group's copies are
// one message, sealed to all members.
func TestFilterFirst(t *testing.T) {
	s, port := newAliasSite(t)
	s.db.SQL(t, database, `INSERT INTO sealmilter.aliases (address, target) VALUES
		('info@bed.test', 'ann@bed.test'), ('nested@bed.test', 'info@bed.test'), ('@catch.test', 'ann@bed.test'),
		('signed@bed.test', 'carl@bed.test'), ('pair@bed.test', 'ann@bed.test'), ('pair@bed.test', 'archive@bed.test'),
		('root@local.test', 'ann@bed.test');`)
	s.start(t, "filter-first", port, `virtual_alias_maps = inline:{
  { info@bed.test = ann@bed.test }
  { nested@bed.test = info@bed.test }
  { @catch.test = ann@bed.test }
  { signed@bed.test = carl@bed.test }
  { pair@bed.test = ann@bed.test, archive@bed.test } }`,
		"mydestination = local.test", "local_transport = local", "mailbox_size_limit = 0", "alias_maps = inline:{ { root = ann@bed.test } }")
	for _, test := range []struct {
		to    string
		want  []string
		group []string
	}{
		{"info@bed.test", []string{ann}, nil},
		{"Info@Bed.Test", []string{ann}, nil},
		{"info+list@bed.test", []string{ann}, nil},
		{"nested@bed.test", []string{ann}, nil},
		{"anybody@catch.test", []string{ann}, nil},
		{"signed@bed.test", []string{carl}, nil},
		{"carl+list@bed.test", []string{carl}, nil},
		{"pair@bed.test", []string{ann, archive}, []string{ann, archive}},
		{"root@local.test", []string{ann}, nil}, // sealed before local(8) sends it on
	} {
		s.group = test.group
		token := newToken()
		s.sent(t, text(token), test.to)
		s.delivers(t, token, test.want...)
		token = newToken()
		s.postfix.Sendmail(t, []string{"-f", "sender@example.net", test.to}, string(text(token)))
		s.delivers(t, token, test.want...)
	}
}

// TestAliasesAtDelivery
//
//	SMTP client ──▶ smtpd ─▶ queue ──▶ smtpd ──milter──▶ sealmilter
//	                                     └─▶ local(8): aliases(5) ─▶ cleanup(8) ──▶ maildir of ann, in the clear
//
// What local(8) makes of an address no milter sees, as contrib/postfix says;
// in virtual_alias_maps the same alias is expanded in time.
func TestAliasesAtDelivery(t *testing.T) {
	s, port := newAliasSite(t)
	const local = "mydestination = local.test\nmailbox_size_limit = 0\nlocal_transport = local\nlocal_recipient_maps =\nmyorigin = local.test\n"
	s.start(t, "aliases-first", port, local+"alias_maps = inline:{ { root = ann@bed.test } }")
	token := newToken()
	s.sent(t, text(token), "root@local.test")
	if copied := s.arrives(t, ann)[ann]; !bytes.Contains(copied, []byte(token)) {
		t.Error("aliases(5) is looked up before delivery: mend the README of contrib/postfix")
	}

	s.got = make(map[string]int)
	s.start(t, "aliases-first", port, local+"virtual_alias_maps = inline:{ { root = ann@bed.test } }")
	token = newToken()
	s.sent(t, text(token), "root@local.test")
	s.delivers(t, token, ann)
}

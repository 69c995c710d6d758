package storetest

import (
	"context"
	"strings"
	"testing"

	"sealmilter/keys"
)

// Directory is whom a site knows, in words that every kind of store has its
// tables for.
type Directory struct {
	Enrolled     []string     // mailboxes with a key; "@example.org" is the mailbox of a domain
	Bare         []string     // mailboxes that are known and have no key
	Aliases      []keys.Alias // catch-alls are those of "@example.org"
	AliasDomains []keys.Alias // "@old.example" is "@new.example", mailbox by mailbox
}

// KeyOf is the text that a mailbox of a Directory has for a key.
func KeyOf(mailbox string) string { return "the key of " + mailbox }

// Domains are all that a Directory has entries in.
func (d Directory) Domains() (all []string) {
	seen := make(map[string]bool)
	note := func(address string) {
		domain := address[strings.LastIndexByte(address, '@')+1:]
		if !seen[domain] {
			seen[domain] = true
			all = append(all, domain)
		}
	}
	for _, mailboxes := range [][]string{d.Enrolled, d.Bare} {
		for _, mailbox := range mailboxes {
			note(mailbox)
		}
	}
	for _, aliases := range [][]keys.Alias{d.Aliases, d.AliasDomains} {
		for _, alias := range aliases {
			note(alias.Address)
			note(alias.Target)
		}
	}
	return all
}

// Fill puts a Directory into sealmilter's own tables.
func Fill(t testing.TB, s Store, d Directory) {
	t.Helper()
	for _, mailbox := range d.Enrolled {
		add(t, s, mailbox, KeyOf(mailbox))
	}
	for _, mailbox := range d.Bare {
		if err := s.SetAccount(context.Background(), keys.Choices{Address: mailbox, Enabled: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, aliases := range [][]keys.Alias{d.Aliases, d.AliasDomains} {
		for _, alias := range aliases {
			lead(t, s, alias.Address+" -> "+alias.Target)
		}
	}
}

// site is the Directory that the addresses below are looked up in.
var site = Directory{
	Enrolled: []string{
		"ann@example.org", "bob@example.org", "carol+lists@example.org", "dave@example.org", "erin@example.org",
		"postmaster@example.org", "sue@example.org", "ann smith@example.org", "o'brien@example.org", "per%cent@example.org",
		`in"side@example.org`, "owner-list@example.org", "list-request@example.org", "list@example.org", "owner@example.org",
		"jörg@example.org", "zoé@bücher.example", "kai@xn--mnchen-3ya.example", "用户@例子.广告", "ann@[192.0.2.1]",
		"carl@catch.example", "bob@new.example", "@keys.example", "kim@keys.example",
	},
	Bare: []string{"nils@example.org", "lena@keys.example"},
	Aliases: ways(
		"info@example.org ann@example.org", "help@example.org info@example.org",
		"deep1@example.org deep2@example.org", "deep2@example.org deep3@example.org", "deep3@example.org bob@example.org",
		"two@example.org ann@example.org", "two@example.org bob@example.org",
		"three@example.org ann@example.org", "three@example.org nils@example.org", "three@example.org bob@example.org",
		"mixed@example.org ann@example.org", "mixed@example.org ann@elsewhere.example",
		"again@example.org two@example.org", "again@example.org info@example.org",
		"toplus@example.org ann+work@example.org", "toexact@example.org carol+lists@example.org",
		"ann+bobs@example.org bob@example.org",
		"away@example.org bob@new.example", "out@example.org x@elsewhere.example",
		"dave@example.org dave@example.org", "dave@example.org dave@elsewhere.example", "copy@example.org dave@example.org",
		"erin@example.org ann@example.org", "toerin@example.org erin@example.org",
		"loop1@example.org loop2@example.org", "loop2@example.org loop1@example.org", "loop3@example.org loop1@example.org",
		"half@example.org loop1@example.org", "half@example.org bob@example.org",
		"sue@example.org sue2@example.org", "sue2@example.org sue@example.org",
		"self@example.org self@example.org", "ofself@example.org self@example.org",
		"tobooks@example.org zoé@xn--bcher-kva.example", "tokai@example.org kai@münchen.example",
		"toold@example.org bob@old.example", "tocatch@example.org whoever@catch.example", "tokeys@example.org new@keys.example",
		"@catch.example ann@example.org", "bob@catch.example bob@example.org",
		"@group.example ann@example.org", "@group.example bob@example.org",
		"@new.example ann@example.org", "@parked.example @new.example", "@dead.example @elsewhere.example",
		"@bücher.example ann@example.org",
	),
	AliasDomains: ways("@old.example @new.example", "@older.example @old.example", "@alt-keys.example @keys.example",
		"@ring1.example @ring2.example", "@ring2.example @ring1.example"),
}

// ways reads aliases, each "address target".
func ways(lines ...string) (all []keys.Alias) {
	for _, line := range lines {
		address, target, _ := strings.Cut(line, " ")
		all = append(all, keys.Alias{Address: address, Target: target})
	}
	return all
}

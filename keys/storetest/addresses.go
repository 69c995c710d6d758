package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sealmilter/keys"
)

// Addresses looks some addresses up in a Directory and wants the same answer
// of every kind of store. Open returns a store that holds the Directory, closed
// by the test.
func Addresses(t *testing.T, open func(t *testing.T, d Directory) keys.Store) {
	s := open(t, site)
	t.Cleanup(s.Close)
	plus := keys.Naming{Delimiter: "+", Domain: "example.org"}
	var asked []string
	for _, test := range addresses {
		naming := plus
		if test.naming != nil {
			naming = *test.naming
		} else {
			asked = append(asked, test.asked)
		}
		found, err := keys.Lookup(context.Background(), s, naming, []string{test.asked})
		if err != nil {
			t.Errorf("%s: looking up %q: %v", test.why, test.asked, err)
		} else if got := told(found[test.asked]); got != test.want {
			t.Errorf("%s: %q\n got %q\nwant %q", test.why, test.asked, got, test.want)
		}
	}
	// All recipients of one message are one question, and nobody's answer is
	// another's.
	found, err := keys.Lookup(context.Background(), s, plus, asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range addresses {
		if test.naming != nil {
			continue
		}
		if got := told(found[test.asked]); got != test.want {
			t.Errorf("%s: %q among others\n got %q\nwant %q", test.why, test.asked, got, test.want)
		}
	}
}

// told is a Recipient in one line: the name that decided, and the accounts.
func told(r *keys.Recipient) string {
	if r.Unresolved != nil {
		return "unresolved"
	}
	var accounts []string
	for _, account := range r.Accounts {
		mark := ""
		switch {
		case account.KeysOf != "":
			mark = " (keys of " + account.KeysOf + ")"
		case !account.Known:
			mark = " (nobody)"
		case !account.Enrolled():
			mark = " (no key)"
		}
		accounts = append(accounts, account.Address+mark)
	}
	if accounts == nil {
		return "nobody"
	}
	slices.Sort(accounts)
	return r.Name + ": " + strings.Join(accounts, ", ")
}

const ann, bob = "ann@example.org: ann@example.org", "bob@example.org: bob@example.org"

// addresses are what a sender may write and an MTA may hand on, and who is
// meant by it. Without a naming of its own, "+" is the delimiter.
var addresses = []struct {
	why    string
	asked  string
	naming *keys.Naming
	want   string
}{
	{"as enrolled", "ann@example.org", nil, ann},
	{"case of the domain", "ann@EXAMPLE.Org", nil, ann},
	{"case of the local part", "Ann@example.org", nil, "Ann@example.org: ann@example.org"},
	{"case where the site tells it apart", "Ann@example.org", &keys.Naming{CaseSensitive: true}, "nobody"},
	{"the same case there", "ann@Example.org", &keys.Naming{CaseSensitive: true}, ann},
	{"an alias in another case there", "INFO@example.org", &keys.Naming{CaseSensitive: true}, "INFO@example.org: ann@example.org"},
	{"needless quotes", `"ann"@example.org`, nil, ann},
	{"quotes around all of it", `"ann@example.org"`, nil, ann},
	{"a blank in quotes", `"ann smith"@example.org`, nil, "ann smith@example.org: ann smith@example.org"},
	{"a blank behind a backslash", `ann\ smith@example.org`, nil, "ann smith@example.org: ann smith@example.org"},
	{"backslashes in quotes", `"\a\n\n"@example.org`, nil, ann},
	{"a quote in quotes", `"in\"side"@example.org`, nil, `in"side@example.org: in"side@example.org`},
	{"an apostrophe", "o'brien@example.org", nil, "o'brien@example.org: o'brien@example.org"},
	{"a percent sign in a name", "per%cent@example.org", nil, "per%cent@example.org: per%cent@example.org"},
	{"a percent sign is no wildcard", "a%@example.org", nil, "nobody"},
	{"an underscore is no wildcard", "an_@example.org", nil, "nobody"},
	{"a comment", "ann(of sales)@example.org", nil, ann},
	{"comments in comments", "(x(y))ann@(z)example.org", nil, ann},
	{"a source route", "@relay.example,@other.example:ann@example.org", nil, ann},
	{"a final dot", "ann@example.org.", nil, ann},
	{"a domain literal", "ann@[192.0.2.1]", nil, "ann@[192.0.2.1]: ann@[192.0.2.1]"},
	{"nobody", "nobody@example.org", nil, "nobody"},
	{"another domain", "ann@example.net", nil, "nobody"},
	{"a domain below", "ann@sub.example.org", nil, "nobody"},

	{"an extension", "ann+list@example.org", nil, ann},
	{"several delimiters, cut at the first", "ann+list+sub@example.org", nil, ann},
	{"an empty extension", "ann+@example.org", nil, ann},
	{"an extension in quotes", `"ann+a b"@example.org`, nil, ann},
	{"nothing before the delimiter", "+ann@example.org", nil, "nobody"},
	{"an extension that is enrolled itself", "carol+lists@example.org", nil, "carol+lists@example.org: carol+lists@example.org"},
	{"another extension there", "carol+x@example.org", nil, "nobody"},
	{"an extension that is an alias", "ann+bobs@example.org", nil, "ann+bobs@example.org: bob@example.org"},
	{"an extension of an alias", "info+x@example.org", nil, "info@example.org: ann@example.org"},
	{"an extension of SMTPUTF8", "jörg+x@example.org", nil, "jörg@example.org: jörg@example.org"},
	{"another delimiter", "ann-list@example.org", nil, "nobody"},
	{"a set of delimiters", "ann-list+x@example.org", &keys.Naming{Delimiter: "+-"}, ann},
	{"no delimiter", "ann+list@example.org", &keys.Naming{}, "nobody"},
	{"the owner of a list is no extension", "owner-list@example.org", &keys.Naming{Delimiter: "-"}, "owner-list@example.org: owner-list@example.org"},
	{"nor of one that is not enrolled", "owner-x@example.org", &keys.Naming{Delimiter: "-"}, "nobody"},
	{"a list's request address is none", "list-request@example.org", &keys.Naming{Delimiter: "-"}, "list-request@example.org: list-request@example.org"},
	{"nor of one that is not enrolled", "ann-request@example.org", &keys.Naming{Delimiter: "-"}, "nobody"},

	{"postmaster without a domain", "postmaster", nil, "postmaster@example.org: postmaster@example.org"},
	{"in any case", "PostMaster", nil, "PostMaster@example.org: postmaster@example.org"},
	{"any name without a domain", "ann", nil, ann},
	{"and without one to add", "ann", &keys.Naming{}, "nobody"},

	{"U-label, enrolled as such", "zoé@bücher.example", nil, "zoé@bücher.example: zoé@bücher.example"},
	{"A-label, enrolled as U-label", "zoé@xn--bcher-kva.example", nil, "zoé@bücher.example: zoé@bücher.example"},
	{"A-label in upper case", "zoé@XN--BCHER-KVA.example", nil, "zoé@bücher.example: zoé@bücher.example"},
	{"U-label in upper case", "zoé@BÜCHER.example", nil, "zoé@bücher.example: zoé@bücher.example"},
	{"U-label, decomposed", "zoé@bu\u0308cher.example", nil, "zoé@bücher.example: zoé@bücher.example"},
	{"A-label, enrolled as such", "kai@xn--mnchen-3ya.example", nil, "kai@xn--mnchen-3ya.example: kai@xn--mnchen-3ya.example"},
	{"U-label, enrolled as A-label", "kai@münchen.example", nil, "kai@xn--mnchen-3ya.example: kai@xn--mnchen-3ya.example"},
	{"a catch-all under its U-label", "x@xn--bcher-kva.example", nil, "@bücher.example: ann@example.org"},
	{"Chinese", "用户@例子.广告", nil, "用户@例子.广告: 用户@例子.广告"},
	{"Chinese, as A-labels", "用户@xn--fsqu00a.xn--4rr70v", nil, "用户@例子.广告: 用户@例子.广告"},
	{"SMTPUTF8, decomposed", "jo\u0308rg@example.org", nil, "jörg@example.org: jörg@example.org"},
	{"SMTPUTF8 in upper case", "JÖRG@example.org", nil, "jörg@example.org: jörg@example.org"},
	{"SMTPUTF8, decomposed in upper case", "JO\u0308RG@example.org", nil, "jörg@example.org: jörg@example.org"},
	{"SMTPUTF8, another letter", "jorg@example.org", nil, "nobody"},

	{"an alias", "info@example.org", nil, "info@example.org: ann@example.org"},
	{"an alias of an alias", "help@example.org", nil, "help@example.org: ann@example.org"},
	{"four deep", "deep1@example.org", nil, "deep1@example.org: bob@example.org"},
	{"a group of two", "two@example.org", nil, "two@example.org: ann@example.org, bob@example.org"},
	{"a group, one without a key", "three@example.org", nil, "three@example.org: ann@example.org, bob@example.org, nils@example.org (no key)"},
	{"a group, one unknown", "mixed@example.org", nil, "mixed@example.org: ann@elsewhere.example (nobody), ann@example.org"},
	{"the same end by two ways", "again@example.org", nil, "again@example.org: ann@example.org, bob@example.org"},
	{"a mailbox without a key", "nils@example.org", nil, "nils@example.org: nils@example.org (no key)"},
	{"an alias that leads out", "out@example.org", nil, "out@example.org: x@elsewhere.example (nobody)"},
	{"an alias into another domain", "away@example.org", nil, "away@example.org: bob@new.example"},
	{"an alias of a plus-address", "toplus@example.org", nil, "toplus@example.org: ann@example.org"},
	{"of one that is enrolled", "toexact@example.org", nil, "toexact@example.org: carol+lists@example.org"},
	{"an alias of an A-label", "tobooks@example.org", nil, "tobooks@example.org: zoé@bücher.example"},
	{"an alias of a U-label", "tokai@example.org", nil, "tokai@example.org: kai@xn--mnchen-3ya.example"},
	{"a copy kept", "dave@example.org", nil, "dave@example.org: dave@elsewhere.example (nobody), dave@example.org"},
	{"an alias of one who keeps a copy", "copy@example.org", nil, "copy@example.org: dave@elsewhere.example (nobody), dave@example.org"},
	{"account and alias, the alias decides", "erin@example.org", nil, "erin@example.org: ann@example.org"},
	{"and on the way", "toerin@example.org", nil, "toerin@example.org: ann@example.org"},
	{"an alias of itself", "self@example.org", nil, "self@example.org: self@example.org (nobody)"},
	{"an alias of an alias of itself", "ofself@example.org", nil, "ofself@example.org: self@example.org (nobody)"},
	{"a circle", "loop1@example.org", nil, "unresolved"},
	{"a way into a circle", "loop3@example.org", nil, "unresolved"},
	{"an extension of a circle", "loop2+x@example.org", nil, "unresolved"},
	{"a circle, and somebody", "half@example.org", nil, "half@example.org: bob@example.org"},
	{"a circle with an account in it", "sue@example.org", nil, "sue@example.org: sue@example.org"},
	{"the other one of that circle", "sue2@example.org", nil, "sue2@example.org: sue@example.org"},

	{"a catch-all", "anybody@catch.example", nil, "@catch.example: ann@example.org"},
	{"a catch-all in any case", "anybody@Catch.EXAMPLE", nil, "@catch.example: ann@example.org"},
	{"an alias before the catch-all", "bob@catch.example", nil, "bob@catch.example: bob@example.org"},
	{"a mailbox before the catch-all", "carl@catch.example", nil, "carl@catch.example: carl@catch.example"},
	{"its extension before the catch-all", "carl+x@catch.example", nil, "carl@catch.example: carl@catch.example"},
	{"an alias' extension before it", "bob+x@catch.example", nil, "bob@catch.example: bob@example.org"},
	{"a catch-all to a group", "x@group.example", nil, "@group.example: ann@example.org, bob@example.org"},
	{"an alias into a catch-all", "tocatch@example.org", nil, "tocatch@example.org: ann@example.org"},
	{"a domain by its name", "@catch.example", nil, "@catch.example: ann@example.org"},

	{"a domain that is another", "bob@old.example", nil, "@old.example: bob@new.example"},
	{"over two of them", "bob@older.example", nil, "@older.example: bob@new.example"},
	{"with an extension", "bob+x@old.example", nil, "@old.example: bob@new.example"},
	{"with a catch-all behind", "x@old.example", nil, "@old.example: ann@example.org"},
	{"as a catch-all's target", "bob@parked.example", nil, "@parked.example: bob@new.example"},
	{"leading out", "bob@dead.example", nil, "nobody"},
	{"an alias into one", "toold@example.org", nil, "toold@example.org: bob@new.example"},
	{"domains in a circle", "bob@ring1.example", nil, "unresolved"},

	{"a domain's keys, for whoever has no entry", "x@keys.example", nil, "@keys.example: @keys.example"},
	{"for who has no key", "lena@keys.example", nil, "lena@keys.example: lena@keys.example (keys of @keys.example)"},
	{"not for who has one", "kim@keys.example", nil, "kim@keys.example: kim@keys.example"},
	{"not for who has one, by an extension", "kim+x@keys.example", nil, "kim@keys.example: kim@keys.example"},
	{"an alias to it", "tokeys@example.org", nil, "tokeys@example.org: @keys.example"},
	{"a domain that is it", "x@alt-keys.example", nil, "@alt-keys.example: @keys.example"},
	{"a mailbox of a domain that is it", "kim@alt-keys.example", nil, "@alt-keys.example: kim@keys.example"},
}

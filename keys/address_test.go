package keys

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// TestCanonical: what an address is looked up as. A second result of false is
// an address that cannot be read, and stays as it is.
func TestCanonical(t *testing.T) {
	for _, test := range []struct {
		address, want string
		ok            bool
	}{
		{"ann@example.org", "ann@example.org", true},
		{"Ann@Example.ORG", "Ann@example.org", true},
		{"ann@example.org.", "ann@example.org", true},
		{"ann@ÜBER.example", "ann@über.example", true},
		{"Jörg@example.org", "Jörg@example.org", true},
		{"ann@[192.0.2.1]", "ann@[192.0.2.1]", true},
		{"ann@[192.0.2.1].", "ann@[192.0.2.1]", true},
		{"ann@[IPv6:2001:DB8::1]", "ann@[ipv6:2001:db8::1]", true},
		{"ann+tag@example.org", "ann+tag@example.org", true},
		{"ann%example.org@example.net", "ann%example.org@example.net", true},
		{"postmaster", "postmaster", true},
		{".ann..b.@example.org", ".ann..b.@example.org", true},
		{"o'brien@example.org", "o'brien@example.org", true},
		{"{a,b}@example.org", "{a,b}@example.org", false},

		{`"ann"@example.org`, "ann@example.org", true},
		{`a"nn"@example.org`, `a"nn"@example.org`, false},
		{`"a"nn@example.org`, `"a"nn@example.org`, false},
		{`"a"."b"@example.org`, "a.b@example.org", true},
		{`a."b".c@example.org`, "a.b.c@example.org", true},
		{`"a b"@example.org`, "a b@example.org", true},
		{`a b@example.org`, "a b@example.org", false},
		{`a\ b@example.org`, "a b@example.org", true},
		{`"a\"b"@example.org`, `a"b@example.org`, true},
		{`"a\\b"@example.org`, `a\b@example.org`, true},
		{`\a\n\n@example.org`, "ann@example.org", true},
		{`"a@b"@example.org`, "a@b@example.org", true},
		{`a\@b@example.org`, "a@b@example.org", true},
		{`a@b@example.org`, "a@b@example.org", true},
		{`"ann@example.org"`, "ann@example.org", true},
		{`""@example.org`, "@example.org", true},
		{`"(ann)"@example.org`, "(ann)@example.org", true},
		{`ann@"Example.org"`, "ann@example.org", true},
		{`ann@example\.org`, "ann@example.org", true},
		{`ann@"example"."org."`, "ann@example.org", true},

		{" ann@example.org\t", "ann@example.org", true},
		{"ann @ example . org", "ann@example.org", true},
		{"(x)ann(x)@(x)example.(x)org(x)", "ann@example.org", true},
		{`ann(a (b) \) "c)@example.org`, "ann@example.org", true},
		{"a(x)b@example.org", "a(x)b@example.org", false},
		{"a.(x)b@example.org", "a.b@example.org", true},
		{"@example.net:ann@example.org", "ann@example.org", true},
		{"@a.example,@b.example:ann@example.org", "ann@example.org", true},
		{"@a.example:@b.example: ann@example.org", "ann@example.org", true},
		{"@:ann@example.org", "ann@example.org", true},
		{"@example.net:", "@example.net:", false},

		{"", "", false},
		{" ", " ", false},
		{"@", "@", false},
		{"ann@", "ann@", false},
		{"ann@.", "ann@.", false},
		{"ann@example.org..", "ann@example.org..", false},
		{`"ann@example.org`, `"ann@example.org`, false},
		{`"ann\"@example.org`, `"ann\"@example.org`, false},
		{`ann@example.org\`, `ann@example.org\`, false},
		{"ann(x@example.org", "ann(x@example.org", false},
		{"ann)@example.org", "ann)@example.org", false},
		{"ann@[192.0.2.1", "ann@[192.0.2.1", false},
		{"ann@192.0.2.1]", "ann@192.0.2.1]", false},
		{"Ann <ann@example.org", "Ann <ann@example.org", false},
		{"<ann@example.org>", "<ann@example.org>", false},
		{"team:ann@example.org;", "team:ann@example.org;", false},
		{"ann@example.org,bob@example.org", "ann@example.org,bob@example.org", false},
		{"ann@example.org,", "ann@example.org,", false},
		{"ann@example.org bob@example.org", "ann@example.org bob@example.org", false},
		{"ann\xff@example.org", "ann\xff@example.org", false},
	} {
		got, ok := readAddress(test.address)
		if got != test.want || ok != test.ok {
			t.Errorf("%q is %q, %v; want %q, %v", test.address, got, ok, test.want, test.ok)
		}
		if Canonical(test.address) != got {
			t.Errorf("Canonical(%q) is %q, want %q", test.address, Canonical(test.address), got)
		}
	}
}

// dodges are spellings of b@bed.test that Postfix 3.7 delivers to that mailbox,
// or that it might.
var dodges = []string{
	"b@bed.test", "B@BED.Test", `"b"@bed.test`, `\b@bed.test`, "b@bed.test.", "b@bed.test..",
	"b@bed.test ", " b@bed.test", "b @bed.test", "b@ bed.test", "b@bed .test", "b@bed. test", "b\t@bed.test",
	"(x)b@bed.test", "b(x)@bed.test", "b@(x)bed.test", "b@bed.test(x)", "b@bed(x).test", "b@bed.test (a@x.test)",
	`b(\)(x))@bed.test`, `b("x)@bed.test`, "b()@bed.test", "b((x)@bed.test", "b(x))@bed.test", "b(x",
	"Name <b@bed.test>", "<b@bed.test>", "b@bed.test<x>", ">b@bed.test", " >b@bed.test", "x<b@bed.test",
	"@r.test:b@bed.test", "@r.test,@s.test:b@bed.test", "@:b@bed.test", "@r.test:@s.test:b@bed.test", " @r.test:b@bed.test",
	"(x)@r.test:b@bed.test", `"b@bed.test"`, `b\@bed.test`, `b@"bed.test"`, `b@"bed".test`, `b@bed\.test`,
	"g:b@bed.test;", "g:b@bed.test", "b@bed.test,", "b@bed.test;", ",b@bed.test", ";b@bed.test", "b@bed.test,x@x.test",
	`""b@bed.test`, `b""@bed.test`, `"b@bed.test`, "b@[bed.test]", "b@[bed.test", "b@bed.test[x]", `b\`,
	"b\v@bed.test", "b@bed.test\f", "b@bed.test\x01", "b\u00a0@bed.test", "b@bed\u3002test", "[b]@bed.test", `"\b"@bed.test`,
}

// TestPostfixSpellings: SMTP client → Postfix → virtual(8). Whatever spelling
// it is that brings a message into a mailbox, the key of that mailbox is
// looked up for it, or the lookup fails.
func TestPostfixSpellings(t *testing.T) {
	p := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{"b@bed.test"},
		Main:      []string{"bounce_queue_lifetime = 0", "maximal_queue_lifetime = 0", "notify_classes =", "soft_bounce = no"},
	})
	accepted := 0
	for i, spelling := range dodges {
		raw := fmt.Appendf(nil, "Subject: spelling %d\r\n\r\nx\r\n", i)
		if bed.Sent(bed.SendMail(t, p.Addr(), "", []string{spelling}, raw)) {
			accepted++
		}
	}
	for end := time.Now().Add(20 * time.Second); !p.QueueEmpty(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the queue does not get empty")
		}
	}
	delivered := p.Maildir("b@bed.test")
	if len(delivered) < len(dodges)/3 {
		t.Fatalf("%d of %d spellings were accepted, %d delivered", accepted, len(dodges), len(delivered))
	}
	for _, file := range delivered {
		spelling := dodges[numberIn(t, file)]
		if got, ok := readAddress(spelling); ok && !strings.EqualFold(got, "b@bed.test") {
			t.Errorf("%q is delivered to b@bed.test and looked up as %q", spelling, got)
		}
	}
	t.Logf("%d spellings, %d accepted, %d delivered", len(dodges), accepted, len(delivered))
}

// numberIn is the number in the subject of a delivered message.
func numberIn(t testing.TB, file string) (number int) {
	t.Helper()
	text := string(must(os.ReadFile(file))(t))
	_, subject, _ := strings.Cut(text, "Subject: spelling ")
	if _, err := fmt.Sscan(subject, &number); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return number
}

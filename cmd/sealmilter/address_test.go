package main

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	tests := []struct{ text, want, problem string }{
		{"ann@example.org", "ann@example.org", ""},
		{"Ann.B+x@EXAMPLE.Org.", "Ann.B+x@example.org", ""},
		{`"Ann B"@example.org`, "Ann B@example.org", ""},
		{"ännchen@bücher.example", "ännchen@bücher.example", ""},
		{"ann@[192.0.2.1]", "ann@[192.0.2.1]", ""},
		{"ann@localhost", "ann@localhost", ""},
		{"", "", "it has no @"},
		{"ann", "", "it has no @"},
		{"@example.org", "", "nothing stands before the @"},
		{"ann@", "", "the domain is empty"},
		{"ann@.", "", "the domain is empty"},
		{"ann@a..b", "", "a part of it is"},
		{"ann@exa mple.org", "", `a part "exa mple"`},
		{"ann b@example.org", "", "needs quotes"},
		{"a@b@example.org", "", "needs quotes"},
		{"<ann@example.org>", "", "angle brackets"},
		{"ann\n@example.org", "", "control character"},
		{"ann\xff@example.org", "", "not UTF-8"},
		{strings.Repeat("a", 65) + "@example.org", "", "longer than 64 bytes"},
		{"ann@" + strings.Repeat("a.", 130) + "org", "", "longer than 254 bytes"},
	}
	for _, test := range tests {
		got, err := parseAddress(test.text)
		if got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%q: error %v, want %q", test.text, err, test.problem)
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("%q: exit code %d", test.text, exitCode(err))
		}
	}
}

package milter

import (
	"reflect"
	"strings"
	"testing"

	"github.com/emersion/go-milter"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
)

func TestChanges(t *testing.T) {
	a, b, c, none := envelope.Field{Name: "A", Value: " 1"}, envelope.Field{Name: "b", Value: " 2"}, envelope.Field{Name: "a", Value: " 3"}, envelope.Field{}
	other := envelope.Field{Name: "a", Value: " 4"}
	tests := []struct {
		name        string
		shown, kept []envelope.Field
		want        []change
	}{
		{"nothing", []envelope.Field{a, b, c}, []envelope.Field{a, b, c}, nil},
		{"no header", nil, nil, nil},
		{"all out", []envelope.Field{a, b, c, a}, make([]envelope.Field, 4), []change{{"A", 3, none}, {"a", 2, none}, {"b", 1, none}, {"A", 1, none}}},
		{"one of a name", []envelope.Field{a, b, c}, []envelope.Field{a, b, none}, []change{{"a", 2, none}}},
		{"another value", []envelope.Field{a, b, c}, []envelope.Field{none, b, other}, []change{{"a", 2, other}, {"A", 1, none}}},
	}
	for _, test := range tests {
		if got := changes(test.shown, test.kept); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestRewriteProtected: what a protected header has left outside is the same for
// Postfix and Sendmail, whoever supplies the space behind the colon, and the
// message inside is what it was.
func TestRewriteProtected(t *testing.T) {
	header := `Subject: one
X-A: x
subject: two
From: Ann <ann@example.net>, Other <other@example.net>
Comments: c
SUBJECT: three
To: ` + strings.Repeat("A Name That Is Long <reader@example.org>,\n ", 50) + `last@example.org
Comments: d
Date: Mon, 2 Mar 2026 09:30:00 +0100
Content-Type: text/plain; hp="clear"
Thread-Topic: one
`
	m := client.ParseMessage([]byte(header + "\nbody\n"))
	wants := map[keys.HeaderProtection]map[string][]string{
		keys.Baseline: {"Subject": {"[...]"}, "From": {"Ann <ann@example.net>, Other <other@example.net>"}, "Date": {"Mon, 2 Mar 2026 09:30:00 +0100"}},
		keys.Shy:      {"Subject": {"[...]"}, "From": {"ann@example.net, other@example.net"}, "Date": {"Mon, 02 Mar 2026 08:30:00 +0000"}},
	}
	for protection, want := range wants {
		f := newFilter(t, func(c *Config) { c.Policy.Settings.Protection = &protection })
		ann := f.enrol(t, "ann@example.org")
		for name, opts := range map[string]client.Options{
			"Postfix":               {},
			"Sendmail":              {Sendmail: true},
			"without leading space": {Version: 6, Actions: client.AllActions, Protocol: client.AllProtocol &^ milter.OptHeaderLeadingSpace},
		} {
			t.Run(string(protection)+" "+name, func(t *testing.T) {
				result := sendOn(t, f.dial(t, opts), m, "ann@example.org")
				opens(t, result, ann, m)
				for _, hidden := range []string{"Comments", "Thread-Topic"} {
					if values := result.Queued.Values(hidden); values != nil {
						t.Errorf("%s stands outside: %q", hidden, values)
					}
				}
				for name, values := range want {
					if got := result.Queued.Values(name); !reflect.DeepEqual(got, values) {
						t.Errorf("%s is %q outside, want %q", name, got, values)
					}
				}
				if names := strings.Contains(strings.Join(result.Queued.Values("To"), ""), "Name"); names != (protection == keys.Baseline) {
					t.Errorf("To is %q", result.Queued.Values("To"))
				}
				for _, f := range result.Queued.Header {
					for line := range strings.SplitSeq(f.Name+":"+f.Value, "\n") {
						if len(line) > 997 || strings.Contains(line, "\r") || !strings.HasPrefix(f.Value, " ") {
							t.Errorf("an MTA does not take %q", f)
						}
					}
				}
				if f := result.Queued.Header[0]; f.Name != "Subject" {
					t.Errorf("the first field is %q: the order has changed", f)
				}
			})
		}
	}
}

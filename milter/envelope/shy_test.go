package envelope

import (
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// TestShyDateWhereServerLives: time.Parse gives a date the server's own zone, with
// its name, where the offset is the one that holds there. The zone must go all
// the same.
func TestShyDateWhereServerLives(t *testing.T) {
	home := time.Local
	defer func() { time.Local = home }()
	for _, test := range []struct{ server, date, want string }{
		{"UTC", " Sat, 21 Nov 2026 17:00:00 +0100", " Sat, 21 Nov 2026 16:00:00 +0000"},
		{"Europe/Berlin", " Sat, 21 Nov 2026 17:00:00 +0100", " Sat, 21 Nov 2026 16:00:00 +0000"},
		{"Europe/Berlin", " Tue, 21 Jul 2026 17:00:00 +0200 (CEST)", " Tue, 21 Jul 2026 15:00:00 +0000"},
		{"Europe/London", " Tue, 21 Jul 2026 17:00:00 +0100", " Tue, 21 Jul 2026 16:00:00 +0000"},
		{"America/New_York", " Sat, 21 Nov 2026 11:00:00 -0500", " Sat, 21 Nov 2026 16:00:00 +0000"},
		{"America/New_York", " Sat, 21 Nov 2026 11:00:00 EST", " Sat, 21 Nov 2026 16:00:00 +0000"},
		{"UTC", " Sat, 21 Nov 2026 11:00:00 EST", " Sat, 21 Nov 2026 16:00:00 +0000"},
		{"Asia/Kolkata", " Sat, 21 Nov 2026 21:30:00 +0530", " Sat, 21 Nov 2026 16:00:00 +0000"},
	} {
		zone, err := time.LoadLocation(test.server)
		if err != nil {
			t.Fatal(err)
		}
		time.Local = zone
		got := outer([]Field{{"Date", test.date}}, keys.Shy)[0].Value
		if got != test.want {
			t.Errorf("on a server in %s the date%s shows as%s, want%s", test.server, test.date, got, test.want)
		}
	}
}

// TestShyShowsNoName: nothing of a name stays outside.
func TestShyShowsNoName(t *testing.T) {
	for _, f := range []Field{
		{"X-Google-Original-From", " Ann Example <ann@example.org>"}, // by Gmail, where it has changed From
		{"From", " =?utf-8?q?Ann@Example,_Dr.?= <ann@example.org>"},
	} {
		if got := outer([]Field{f}, keys.Shy)[0].Value; strings.Contains(got, "Ann") || !strings.Contains(got, "ann@example.org") {
			t.Errorf("%s:%s shows%s", f.Name, f.Value, got)
		}
	}
}

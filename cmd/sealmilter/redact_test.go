package main

import (
	"strings"
	"testing"
)

func TestRedactStoreURL(t *testing.T) {
	tests := []struct{ url, want string }{
		{"", ""},
		{"sqlite:/var/lib/keys.db", "sqlite:/var/lib/keys.db"},
		{"postgres://h/d", "postgres://h/d"},
		{"postgres://u@h:5432/d", "postgres://u@h:5432/d"},
		{"postgres://u:secret@h/d", "postgres://u:***@h/d"},
		{"postgres://:secret@h/d", "postgres://:***@h/d"},
		{"postgresql://u:s%40cret@h1:1,h2:2/d?target_session_attrs=any", "postgresql://u:***@h1:1,h2:2/d?target_session_attrs=any"},
		{"postgres://u:secret@[::1]:5432/d", "postgres://u:***@[::1]:5432/d"},
		{"postgres://%2Frun%2Fpostgresql/d", "postgres://%2Frun%2Fpostgresql/d"},
		{"postgres://u@h/d?password=secret&sslmode=require", "postgres://u@h/d?password=***&sslmode=require"},
		{"postgres://u@h/d?sslmode=require&pass%77ord=secret", "postgres://u@h/d?sslmode=require&pass%77ord=***"},
		{"postgres://h/d?sslpassword=secret", "postgres://h/d?sslpassword=***"},
		{"postgres:///d?host=/run/postgresql", "postgres:///d?host=/run/postgresql"},
		{"host=h dbname=d", "host=h dbname=d"},
		{"host=h password=secret dbname=d", "host=h password=*** dbname=d"},
		{"host=h password = 'sec ret' dbname=d", "host=h password=*** dbname=d"},
		{`password='sec\'ret secret' host=h`, "password=*** host=h"},
		{`password=sec\ ret host=h`, "password=*** host=h"},
		{"PASSWORD=secret host=h", "***"}, // libpq knows no such word, and so it is no connection string
		{"host=h Password=secret", "host=h Password=***"},
		{"password=", "password=***"},

		// What cannot be told apart with certainty is not shown.
		{"postgres://u:sec@ret@h/d", "postgres://***"},
		{"postgres://u:sec/ret@h/d", "postgres://***"},
		{"postgres://u:sec?ret@h/d", "postgres://***"},
		{"postgres://u:secret?x=y@h/d", "postgres://***"},
		{"postgres://u:sec#ret@h/d", "postgres://***"},
		{"postgres://u:sec:ret@h/d", "postgres://***"},
		{"postgres://u:secret", "postgres://***"},
		{"host=h password='secret", "host=h ***"},
		{"host=h password=se'cret x=y", "host=h ***"},
		{"mysql://u:secret@h/d", "***"},
		{"secret", "***"},
	}
	for _, test := range tests {
		got := redactStoreURL(test.url)
		if got != test.want {
			t.Errorf("%s\ngot  %s\nwant %s", test.url, got, test.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := oneLine("a\n\tb\x1b[2Jc\u202ed\r\n é"); got != "a; b\ufffd[2Jc\ufffdd; é" {
		t.Errorf("%q", got)
	}
}

// FuzzRedactDSN holds that a password never shows, wherever it stands.
func FuzzRedactDSN(f *testing.F) {
	f.Add("u", "h", "sslmode=disable")
	f.Add("", "h1,h2:5432", "password=x&a=b")
	f.Add("a:b", "h@h", "?")
	f.Add("0", " ", "0") // libpq reads "host=  password=x" as a host
	const secret = "hunter2"
	f.Fuzz(func(t *testing.T, user, host, rest string) {
		if strings.Contains(user+host+rest, secret) {
			t.Skip()
		}
		for _, dsn := range []string{
			"postgres://" + user + ":" + secret + "@" + host + "/" + rest,
			"postgres://" + user + "@" + host + "/d?" + rest + "&password=" + secret,
			"user=" + user + " host=" + host + " password=" + secret + " " + rest,
			"user=" + user + " password='" + secret + "' host=" + host,
		} {
			if shown := redactStoreURL(dsn); strings.Contains(shown, secret) {
				t.Errorf("%q shows as %q", dsn, shown)
			}
		}
	})
}

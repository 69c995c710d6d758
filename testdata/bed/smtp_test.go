package bed

import (
	"net"
	"strings"
	"testing"
)

// TestSMTPIsStrict: a server that answers what it likes.
func TestSMTPIsStrict(t *testing.T) {
	for _, test := range []struct {
		answers []string // the greeting, then one to each command; then the server hangs up
		want    string
	}{
		{[]string{"220 hi\r\n", "250-a\r\n250 b\r\n"}, "waiting for the reply to MAIL"},
		{[]string{"220 hi\r\n", "250 a\r\n", "550 no\r\n"}, ""},
		{[]string{"550 no\r\n"}, ""},
		{[]string{"220 hi\r\n", "550 no\r\n"}, ""},
		{[]string{"220 hi\n"}, "malformed line"},
		{[]string{"22\r\n"}, "malformed line"},
		{[]string{"220-hi\r\n221 ho\r\n"}, "malformed code"},
		{[]string{"220 hi\r\n", "250 a\r\n250 b\r\n"}, "more than its reply"},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			for i, answer := range test.answers {
				if i > 0 {
					conn.Read(make([]byte, 1000))
				}
				conn.Write([]byte(answer))
			}
			conn.Read(make([]byte, 1000)) // no reset before the last answer was read
		}()
		replies, err := sendMail(ln.Addr().String(), "a@bed.test", []string{"b@bed.test"}, nil)
		ln.Close()
		if test.want == "" && (err != nil || len(replies) != 1 || replies[0].Code != 550) {
			t.Errorf("%q: %v, %v", test.answers, replies, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: error %v", test.answers, err)
		}
	}
}

func TestStuffed(t *testing.T) {
	for raw, want := range map[string]string{
		"":                "",
		"a":               "a\r\n",
		".\n.b\r\n\r.c":   "..\n..b\r\n\r.c\r\n",
		"a\r\n.\r\nb\r\n": "a\r\n..\r\nb\r\n",
	} {
		if got := string(stuffed([]byte(raw))); got != want {
			t.Errorf("%q became %q", raw, got)
		}
	}
}

package milter

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-smtp"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
)

// TestTogether sends a large message to many, whose copies leave at the same
// time. One of them is refused at first: the others are accepted and noted, and
// the retry sends this one only.
func TestTogether(t *testing.T) {
	s := newSplitter(t, nil)
	var people []*openpgp.Entity
	var to []string
	for n := range largeAtOnce + 3 {
		to = append(to, fmt.Sprintf("reader%d@example.org", n))
		people = append(people, s.enrol(t, to[n]))
	}
	m := client.Message{Header: textMessage("").Header, Body: []byte(strings.Repeat("a line of a large message\r\n", largeCopy/27))}
	refused := to[5]
	s.service.refuse = func(to string) error {
		if to == refused {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "not now"}
		}
		return nil
	}
	s.deferred(t, sendOn(t, s.dial(t, trusting), m, to...).Final, "re-injecting copy 5 of ")
	if n := len(s.service.got()); n != largeAtOnce-1 {
		t.Errorf("%d copies were accepted beside the one that was not, want %d", n, largeAtOnce-1)
	}
	s.service.refuse = nil
	if result := sendOn(t, s.dial(t, trusting), m, to...); result.Queued == nil {
		t.Fatal(result.Final)
	}
	came := make(map[string]bool)
	for _, c := range s.service.got() {
		if came[c.to[0]] {
			t.Errorf("%s got two", c.to[0])
		}
		came[c.to[0]] = true
		var n int
		fmt.Sscanf(c.to[0], "reader%d@", &n)
		if n%4 != 0 { // each takes its time, and what they share is the same
			continue
		}
		got, err := envelope.Open(c.text, &envelope.Secret{OpenPGP: openpgp.EntityList{people[n]}})
		if err != nil || string(got) != string(m.Shown()) {
			t.Errorf("%s cannot open it: %v", c.to[0], err)
		}
	}
	if len(came) != len(to)-1 {
		t.Errorf("%d copies came, want %d", len(came), len(to)-1)
	}
}

// TestTogetherForgets: where the memory fails, all that was accepted may come
// twice, and the log says so of each.
func TestTogetherForgets(t *testing.T) {
	s := newSplitter(t, nil)
	var to []string
	for n := range 4 {
		to = append(to, fmt.Sprintf("reader%d@example.org", n))
		s.enrol(t, to[n])
	}
	s.memory.refuse = errors.New("disk full")
	m := client.Message{Header: textMessage("").Header, Body: []byte(strings.Repeat("a line\r\n", 2*largeCopy/8))}
	s.deferred(t, sendOn(t, s.dial(t, trusting), m, to...).Final, "disk full")
	if n := strings.Count(s.log.String(), "a copy may come twice"); n != 3 {
		t.Errorf("the log says %d times that a copy may come twice", n)
	}
}

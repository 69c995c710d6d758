package mta_test

import (
	"fmt"
	"strings"
	"testing"

	"sealmilter/testdata/bed"
)

// block is the code block of the README that begins with a line.
func block(t *testing.T, first string) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, "../../README.md"), "\n"+first)
	if !found {
		t.Fatalf("the README has no block that begins with %q", first)
	}
	text, _, found := strings.Cut(rest, "\n```")
	if !found {
		t.Fatalf("the README's block %q has no end", first)
	}
	return first + text
}

// TestReadme
//
//	SMTP client ──▶ Postfix, set up by the README's lines ──milter──▶ sealmilter ──▶ PostgreSQL, filled by the README's INSERT
//
// What an administrator copies out of the README works as it stands there,
// but for the port, the address and the key.
func TestReadme(t *testing.T) {
	db, gpg := bed.StartPostgres(t), bed.NewGnuPG(t)
	db.CreateDatabase(t, database)
	runProgram(t, "migrate", "--store", db.URL("postgres", database))
	db.SQL(t, database, readFile(t, "../../contrib/postgres/roles.sql"))

	insert := strings.ReplaceAll(block(t, "INSERT INTO sealmilter.keys"), "ann@example.org", ann)
	begin, end := strings.Index(insert, "-----BEGIN"), strings.LastIndex(insert, "'")
	db.SQL(t, database, insert[:begin]+string(gpg.Generate(t, ann, "default"))+insert[end:])

	port := bed.FreePort(t)
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"inet:127.0.0.1:%d\"\n[store]\nurl = %q\n", port, db.URL("sealmilter", database)))
	lines := strings.Split(strings.ReplaceAll(block(t, "# main.cf"), "8890", fmt.Sprint(port)), "\n")
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{ann},
		Main:      append(lines, "local_header_rewrite_clients ="),
	})
	s := &site{db, daemon, postfix, gpg}
	raw := message(t, "multipart.eml")
	s.sent(t, raw, ann)
	s.opens(t, s.delivered(t, ann, 1), raw)
	postfix.Sendmail(t, []string{"-f", "root@bed.test", ann}, "Subject: by sendmail(1)\n\nhello\n")
	if got := string(gpg.Decrypt(t, s.delivered(t, ann, 2))); !strings.HasSuffix(got, "hello\r\n") {
		t.Errorf("opened it is %q", got)
	}
	daemon.Stop(t)
	replies := s.send(t, raw, ann)
	if last := replies[len(replies)-1]; last.Code != 451 {
		t.Errorf("with the daemon stopped the answers are %v", replies)
	}

	explain := strings.Fields(strings.ReplaceAll(block(t, "sealmilter policy explain"), "ann@example.org", ann))[1:7]
	explain = append(explain, "--header", "X-Spam-Flag: YES", "--store", db.URL("sealmilter", database))
	if said := runProgram(t, explain...); !strings.Contains(said, "seal") {
		t.Errorf("explain says\n%s", said)
	}
	settled(t, db, block(t, "INSERT INTO sealmilter.aliases"))
	if ends := db.SQL(t, database, "SELECT count(*) FROM sealmilter.recipient_keys(ARRAY['team@example.org'])"); strings.TrimSpace(ends) != "2" {
		t.Errorf("the README's group has %q members", ends)
	}

	for _, update := range []string{"SET cipher = 'aes128'", "SET enabled = false"} {
		settled(t, db, strings.ReplaceAll(block(t, "UPDATE sealmilter.accounts "+update), "ann@example.org", ann))
	}
}

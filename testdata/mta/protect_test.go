package mta_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// guarded is somebody whose header is protected in one way, and how their mail is
// opened.
type guarded struct {
	address    string
	protection string // "" is the site's
	encryption string // as Thunderbird names it
	open       func(testing.TB, []byte) []byte
	secret     []byte
	identity   bed.Identity
}

// guardedReaders have one of each: OpenPGP and S/MIME, the site's protection and
// an account's own.
func guardedReaders(t *testing.T, gpg *bed.GnuPG, store string) (all []*guarded) {
	t.Helper()
	var sql strings.Builder
	for _, protection := range []string{"", "baseline", "shy", "off"} {
		for _, encryption := range []string{"OpenPGP", "S/MIME"} {
			name := strings.ToLower(strings.ReplaceAll(encryption, "/", "")) + protection
			g := &guarded{address: name + "@bed.test", protection: protection, encryption: encryption}
			file := filepath.Join(bed.Dir(t), "key")
			if encryption == "OpenPGP" {
				if err := os.WriteFile(file, gpg.Generate(t, name+" <"+g.address+">", "default"), 0o600); err != nil {
					t.Fatal(err)
				}
				g.open, g.secret = gpg.Decrypt, gpg.ExportSecret(t, g.address)
			} else {
				g.identity = bed.NewIdentity(t, g.address, "RSA rsa_keygen_bits:2048")
				file, g.open = g.identity.Certificate, g.identity.OpenSSL
				g.secret = []byte(readFile(t, g.identity.Key) + readFile(t, g.identity.Certificate))
			}
			runProgram(t, "key", "add", "--store", "sqlite:"+store, g.address, file)
			if protection != "" {
				fmt.Fprintf(&sql, "UPDATE accounts SET options = '{\"header_protection\": %q}' WHERE address = '%s';\n", protection, g.address)
			}
			all = append(all, g)
		}
	}
	if out, err := exec.Command(bed.Need(t, "sqlite3"), store, sql.String()).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	return all
}

// unseal opens a message by our own command.
func (g *guarded) unseal(t *testing.T, sealed []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	key, in := filepath.Join(dir, "secret"), filepath.Join(dir, "sealed.eml")
	for file, text := range map[string][]byte{key: g.secret, in: sealed} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return runProgramOn(t, in, "unseal", "--key", key)
}

// guardedMessage has something for every protection to hide.
const guardedMessage = `Received: from a.example by b.example; Mon, 2 Mar 2026 09:30:01 +0100
From: Ella Grün <ella@garden.example>
Subject: The tomatoes
 are red
Thread-Topic: The tomatoes
To: "Reader, Dear" <reader@bed.test>, other@bed.test
Cc: Somebody <somebody@bed.test>
Date: Mon, 2 Mar 2026 09:30:00 +0100
Keywords: garden
Message-ID: <tomatoes@garden.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

They are, Grün is not.
`

// guardedOuter is what stands outside of it.
var guardedOuter = map[string]string{
	"off": `Received: from a.example by b.example; Mon, 2 Mar 2026 09:30:01 +0100
From: Ella Grün <ella@garden.example>
Subject: The tomatoes
 are red
Thread-Topic: The tomatoes
To: "Reader, Dear" <reader@bed.test>, other@bed.test
Cc: Somebody <somebody@bed.test>
Date: Mon, 2 Mar 2026 09:30:00 +0100
Keywords: garden
Message-ID: <tomatoes@garden.example>
`,
	"baseline": `Received: from a.example by b.example; Mon, 2 Mar 2026 09:30:01 +0100
From: Ella Grün <ella@garden.example>
Subject: [...]
To: "Reader, Dear" <reader@bed.test>, other@bed.test
Cc: Somebody <somebody@bed.test>
Date: Mon, 2 Mar 2026 09:30:00 +0100
Message-ID: <tomatoes@garden.example>
`,
	"shy": `Received: from a.example by b.example; Mon, 2 Mar 2026 09:30:01 +0100
From: ella@garden.example
Subject: [...]
To: reader@bed.test, other@bed.test
Cc: somebody@bed.test
Date: Mon, 02 Mar 2026 08:30:00 +0000
Message-ID: <tomatoes@garden.example>
`,
}

// TestProtected
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ SQLite
//	   ║
//	   ╚════▶ gpg, openssl, sealmilter unseal
//
// What the MTA keeps of a header is what the reader's account says, or the site;
// the payload tells of it; and opened again the message is what it was.
func TestProtected(t *testing.T) {
	store := filepath.Join(bed.Dir(t), "keys.db")
	runProgram(t, "migrate", "--store", "sqlite:"+store)
	readers := guardedReaders(t, bed.NewGnuPG(t), store)
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\n[store]\nurl = %q\n[sealing]\nheader_protection = \"baseline\"\n", "sqlite:"+store))
	s := (&alone{daemon: daemon}).dial(t)
	m := client.ParseMessage([]byte(guardedMessage))
	for _, reader := range readers {
		sealed := keptFor(t, s, reader.address, m)
		protection := reader.protection
		if protection == "" {
			protection = "baseline"
		}
		header, _, _ := strings.Cut(string(sealed), "\n\n")
		outer := header + "\n"
		if !strings.HasPrefix(outer, guardedOuter[protection]+"MIME-Version: 1.0\nContent-Type: ") {
			t.Errorf("%s: outside stands\n%s\nwant\n%s", reader.address, outer, guardedOuter[protection])
		}
		payload := string(reader.open(t, sealed))
		var said strings.Builder
		for line := range strings.Lines(guardedOuter[protection]) {
			if !strings.HasPrefix(line, " ") {
				line = "HP-Outer: " + line
			}
			said.WriteString(strings.ReplaceAll(line, "\n", "\r\n"))
		}
		switch says := strings.Contains(payload, said.String()); {
		case protection == "off" && payload != string(m.Shown()):
			t.Errorf("%s: the payload is\n%s", reader.address, payload)
		case protection != "off" && (!says || !strings.Contains(payload, "\r\nContent-Type: text/plain; protected-headers=\"v1\"; hp=\"cipher\"; charset=utf-8\r\n") ||
			!strings.HasPrefix(payload, "X-Sealmilter-Payload: sealed by the receiving server, not by the sender; ")):
			t.Errorf("%s: the payload is\n%s", reader.address, payload)
		}
		if got := reader.unseal(t, sealed); !bytes.Equal(got, m.Shown()) {
			t.Errorf("%s: unsealed it is\n%s", reader.address, got)
		}
	}
}

// keptFor sends a message and returns what the MTA would keep of it.
func keptFor(t *testing.T, s *client.Session, to string, m client.Message) []byte {
	t.Helper()
	result, err := s.Send(client.Envelope{From: "sender@example.net", To: client.To(to)}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || !result.Queued.Replaced {
		t.Fatalf("%s: not sealed, the answer is %q", to, result.Final)
	}
	return result.Queued.Bytes()
}

// TestCorpusProtected
//
//	this test as the MTA ──milter──▶ sealmilter ──▶ SQLite
//
// Every message of the corpus comes back byte for byte, and none leaves its
// subject outside.
func TestCorpusProtected(t *testing.T) {
	files := corpus(t)
	store := filepath.Join(bed.Dir(t), "keys.db")
	runProgram(t, "migrate", "--store", "sqlite:"+store)
	readers := guardedReaders(t, bed.NewGnuPG(t), store)
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\n[store]\nurl = %q\n", "sqlite:"+store))
	s := (&alone{daemon: daemon}).dial(t)
	for _, reader := range readers {
		if reader.protection != "baseline" && reader.protection != "shy" {
			continue
		}
		secret, err := envelope.ReadSecret(reader.secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			m := client.ParseMessage([]byte(readFile(t, file)))
			sealed := keptFor(t, s, reader.address, m)
			if got, err := envelope.Open(sealed, secret); err != nil || !bytes.Equal(got, m.Shown()) {
				t.Errorf("%s, %s: opened it is\n%.1000q\nwant\n%.1000q\nerror %v", reader.address, file, got, m.Shown(), err)
			}
			for _, f := range client.ParseMessage(sealed).Header {
				if strings.EqualFold(f.Name, "Subject") && f.Value != " [...]" {
					t.Errorf("%s, %s: outside stands %q", reader.address, file, f)
				}
			}
		}
	}
	t.Logf("%d messages came back byte for byte", len(files))
}

// TestThunderbirdProtected
//
//	SMTP client ──▶ Postfix ──milter──▶ sealmilter ──▶ SQLite
//	                   ║
//	                   ╚════ lmtp(8) ════▶ Dovecot ════ IMAP ════▶ Thunderbird
//
// Thunderbird shows the subject that nobody else can read. Version 153 looks for
// it in OpenPGP alone: of an S/MIME message it shows the text, and the subject
// that stands outside.
func TestThunderbirdProtected(t *testing.T) {
	if os.Getenv("SEALMILTER_INTEROP") != "1" {
		t.Skip("make interop runs this")
	}
	t.Setenv("REQUIRE_SERVERS", "1")
	store := filepath.Join(bed.Dir(t), "keys.db")
	runProgram(t, "migrate", "--store", "sqlite:"+store)
	readers := guardedReaders(t, bed.NewGnuPG(t), store)
	var addresses []string
	for _, reader := range readers {
		addresses = append(addresses, reader.address)
	}
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\ngroup = \"postfix\"\n[store]\nurl = %q\n[sealing]\nheader_protection = \"shy\"\n", "sqlite:"+store))
	dovecot := bed.StartDovecot(t, addresses...)
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: dovecot.Users,
		Milters:   []string{"unix:" + filepath.Join(daemon.Dir, "sock")},
		Main:      []string{"virtual_transport = " + dovecot.Transport()},
	})
	s := &site{daemon: daemon, postfix: postfix}
	untyped := strings.NewReplacer("Content-Type: text/plain; charset=utf-8\n", "", "Content-Transfer-Encoding: 8bit\n", "", "ü", "ue").Replace(guardedMessage)
	messages := []struct {
		raw           []byte
		subject, text string
	}{
		{[]byte(guardedMessage), "The tomatoes are red", "They are, Grün is not."},
		{[]byte(untyped), "The tomatoes are red", "They are, Gruen is not."},
		{message(t, "multipart.eml"), "Saturday: tomatoes, bärlauch and ¿who brings the coffee?", "whatever José grew"},
	}
	for _, reader := range readers {
		for n, m := range messages {
			s.sent(t, m.raw, reader.address)
			stored := readFile(t, dovecot.WaitDelivered(t, reader.address, n+1, 20*time.Second)[n])
			if hidden := strings.Contains(strings.ReplaceAll(stored, "\r\n", "\n"), "\nSubject: [...]\n"); hidden != (reader.protection != "off") {
				t.Errorf("%s: stored is\n%.2000s", reader.address, stored)
			}
		}
	}
	thunderbird := bed.StartThunderbird(t, dovecot)
	for _, reader := range readers {
		if reader.encryption == "OpenPGP" {
			thunderbird.ImportOpenPGP(t, reader.secret)
		} else {
			thunderbird.ImportIdentity(t, reader.identity)
		}
	}
	for _, reader := range readers {
		for n, shown := range thunderbird.Inbox(t, reader.address, len(messages)) {
			want := messages[n]
			if shown.Subject == "[...]" && reader.encryption == "S/MIME" && reader.protection != "off" {
				shown.Subject = want.subject
				t.Logf("%s, message %d: the subject of an S/MIME message stays hidden", reader.address, n+1)
			}
			if shown.Encryption != reader.encryption || shown.Subject != want.subject || !strings.Contains(shown.Text, want.text) || strings.Contains(shown.Text, "HP-Outer") {
				t.Errorf("%s, message %d: shown is %q, want %q", reader.address, n+1, shown, want.subject)
			}
		}
	}
}

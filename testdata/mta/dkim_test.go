package mta_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

// signedMessages are what opendkim signs. They have what canonicalizations treat
// differently: white space, folds, empty lines, the end of the last line.
var signedMessages = map[string]string{
	"plain":                  "From: Somebody <a@example.net>\nTo: ann@bed.test\nSubject: plain\n\nhello\n",
	"with a type":            "From: a@example.net\nSubject: with a type\nMIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\nhello\n",
	"multipart":              "From: a@example.net\nSubject: parts\nMIME-Version: 1.0\nContent-Type: multipart/mixed;\n\tboundary=\"b\"\n\n--b\nContent-Type: text/plain\n\none\n--b\nContent-Type: text/html\n\n<p>two</p>\n--b--\n",
	"8-bit":                  "From: a@example.net\nSubject: gr\xc3\xbc\xc3\x9fe\nMIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\ngr\xfc\xdfe\n\xe2\x82\xac\n",
	"long lines":             "From: a@example.net\nSubject: long\nContent-Type: text/plain\nX-Long: " + strings.Repeat("word ", 180) + "\n\n" + strings.Repeat("0123456789", 300) + "\nend\n",
	"odd folds":              "From:  Somebody\n \t<a@example.net>\nSubject: a\n\tfold,\n   and  more \t of\tit   \nKeywords:one,\n two\nX-Empty:\nContent-Type:text/plain\n\nhello\n",
	"blanks at line ends":    "From: a@example.net\nSubject: blanks \nContent-Type: text/plain\n\nhello  \n \t \n  there \t\n",
	"empty lines at the end": "From: a@example.net\nSubject: empty lines\nContent-Type: text/plain\n\nhello\n\n\n\n",
	"no body":                "From: a@example.net\nSubject: no body\nContent-Type: text/plain\n\n",
	"no end of the line":     "From: a@example.net\nSubject: no end\nContent-Type: text/plain\n\nhello\nthere",
	"dots":                   "From: a@example.net\nSubject: dots\nContent-Type: text/plain\n\n.\n..\n.hello\n. \n",
	"dates and names":        "From: =?utf-8?q?J=C3=B6rg?= <a@example.net>\nTo: Ann <ann@bed.test>, \"Bob, the\" <bob@bed.test>\nCc: Cleo <cleo@bed.test>\nDate: Tue, 3 Mar 2026 12:34:56 +0530\nComments: hidden\nSubject: dates\nContent-Type: text/plain\n\nhello\n",
}

// signer is a way to sign. What is oversigned must not be added behind the
// signer, or the signature breaks.
type signer struct{ name, canonicalization, algorithm, oversigned string }

var signers = []signer{
	{"relaxed", "relaxed/relaxed", "rsa-sha256", "From"},
	{"simple", "simple/simple", "rsa-sha256", "From"},
	{"mixed", "relaxed/simple", "ed25519-sha256", "From"},
	{"oversigned", "simple/relaxed", "rsa-sha256", "From,To,Subject,Date,MIME-Version,Content-Type"},
}

// dkim is opendkim on both sides of sealmilter.
type dkim struct {
	keys     bed.DKIMKeys
	verifier *client.Session
}

func newDKIM(t *testing.T) *dkim {
	t.Helper()
	d := &dkim{keys: bed.NewDKIMKeys(t)}
	d.verifier = dialMilter(t, d.keys.StartVerifier(t))
	return d
}

func dialMilter(t *testing.T, address string) *client.Session {
	t.Helper()
	s, err := client.Dial("unix", strings.TrimPrefix(address, "unix:"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// through sends a message through a filter that changes nothing but its header.
func through(t *testing.T, s *client.Session, m client.Message) client.Message {
	t.Helper()
	result, err := s.Send(client.Envelope{From: "a@example.net", To: client.To(ann)}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || result.Queued.Replaced {
		t.Fatalf("the answer is %q", result.Final)
	}
	return client.Message{Header: result.Queued.Header, Body: m.Body}
}

// signed signs every message in every way of some; the signature is good.
func (d *dkim) signed(t *testing.T, messages map[string]string, ways []signer) (all []signedMessage) {
	t.Helper()
	for _, way := range ways {
		session := dialMilter(t, d.keys.StartSigner(t, way.canonicalization, way.algorithm, "OversignHeaders "+way.oversigned))
		for name, raw := range messages {
			m := through(t, session, client.Parser{EndLastLine: true}.Parse([]byte(raw))) // as every MTA does it
			name = way.name + ", " + name
			if said := d.verdict(t, m.Shown()); said != "pass" || !strings.Contains(string(m.Shown()), "DKIM-Signature:") {
				t.Fatalf("%s: as it was signed it verifies as %q:\n%q", name, said, m.Shown())
			}
			all = append(all, signedMessage{name, m, strings.Contains(way.oversigned, "Content-Type")})
		}
	}
	return all
}

// signedMessage is a message with its signature.
type signedMessage struct {
	name string
	client.Message
	typeIsSigned bool // whether there is a Content-Type field or not
}

func (m signedMessage) hasType() bool {
	for _, field := range m.Header {
		if strings.EqualFold(field.Name, "Content-Type") {
			return true
		}
	}
	return false
}

// verdict is what opendkim says of the signature of a message: "pass", "fail" and
// others of RFC 8601, section 2.7.1.
func (d *dkim) verdict(t *testing.T, message []byte) string {
	t.Helper()
	verified := through(t, d.verifier, client.ParseMessage(message))
	for _, field := range verified.Header {
		if _, said, found := strings.Cut(field.Value, "dkim="); found && strings.EqualFold(field.Name, "Authentication-Results") {
			return strings.FieldsFunc(said, func(r rune) bool { return r < 'a' || r > 'z' })[0]
		}
	}
	t.Fatalf("opendkim says nothing of\n%q", message)
	return ""
}

// sealedSite is a daemon with a key for Ann and a certificate for Bea.
type sealedSite struct {
	session *client.Session
	gpg     *bed.GnuPG
	bea     bed.Identity
	secrets map[string]string // files for unseal, by address
}

func newSealedSites(t *testing.T, protections ...string) map[string]sealedSite {
	t.Helper()
	s := sealedSite{gpg: bed.NewGnuPG(t), bea: bed.NewIdentity(t, bea, "EC ec_paramgen_curve:P-256")}
	dir := bed.Dir(t)
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	store := "sqlite:" + filepath.Join(dir, "keys.db")
	runProgram(t, "migrate", "--store", store)
	runProgram(t, "key", "add", "--store", store, ann, file("ann.asc", s.gpg.Generate(t, "Ann <"+ann+">", "default")))
	runProgram(t, "key", "add", "--store", store, bea, s.bea.Certificate)
	s.secrets = map[string]string{
		ann: file("ann.key", s.gpg.ExportSecret(t, ann)),
		bea: file("bea.key", []byte(readFile(t, s.bea.Key)+readFile(t, s.bea.Certificate))),
	}
	sites := make(map[string]sealedSite)
	for _, protection := range protections {
		daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\n[store]\nurl = %q\n[spool]\ndirectory = \"$DIR/spool\"\n"+
			"[sealing]\nheader_protection = %q\n", store, protection))
		s.session = dialMilter(t, "unix:"+filepath.Join(daemon.Dir, "sock"))
		sites[protection] = s
	}
	return sites
}

// sealed sends a message through the daemon and returns what an MTA would deliver.
// No signature stands outside, where it could only fail.
func (s sealedSite) sealed(t *testing.T, m client.Message, to string) []byte {
	t.Helper()
	result, err := s.session.Send(client.Envelope{From: "a@example.net", To: client.To(to)}, m)
	if err != nil {
		t.Fatal(err)
	}
	if result.Queued == nil || !result.Queued.Replaced {
		t.Fatalf("not sealed, the answer is %q", result.Final)
	}
	if outside := result.Queued.Values("DKIM-Signature"); len(outside) > 0 {
		t.Errorf("outside is the signature %q", outside)
	}
	return result.Queued.Bytes()
}

// opened is the payload, as gpg and openssl give it out.
func (s sealedSite) opened(t *testing.T, sealed []byte, to string) []byte {
	t.Helper()
	if to == ann {
		return s.gpg.Decrypt(t, sealed)
	}
	return s.bea.OpenSSL(t, bed.DER(t, sealed))
}

// unsealed is the message, as our own command gives it out.
func (s sealedSite) unsealed(t *testing.T, sealed []byte, to string) []byte {
	t.Helper()
	in := filepath.Join(t.TempDir(), "sealed.eml")
	if err := os.WriteFile(in, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	return runProgramOn(t, in, "unseal", "--key", s.secrets[to])
}

// TestDKIM
//
//	this test as the MTA ──milter──▶ opendkim, which signs
//	   │
//	   ├──milter──▶ sealmilter ──▶ SQLite
//	   ║
//	   ╚════▶ gpg, openssl ──▶ this test as the MTA ──milter──▶ opendkim, which verifies
//
// One thing may be in the payload beside the message: the Content-Type field that
// OpenPGP's readers need. It breaks a signature only where the signer has sealed
// that there is none, and unseal takes it off.
func TestDKIM(t *testing.T) {
	d := newDKIM(t)
	s := newSealedSites(t, "off")["off"]
	for _, m := range d.signed(t, signedMessages, signers) {
		for _, to := range []string{ann, bea} {
			sealed := s.sealed(t, m.Message, to)
			payload := s.opened(t, sealed, to)
			want := "pass"
			if to == ann && m.typeIsSigned && !m.hasType() {
				want = "fail"
				if said := d.verdict(t, s.unsealed(t, sealed, to)); said != "pass" {
					t.Errorf("%s, for %s: unsealed it verifies as %q", m.name, to, said)
				}
			}
			if said := d.verdict(t, payload); said != want {
				t.Errorf("%s, for %s: opened it verifies as %q, want %q:\n%q", m.name, to, said, want, payload)
			}
		}
	}
}

// TestDKIMIsBroken is the control: one byte, of the body or of a field that was
// signed, and the signature is none.
func TestDKIMIsBroken(t *testing.T) {
	d := newDKIM(t)
	s := newSealedSites(t, "off")["off"]
	const name = "with a type"
	for _, m := range d.signed(t, map[string]string{name: signedMessages[name]}, signers) {
		for _, to := range []string{ann, bea} {
			payload := s.opened(t, s.sealed(t, m.Message, to), to)
			for _, text := range []string{"hello", "Subject: with"} {
				at := bytes.Index(payload, []byte(text)) + len(text) - 1
				broken := bytes.Clone(payload)
				broken[at] ^= 1
				if said := d.verdict(t, broken); said != "fail" {
					t.Errorf("%s, for %s: with a change at the end of %q it verifies as %q", m.name, to, text, said)
				}
			}
		}
	}
}

// TestDKIMProtected
//
//	this test as the MTA ──milter──▶ opendkim, which signs
//	   │
//	   ├──milter──▶ sealmilter, which hides header fields ──▶ SQLite
//	   ║
//	   ╚════▶ sealmilter unseal ──▶ this test as the MTA ──milter──▶ opendkim, which verifies
func TestDKIMProtected(t *testing.T) {
	d := newDKIM(t)
	sites := newSealedSites(t, "baseline", "shy")
	for _, m := range d.signed(t, signedMessages, signers[:2]) {
		for protection, s := range sites {
			for _, to := range []string{ann, bea} {
				sealed := s.sealed(t, m.Message, to)
				header, _, _ := bytes.Cut(sealed, []byte("\n\n"))
				if !bytes.Contains(header, []byte("\nSubject: [...]\n")) && !bytes.HasPrefix(header, []byte("Subject: [...]\n")) {
					t.Fatalf("%s, %s: the subject is not hidden:\n%s", m.name, protection, header)
				}
				got := s.unsealed(t, sealed, to)
				if said := d.verdict(t, got); said != "pass" || !bytes.Equal(got, m.Shown()) {
					t.Errorf("%s, %s, for %s: unsealed it verifies as %q:\n%q\nwant\n%q", m.name, protection, to, said, got, m.Shown())
				}
			}
		}
	}
}

// TestDKIMPostfix
//
//	SMTP client ──▶ Postfix ──milter──▶ opendkim, which signs
//	                 │ ║    ──milter──▶ opendkim, which verifies
//	                 │ ║    ──milter──▶ sealmilter ──▶ SQLite
//	                 │ ║
//	                 │ ╚════▶ maildir of ann ════▶ gpg ──▶ opendkim, which verifies
//	                 └──────▶ maildir of bob
//
// What a verifier in front of us found stands outside, for filters and readers;
// the signature that it has judged does not.
func TestDKIMPostfix(t *testing.T) {
	d := newDKIM(t)
	gpg := bed.NewGnuPG(t)
	dir := bed.Dir(t)
	key := filepath.Join(dir, "ann.asc")
	if err := os.WriteFile(key, gpg.Generate(t, "Ann <"+ann+">", "default"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := "sqlite:" + filepath.Join(dir, "keys.db")
	runProgram(t, "migrate", "--store", store)
	runProgram(t, "key", "add", "--store", store, ann, key)
	daemon := bed.StartDaemon(t, fmt.Sprintf("[milter]\nlisten = \"unix:$DIR/sock\"\ngroup = \"postfix\"\n[store]\nurl = %q\n", store))
	postfix := bed.StartPostfix(t, bed.PostfixOptions{
		Addresses: []string{ann, bob},
		Milters: []string{
			d.keys.StartSigner(t, "simple/simple", "rsa-sha256", "OversignHeaders From"),
			d.keys.StartVerifier(t),
			"unix:" + filepath.Join(daemon.Dir, "sock"),
		},
	})
	n := 0
	for _, name := range []string{"multipart", "8-bit", "odd folds", "no end of the line", "dots"} {
		n++
		raw := strings.ReplaceAll(signedMessages[name], "\n", "\r\n")
		for _, to := range []string{ann, bob} {
			if replies := bed.SendMail(t, postfix.Addr(), "a@example.net", []string{to}, []byte(raw)); !bed.Sent(replies) {
				t.Fatalf("%s: %v", name, replies)
			}
		}
		sealed := []byte(readFile(t, postfix.WaitDelivered(t, ann, n, 20*time.Second)[n-1]))
		outside := client.ParseMessage(sealed)
		if said := results(outside); len(said) != 1 || !strings.Contains(said[0], "dkim=pass") {
			t.Errorf("%s: outside is said %q", name, said)
		}
		if bytes.Contains(sealed, []byte("DKIM-Signature")) {
			t.Errorf("%s: the signature is outside", name)
		}
		payload := gpg.Decrypt(t, sealed)
		if said := d.verdict(t, payload); said != "pass" || !bytes.Contains(payload, []byte("DKIM-Signature:")) {
			t.Errorf("%s: opened it verifies as %q:\n%q", name, said, payload)
		}
		passed := client.ParseMessage([]byte(readFile(t, postfix.WaitDelivered(t, bob, n, 20*time.Second)[n-1])))
		if said := d.verdict(t, passed.Shown()); said != "pass" {
			t.Errorf("%s: bob's verifies as %q", name, said)
		}
	}
}

// results are the values of a message's Authentication-Results fields.
func results(m client.Message) (values []string) {
	for _, field := range m.Header {
		if strings.EqualFold(field.Name, "Authentication-Results") {
			values = append(values, field.Value)
		}
	}
	return values
}

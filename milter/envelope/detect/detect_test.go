package detect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

const folder = "../../../testdata/sealed/"

// sample is a line of the index.
type sample struct {
	file    string
	verdict string
	readers []string
	raw     []byte // with LF line ends
}

func samples(t testing.TB) (all []sample) {
	t.Helper()
	index, err := os.ReadFile(folder + "index.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(index)) {
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(columns) != 4 || columns[3] == "" {
			t.Fatalf("the index has the line %q", line)
		}
		raw, err := os.ReadFile(folder + columns[0])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sample{columns[0], columns[1], strings.Split(columns[2], ","), raw})
	}
	files, _ := filepath.Glob(folder + "*.eml")
	if len(all) < 36 || len(files) != len(all) {
		t.Fatalf("the index has %d lines, there are %d messages", len(all), len(files))
	}
	return all
}

// accounts reads the keys that stand beside the samples.
func accounts(t testing.TB) map[string]*keys.Account {
	t.Helper()
	files, err := filepath.Glob(folder + "keys/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d keys, error %v", len(files), err)
	}
	all := make(map[string]*keys.Account)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := keys.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		owner, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".asc"), "-")
		if all[owner] == nil {
			all[owner] = &keys.Account{Address: owner + "@example.org"}
		}
		all[owner].Keys = append(all[owner].Keys, parsed...)
	}
	return all
}

// split takes a message apart as an MTA shows it: fields whose lines are
// joined by LF, and the body.
func split(raw []byte) (header []envelope.Field, body []byte) {
	for rest := raw; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		name, value, is := strings.Cut(string(line), ":")
		switch {
		case len(line) == 0:
			return header, after
		case (line[0] == ' ' || line[0] == '\t') && len(header) > 0:
			header[len(header)-1].Value += "\n" + string(line)
		case !is:
			return header, rest
		default:
			header = append(header, envelope.Field{Name: name, Value: value})
		}
		rest = after
	}
	return header, nil
}

func crlf(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")) }

// detect feeds a body in pieces of the sizes that next gives.
func detect(header []envelope.Field, body []byte, next func() int) Found {
	d := New(header)
	for len(body) > 0 {
		n := min(max(next(), 0), len(body))
		if written, err := d.Write(body[:n]); written != n || err != nil {
			panic(fmt.Sprintf("Write took %d of %d, error %v", written, n, err))
		}
		body = body[n:]
	}
	return d.Finish()
}

func whole() int { return 1 << 30 }

func TestSamples(t *testing.T) {
	everybody := accounts(t)
	for _, s := range samples(t) {
		t.Run(s.file, func(t *testing.T) {
			header, body := split(s.raw)
			found := detect(header, crlf(body), whole)
			t.Log(found.Reason)
			if verdict := cmpOr(string(found.Method), "plain"); verdict != s.verdict || found.Sealed != (s.verdict != "plain") {
				t.Fatalf("the verdict is %s, want %s", verdict, s.verdict)
			}
			if found.Sealed != (len(found.Readers) > 0) || found.Reason == "" || strings.Contains(found.Reason, "\n") {
				t.Errorf("%d readers, because %q", len(found.Readers), found.Reason)
			}
			checkReaders(t, found, s.readers, everybody)
			for what, next := range map[string]func() int{
				"an octet at a time": func() int { return 1 },
				"in pieces":          func() int { return rand.IntN(200) },
			} {
				if again := detect(header, crlf(body), next); !reflect.DeepEqual(again, found) {
					t.Errorf("%s: %+v, want %+v", what, again, found)
				}
			}
			if again := detect(header, body, whole); !reflect.DeepEqual(again, found) {
				t.Errorf("with LF: %+v, want %+v", again, found)
			}
		})
	}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// checkReaders asks of every account, of every two of them, and of all.
func checkReaders(t *testing.T, found Found, want []string, everybody map[string]*keys.Account) {
	t.Helper()
	openPGP := found.Method == keys.OpenPGP
	for a := range everybody {
		for b := range everybody {
			pair := []*keys.Account{everybody[a], everybody[b]}
			named := slices.Contains(want, a) && slices.Contains(want, b)
			if got := found.SealedTo(pair, false); got != named {
				t.Errorf("to %s and %s: %v", a, b, got)
			}
			named = named || openPGP && slices.Contains(want, "hidden")
			if got := found.SealedTo(pair, true); got != named {
				t.Errorf("to %s and %s, hidden: %v", a, b, got)
			}
		}
	}
	if found.SealedTo(nil, true) || found.SealedTo([]*keys.Account{{}}, true) {
		t.Error("sealed to nobody, or to an account without keys")
	}
}

// TestHiddenTakesAnOpenPGPKey: who has a certificate only cannot be a hidden
// reader.
func TestHiddenTakesAnOpenPGPKey(t *testing.T) {
	everybody := accounts(t)
	only := &keys.Account{}
	for _, key := range everybody["ann"].Keys {
		if key.Method == keys.SMIME {
			only.Keys = append(only.Keys, key)
		}
	}
	found := Found{Sealed: true, Method: keys.OpenPGP, Readers: []keys.ReaderID{{}}}
	if len(only.Keys) == 0 || found.SealedTo([]*keys.Account{only}, true) || !found.SealedTo([]*keys.Account{everybody["ann"]}, true) {
		t.Errorf("%d certificates", len(only.Keys))
	}
}

// TestRevoked: who has withdrawn a key is not sealed to by it, named or hidden.
func TestRevoked(t *testing.T) {
	entity, err := openpgp.NewEntity("", "", "zoe@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, revoked := range []bool{false, true} {
		if revoked {
			if err := entity.Revoke(packet.KeyCompromised, "", nil); err != nil {
				t.Fatal(err)
			}
		}
		var public bytes.Buffer
		if err := entity.Serialize(&public); err != nil {
			t.Fatal(err)
		}
		parsed, err := keys.Parse(public.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		zoe := []*keys.Account{{Keys: parsed}}
		for _, reader := range []keys.ReaderID{{KeyID: entity.Subkeys[0].PublicKey.KeyId}, {Fingerprint: entity.Subkeys[0].PublicKey.Fingerprint}, {}} {
			found := Found{Sealed: true, Method: keys.OpenPGP, Readers: []keys.ReaderID{reader}}
			if found.SealedTo(zoe, true) == revoked {
				t.Errorf("revoked %v, for %+v it is sealed: %v", revoked, reader, !revoked)
			}
		}
	}
}

// TestCorpus: messages from the wild are not taken for sealed. One that was
// would be named here, for a person to look at.
func TestCorpus(t *testing.T) {
	corpus := os.Getenv("SEALMILTER_CORPUS")
	if corpus == "" {
		t.Skip("SEALMILTER_CORPUS is not set")
	}
	var files []string
	for _, pattern := range []string{"*/*.eml", "*/*/*.eml"} {
		more, _ := filepath.Glob(filepath.Join(corpus, pattern))
		files = append(files, more...)
	}
	if len(files) < 100 {
		t.Fatalf("the corpus has %d messages", len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		header, body := split(raw)
		if found := detect(header, body, whole); found.Sealed {
			t.Errorf("%s: %s", file, found.Reason)
		}
	}
}

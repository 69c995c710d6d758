package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealmilter/keys"
)

// gather reads what readKeysFrom finds in data.
func gather(t testing.TB, data []byte) (found []handedText) {
	t.Helper()
	if err := readKeysFrom(bytes.NewReader(data), "file", func(h handedText) error {
		found = append(found, h)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// places are what was found, and in which words it was refused.
func places(found []handedText) (all []string) {
	for _, h := range found {
		word := "taken"
		if h.problem != nil {
			word = string(keys.ReasonOf(h.problem))
		} else if _, err := keys.Parse(h.data); err != nil {
			word = string(keys.ReasonOf(err))
		}
		all = append(all, h.place+": "+word)
	}
	return all
}

// TestReadKeys: a file of whatever kind is cut into keys, and what is damaged
// takes nothing with it but what cannot be told apart.
func TestReadKeys(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return string(made.files[name]) }
	long := strings.Repeat(file("ann.gpg"), 600)
	for _, test := range []struct {
		name, data string
		want       []string
	}{
		{"binary", file("both.gpg"), []string{"key 1: taken", "key 2: taken"}},
		{"armored", file("both.asc"), []string{"key 1: taken", "key 2: taken"}},
		{"text around it", "Hello\n" + file("ann.asc") + "\nbye\n" + file("bob.asc"), []string{"key 1: taken", "key 2: taken"}},
		{"many in one block", string(armored("PGP PUBLIC KEY BLOCK", []byte(file("both.gpg")+file("ann.gpg")))), []string{"key 1: taken", "key 2: taken", "key 3: taken"}},
		{"CRLF", strings.ReplaceAll(file("both.asc"), "\n", "\r\n"), []string{"key 1: taken", "key 2: taken"}},
		{"with a mark", "\xef\xbb\xbf" + file("ann.asc"), []string{"key 1: taken"}},
		{"certificate", file("cy.pem"), []string{": taken"}},
		{"both kinds", file("cy.pem") + file("ann.asc"), []string{"key 1: taken", ": taken"}},
		{"secret", file("secret.asc"), []string{"key 1: secret"}},
		{"secret, binary", file("secret.gpg"), []string{"key 1: secret"}},
		{"cut off", file("both.gpg")[:len(file("both.gpg"))-3], []string{"key 1: taken", "key 2: damaged"}},
		{"damaged base64", strings.Replace(file("ann.asc"), "\n\n", "\n\n*", 1) + file("bob.asc"), []string{"key 1: damaged", "key 2: taken"}},
		{"no end", strings.Replace(file("ann.asc"), "-----END", "----END", 1), []string{"key 1: taken"}},
		{"a letter", "This is no key.", []string{": no-key"}},
		{"nothing", "", []string{": no-key"}},
		{"behind one that is too large", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + strings.Repeat(strings.Repeat("A", 64)+"\n", keys.MaxKeySize/64) +
			"-----END PGP PRIVATE KEY BLOCK-----\n" + file("ann.asc") + file("cy.pem"), []string{"key 1: too-large", "key 2: taken", ": taken"}},
		{"far too much", strings.Repeat("x", 3*keys.MaxKeySize), []string{": too-large"}},
	} {
		if got := places(gather(t, []byte(test.data))); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if found := gather(t, []byte(long)); len(found) != 600 {
		t.Errorf("%d keys of 600", len(found))
	}
	// One key that has more than a key may have does not stop the others.
	flood := []byte(file("ann.gpg"))
	for len(flood) <= keys.MaxKeySize {
		flood = append(flood, 0xc2, 0xff, 0, 0, 0x40, 0)
		flood = append(flood, make([]byte, 0x4000)...)
	}
	if got, want := places(gather(t, append(flood, file("ann.gpg")...))), []string{"key 1: too-large", "key 2: taken"}; !slices.Equal(got, want) {
		t.Errorf("a flooded key: %q, want %q", got, want)
	}
}

// FuzzReadKeys: whatever a file holds, no more is handed on at a time than a
// key may have, and reading ends.
func FuzzReadKeys(f *testing.F) {
	made, err := generateKeys()
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"both.asc", "both.gpg", "cy.pem", "secret.asc", "second-bad.asc"} {
		f.Add(made.files[name])
	}
	f.Add([]byte("\x99\xff\xff"))
	f.Add([]byte("\xc6\xe1\x00\xc6\xff\xff\xff\xff\xff"))
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=AAAA\n-----BEGIN X-----\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		count := 0
		for _, h := range gather(t, data) {
			if count++; len(h.data) > keys.MaxKeySize+pieceSize {
				t.Errorf("%s has %d bytes", h.place, len(h.data))
			}
			if (h.data == nil) == (h.problem == nil) && len(data) > 0 {
				t.Errorf("%s: %d bytes and the problem %v", h.place, len(h.data), h.problem)
			}
		}
		if count > len(data)+2 {
			t.Errorf("%d keys in %d bytes", count, len(data))
		}
	})
}

// FuzzTable: whatever a table holds, each line is handed on or refused, and no
// file outside is ever waited for.
func FuzzTable(f *testing.F) {
	for _, text := range []string{"a@b,c\n", "address;key\na@b;\"-----BEGIN\n\"\n", "a@b,\"", "a,b,c\n\"x\"y,z\n", "\xef\xbb\xbfa@b;c", "\r\r\n,,,\n;;\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "table.csv")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		count := 0
		readTable(path, func(h handedText) error {
			if count++; len(h.data) > maxRecord {
				return fmt.Errorf("%s has %d bytes", h.place, len(h.data))
			}
			if h.problem == nil && h.address == "" && len(h.data) == 0 {
				t.Errorf("%s: nothing is handed on", h.place)
			}
			return nil
		})
		if lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + 1; count > lines {
			t.Errorf("%d records in %d lines", count, lines)
		}
	})
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// journal is a Registry in memory that writes down what is asked of it and
// fails at the call that it is told to.
type journal struct {
	rows   []keys.Enrolled
	calls  []string
	failAt string
}

func (j *journal) note(call string) error {
	j.calls = append(j.calls, call)
	if call == j.failAt {
		return fmt.Errorf("%w: told to fail", keys.ErrStore)
	}
	return nil
}

func (j *journal) AddKey(_ context.Context, key keys.NewKey) (int64, error) {
	id := int64(len(j.rows) + 1)
	j.rows = append(j.rows, keys.Enrolled{ID: id, Address: key.Address, Key: key.Key, Enabled: true, Options: key.Options, State: key.State})
	return id, j.note(fmt.Sprintf("add %d", id))
}

func (j *journal) SetKeyOptions(_ context.Context, id int64, options keys.KeyOptions) error {
	return j.note(fmt.Sprintf("set %d %s", id, optionsText(options)))
}

func (j *journal) SetKeyState(_ context.Context, id int64, state keys.KeyState) error {
	return j.note(fmt.Sprintf("%s %d", state, id))
}

func (j *journal) Keys(context.Context, string) iter.Seq2[keys.Enrolled, error] {
	return func(yield func(keys.Enrolled, error) bool) {
		for _, row := range slices.Clone(j.rows) {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func (j *journal) RemoveKey(_ context.Context, id int64) error {
	return j.note(fmt.Sprintf("remove %d", id))
}

// testKey reads one of the test keys' files.
func testKey(t *testing.T, file string) handedKey {
	t.Helper()
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(made.files[file])
	if err != nil {
		t.Fatal(err)
	}
	return handedKey{parsed[0], file}
}

// enrolHanded enrols keys as key add does.
func enrolHanded(t *testing.T, registry *journal, address string, handed []handedKey, now time.Time, out recordWriter) error {
	t.Helper()
	rows, err := accountRows(t.Context(), registry, address)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range handed {
		handed[i].Key = key.With(optionsOf(rows, key.Key))
	}
	return enrol(t.Context(), registry, address, rows, handed, keys.KeyActive, now, out)
}

// A replaced key goes only when its successor is there, and stays when that
// cannot be stored: never is an address without a key.
func TestEnrolAddsBeforeItRemoves(t *testing.T) {
	older, newer, bob := testKey(t, "ann.asc"), testKey(t, "ann-new.asc"), testKey(t, "bob.asc")
	tests := []struct {
		name   string
		stored []string
		failAt string
		want   string
	}{
		{"replaced", []string{older.Armored()}, "", "add 2, remove 1"},
		{"adding fails", []string{older.Armored()}, "add 2", "add 2"},
		{"stored twice", []string{older.Armored(), older.Armored()}, "", "add 3, remove 1, remove 2"},
		{"there already", []string{newer.Armored()}, "", ""},
		{"there already beside the old one", []string{older.Armored(), newer.Armored()}, "", "remove 1"},
		{"in a row with another", []string{older.Armored() + bob.Armored()}, "", "add 2, add 3, remove 1"},
		{"the other cannot be moved", []string{older.Armored() + bob.Armored()}, "add 3", "add 2, add 3"},
		{"beside one that cannot be read", []string{"no key"}, "", "add 2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			registry := &journal{failAt: test.failAt}
			for i, key := range test.stored {
				registry.rows = append(registry.rows, keys.Enrolled{ID: int64(i + 1), Address: "ann@example.org", Key: key, State: keys.KeyActive})
			}
			err := enrolHanded(t, registry, "ann@example.org", []handedKey{newer}, time.Now(), newSentences(io.Discard))
			if got := strings.Join(registry.calls, ", "); got != test.want {
				t.Errorf("calls: %s, want %s", got, test.want)
			}
			if errors.Is(err, keys.ErrStore) != (test.failAt != "") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A newer copy of a key has the options of the one it replaces, and the other
// keys of that row keep theirs.
func TestEnrolKeepsOptions(t *testing.T) {
	older, newer, bob := testKey(t, "ann.asc"), testKey(t, "ann-new.asc"), testKey(t, "bob.asc")
	registry := &journal{rows: []keys.Enrolled{{ID: 1, Address: "ann@example.org", Key: older.Armored() + bob.Armored(),
		Options: keys.KeyOptions{AEAD: keys.OCB}, State: keys.KeyActive}}}
	if err := enrolHanded(t, registry, "ann@example.org", []handedKey{newer}, time.Now(), newSentences(io.Discard)); err != nil {
		t.Fatal(err)
	}
	for _, row := range registry.rows {
		if row.Options.AEAD != keys.OCB {
			t.Errorf("row %d has the options %+v", row.ID, row.Options)
		}
	}
}

// What SQL may have written and no lookup can act upon, the list says.
func TestOptionsThatAKeyCannotHave(t *testing.T) {
	row := readRow(keys.Enrolled{ID: 1, Key: testKey(t, "ann.asc").Armored(), Enabled: true, Options: keys.KeyOptions{OAEP: true}})
	records := row.records(time.Now())
	if len(records) != 1 || records[0].stateText() != "unusable: OAEP is for certificates" || records[0].Fingerprint == "" {
		t.Errorf("%+v", records)
	}
}

// The store fails in the middle: the error says how far it came.
func TestEnrolSaysHowFarItCame(t *testing.T) {
	registry := &journal{failAt: "add 2"}
	handed := []handedKey{testKey(t, "ann.asc"), testKey(t, "bob.asc")}
	err := enrolHanded(t, registry, "team@example.org", handed, time.Now(), newSentences(io.Discard))
	if err == nil || !strings.HasPrefix(err.Error(), "1 of 2 keys stored: ") || exitCode(err) != exitTempFail {
		t.Errorf("exit code %d: %v", exitCode(err), err)
	}
}

// A table of a million keys is written as it comes, and what a user id holds
// does nothing to the terminal.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	table := newTable(&out)
	record := keyRecord{Address: "ann@example.org", Row: 1, Fingerprint: "AB", State: "usable", UserIDs: []string{"\x1b[2JAnn"}}
	for range tablePage {
		if err := table.write(record); err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != tablePage+1 {
		t.Errorf("after %d keys %d lines are written", tablePage, lines)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("an escape sequence is written")
	}
}

func TestParseKeyName(t *testing.T) {
	key := keyRecord{Row: 12, Fingerprint: "0123456789ABCDEF0123456789ABCDEF01234567"}
	tests := []struct {
		text  string
		valid bool
		match bool
	}{
		{key.Fingerprint, true, true},
		{"0x" + strings.ToLower(key.Fingerprint), true, true},
		{"0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567", true, true},
		{"89ABCDEF01234567", true, true},
		{"0123456789ABCDEF", true, false},
		{"row:12", true, true},
		{"row:1", true, false},
		{"row:0", false, false},
		{"row:x", false, false},
		{"9ABCDEF01234567", false, false},
		{"89ABCDEF0123456Z", false, false},
		{"", false, false},
	}
	for _, test := range tests {
		name, err := parseKeyName(test.text)
		if (err == nil) != test.valid {
			t.Errorf("%q: %v", test.text, err)
		}
		if err == nil && name.matches(key) != test.match {
			t.Errorf("%q: matches is %v", test.text, !test.match)
		}
	}
	unread, _ := parseKeyName("0123456789ABCDEF")
	if unread.matches(keyRecord{Row: 3}) {
		t.Error("a fingerprint matches a key without one")
	}
}

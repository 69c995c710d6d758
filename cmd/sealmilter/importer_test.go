package main

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/keys/sqlite"
)

// newKeyStore makes an empty store, which is the test's.
func newKeyStore(t *testing.T) *sqlite.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	st, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st
}

// newImporter makes an importer into a store, of keys that count at once. It says
// on out what it stores, and nothing else.
func newImporter(st store, out io.Writer) *importer {
	cmd := keyImportCommand()
	cmd.Flags().Bool("json", false, "")
	cmd.SetOut(out)
	return &importer{st: st, now: time.Now(), state: keys.KeyActive, out: newRecordWriter(cmd, newSentences), progress: newProgress(io.Discard, ""), said: io.Discard}
}

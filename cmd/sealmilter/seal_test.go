package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadMessage takes apart every message that we have, and puts it together
// again: nothing is lost or altered but line ends.
func TestReadMessage(t *testing.T) {
	files, err := filepath.Glob("../../testdata/messages/*.eml")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d messages, error %v", len(files), err)
	}
	if corpus := os.Getenv("SEALMILTER_CORPUS"); corpus != "" {
		for _, pattern := range []string{"*/*.eml", "*/*/*.eml"} {
			more, _ := filepath.Glob(filepath.Join(corpus, pattern))
			files = append(files, more...)
		}
	}
	split := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(bytes.NewReader(raw))
		header, _, err := readHeader(in)
		if err != nil {
			t.Logf("%s is refused: %v", file, err)
			continue
		}
		split++
		var whole strings.Builder
		for _, f := range header {
			whole.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", "\r\n") + "\r\n")
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		if !bytes.Equal([]byte(whole.String()), want) { // one that is all header ends there
			whole.WriteString("\r\n")
			copyBody(&whole, in)
		}
		if !bytes.Equal([]byte(whole.String()), want) {
			t.Errorf("%s: put together it is\n%.500q\nwant\n%.500q", file, whole.String(), want)
		}
	}
	if split < len(files)*3/4 {
		t.Errorf("only %d of %d messages could be taken apart", split, len(files))
	}
}

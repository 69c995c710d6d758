package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"sealmilter/keys/sqlite"
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

// TestBrokenOff: a message that ends in the middle of a line of its header is not
// one, be the line the first of a field or another.
func TestBrokenOff(t *testing.T) {
	for _, text := range []string{"Subject: a", "Subject: a\n b", "Subject: a\r\n\tb\r", "Subject: a\nTo: b", "Subject: a\nTo"} {
		if header, _, err := readHeader(bufio.NewReader(strings.NewReader(text))); err == nil || !strings.Contains(err.Error(), "breaks off") {
			t.Errorf("%q is read as %q, error %v", text, header, err)
		}
	}
}

// TestUnreadMessage: a message that could not be read may be read another time.
func TestUnreadMessage(t *testing.T) {
	for _, begins := range []string{"", "Subject: a\n", "Subject: a\n\nbody"} {
		command := newRootCommand()
		command.SetIn(io.MultiReader(strings.NewReader(begins), iotest.ErrReader(syscall.EIO)))
		command.SetOut(io.Discard)
		command.SetErr(io.Discard)
		path := filepath.Join(t.TempDir(), "keys.db")
		if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		command.SetArgs([]string{"seal", "--to", "ann@example.org", "--config", "/dev/null", "--store", "sqlite:" + path})
		err := command.ExecuteContext(t.Context())
		if exitCode(err) != exitTempFail || !errors.Is(err, syscall.EIO) {
			t.Errorf("after %q: %v, exit code %d", begins, err, exitCode(err))
		}
	}
}

// TestHugeHeader: reading a header takes time in proportion to it, and ends.
func TestHugeHeader(t *testing.T) {
	read := func(size int) error {
		_, _, err := readHeader(bufio.NewReader(strings.NewReader("Subject: x\n" + strings.Repeat(" \n", size/2) + "\nbody\n")))
		return err
	}
	start := time.Now()
	if err := read(1 << 20); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second { // 55 s where each line is copied again with the next
		t.Errorf("a header of 1 MiB takes %v", took)
	}
	if err := read(5 << 20); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a header of 5 MiB: %v", err)
	}
}

// TestFileChanges: what was decided about a message is not done to another.
func TestFileChanges(t *testing.T) {
	name := filepath.Join(t.TempDir(), "message")
	write := func(text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("Subject: sealed already\n\nciphertext\n")
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	o := openOriginal(file)
	if _, err := io.Copy(io.Discard, o.in); err != nil {
		t.Fatal(err)
	}
	if in, err := o.again(); err != nil || in == nil {
		t.Fatalf("an unchanged file: %v", err)
	}
	time.Sleep(20 * time.Millisecond)
	write("Subject: another\n\nplaintext\n")
	if in, err := o.again(); err == nil {
		text, _ := io.ReadAll(in)
		t.Errorf("what is written as it came is %q", text)
	}
}

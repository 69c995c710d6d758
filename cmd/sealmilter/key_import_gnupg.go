package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// readGnuPG hands on the keys of a GnuPG home, of one of its keyrings, or of an
// exported file.
func readGnuPG(ctx context.Context, path string, each func(handedText) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return failure("reading the keyring: %w", err)
	}
	if info.IsDir() {
		return exportGnuPG(ctx, path, []string{"--homedir", path}, each)
	}
	file, err := openRegular(path)
	if err != nil {
		return failure("reading the keyring: %s: %w", path, err)
	}
	defer file.Close()
	in := bufio.NewReader(file)
	if begin, _ := in.Peek(12); len(begin) == 12 && string(begin[8:]) == "KBXf" { // a keybox, which only gpg reads
		home, err := os.MkdirTemp("", "sealmilter-gpg-")
		if err != nil {
			return failure("making a folder for gpg: %w", err)
		}
		defer os.RemoveAll(home)
		whole, err := filepath.Abs(path)
		if err != nil {
			return failure("reading the keyring: %w", err)
		}
		return exportGnuPG(ctx, path, []string{"--homedir", home, "--no-default-keyring", "--keyring", whole}, each)
	}
	return readKeysFrom(in, path, each)
}

// exportGnuPG lets gpg write its keys. What others have signed is left out by
// gpg already: a popular key has more of it than a key may have here. So are the
// subkeys of a key that has expired, which then has none for encryption.
func exportGnuPG(ctx context.Context, name string, options []string, each func(handedText) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // where each fails, gpg has nobody to write to
	args := append(options, "--batch", "--no-tty", "--quiet", "--no-auto-check-trustdb", "--lock-never", "--no-armor", "--export-options", "export-minimal", "--export")
	gpg := exec.CommandContext(ctx, "gpg", args...)
	var said bytes.Buffer
	gpg.Stderr = &said
	out, err := gpg.StdoutPipe()
	if err == nil {
		err = gpg.Start()
	}
	if err != nil {
		return failure("running gpg: %w", err)
	}
	left := func(h handedText) error {
		h.minimal = true
		return each(h)
	}
	in := bufio.NewReaderSize(out, pieceSize)
	if _, err = in.Peek(1); err == nil {
		c := keyCutter{in: in, each: numbered(name, left)}
		err = c.cut()
	} else {
		err = nil // an empty keyring
	}
	if err != nil {
		cancel()
		gpg.Wait()
		return err
	}
	if err := gpg.Wait(); err != nil {
		return failure("gpg --export: %w: %s", err, oneLine(said.String()))
	}
	return nil
}

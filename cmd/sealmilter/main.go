// Command sealmilter seals mail to its recipients' own keys: as a milter for
// Postfix and Sendmail (serve), and with the tools that its administrator
// needs beside it (check, migrate, key …).
//
// This package parses the command line and the configuration, wires the parts
// together and waits. Every subcommand has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"sealmilter/keys"
)

// The exit codes, as sysexits.h has them where it has them.
const (
	exitFailure  = 1
	exitUsage    = 2  // the command line is wrong
	exitTempFail = 75 // EX_TEMPFAIL: the key store is away, trying again later may help
	exitConfig   = 78 // EX_CONFIG: the configuration must be mended first
)

// exitError is an error that knows the exit code it deserves.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// configError says that the configuration is wrong.
func configError(format string, args ...any) error {
	return &exitError{exitConfig, fmt.Errorf(format, args...)}
}

// usageError says that the command line is wrong.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// failure is an error of which the store is not the cause, and which needs no
// word about it.
func failure(format string, args ...any) error {
	return &exitError{exitFailure, fmt.Errorf(format, args...)}
}

func main() {
	// The first SIGINT or SIGTERM ends the context that every command runs
	// with. From then on the signals do again what they always do, so that an
	// impatient second one ends a program that takes its time.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := newRootCommand().ExecuteContext(ctx)
	if err != nil {
		complain(os.Stderr, "", err)
	}
	os.Exit(exitCode(err))
}

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var coded *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, keys.ErrStore):
		return exitTempFail
	}
	return exitFailure
}

// complain writes an error on one line, which is what a log and a script can
// deal with. The prefix is empty or "warning: ".
func complain(w io.Writer, prefix string, err error) {
	fmt.Fprintf(w, "sealmilter: %s%s\n", prefix, oneLine(err.Error()))
}

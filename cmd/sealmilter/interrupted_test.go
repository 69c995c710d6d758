package main

import (
	"context"
	"io"
	"path/filepath"
	"testing"
)

// TestInterrupted: where a signal ends a command, nobody is told that the store
// is away.
func TestInterrupted(t *testing.T) {
	run := func(ctx context.Context, args ...string) error {
		command := newRootCommand()
		command.SetOut(io.Discard)
		command.SetErr(io.Discard)
		command.SetArgs(append(args, "--config", "/dev/null", "--store", "sqlite:"+filepath.Join(t.TempDir(), "keys.db")))
		return command.ExecuteContext(ctx)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range [][]string{{"key", "list"}, {"key", "check", "--all"}, {"alias", "list"}} {
		err := run(stopped, args...)
		if err == nil || err.Error() != "interrupted: what was done until then stays done" || exitCode(err) != exitFailure {
			t.Errorf("%q: %v, exit code %d", args, err, exitCode(err))
		}
	}
}

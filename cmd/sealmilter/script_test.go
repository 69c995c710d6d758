package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// TestMain lets the scripts run this very program as sealmilter. They must not
// meet the configuration of the machine that they run on.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sealmilter": func() {
			defaultConfigFile = os.Getenv("DEFAULT_CONFIG")
			if at, err := time.Parse(time.RFC3339, os.Getenv("TEST_NOW")); err == nil {
				notifyClock = func() time.Time { return at }
			}
			main()
		},
	})
}

const scripts = "testdata/script"

// TestScripts runs every script with a store in a SQLite file.
func TestScripts(t *testing.T) {
	runScripts(t, []string{"*.txtar"}, func(work string) string { return "sqlite:" + filepath.Join(work, "keys.db") })
}

// TestScriptsPostgres runs the scripts that are about the store's content once
// more, each with a database of its own.
func TestScriptsPostgres(t *testing.T) {
	server := bed.StartPostgres(t)
	var number atomic.Int32
	runScripts(t, []string{"key_*.txtar", "alias.txtar", "account.txtar", "notify.txtar"}, func(string) string {
		name := fmt.Sprintf("keys%d", number.Add(1))
		server.CreateDatabase(t, name)
		return server.URL("postgres", name)
	})
}

func runScripts(t *testing.T, patterns []string, storeURL func(work string) string) {
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(scripts, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("there is no script %s (%v)", pattern, err)
		}
		files = append(files, found...)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"enrol":  enrolRaw,
			"choose": chooseRaw,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("STORE", storeURL(env.WorkDir))
			me, err := user.Current()
			if err != nil {
				return err
			}
			env.Setenv("GORACE", "atexit_sleep_ms=0") // under -race every program would sleep for a second
			env.Setenv("ME", me.Username)
			env.Setenv("DEFAULT_CONFIG", filepath.Join(env.WorkDir, "default.toml"))
			if err := expandConfigs(env.WorkDir); err != nil {
				return err
			}
			return writeTestKeys(env)
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// expandConfigs writes a script's folder into its configuration files, where
// they have $WORK: what they name must be absolute.
func expandConfigs(work string) error {
	files, err := filepath.Glob(filepath.Join(work, "*.toml"))
	for _, file := range files {
		var text []byte
		if text, err = os.ReadFile(file); err != nil {
			return err
		}
		if err = os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "$WORK", work)), 0o600); err != nil {
			return err
		}
	}
	return err
}

// exits is the script command "exits CODE PROGRAM ARG…": it runs the program,
// which must exit with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// chooseRaw is the script command "choose ADDRESS OPTIONS": it stores options of
// an account without a look at them, as an administrator may by SQL.
func chooseRaw(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: choose ADDRESS OPTIONS")
	}
	cfg := defaultConfig()
	cfg.Store.URL = ts.Getenv("STORE")
	st, err := openStore(context.Background(), cfg)
	ts.Check(err)
	defer st.Close()
	ts.Check(st.SetAccount(context.Background(), keys.Choices{Address: args[0], Enabled: true, Options: []byte(args[1])}))
}

// enrolRaw is the script command "enrol ADDRESS FILE…": it stores the files'
// text in one row without a look at it, as an administrator may by SQL.
func enrolRaw(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: enrol ADDRESS FILE…")
	}
	cfg := defaultConfig()
	cfg.Store.URL = ts.Getenv("STORE")
	st, err := openStore(context.Background(), cfg)
	ts.Check(err)
	defer st.Close()
	var text strings.Builder
	for _, file := range args[1:] {
		text.WriteString(ts.ReadFile(file))
	}
	_, err = st.AddKey(context.Background(), keys.NewKey{Address: args[0], Key: text.String()})
	ts.Check(err)
}

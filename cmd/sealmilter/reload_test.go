package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

// Every setting that a reload leaves alone is one.
func TestFixedSettings(t *testing.T) {
	for _, key := range fixedSettings {
		if !slices.Contains(settings(), key) {
			t.Errorf("there is no setting %s", key)
		}
	}
}

// What differs is named by its key in the file.
func TestChangedSettings(t *testing.T) {
	old, changed := defaultConfig(), defaultConfig()
	if got := changedSettings(reflect.ValueOf(old), reflect.ValueOf(changed), ""); len(got) > 0 {
		t.Errorf("nothing has changed, named is %q", got)
	}
	changed.File, changed.origins = "elsewhere", map[string]string{"a": "b"} // no settings
	changed.Milter.Listen = append(listenList{}, changed.Milter.Listen...)
	changed.Milter.Group = "postfix"
	changed.Store.Timeout = duration(time.Second)
	changed.Storage.Encryption.Enable = false
	changed.Log.Level = logLevel(slog.LevelWarn)
	want := []string{"milter.group", "store.timeout", "storage.encryption.enable", "log.level"}
	if got := changedSettings(reflect.ValueOf(old), reflect.ValueOf(changed), ""); !slices.Equal(got, want) {
		t.Errorf("named is %q, want %q", got, want)
	}
}

// TestGlobalKeysAreAnnounced: who else can read is in the log at the start and
// at every reload, and the files are read again then. A key that was revoked
// meanwhile leaves the old configuration in force.
func TestGlobalKeysAreAnnounced(t *testing.T) {
	made, err := generateKeys()
	if err != nil {
		t.Fatal(err)
	}
	site := filepath.Join(bed.Dir(t), "site.asc")
	install := func(file string) {
		t.Helper()
		if err := os.WriteFile(site, made.files[file], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install("ann.asc")
	systemd := newServiceManager(t, filepath.Join(bed.Dir(t), "notify"))
	s := serve(t, "milter.listen = \"unix:$DIR/sock\"\n[policy]\nno_key = \"global\"\nescrow = true\nglobal_keys = \""+site+"\"\n",
		nil, "NOTIFY_SOCKET="+systemd.address)
	s.start(t)
	systemd.announces(t, "READY=1")
	said := 0
	says := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			// What the daemon has written comes through a pipe.
			for deadline := time.Now().Add(5 * time.Second); !strings.Contains(s.log.String()[said:], text); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the log has no %q:\n%s", text, s.log.String()[said:])
				}
			}
		}
		said = len(s.log.String())
	}
	says(`level=WARN msg="ESCROW: whoever holds the secret key of `+made.variables["ANN"]+` can read every message that is sealed"`,
		`level=INFO msg="whoever holds the secret key of `+made.variables["ANN"]+` can read the mail of every recipient without a key"`,
		site+" ("+made.variables["ANN"]+")")
	for _, file := range []string{"bob.asc", "revoked.asc"} {
		install(file)
		s.Process.Signal(syscall.SIGHUP)
		systemd.announces(t, "RELOADING=1")
		systemd.announces(t, "READY=1")
		if file == "bob.asc" {
			says("changed=[policy.global_keys]", "ESCROW: whoever holds the secret key of "+made.variables["BOB"])
		}
	}
	says("the new configuration is not used", "the key "+made.variables["GONE"]+" is revoked")
	s.stop(t)
}

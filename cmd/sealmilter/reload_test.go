package main

import (
	"log/slog"
	"reflect"
	"slices"
	"testing"
	"time"
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

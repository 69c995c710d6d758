package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms says what each package may import of ours, and which packages of
// others only certain rooms may know. It is the plan of the house: whoever
// wants another door changes it here, where a reviewer sees it.
var rooms = map[string][]string{
	"cmd/sealmilter":          {"keys", "keys/postgres", "keys/sqlite", "milter", "milter/client", "milter/reinject", "milter/envelope", "milter/envelope/cms", "milter/envelope/detect", "policy", "testdata/messages"},
	"milter":                  {"milter/envelope", "milter/envelope/detect", "milter/reinject", "policy", "keys"},
	"milter/client":           {},
	"milter/envelope":         {"milter/envelope/openpgp", "milter/envelope/cms", "milter/envelope/lines", "keys"},
	"milter/envelope/cms":     {},
	"milter/envelope/detect":  {"milter/envelope", "milter/envelope/openpgp", "keys"},
	"milter/envelope/lines":   {},
	"milter/envelope/openpgp": {"milter/envelope/lines"},
	"milter/reinject":         {},
	"keys":                    {},
	"keys/postgres":           {"keys"},
	"keys/sqlite":             {"keys"},
	"keys/storetest":          {"keys"},
	"policy":                  {"keys"},
	"testdata/bed":            {},
	"testdata/bench":          {"keys", "milter/envelope", "milter/envelope/openpgp", "testdata/report"},
	"testdata/hostile":        {},
	"testdata/interop":        {},
	"testdata/messages":       {},
	"testdata/mta":            {},
	"testdata/report":         {},
	"testdata/scale":          {"keys", "keys/postgres", "testdata/report"},
}

// guarded are imports that belong to some rooms alone. One that ends in a slash
// stands for all paths below it.
var guarded = map[string][]string{
	"github.com/jackc/pgx/":         {"keys/postgres", "testdata/scale"},
	"modernc.org/sqlite":            {"keys/sqlite"},
	"database/sql":                  {"keys/postgres", "keys/sqlite"},
	"github.com/pressly/goose/":     {"keys/postgres", "keys/sqlite"},
	"net/http":                      {"cmd/sealmilter"},
	"github.com/emersion/go-milter": {"milter", "milter/client"},
	"github.com/emersion/go-smtp":   {"milter/reinject"},
	"github.com/spf13/":             {"cmd/sealmilter"},
	"github.com/pelletier/go-toml/": {"cmd/sealmilter"},
	"log/slog":                      {"cmd/sealmilter", "milter"},
	"log":                           {},
	"os/exec":                       {"cmd/sealmilter", "testdata/bed", "testdata/bench", "testdata/mta", "testdata/scale"},
}

// TestImports holds the plan. Tests may use the test bed and any store.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "sealmilter/...",
		"sealmilter/testdata/bed", "sealmilter/testdata/bench", "sealmilter/testdata/hostile", "sealmilter/testdata/interop",
		"sealmilter/testdata/messages", "sealmilter/testdata/mta", "sealmilter/testdata/report", "sealmilter/testdata/scale").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		room := strings.TrimPrefix(p.ImportPath, "sealmilter/")
		allowed, planned := rooms[room]
		if !planned {
			t.Errorf("the package %s is not in the plan", room)
		}
		for _, path := range p.Imports {
			if ours, is := strings.CutPrefix(path, "sealmilter/"); is && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the plan does not allow", room, ours)
			}
			for prefix, only := range guarded {
				if guards(prefix, path) && !slices.Contains(only, room) {
					t.Errorf("%s imports %s, which belongs to %q", room, path, only)
				}
			}
		}
	}
	if seen != len(rooms) {
		t.Errorf("%d packages were seen, the plan has %d", seen, len(rooms))
	}
}

func guards(guarded, path string) bool {
	return path == guarded || strings.HasSuffix(guarded, "/") && strings.HasPrefix(path, guarded)
}

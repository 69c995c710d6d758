package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestLookupStates: what the states of keys make of their account.
func TestLookupStates(t *testing.T) {
	key, newer := armorBlock(binary(t, newEntity(t, at(birth)))), armorBlock(binary(t, newEntity(t, at(birth))))
	withdrawn := newEntity(t, at(birth))
	if err := withdrawn.Revoke(packet.KeyCompromised, "", at(birth)); err != nil {
		t.Fatal(err)
	}
	byHolder := armorBlock(binary(t, withdrawn))
	since := noon.Add(-time.Hour).UTC().Truncate(time.Second)
	revoked := fmt.Sprintf(`{"state":"revoked","since":%q}`, since.Format(time.RFC3339))
	type entry struct{ key, ofKey string }
	for _, test := range []struct {
		name      string
		rows      []entry
		want      string // enrolled, keys, unread, state, keys to seal to
		revokedAt time.Time
	}{
		{"active", []entry{{key, `{"state":"active"}`}}, "true 1 0 usable 1", time.Time{}},
		{"active, whatever a site notes beside it", []entry{{key, `{"State":"pending","SINCE":1}`}}, "true 1 0 usable 1", time.Time{}},
		{"retired", []entry{{key, `{"state":"retired"}`}}, "true 0 0 unusable 0", time.Time{}},
		{"retired and unreadable", []entry{{"x", `{"state":"retired"}`}}, "true 0 0 unusable 0", time.Time{}},
		{"retired beside an active one", []entry{{key, `{"state":"retired"}`}, {newer, `{}`}}, "true 1 0 usable 1", time.Time{}},
		{"retired beside a revoked one", []entry{{key, `{"state":"retired"}`}, {newer, revoked}}, "true 1 0 revoked 0", since},
		{"revoked", []entry{{key, revoked}}, "true 1 0 revoked 0", since},
		{"revoked, nobody knows since when", []entry{{key, `{"state":"revoked"}`}}, "true 1 0 revoked 0", time.Time{}},
		{"revoked and unreadable", []entry{{"x", revoked}}, "true 0 1 unusable 0", time.Time{}},
		{"revoked, and by its holder before", []entry{{byHolder, revoked}}, "true 1 0 revoked 0", birth},
		{"revoked, and enrolled once more", []entry{{key, revoked}, {key + "\n", `{"aead":"gcm"}`}}, "true 2 0 revoked 0", since},
		{"revoked beside an active one", []entry{{key, revoked}, {newer, ""}}, "true 2 0 usable 1", since},
		{"pending, from a site that does not leave it out", []entry{{key, `{"state":"pending"}`}}, "false 0 0 unusable 0", time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var rows []Row
			for _, e := range test.rows {
				row := Row{Address: "ann@example.org", Account: "ann@example.org", Known: true, Enabled: true, Key: e.key}
				if e.ofKey != "" {
					row.Options = json.RawMessage(`{"key":` + e.ofKey + `}`)
				}
				rows = append(rows, row)
			}
			found, err := Lookup(context.Background(), &answering{rows: rows}, Naming{}, []string{"ann@example.org"})
			if err != nil {
				t.Fatal(err)
			}
			a := found["ann@example.org"].Accounts[0]
			got := fmt.Sprintf("%v %d %d %s %d", a.Enrolled(), len(a.Keys), len(a.Unread), a.State(noon), sealedTo(a))
			if got != test.want || !a.RevokedAt().Equal(test.revokedAt) {
				t.Errorf("got %s, revoked at %v, want %s at %v", got, a.RevokedAt(), test.want, test.revokedAt)
			}
		})
	}
	for _, wrong := range []string{`{"state":"lost"}`, `{"state":1}`, `{"state":"revoked","since":"yesterday"}`} {
		row := Row{Address: "ann@example.org", Account: "ann@example.org", Known: true, Enabled: true, Key: key, Options: json.RawMessage(`{"key":` + wrong + `}`)}
		if found, err := Lookup(context.Background(), &answering{rows: []Row{row}}, Naming{}, []string{"ann@example.org"}); !errors.Is(err, ErrStore) {
			t.Errorf("%s: %v, %v", wrong, found, err)
		}
	}
}

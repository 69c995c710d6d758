package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// states are the keys of an account by their state: "active A, retired B".
func states(t testing.TB, s Store, address string) string {
	t.Helper()
	var all []string
	for _, key := range listed(t, s, address) {
		all = append(all, string(key.State)+" "+key.Key)
	}
	return strings.Join(all, ", ")
}

// standing is what an answer says of a row's key: the state, or "active".
func standing(t testing.TB, row keys.Row) (state string, since time.Time) {
	t.Helper()
	var options struct {
		Key struct {
			State string    `json:"state"`
			Since time.Time `json:"since"`
		} `json:"key"`
	}
	if len(row.Options) > 0 {
		if err := json.Unmarshal(row.Options, &options); err != nil {
			t.Fatal(err)
		}
	}
	if options.Key.State == "" {
		return "active", options.Key.Since
	}
	return options.Key.State, options.Key.Since
}

// statesOfKeys: a pending key is left out, a retired and a revoked one come with
// a word of it, and nothing else of the answer is another.
func statesOfKeys(t *testing.T, s Store) {
	ctx := context.Background()
	id, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "A", State: keys.KeyPending, Fingerprint: "0123456789ABCDEF"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", ""))
	if one := listed(t, s, "ann@example.org"); len(one) != 1 || one[0].State != keys.KeyPending || one[0].Fingerprint != "0123456789ABCDEF" ||
		one[0].StateSince.IsZero() || !one[0].Checked.IsZero() || one[0].Problem != "" {
		t.Errorf("listed as %+v", one)
	}
	if err := s.SetKeyOptions(ctx, id, keys.KeyOptions{AEAD: keys.GCM}); err != nil {
		t.Fatal(err)
	}
	for _, state := range []keys.KeyState{keys.KeyActive, keys.KeyRetired, keys.KeyRevoked, keys.KeyActive, keys.KeyRevoked} {
		if err := s.SetKeyState(ctx, id, state); err != nil {
			t.Fatal(err)
		}
		text := "A"
		if state == keys.KeyRetired { // whose text nobody needs
			text = "retired"
		}
		rows := answer(t, s, "ann@example.org")
		if len(rows) != 1 || rows[0].Key != text || !strings.Contains(options(rows[0]), `"aead":"gcm"`) {
			t.Fatalf("%s: %+v", state, rows)
		}
		said, since := standing(t, rows[0])
		if said != string(state) || (state == keys.KeyRevoked) == since.IsZero() {
			t.Errorf("%s: the answer says %s, since %v", state, said, since)
		}
		if age := time.Since(since); state == keys.KeyRevoked && (age < -time.Minute || age > time.Minute) {
			t.Errorf("revoked since %v", since)
		}
	}
	for _, wrong := range []struct {
		id    int64
		state keys.KeyState
	}{{id, "lost"}, {id, ""}, {id + 1000, keys.KeyActive}} {
		err := s.SetKeyState(ctx, wrong.id, wrong.state)
		if err == nil || errors.Is(err, keys.ErrStore) || errors.Is(err, keys.ErrNoSuchKey) != (wrong.id != id) {
			t.Errorf("key %d made %q: %v", wrong.id, wrong.state, err)
		}
	}
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "B", State: "lost"}); err == nil || errors.Is(err, keys.ErrStore) {
		t.Errorf("a key of an unknown state: %v", err)
	}
	if _, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "B", Fingerprint: "0xabc"}); err == nil || errors.Is(err, keys.ErrStore) {
		t.Errorf("a fingerprint that is none: %v", err)
	}
}

// statesBySQL: an administrator needs no command for it, and what was known of
// a key is forgotten with its text. An option cannot pass for a state.
func statesBySQL(t *testing.T, s Store) {
	ctx := context.Background()
	id := add(t, s, "ann@example.org", "A")
	s.SQL(t, `UPDATE sealmilter.keys SET state = 'retired'`)
	if said, _ := standing(t, answer(t, s, "ann@example.org")[0]); said != "retired" {
		t.Errorf("the answer says %s", said)
	}
	s.SQL(t, `UPDATE sealmilter.keys SET state = 'revoked', state_since = '2026-02-03 04:05:06'`)
	if said, since := standing(t, answer(t, s, "ann@example.org")[0]); said != "revoked" || !since.Equal(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)) {
		t.Errorf("the answer says %s since %v", said, since)
	}
	s.SQL(t, `UPDATE sealmilter.keys SET state = 'active', options = '{"state": "revoked", "since": "2020-01-01T00:00:00Z"}'`)
	if said, since := standing(t, answer(t, s, "ann@example.org")[0]); said != "active" || !since.IsZero() {
		t.Errorf("the answer says %s since %v", said, since)
	}
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key, state) VALUES ('bob@example.org', 'B', 'pending')`)
	expect(t, answer(t, s, "bob@example.org"), enrolled("bob@example.org", "bob@example.org", ""))
	if err := s.NoteKey(ctx, id, "A", "ABCD", "is too old"); err != nil {
		t.Fatal(err)
	}
	s.SQL(t, `UPDATE sealmilter.keys SET key = 'A2' WHERE key = 'A'`)
	if one := listed(t, s, "ann@example.org"); one[0].Key != "A2" || one[0].Fingerprint != "" || one[0].Problem != "" || !one[0].Checked.IsZero() {
		t.Errorf("listed as %+v", one)
	}
	s.SQL(t, `UPDATE sealmilter.keys SET key = 'A3', fingerprint = 'EF' WHERE key = 'A2'`)
	if one := listed(t, s, "ann@example.org"); one[0].Fingerprint != "EF" {
		t.Errorf("listed as %+v", one)
	}
	for _, statement := range []string{`UPDATE sealmilter.keys SET state = 'lost'`, `UPDATE sealmilter.keys SET state = NULL`,
		`UPDATE sealmilter.keys SET fingerprint = 'xyz'`, `UPDATE sealmilter.keys SET problem = ''`} {
		if s.TrySQL(statement) == nil {
			t.Errorf("not refused: %s", statement)
		}
	}
}

// rotate: at no moment there is no key, keys of the other method stay, and so
// does what is not active.
func rotate(t *testing.T, s Store) {
	ctx := context.Background()
	const armor, pem = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "-----BEGIN CERTIFICATE-----\n"
	first := add(t, s, "ann@example.org", armor+"1")
	second := add(t, s, "ann@example.org", "mDMEZ2")
	certificate := add(t, s, "ann@example.org", pem+"3")
	pending, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: armor + "4", State: keys.KeyPending})
	if err != nil {
		t.Fatal(err)
	}
	revoked := add(t, s, "ann@example.org", armor+"5")
	if err := s.SetKeyState(ctx, revoked, keys.KeyRevoked); err != nil {
		t.Fatal(err)
	}
	other := add(t, s, "bob@example.org", armor+"1")
	id, retired, err := s.Rotate(ctx, keys.NewKey{Address: "ANN@example.org", Key: armor + "6", Fingerprint: "F6", Options: keys.KeyOptions{AEAD: keys.OCB}})
	if err != nil || !slices.Equal(retired, []int64{first, second}) {
		t.Fatalf("key %d, retired %v, %v", id, retired, err)
	}
	want := map[int64]keys.KeyState{first: keys.KeyRetired, second: keys.KeyRetired, certificate: keys.KeyActive, pending: keys.KeyPending,
		revoked: keys.KeyRevoked, other: keys.KeyActive, id: keys.KeyActive}
	for _, key := range listed(t, s, "") {
		if key.State != want[key.ID] {
			t.Errorf("key %d is %s, want %s", key.ID, key.State, want[key.ID])
		}
		if key.ID == id && (key.Address != "ann@example.org" || key.Fingerprint != "F6" || key.Options.AEAD != keys.OCB) {
			t.Errorf("the new key is %+v", key)
		}
	}
	if _, retired, err := s.Rotate(ctx, keys.NewKey{Address: "ann@example.org", Key: "MIIC"}); err != nil || !slices.Equal(retired, []int64{certificate}) {
		t.Errorf("retired %v, %v", retired, err)
	}
	if _, retired, err := s.Rotate(ctx, keys.NewKey{Address: "new@example.org", Key: armor}); err != nil || len(retired) != 0 {
		t.Errorf("the first key of an account: retired %v, %v", retired, err)
	}
	before := states(t, s, "ann@example.org")
	if _, _, err := s.Rotate(ctx, keys.NewKey{Address: "ann@example.org", Key: armor + "6"}); err == nil || !strings.Contains(err.Error(), "the key is enrolled already") {
		t.Errorf("the same key again: %v", err)
	}
	if now := states(t, s, "ann@example.org"); now != before {
		t.Errorf("the keys were %s and are %s", before, now)
	}
}

// challenge: only what was sealed to a pending key makes it active.
func challenge(t *testing.T, s Store) {
	ctx := context.Background()
	hash, wrong := sha256.Sum256([]byte("nonce")), sha256.Sum256([]byte("guess"))
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	old := add(t, s, "ann@example.org", "OLD")
	id, err := s.AddKey(ctx, keys.NewKey{Address: "ann@example.org", Key: "NEW", State: keys.KeyPending})
	if err != nil {
		t.Fatal(err)
	}
	confirm := func(id int64, answer [32]byte, want error) {
		t.Helper()
		if err := s.Confirm(ctx, id, answer[:], true); !errors.Is(err, want) || errors.Is(err, keys.ErrStore) {
			t.Errorf("confirming key %d: %v, want %v", id, err, want)
		}
	}
	confirm(id, hash, keys.ErrChallengeExpired) // none was sent
	for _, step := range []struct {
		id   int64
		want error
	}{{old, keys.ErrNotPending}, {id + 1000, keys.ErrNoSuchKey}} {
		if err := s.Challenge(ctx, step.id, hash[:], later); !errors.Is(err, step.want) {
			t.Errorf("challenging key %d: %v, want %v", step.id, err, step.want)
		}
		confirm(step.id, hash, step.want)
	}
	if err := s.Challenge(ctx, id, []byte("short"), later); err == nil || errors.Is(err, keys.ErrStore) {
		t.Errorf("a hash that is none: %v", err)
	}
	again := func(hash [32]byte, until time.Time) {
		t.Helper()
		if err := s.Challenge(ctx, id, hash[:], until); err != nil {
			t.Fatal(err)
		}
	}
	again(hash, past)
	confirm(id, hash, keys.ErrChallengeExpired)
	again(hash, later)
	for range 10 {
		confirm(id, wrong, keys.ErrWrongAnswer)
	}
	confirm(id, hash, keys.ErrTooManyTries)
	again(wrong, later)
	confirm(id, hash, keys.ErrWrongAnswer) // the former nonce
	again(hash, later)
	s.SQL(t, fmt.Sprintf(`UPDATE sealmilter.keys SET key = 'SWAPPED' WHERE id = %d`, id))
	confirm(id, hash, keys.ErrChallengeExpired) // it was sealed to another key
	again(hash, later)
	confirm(id, wrong, keys.ErrWrongAnswer)
	if got := states(t, s, "ann@example.org"); got != "active OLD, pending SWAPPED" {
		t.Errorf("the keys are %s", got)
	}
	confirm(id, hash, nil)
	confirm(id, hash, keys.ErrNotPending)
	if got := states(t, s, "ann@example.org"); got != "retired OLD, active SWAPPED" {
		t.Errorf("the keys are %s", got)
	}
}

// noteKeys: what is seen of a key changes nothing else of it.
func noteKeys(t *testing.T, s Store) {
	ctx := context.Background()
	id := add(t, s, "ann@example.org", "A")
	if err := s.NoteKey(ctx, id, "A", "ABCDEF", "it has expired"); err != nil {
		t.Fatal(err)
	}
	one := listed(t, s, "")[0]
	if one.Fingerprint != "ABCDEF" || one.Problem != "it has expired" || time.Since(one.Checked) > time.Minute || one.State != keys.KeyActive {
		t.Errorf("noted as %+v", one)
	}
	expect(t, answer(t, s, "ann@example.org"), enrolled("ann@example.org", "ann@example.org", "A"))
	if err := s.NoteKey(ctx, id, "A", "", ""); err != nil {
		t.Fatal(err)
	}
	if one := listed(t, s, "")[0]; one.Fingerprint != "" || one.Problem != "" || one.Checked.IsZero() {
		t.Errorf("noted as %+v", one)
	}
	if err := s.NoteKey(ctx, id+1000, "A", "AB", ""); !errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	// Somebody has put another key there since it was read.
	s.SQL(t, fmt.Sprintf(`UPDATE sealmilter.keys SET key = 'ANOTHER' WHERE id = %d`, id))
	if err := s.NoteKey(ctx, id, "A", "ABCDEF", "it has expired"); !errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("a key that is another by now: %v", err)
	}
	if one := listed(t, s, "")[0]; one.Fingerprint != "" || one.Problem != "" || !one.Checked.IsZero() {
		t.Errorf("of another key it is noted what was read of the first: %+v", one)
	}
}

// warnings: each is noted once, and goes with its key.
func warnings(t *testing.T, s Store) {
	ctx := context.Background()
	id := add(t, s, "ann@example.org", "A")
	end := time.Date(2027, 1, 2, 3, 4, 5, 600, time.UTC)
	for i, step := range []struct {
		warning keys.Warning
		first   bool
	}{
		{keys.Warning{Kind: "30 days", Expires: end}, true}, {keys.Warning{Kind: "30 days", Expires: end}, false},
		{keys.Warning{Kind: "14 days", Expires: end}, true}, {keys.Warning{Kind: "30 days", Expires: end.AddDate(1, 0, 0)}, true},
	} {
		if first, err := s.NoteWarning(ctx, id, step.warning); err != nil || first != step.first {
			t.Errorf("%d: %v, %v", i, first, err)
		}
	}
	sent, err := s.WarningsSent(ctx, id)
	if err != nil || len(sent) != 3 || !slices.ContainsFunc(sent, func(w keys.Warning) bool {
		return w.Kind == "14 days" && w.Expires.Equal(end.Truncate(time.Second))
	}) {
		t.Errorf("sent %+v, %v", sent, err)
	}
	if _, err := s.NoteWarning(ctx, id+1000, keys.Warning{Kind: "x", Expires: end}); !errors.Is(err, keys.ErrNoSuchKey) {
		t.Errorf("for a key that is not there: %v", err)
	}
	if err := s.RemoveKey(ctx, id); err != nil {
		t.Fatal(err)
	}
	if sent, err := s.WarningsSent(ctx, id); err != nil || len(sent) != 0 {
		t.Errorf("left of a key that is gone: %+v, %v", sent, err)
	}
}

// happened is what the journal says, the oldest first: "ann@example.org key added".
func happened(t testing.TB, s Store, address string) (lines []string, all []keys.Event) {
	t.Helper()
	for event, err := range s.Events(context.Background(), address) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, event)
	}
	slices.Reverse(all)
	for i, event := range all {
		if !json.Valid(event.Detail) || i > 0 && event.ID <= all[i-1].ID || time.Since(event.At) > time.Minute {
			t.Errorf("event %+v", event)
		}
		lines = append(lines, event.Address+" "+event.Action)
	}
	return lines, all
}

func expectLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// events: what the commands do is written down, with the key that it was done to.
func events(t *testing.T, s Store) {
	ctx := context.Background()
	id, err := s.AddKey(ctx, keys.NewKey{Address: "Ann@Example.org", Key: "A", Fingerprint: "FA"})
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(nil)
	for _, step := range []error{
		s.SetKeyOptions(ctx, id, keys.KeyOptions{AEAD: keys.GCM}),
		s.SetKeyState(ctx, id, keys.KeyPending),
		s.Challenge(ctx, id, hash[:], time.Now().Add(time.Hour)),
		s.Confirm(ctx, id, hash[:], false),
		s.NoteKey(ctx, id, "A", "FA", ""), // nothing new
		s.NoteKey(ctx, id, "A", "FA", "weak"),
		s.SetAccount(ctx, keys.Choices{Address: "ann@example.org", Enabled: false}),
		s.SetAccount(ctx, keys.Choices{Address: "ann@example.org", Enabled: false}), // nothing new
		s.RemoveKey(ctx, id),
		s.AddAlias(ctx, "info@example.org", "ann@example.org"),
		s.AddAlias(ctx, "info@example.org", "ann@example.org"), // nothing new
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if _, err := s.RemoveAlias(ctx, "info@example.org", ""); err != nil {
		t.Fatal(err)
	}
	lines, all := happened(t, s, "")
	expectLines(t, lines, "Ann@example.org account added", "Ann@example.org key added", "Ann@example.org key changed",
		"Ann@example.org key pending", "Ann@example.org key changed", "Ann@example.org key active", "Ann@example.org key changed",
		"Ann@example.org account changed", "Ann@example.org key removed", "info@example.org alias added", "info@example.org alias removed")
	for _, event := range all {
		if strings.HasPrefix(event.Action, "key") != (event.KeyID == id && event.Fingerprint == "FA") {
			t.Errorf("event %+v", event)
		}
	}
	for i, want := range map[int]string{2: `"aead"`, 3: `"pending"`, 4: `"challenge_until"`, 5: `"active"`, 6: `"weak"`, 7: `"enabled"`, 9: `"ann@example.org"`} {
		if !strings.Contains(string(all[i].Detail), want) {
			t.Errorf("event %d says %s, want %s in it", i, all[i].Detail, want)
		}
	}
	if of, _ := happened(t, s, "INFO@example.org"); len(of) != 2 {
		t.Errorf("of the alias: %q", of)
	}
	var values []string
	for i := range 250 {
		values = append(values, fmt.Sprintf("('many@example.org', 'KEY %d')", i))
	}
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key) VALUES `+strings.Join(values, ", "))
	if of, _ := happened(t, s, "many@example.org"); len(of) != 251 {
		t.Errorf("%d events of 250 keys", len(of))
	}
}

// eventsOfSQL: what is done past the commands is written down as well, what goes
// with an account too, and a key that nobody has read is known by its digest.
func eventsOfSQL(t *testing.T, s Store) {
	s.SQL(t, `INSERT INTO sealmilter.keys (address, key) VALUES ('ann@example.org', 'A'), ('bob@example.org', 'B')`)
	s.SQL(t, `UPDATE sealmilter.keys SET key = 'A2' WHERE key = 'A'`)
	s.SQL(t, `UPDATE sealmilter.accounts SET address = 'anna@example.org' WHERE address = 'ann@example.org'`)
	s.SQL(t, `DELETE FROM sealmilter.accounts WHERE address = 'anna@example.org'`)
	s.SQL(t, `UPDATE sealmilter.keys SET key = key`)
	s.SQL(t, `INSERT INTO sealmilter.aliases (address, target) VALUES ('info@example.org', 'ann@example.org')`)
	s.SQL(t, `UPDATE sealmilter.aliases SET target = 'bob@example.org'`)
	lines, all := happened(t, s, "")
	// An account and what is its own change in one statement, in either order.
	slices.Sort(lines)
	want := []string{"ann@example.org account added", "bob@example.org account added", "ann@example.org key added", "bob@example.org key added",
		"ann@example.org key changed", "anna@example.org account changed", "anna@example.org key changed", "anna@example.org account removed",
		"anna@example.org key removed", "info@example.org alias added", "info@example.org alias removed", "info@example.org alias added"}
	slices.Sort(want)
	expectLines(t, lines, want...)
	digests := make(map[string]string)
	for _, event := range all {
		if !strings.HasPrefix(event.Action, "key") {
			continue
		}
		if event.Fingerprint != "" {
			t.Errorf("event %+v", event)
		}
		digests[event.Address+" "+event.Action] = string(event.Detail)
	}
	for what, text := range map[string]string{"ann@example.org key added": "A", "bob@example.org key added": "B",
		"ann@example.org key changed": "A2", "anna@example.org key removed": "A2"} {
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); !strings.Contains(digests[what], sum) {
			t.Errorf("%s says %s, want %s", what, digests[what], sum)
		}
	}
}

// eventsOnlyGrow: there is one way to be rid of them, and it shows.
func eventsOnlyGrow(t *testing.T, s Store) {
	ctx := context.Background()
	add(t, s, "ann@example.org", "A")
	for _, statement := range []string{`DELETE FROM sealmilter.events`, `UPDATE sealmilter.events SET who = 'nobody'`,
		`DELETE FROM sealmilter.events WHERE id = 1`, `UPDATE sealmilter.events SET at = '2020-01-01'`} {
		if s.TrySQL(statement) == nil {
			t.Errorf("not refused: %s", statement)
		}
	}
	if forgotten, err := s.ForgetEvents(ctx, time.Now().Add(-time.Hour)); err != nil || forgotten != 0 {
		t.Errorf("forgotten %d, %v", forgotten, err)
	}
	lines, _ := happened(t, s, "")
	expectLines(t, lines, "ann@example.org account added", "ann@example.org key added", " events forgotten")
	forgotten, err := s.ForgetEvents(ctx, time.Now().Add(time.Hour))
	if err != nil || forgotten != 3 {
		t.Errorf("forgotten %d, %v", forgotten, err)
	}
	lines, all := happened(t, s, "")
	if len(all) == 0 || all[len(all)-1].Action != "events forgotten" || !strings.Contains(string(all[len(all)-1].Detail), "3") {
		t.Errorf("left: %q", lines)
	}
	if s.TrySQL(`DELETE FROM sealmilter.events`) == nil {
		t.Error("events can be deleted after some have been forgotten")
	}
}

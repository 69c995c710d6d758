package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"sealmilter/keys"
)

// ask finds out where the names lead and reads the accounts there, in one
// transaction: an account that is renamed between the two would be nobody.
func (s *Store) ask(ctx context.Context, addresses []string) ([]keys.Row, error) {
	for _, address := range addresses {
		// JSON would carry it changed, and the answer would be another's.
		if !utf8.ValidString(address) || strings.ContainsRune(address, 0) {
			return nil, fmt.Errorf("the address %q is not text", address)
		}
	}
	tx, err := s.reader().BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	aliases, err := readWays(ctx, tx, addresses)
	if err != nil {
		return nil, err
	}
	names, circles, err := namesOf(addresses, aliases)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	answer, err := tx.QueryContext(ctx, lookup, string(list))
	if err != nil {
		return nil, err
	}
	rows, err := collect(answer, len(names))
	if err != nil {
		return nil, err
	}
	return append(rows, circles...), nil
}

// namesOf lists the accounts to be read: each as the address asked, the
// account's name, and that once more where an alias leads to it, which is an
// answer even if there is no such account. Of an alias without an end the row
// is made at once.
func namesOf(addresses []string, aliases map[string][]way) (names [][]string, circles []keys.Row, err error) {
	names = make([][]string, 0, len(addresses)) // nil would be null in JSON
	seen := make(map[string]bool, len(addresses))
	for _, address := range addresses {
		if seen[address] {
			continue
		}
		seen[address] = true
		ways := aliases[address]
		if ways == nil {
			names = append(names, []string{address, address})
			continue
		}
		ends, err := ends(ways)
		if err != nil {
			return nil, nil, err
		}
		if len(ends) == 0 {
			circles = append(circles, keys.Row{Address: address, Account: address, Options: json.RawMessage(`{"circle": true}`)})
		}
		for _, end := range ends {
			names = append(names, []string{address, end, end})
		}
	}
	return names, circles, nil
}

// The choices of a domain count for every account in it. Of a retired key the
// text is not given: nobody seals to it.
const lookup = `SELECT asked.address, coalesce(a.address, asked.target), a.enabled AND coalesce(d.enabled, 1),
		a.method, a.cipher, CASE k.state WHEN 'retired' THEN k.state ELSE k.key END, a.options, d.options, k.options,
		k.state, strftime('%Y-%m-%dT%H:%M:%SZ', coalesce(k.state_since, k.added))
	FROM (SELECT value ->> 0 AS address, value ->> 1 AS name, value ->> 2 AS target FROM json_each(?)) AS asked
	LEFT JOIN accounts AS a ON a.address = asked.name
	LEFT JOIN accounts AS d ON d.address = substr(a.address, length(rtrim(a.address, replace(a.address, '@', ''))))
	LEFT JOIN keys AS k ON k.address = a.address AND k.state <> 'pending'`

// collect reads an answer.
func collect(answer *sql.Rows, expected int) ([]keys.Row, error) {
	defer answer.Close()
	rows := make([]keys.Row, 0, expected)
	size := 0
	for answer.Next() {
		var row keys.Row
		var account, method, cipher, key, options, domain, ofKey, state, since sql.NullString
		var enabled sql.NullBool
		err := answer.Scan(&row.Address, &account, &enabled, &method, &cipher, &key, &options, &domain, &ofKey, &state, &since)
		if err != nil {
			return nil, err
		}
		row.Account, row.Known, row.Enabled, row.Key = account.String, enabled.Valid, enabled.Bool, key.String
		row.Method, row.Cipher = keys.Method(method.String), keys.Cipher(cipher.String)
		ofKey.String, err = withStanding(ofKey.String, keys.KeyState(state.String), since.String)
		if err != nil {
			return nil, err
		}
		if row.Options, err = overlaid(domain.String, options.String, ofKey.String); err != nil {
			return nil, err
		}
		if size += len(row.Key) + len(row.Options); size > maxAnswer {
			return nil, fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
		}
		rows = append(rows, row)
	}
	return rows, answer.Err()
}

// overlaid are the options of a domain, but for those that the account has set
// itself, and under "key" those of the row's key, whose alone that name is. It
// is PostgreSQL's || for objects, which json_patch is not: that one takes null
// for a deletion and goes into nested objects.
func overlaid(domain, account, key string) (json.RawMessage, error) {
	if account == "" {
		return nil, nil
	}
	all := make(map[string]json.RawMessage)
	for _, options := range []string{domain, account} {
		if options == "" || options == "{}" {
			continue
		}
		var chosen map[string]json.RawMessage
		if err := json.Unmarshal([]byte(options), &chosen); err != nil {
			return nil, fmt.Errorf("reading the options of an account or its domain: %w", err)
		}
		maps.Copy(all, chosen)
	}
	delete(all, "key")
	if key != "" && key != "{}" {
		all["key"] = json.RawMessage(key)
	}
	return json.Marshal(all)
}

// withStanding adds to the options of a key what has become of it, unless it is
// active: those names are not for options.
func withStanding(options string, state keys.KeyState, since string) (string, error) {
	if (options == "" || options == "{}") && (state == "" || state == keys.KeyActive) {
		return options, nil
	}
	all := make(map[string]any)
	if err := json.Unmarshal([]byte(options), &all); err != nil {
		return "", fmt.Errorf("reading the options of a key: %w", err)
	}
	delete(all, "state")
	delete(all, "since")
	if state != keys.KeyActive {
		all["state"] = state
	}
	if state == keys.KeyRevoked {
		all["since"] = since
	}
	text, err := json.Marshal(all)
	return string(text), err
}

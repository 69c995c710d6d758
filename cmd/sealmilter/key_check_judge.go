package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"

	"sealmilter/keys"
	"sealmilter/policy"
)

// warnWithin is how long before the end of a key it is told.
const warnWithin = 30 * 24 * time.Hour

// judgeAccount finds what is wrong with the keys of one account.
func judgeAccount(rows []enrolledRow, now time.Time) (found []finding) {
	seen := make(map[string]int64)
	for _, row := range rows {
		add := func(fingerprint, word, format string, args ...any) {
			found = append(found, finding{row.ID, row.Address, fingerprint, word, fmt.Sprintf(format, args...)})
		}
		if row.State == keys.KeyRetired || row.State == keys.KeyRevoked {
			continue // nobody seals to it, whatever it is
		}
		if row.problem != nil {
			add("", unreadWord(row.problem), "%s; while it is active, mail for the account is deferred unless another key of it can be used", row.problem)
		}
		for _, text := range unreadOptions(row.Chosen, keyOptionNames()) {
			add(row.Fingerprint, foundOptions, "%s", text)
		}
		for _, key := range row.keys {
			if first, twice := seen[key.Fingerprint]; twice {
				add(key.Fingerprint, foundTwice, "the account has the same key in row:%d, perhaps an older copy", first)
			}
			seen[key.Fingerprint] = row.ID
			if word, text := judgeKey(key, row.Address, now); word != "" {
				add(key.Fingerprint, word, "%s", text)
			}
			if !key.Names(row.Address) {
				add(key.Fingerprint, string(keys.ReasonAddress), "it does not name the address, its user ids are %.200q", key.UserIDs)
			}
		}
	}
	return found
}

// judgeAccountOptions finds options of an account that keep its mail waiting, and
// those that say nothing because their names are spelled in another way: who
// has written "nokey" believes that mail waits where it passes.
func judgeAccountOptions(choices keys.Choices) (found []finding) {
	add := func(text string) {
		found = append(found, finding{Address: choices.Address, Finding: foundOptions, Text: text})
	}
	if _, err := policy.ParseSettings(choices.Options); err != nil {
		whose := "the account"
		if strings.HasPrefix(choices.Address, "@") {
			whose = "all accounts of the domain that have not chosen otherwise"
		}
		add(fmt.Sprintf("%s; mail for %s is deferred", err, whose))
	}
	for _, text := range unreadOptions(choices.Options, optionNames()) {
		add(text)
	}
	return found
}

// unreadOptions finds names in options that nobody reads and that are spelled
// almost as one of those that there are. Other names may be the site's own.
func unreadOptions(options json.RawMessage, names []string) (texts []string) {
	all, err := readOptions(options)
	if err != nil {
		return nil // no store has such
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(names, name) {
			continue
		}
		if meant := nearest(strings.ToLower(name), names); meant != "" {
			texts = append(texts, fmt.Sprintf("nobody reads the option %q, did you mean %s?", name, meant))
		}
	}
	return texts
}

// unreadWord is why a key cannot be read, in one word.
func unreadWord(err error) string {
	if reason := keys.ReasonOf(err); reason != "" {
		return string(reason)
	}
	return string(keys.ReasonDamaged)
}

// judgeKey finds what keeps mail from being sealed to a key, or will soon.
func judgeKey(key *keys.Key, address string, now time.Time) (word, text string) {
	day := key.Expires.UTC().Format(time.DateOnly)
	if err := key.Options.Check(key.Method); err != nil {
		return foundOptions, err.Error() + "; mail for the account is deferred"
	}
	switch state := key.State(now); {
	case state == keys.Revoked:
		return string(keys.ReasonRevoked), "its holder has revoked it, and mail is not sealed to it"
	case state == keys.Unusable:
		return string(keys.ReasonPurpose), unsealable(key, now).Error()
	case state == keys.Expired:
		return string(keys.ReasonExpired), fmt.Sprintf("it expired on %s; its holder can still read", day)
	case key.Created.After(now):
		return string(keys.ReasonEarly), fmt.Sprintf("it is not valid before %s", key.Created.UTC().Format(time.DateOnly))
	case !key.Expires.IsZero() && key.Expires.Before(now.Add(warnWithin)):
		return foundExpiring, fmt.Sprintf("it expires on %s", day)
	}
	return "", ""
}

// daysLeft is how many days a key has, begun ones counted; of one that has
// expired it is how many whole days ago that was, below zero or zero.
func daysLeft(expires, now time.Time) int {
	left := expires.Sub(now)
	days := int(left / (24 * time.Hour))
	if left > 0 && left%(24*time.Hour) != 0 {
		days++
	}
	return days
}

func daysText(days int) string {
	if days == 1 || days == -1 {
		return fmt.Sprintf("%d day", days)
	}
	return fmt.Sprintf("%d days", days)
}

// judgeSpelling finds accounts whose address is not spelled as mail is looked
// up: the stores match ASCII letters in any case and know no other. Only they
// are asked for more, and only for an address that is not all ASCII.
func judgeSpelling(ctx context.Context, accounts keys.Accounts, e keys.Enrolled) (found []finding, err error) {
	want := enteredSpelling(e.Address)
	if sameBeyondASCII(want, e.Address) {
		return nil, nil
	}
	other, err := accounts.Account(ctx, want)
	switch {
	case errors.Is(err, keys.ErrNoSuchAccount) && sameBeyondASCII(inASCII(want), inASCII(e.Address)):
		return nil, nil // mail is looked up by the domain's form in ASCII, too
	case errors.Is(err, keys.ErrNoSuchAccount):
		return []finding{{e.ID, e.Address, "", foundSpelling, fmt.Sprintf("mail may be looked up as %s, and not be sealed then: enter it so", want)}}, nil
	case err != nil:
		return nil, err
	}
	return []finding{{e.ID, e.Address, "", foundAccounts, fmt.Sprintf("the account %s is the same one for mail: keep one of them", other.Address)}}, nil
}

// shadowed says why the keys of an account are not used: an alias of the same name
// decides before it, and leads to others. It is "" where they are. Of a whole
// domain that cannot be said.
func shadowed(ctx context.Context, st store, naming keys.Naming, address string) (why string, err error) {
	isAlias := false
	for _, err := range st.Aliases(ctx, address) {
		if err != nil {
			return "", err
		}
		isAlias = true
		break
	}
	if !isAlias || strings.HasPrefix(address, "@") {
		return "", nil
	}
	asked := quotedLocal(address)
	if !keys.Readable(asked) { // as SQL may have entered it: no mail arrives there
		return "", nil
	}
	found, err := keys.Lookup(ctx, st, naming, []string{asked})
	if err != nil {
		return "", err
	}
	isItself := func(a *keys.Account) bool { return strings.EqualFold(a.Address, address) }
	if slices.ContainsFunc(found[asked].Accounts, isItself) {
		return "", nil
	}
	return fmt.Sprintf("the address is an alias that leads elsewhere, so that its own keys are not used: "+
		"take the alias away (sealmilter alias remove %[1]s), or let it lead to itself too (sealmilter alias add %[1]s %[1]s)", address), nil
}

// quotedLocal is an address of the store as a message would have it, in which a
// blank or a bracket needs quotes.
func quotedLocal(address string) string {
	at := strings.LastIndexByte(address, '@')
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(address[:at]) + `"` + address[at:]
}

// enteredSpelling is the spelling under which any spelling of the address is
// found.
func enteredSpelling(address string) string {
	entered := keys.Entered(address)
	if !strings.Contains(entered, "@") {
		return entered
	}
	return foldedBeyondASCII(entered)
}

// inASCII is an address with its domain as a resolver is asked for it. A domain
// beyond ASCII that is not spelled as it should be stays as it is: mail does not
// find it.
func inASCII(address string) string {
	at := strings.LastIndexByte(address, '@')
	domain := address[at+1:]
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || keys.CanonicalDomain(domain) != domain && strings.ContainsFunc(domain, func(r rune) bool { return r > unicode.MaxASCII }) {
		return address
	}
	return address[:at+1] + ascii
}

// sameBeyondASCII says whether two texts differ in nothing but the case of ASCII
// letters.
func sameBeyondASCII(a, b string) bool {
	lower := func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	return strings.Map(lower, a) == strings.Map(lower, b)
}

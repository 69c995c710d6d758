package main

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// hidden stands for what is not shown.
const hidden = "***"

// postgresURL matches a URL whose parts can be told apart with certainty: user,
// password, hosts, path and query. A password with an unescaped "@", "/", ":"
// or "?" in it makes the URL ambiguous, and then nothing of it is shown.
var postgresURL = regexp.MustCompile(`^(postgres(?:ql)?://)` +
	`(?:([^\s:@/?#]*)(:[^\s:@/?#]*)?@)?` +
	`((?:\[[0-9a-fA-F:.]*\]|[^\s:@/?#,\[\]]*)(?::[0-9]*)?(?:,(?:\[[0-9a-fA-F:.]*\]|[^\s:@/?#,\[\]]*)(?::[0-9]*)?)*)` +
	`(/[^\s@?#]*)?(?:\?([^\s@#]*))?$`)

// redactDSN writes a PostgreSQL connection string without its passwords. It
// shows only what it has understood.
func redactDSN(dsn string) string {
	if keywordDSN.MatchString(dsn) {
		return redactKeywords(dsn)
	}
	part := postgresURL.FindStringSubmatch(dsn)
	if part == nil {
		return "postgres://" + hidden
	}
	scheme, user, password, hosts, path, query := part[1], part[2], part[3], part[4], part[5], part[6]
	text := scheme + user
	if password != "" {
		text += ":" + hidden
	}
	if user != "" || password != "" {
		text += "@"
	}
	text += hosts + path
	if query != "" {
		text += "?" + redactQuery(query)
	}
	return text
}

func redactQuery(query string) string {
	options := strings.Split(query, "&")
	for i, option := range options {
		name, _, _ := strings.Cut(option, "=")
		if plain, err := url.QueryUnescape(name); err != nil || isSecret(plain) {
			options[i] = name + "=" + hidden
		}
	}
	return strings.Join(options, "&")
}

// isSecret knows the two passwords of a connection, and takes whatever is
// named like one for one.
func isSecret(option string) bool {
	return strings.Contains(strings.ToLower(option), "password")
}

// keyword matches one option of a keyword connection string and the space
// before it: the value is bare or in single quotes, with backslash escapes.
var keyword = regexp.MustCompile(`^\s*([a-zA-Z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(\s+|$)`)

func redactKeywords(dsn string) string {
	var shown []string
	for dsn != "" {
		part := keyword.FindStringSubmatch(dsn)
		if part == nil {
			return strings.Join(append(shown, hidden), " ")
		}
		value := part[2]
		// libpq and pgx do not agree on "host= password=x".
		if isSecret(part[1]) || isSecret(value) {
			value = hidden
		}
		shown = append(shown, part[1]+"="+value)
		dsn = dsn[len(part[0]):]
	}
	return strings.Join(shown, " ")
}

// printable makes text that others have written, as a user id is, harmless on
// a terminal: what is not printable becomes a replacement character.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// oneLine makes a message fit for one line of a log or of a report.
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return printable(strings.Join(lines, "; "))
}

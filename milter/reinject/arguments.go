package reinject

import (
	"fmt"
	"slices"
	"strings"
)

// argument says which extension a server must offer for an ESMTP argument to be
// said, and whether the message can do without it where that is not offered.
// It is for those that go out as they came.
type argument struct {
	extension string
	needed    func(value string) bool
}

func always(string) bool { return true }
func never(string) bool  { return false }

// An MTA shows a filter only arguments that it knows itself. One that is not in
// these lists may ask for anything, and is an error.
var (
	mailArguments = map[string]argument{
		"SMTPUTF8":   {"SMTPUTF8", always},
		"REQUIRETLS": {"REQUIRETLS", always}, // offered only behind TLS, which there is none here (RFC 8689, section 2)
		"BODY":       {"8BITMIME", never},    // see adapted
		"RET":        {"DSN", never},
		"ENVID":      {"DSN", never},
		"AUTH":       {"AUTH", never}, // RFC 4954, section 5: a server without it is not told
		// To be late with a message, or early, is not harmless.
		"BY":          {"DELIVERBY", always},
		"HOLDFOR":     {"FUTURERELEASE", always},
		"HOLDUNTIL":   {"FUTURERELEASE", always},
		"MT-PRIORITY": {"MT-PRIORITY", never}, // advice, and each MTA may change it (RFC 6710)
		"XVERP":       {"XVERP", always},      // Postfix's
	}
	rcptArguments = map[string]argument{
		"NOTIFY": {"DSN", wantsSuccess},
		"ORCPT":  {"DSN", never},
		"RRVS":   {"RRVS", always}, // keeps mail from a mailbox's next owner (RFC 7293)
	}
)

// wantsSuccess is what RFC 3461, section 5.2.2, comes to for us: a server
// without DSN is told none of its arguments, and where NOTIFY asks for SUCCESS
// the client itself owes the sender a notice that the message was relayed. We
// send no mail of our own, so that is an error. The others only say when there
// is to be no notice, or what is to stand in it.
func wantsSuccess(notify string) bool {
	return slices.ContainsFunc(strings.Split(notify, ","), func(keyword string) bool {
		return strings.EqualFold(keyword, "SUCCESS")
	})
}

// envelope is what is said of a message before its data.
type envelope struct {
	mail    string
	rcpt    []string
	dropped []string // the names of arguments that are left out
}

// compose makes the commands of a message, all of them before the first is
// said, so that what cannot be said leaves no transaction behind.
func (s *Session) compose(m Message) (envelope, error) {
	var e envelope
	if len(m.To) == 0 {
		return e, fmt.Errorf("the message has no recipients")
	}
	if err := checkPath(m.From); err != nil {
		return e, fmt.Errorf("sender %q: %w", m.From, err)
	}
	e.mail = "MAIL FROM:<" + m.From + ">"
	if s.offers("SIZE") && m.Size > 0 {
		e.mail += fmt.Sprintf(" SIZE=%d", m.Size)
	}
	arguments, err := s.arguments(&e, adapted(m.FromArgs), mailArguments)
	if err != nil {
		return e, fmt.Errorf("sender %q: %w", m.From, err)
	}
	e.mail += arguments
	for _, r := range m.To {
		if err := checkPath(r.Address); err != nil {
			return e, fmt.Errorf("recipient %q: %w", r.Address, err)
		}
		arguments, err := s.arguments(&e, r.Args, rcptArguments)
		if err != nil {
			return e, fmt.Errorf("recipient %q: %w", r.Address, err)
		}
		e.rcpt = append(e.rcpt, "RCPT TO:<"+r.Address+">"+arguments)
	}
	return e, nil
}

// adapted are the arguments of MAIL but those about the message's form, which is
// another one now: SIZE is left out, and of BODY there is only said that there
// may be 8-bit bytes where there were. They can only be in the header; a sealed
// body is ASCII, so that a server without 8BITMIME can have the message too.
func adapted(args []string) []string {
	var kept []string
	eightBit := false
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.ToUpper(name) {
		case "SIZE":
		case "BODY":
			eightBit = !strings.EqualFold(value, "7BIT")
		default:
			kept = append(kept, arg)
		}
	}
	if eightBit {
		kept = append(kept, "BODY=8BITMIME")
	}
	return kept
}

// arguments are those of a command that the server knows, as they came.
func (s *Session) arguments(e *envelope, args []string, known map[string]argument) (string, error) {
	var line strings.Builder
	for _, arg := range args {
		if strings.ContainsFunc(arg, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return "", fmt.Errorf("malformed argument %q", arg)
		}
		name, value, _ := strings.Cut(arg, "=")
		name = strings.ToUpper(name)
		a, found := known[name]
		switch {
		case !found:
			return "", &Unsupported{Argument: name}
		case s.offers(a.extension):
			line.WriteString(" " + arg)
		case a.needed(value):
			return "", &Unsupported{Argument: name, Extension: a.extension}
		case !slices.Contains(e.dropped, name):
			e.dropped = append(e.dropped, name)
		}
	}
	return line.String(), nil
}

// offers says whether the server named an extension in its answer to EHLO.
func (s *Session) offers(extension string) bool {
	offered, _ := s.client.Extension(extension)
	return offered
}

// checkPath holds an address to what keeps it one address of one command. An MTA
// has accepted it: whether it is a good one is not for us to say.
func checkPath(address string) error {
	quoted, escaped := false, false
	for i := range len(address) {
		switch c := address[i]; {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("a control character in the address")
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return fmt.Errorf("a bracket in the address")
		}
	}
	if quoted || escaped {
		return fmt.Errorf("an open quotation in the address")
	}
	return nil
}

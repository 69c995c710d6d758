package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-milter"
)

// Reply is a filter's answer to one event.
type Reply struct {
	Action milter.ActionCode

	// Code and Text are what the SMTP client is told: 250 where the filter let
	// it pass, else the filter's own reply or the one that Postfix makes of a
	// bare reject or tempfail. The lines of a longer text are joined by LF.
	Code int
	Text string
}

// Refused says whether the SMTP client is told an error.
func (r Reply) Refused() bool { return r.Code >= 400 }

func (r Reply) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, r.Text))
}

var goOn = Reply{Action: milter.ActContinue, Code: 250}

// parseReply reads the answer to an event before the end of the message, or
// the verdict at the end.
func parseReply(f Frame) (Reply, error) {
	r := Reply{Action: milter.ActionCode(f.Code), Code: 250}
	switch r.Action {
	case milter.ActReplyCode:
		return parseReplyCode(f.Data)
	case milter.ActContinue, milter.ActAccept, milter.ActDiscard, milter.ActSkip:
	case milter.ActReject:
		r.Code, r.Text = 550, "5.7.1 Command rejected"
	case milter.ActTempFail:
		r.Code, r.Text = 451, "4.7.1 Service unavailable - try again later"
	default:
		return Reply{}, fmt.Errorf("unexpected answer %q (%d bytes)", f.Code, len(f.Data))
	}
	if len(f.Data) != 0 {
		return Reply{}, fmt.Errorf("answer %q with %d bytes behind it", f.Code, len(f.Data))
	}
	return r, nil
}

// parseReplyCode reads "451 4.7.1 text", perhaps of several lines. Postfix wants
// the enhanced status code to begin with the digit of the reply code, and calls
// anything else a configuration error.
func parseReplyCode(data []byte) (Reply, error) {
	text, rest, ended := strings.Cut(string(data), "\x00")
	if !ended || rest != "" {
		return Reply{}, errors.New("reply code: not one NUL-terminated string")
	}
	r := Reply{Action: milter.ActReplyCode}
	lines := strings.Split(text, "\r\n")
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		if len(line) < 5 || line[3:4] != separator || line[4] != line[0] || strings.ContainsAny(line, "\r\n") {
			return Reply{}, fmt.Errorf("reply code: malformed line %q", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil || code < 400 || code > 599 || i > 0 && code != r.Code {
			return Reply{}, fmt.Errorf("reply code: malformed code in %q", line)
		}
		r.Code = code
		// Sendmail takes the text for a format: a percent sign is doubled.
		line = strings.ReplaceAll(line[4:], "%%", "\x00")
		if strings.Contains(line, "%") {
			return Reply{}, fmt.Errorf("reply code: a percent sign alone in %q", line)
		}
		lines[i] = strings.ReplaceAll(line, "\x00", "%")
	}
	r.Text = strings.Join(lines, "\n")
	return r, nil
}

package bed

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// marionette is a connection to a Mozilla program that runs scripts in its own
// windows. Both sides send JSON with its length and a colon in front; a command
// is [0, number, name, parameters], its answer [1, number, error, value].
type marionette struct {
	conn net.Conn
	in   *bufio.Reader
	last int // number of the last command
}

const (
	marionetteAnswer  = 16 << 20 // largest answer that is read
	marionetteTimeout = 2 * time.Minute
)

// dialMarionette connects, and makes the privileged windows the ones that
// scripts run in.
func dialMarionette(addr string) (*marionette, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &marionette{conn: conn, in: bufio.NewReader(conn)}
	var greeting json.RawMessage
	err = m.receive(&greeting)
	for _, c := range []struct {
		name       string
		parameters map[string]any
	}{
		{"WebDriver:NewSession", map[string]any{"capabilities": map[string]any{}}},
		{"Marionette:SetContext", map[string]any{"value": "chrome"}},
	} {
		if err == nil {
			_, err = m.command(c.name, c.parameters)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	return m, nil
}

// script runs the body of an async function with these arguments, as "args",
// and stores what it returns in value, unless that is nil.
func (m *marionette) script(value any, body string, args ...any) error {
	if args == nil {
		args = []any{}
	}
	// What a script throws is text of ours, not one of WebDriver's errors, which
	// would come with a stack of theirs.
	answer, err := m.command("WebDriver:ExecuteAsyncScript", map[string]any{
		"args":          args,
		"newSandbox":    true,
		"scriptTimeout": marionetteTimeout.Milliseconds(),
		"script": `const args = Array.from(arguments), done = args.pop();
			(async () => {` + body + `})().then(value => done({value}), e => done({thrown: String(e)}));`,
	})
	if err != nil {
		return fmt.Errorf("running a script: %w", err)
	}
	var result struct {
		Value struct {
			Value  json.RawMessage
			Thrown string
		}
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return fmt.Errorf("reading a script's result: %w", err)
	}
	if result.Value.Thrown != "" {
		return errors.New(result.Value.Thrown)
	}
	if value == nil || len(result.Value.Value) == 0 {
		return nil
	}
	return json.Unmarshal(result.Value.Value, value)
}

func (m *marionette) command(name string, parameters map[string]any) (json.RawMessage, error) {
	m.last++
	text, err := json.Marshal([]any{0, m.last, name, parameters})
	if err != nil {
		return nil, err
	}
	if err := m.conn.SetDeadline(time.Now().Add(marionetteTimeout)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(text), text); err != nil {
		return nil, err
	}
	var number int
	var fault *struct{ Error, Message string }
	var value json.RawMessage
	answer := []any{new(int), &number, &fault, &value}
	if err := m.receive(&answer); err != nil {
		return nil, err
	}
	if fault != nil {
		return nil, fmt.Errorf("%s: %s: %s", name, fault.Error, fault.Message)
	}
	if number != m.last {
		return nil, fmt.Errorf("%s: command %d is answered as %d", name, m.last, number)
	}
	return value, nil
}

func (m *marionette) receive(into any) error {
	if err := m.conn.SetDeadline(time.Now().Add(marionetteTimeout)); err != nil {
		return err
	}
	prefix, err := m.in.ReadString(':')
	if err != nil {
		return err
	}
	length, err := strconv.Atoi(strings.TrimSuffix(prefix, ":"))
	if err != nil || length < 0 || length > marionetteAnswer {
		return fmt.Errorf("an answer of length %q", prefix)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(m.in, text); err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

func sealCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "seal --to ADDRESS…",
		Short: "Seal one message",
		Long: `seal reads a message from standard input, seals it to the keys of the addresses
named, as the daemon would, and writes the sealed message to standard output.
Of several addresses each can open it, and each can see who the others are.

Where an address has no key, or its owner has switched sealing off, nothing is
written and the exit code is 1; with --pass the message is written as it came,
as the daemon would let it pass. A message to several of whom only some have a
key is not sealed at all. The site's rules are asked as for a message from a
sender and a client that they do not know. Where the daemon would defer, and where anything else
goes wrong, the exit code is 75: a mail agent should try again later.`,
		Args: positional(cobra.NoArgs),
		RunE: runSeal,
	}
	command.Flags().StringArray("to", nil, "`address` whose key the message is sealed to; may be given several times")
	command.Flags().Bool("pass", false, "write a message that is not due for sealing as it came")
	return command
}

func runSeal(cmd *cobra.Command, _ []string) error {
	to, _ := cmd.Flags().GetStringArray("to")
	pass, _ := cmd.Flags().GetBool("pass")
	if len(to) == 0 {
		return usageError("nobody to seal to: name an address with --to")
	}
	for _, address := range to {
		if err := checkAddress(address); err != nil {
			return usageError("%q is no address: %w, expected LOCAL@DOMAIN", address, err)
		}
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	message, err := io.ReadAll(cmd.InOrStdin())
	if err != nil {
		return tryAgain("reading the message: %w", err)
	}
	header, body, err := splitMessage(message)
	if err != nil {
		return failure("reading the message: %w", err)
	}
	q := ordinaryMail(cfg)
	q.show(header, body, cfg.Policy.Hidden)
	readers, err := sealTo(cmd.Context(), cfg, q, to, pass)
	if err != nil {
		return err
	}
	var sealed bytes.Buffer // nothing is written before all has gone well
	if len(readers) == 0 {
		sealed.Write(message)
	} else if err := sealMessage(&sealed, header, body, lineEnd(message), readers, cfg, time.Now()); err != nil {
		return tryAgain("sealing: %w", err)
	}
	if _, err := sealed.WriteTo(cmd.OutOrStdout()); err != nil {
		return tryAgain("writing the message: %w", err)
	}
	return nil
}

// tryAgain is the error of a message that a mail agent should keep.
func tryAgain(format string, args ...any) error {
	return &exitError{exitTempFail, fmt.Errorf(format, args...)}
}

// splitMessage takes a message apart and loses nothing of it: what follows the
// first empty line is the body, with LF made CRLF, as SMTP carries it.
func splitMessage(message []byte) (header []envelope.Field, body []byte, err error) {
	rest := message
	for number := 1; len(rest) > 0; number++ {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		rest = after
		if ended {
			line = bytes.TrimSuffix(line, []byte("\r"))
		}
		if len(line) == 0 && ended {
			break
		}
		if (line[0] == ' ' || line[0] == '\t') && len(header) > 0 {
			header[len(header)-1].Value += "\n" + string(line)
			continue
		}
		name, value, isField := bytes.Cut(line, []byte(":"))
		switch {
		case number == 1 && bytes.HasPrefix(line, []byte("From ")):
			return nil, nil, errors.New("it begins with the \"From \" line of an mbox file, which is no part of a message: leave it out (flag F of pipe(8))")
		case !isField || len(name) == 0 || bytes.ContainsAny(name, " \t"):
			return nil, nil, fmt.Errorf("line %d is no header field, and no empty line stands before it", number)
		case !ended:
			return nil, nil, fmt.Errorf("it breaks off in line %d, within its header", number)
		}
		header = append(header, envelope.Field{Name: string(name), Value: string(value)})
	}
	return header, canonical(rest), nil
}

// canonical makes CRLF of each LF that stands alone.
func canonical(body []byte) []byte {
	out := make([]byte, 0, len(body)+len(body)/40)
	for line := range bytes.Lines(body) {
		if text, ended := bytes.CutSuffix(line, []byte("\n")); ended && !bytes.HasSuffix(text, []byte("\r")) {
			out = append(append(out, text...), "\r\n"...)
		} else {
			out = append(out, line...)
		}
	}
	return out
}

// sealTo looks the addresses up and decides as the daemon does. It returns no
// reader where the message is to be written as it came.
func sealTo(ctx context.Context, cfg Config, q question, to []string, pass bool) ([]*keys.Account, error) {
	st, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	var readers []*keys.Account
	var passed []string
	for _, address := range to {
		v := decide(ctx, st, cfg, q, address, time.Now())
		switch v.decision.Outcome {
		case policy.Seal, policy.Global:
			readers = addReaders(readers, v.readers)
		case policy.Pass:
			passed = append(passed, address+": "+v.decision.Reason)
		case policy.Reject:
			return nil, failure("refused: %s: %s", address, v.decision.Reason)
		default:
			return nil, tryAgain("%s: %s", address, v.decision.Reason)
		}
	}
	if len(passed) > 0 && (!pass || len(readers) > 0) {
		return nil, failure("not sealed: %s", strings.Join(passed, "; "))
	}
	return readers, nil
}

// addReaders adds those who are not among the readers yet: with escrow the site
// is a reader of every recipient's mail.
func addReaders(readers, more []*keys.Account) []*keys.Account {
	for _, reader := range more {
		if !slices.ContainsFunc(readers, func(other *keys.Account) bool { return other.Address == reader.Address }) {
			readers = append(readers, reader)
		}
	}
	return readers
}

// sealMessage writes the sealed message.
func sealMessage(w io.Writer, header []envelope.Field, body []byte, eol string, readers []*keys.Account, cfg Config, now time.Time) error {
	method, to, err := keys.SealTo(readers, now)
	if err != nil {
		return err
	}
	sealing, err := envelope.Begin(method, keys.StrongestCipher(readers), envelope.Spool{Dir: cfg.Spool.Directory, Memory: int64(cfg.Spool.Memory)})
	if err != nil {
		return err
	}
	defer sealing.Discard()
	if err := sealing.Header(header); err != nil {
		return err
	}
	if _, err := sealing.Write(body); err != nil {
		return err
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	sealed, err := sealing.Copy(to, now)
	if err != nil {
		return err
	}
	return writeSealed(w, header, sealed, eol)
}

// writeSealed writes the outer header and the body.
func writeSealed(w io.Writer, shown []envelope.Field, sealed *envelope.Copy, eol string) error {
	stay, added := sealed.OuterHeader(shown)
	var header strings.Builder
	write := func(f envelope.Field) {
		header.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", eol) + eol)
	}
	for i, f := range shown {
		if stay[i] {
			write(f)
		}
	}
	for _, f := range added {
		write(f)
	}
	if _, err := io.WriteString(w, header.String()+eol); err != nil {
		return err
	}
	return sealed.WriteBody(w, eol)
}

// lineEnd is how the first line of a message ends.
func lineEnd(message []byte) string {
	if end := bytes.IndexByte(message, '\n'); end > 0 && message[end-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

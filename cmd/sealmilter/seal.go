package main

import (
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
	"sealmilter/milter/envelope/detect"
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
sender and a client that they do not know. What is no message is refused with 1
too. Where the daemon would defer, and where anything else goes wrong, the exit
code is 75: a mail agent should try again later.`,
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
	st, err := openStore(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer st.Close()
	job := sealJob{cfg: cfg, st: st, to: to, pass: pass, message: openOriginal(cmd.InOrStdin())}
	return job.run(cmd.Context(), cmd.OutOrStdout())
}

// sealJob is one message on its way through seal.
type sealJob struct {
	cfg     Config
	st      keys.Store
	to      []string
	pass    bool
	message *original

	header []envelope.Field
	eol    string
	sealed *envelope.Sealing
}

// sealDecision is what becomes of the message: the form and the keys that it is
// sealed in and to, or none where it is written as it came.
type sealDecision struct {
	form    keys.Form
	readers []*keys.Key
}

// sealMemory is how much of the message's ciphertext is held in memory, in bytes.
const sealMemory = 128 << 20

// run seals while it reads, as far as can be told from the header, and does it
// anew in the rare case that the end of the message tells otherwise.
func (j *sealJob) run(ctx context.Context, w io.Writer) (err error) {
	if j.header, j.eol, err = readHeader(j.message.in); err != nil {
		if errors.Is(err, errUnread) {
			return tryAgain("reading the message: %w", err)
		}
		return failure("reading the message: %w", err)
	}
	defer func() { j.sealed.Discard() }()
	j.sealed = &envelope.Sealing{}
	q := ordinaryMail(j.cfg)
	q.showHeader(j.header)
	guess, err := j.decide(ctx, q)
	if err != nil {
		guess = sealDecision{} // what comes may pass it
	}
	if err := j.read(&q, j.message.in, guess); err != nil {
		return err
	}
	due, err := j.decide(ctx, q)
	if err != nil {
		return err
	}
	if due.form != guess.form {
		if err := j.readAgain(due); err != nil {
			return err
		}
	}
	if len(due.readers) == 0 {
		return j.writeOriginal(w)
	}
	c, err := j.sealed.Copy(due.readers, j.cfg.addressing(), time.Now())
	if err == nil { // nothing is written before all but the writing has gone well
		err = writeSealed(w, j.header, c, j.eol)
	}
	if err != nil {
		return tryAgain("sealing: %w", err)
	}
	return nil
}

// read reads the body, shows it to the question, and seals it by a decision.
func (j *sealJob) read(q *question, body io.Reader, by sealDecision) (err error) {
	j.sealed.Discard()
	j.sealed = &envelope.Sealing{}
	detector := detect.New(j.header)
	to := io.Writer(detector)
	if len(by.readers) > 0 {
		spool := j.cfg.spool()
		spool.Memory = max(spool.Memory, sealMemory) // there is one message
		if j.sealed, err = envelope.Begin(by.form, spool); err != nil {
			j.sealed = &envelope.Sealing{}
			return tryAgain("sealing: %w", err)
		}
		if err := j.sealed.Header(j.header); err != nil {
			return tryAgain("sealing: %w", err)
		}
		to = io.MultiWriter(detector, j.sealed)
	}
	size, err := copyBody(to, body)
	if err == nil && len(by.readers) > 0 {
		err = j.sealed.Close()
	}
	if err != nil {
		return tryAgain("reading and sealing the message: %w", err)
	}
	q.showBody(size, detector.Finish(), j.cfg.Policy.Hidden)
	return nil
}

// readAgain seals from the beginning.
func (j *sealJob) readAgain(by sealDecision) error {
	in, err := j.message.again()
	if err == nil {
		_, _, err = readHeader(in)
	}
	if err != nil {
		return tryAgain("reading the message again: %w", err)
	}
	return j.read(&question{}, in, by)
}

// writeOriginal writes the message as it came.
func (j *sealJob) writeOriginal(w io.Writer) error {
	in, err := j.message.again()
	if err == nil {
		_, err = in.WriteTo(w)
	}
	if err != nil {
		return tryAgain("writing the message: %w", err)
	}
	return nil
}

// tryAgain is the error of a message that a mail agent should keep.
func tryAgain(format string, args ...any) error {
	return &exitError{exitTempFail, fmt.Errorf(format, args...)}
}

// decide looks the addresses up and decides as the daemon does.
func (j *sealJob) decide(ctx context.Context, q question) (sealDecision, error) {
	var readers []*keys.Account
	var passed []string
	protection := keys.NoProtection
	now := time.Now()
	for _, address := range j.to {
		v := decide(ctx, j.st, j.cfg, q, address, now)
		switch v.decision.Outcome {
		case policy.Seal, policy.Global:
			readers = addReaders(readers, v.readers)
			protection = keys.Stricter(protection, v.form.Protection)
		case policy.Pass:
			passed = append(passed, address+": "+v.decision.Reason)
		case policy.Reject:
			return sealDecision{}, failure("refused: %s: %s", address, v.decision.Reason)
		default:
			return sealDecision{}, tryAgain("%s: %s", address, v.decision.Reason)
		}
	}
	switch {
	case len(passed) > 0 && (!j.pass || len(readers) > 0):
		return sealDecision{}, failure("not sealed: %s", strings.Join(passed, "; "))
	case len(readers) == 0:
		return sealDecision{}, nil
	}
	form, to, err := keys.SealTo(readers, now)
	if err != nil {
		return sealDecision{}, tryAgain("sealing: %w", err)
	}
	form.Protection = protection
	return sealDecision{form, to}, nil
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

// writeSealed writes the outer header and the body.
func writeSealed(w io.Writer, shown []envelope.Field, sealed *envelope.Copy, eol string) error {
	kept, added := sealed.OuterHeader(shown)
	var header strings.Builder
	for _, f := range append(kept, added...) {
		if f.Name != "" {
			header.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", eol) + eol)
		}
	}
	if _, err := io.WriteString(w, header.String()+eol); err != nil {
		return err
	}
	return sealed.WriteBody(w, eol)
}

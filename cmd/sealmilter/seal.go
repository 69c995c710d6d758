package main

import (
	"bufio"
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
	"sealmilter/milter/client"
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
as the daemon would let it pass. Where the daemon would defer, the exit code is
75: a mail agent should try again later.`,
		Args: positional(cobra.NoArgs),
		RunE: runSeal,
	}
	command.Flags().StringSlice("to", nil, "`address` whose key the message is sealed to; may be given several times")
	command.Flags().Bool("pass", false, "write a message that is not due for sealing as it came")
	return command
}

func runSeal(cmd *cobra.Command, _ []string) error {
	to, _ := cmd.Flags().GetStringSlice("to")
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
		return failure("reading the message: %w", err)
	}
	accounts, err := sealTo(cmd.Context(), cfg, to, pass)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	if len(accounts) == 0 {
		out.Write(message)
	} else if err := sealMessage(out, message, accounts, cfg, time.Now()); err != nil {
		return failure("sealing: %w", err)
	}
	if err := out.Flush(); err != nil {
		return failure("writing the message: %w", err)
	}
	return nil
}

// sealTo looks the addresses up and decides as the daemon does. It returns no
// account where the message is to be written as it came.
func sealTo(ctx context.Context, cfg Config, to []string, pass bool) ([]*keys.Account, error) {
	st, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	found, err := keys.Lookup(ctx, st, to)
	if err != nil {
		return nil, err
	}
	rules := policy.Policy{Enable: cfg.Storage.Encryption.Enable}
	var accounts []*keys.Account
	var passed []string
	for _, address := range to {
		decision := rules.DecideRecipient(found[address], time.Now())
		switch decision.Outcome {
		case policy.Seal:
			accounts = append(accounts, found[address].Accounts...)
		case policy.Pass:
			passed = append(passed, address+": "+decision.Reason)
		default:
			return nil, &exitError{exitTempFail, fmt.Errorf("%s: %s", address, decision.Reason)}
		}
	}
	if len(passed) > 0 && (!pass || len(accounts) > 0) {
		return nil, failure("not sealed: %s", strings.Join(passed, "; "))
	}
	return accounts, nil
}

// sealMessage writes the sealed message with the line ends that it came with.
func sealMessage(w io.Writer, message []byte, accounts []*keys.Account, cfg Config, now time.Time) error {
	shown := client.ParseMessage(message)
	header := make([]envelope.Field, len(shown.Header))
	for i, f := range shown.Header {
		header[i] = envelope.Field(f)
	}
	method, cipher, to, err := chooseKeys(accounts, now)
	if err != nil {
		return err
	}
	sealing, err := envelope.Begin(method, cipher, envelope.Spool{Dir: cfg.Spool.Directory, Memory: int64(cfg.Spool.Memory)})
	if err != nil {
		return err
	}
	defer sealing.Discard()
	if err := sealing.Header(header); err != nil {
		return err
	}
	for chunk := range slices.Chunk(shown.Body, 1<<16) {
		if _, err := sealing.Write(chunk); err != nil {
			return err
		}
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	sealed, err := sealing.Copy(to, now)
	if err != nil {
		return err
	}
	return writeSealed(w, header, sealed, lineEnd(message))
}

// chooseKeys settles what one message to all the accounts is sealed with.
func chooseKeys(accounts []*keys.Account, now time.Time) (method keys.Method, cipher keys.Cipher, to []*keys.Key, err error) {
	cipher = keys.AES128
	for _, account := range accounts {
		chosen, sealTo := account.SealTo(now)
		if method != "" && chosen != method {
			return "", "", nil, errors.New("some of them have OpenPGP keys and some certificates: seal to them one by one")
		}
		method, to = chosen, append(to, sealTo...)
		if account.Cipher == keys.AES256 {
			cipher = keys.AES256
		}
	}
	return method, cipher, to, nil
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

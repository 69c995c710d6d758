package main

import (
	"bytes"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sealmilter/milter/envelope"
)

func unsealCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "unseal --key FILE",
		Short: "Open one sealed message",
		Long: `unseal reads a sealed message from standard input, opens it with a secret key,
and writes the message that was sealed to standard output, byte for byte as the
mail server had shown it to the filter: its line ends are CRLF.

FILE holds OpenPGP secret keys (gpg --export-secret-keys), a certificate and its
private key in PEM, or PKCS#12 (.p12, .pfx). What other programs have encrypted
as PGP/MIME or S/MIME is opened too. Nothing is written unless the whole message
could be opened. OpenPGP tells a changed message from a sound one; the ciphers
that S/MIME is usually written with do not.`,
		Args: positional(cobra.NoArgs),
		RunE: runUnseal,
	}
	command.Flags().String("key", "", "`file` with the secret key")
	command.Flags().String("passphrase-file", "", "`file` whose first line is the passphrase of an OpenPGP key or of PKCS#12")
	return command
}

func runUnseal(cmd *cobra.Command, _ []string) error {
	secret, err := secretFromFlags(cmd)
	if err != nil {
		return err
	}
	sealed, err := io.ReadAll(cmd.InOrStdin())
	if err != nil {
		return failure("reading the message: %w", err)
	}
	message, err := envelope.Open(sealed, secret)
	if err != nil {
		return failure("opening the message: %w", err)
	}
	if _, err := cmd.OutOrStdout().Write(message); err != nil {
		return failure("writing the message: %w", err)
	}
	return nil
}

func secretFromFlags(cmd *cobra.Command) (*envelope.Secret, error) {
	file, _ := cmd.Flags().GetString("key")
	if file == "" {
		return nil, usageError("no key to open with: name a file with --key")
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, failure("reading the key: %w", err)
	}
	var passphrase []byte
	if name, _ := cmd.Flags().GetString("passphrase-file"); name != "" {
		if passphrase, err = os.ReadFile(name); err != nil {
			return nil, failure("reading the passphrase: %w", err)
		}
		passphrase, _, _ = bytes.Cut(passphrase, []byte("\n"))
		passphrase = bytes.TrimSuffix(passphrase, []byte("\r"))
	}
	secret, err := envelope.ReadSecret(key, passphrase)
	if err != nil {
		return nil, failure("%s: %w", file, err)
	}
	return secret, nil
}

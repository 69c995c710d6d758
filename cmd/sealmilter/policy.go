package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
)

func policyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "policy",
		Short: "Explain what is done with whose mail",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,
	}
	command.AddCommand(policyExplainCommand())
	return command
}

func policyExplainCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "explain --to ADDRESS…",
		Short: "Say what the daemon would do with a message, and why",
		Long: `explain looks the recipients up as the daemon does and says for each whom the
address means, in which state the keys are, which rule or setting decides, what
becomes of the message and to which keys it is sealed.

What is not said of the message is that of a stranger's: from ` + strangerSender + `,
by the client 192.0.2.1 over the first of the configured listeners, not
authenticated, of 10 KiB, and not sealed. --message takes header, size and
whether it is sealed from a message in a file.

The exit code is 0 whatever the outcome, and 75 where the key store is away.`,
		Args: positional(cobra.NoArgs),
		RunE: runPolicyExplain,
	}
	flags := command.Flags()
	flags.StringArray("to", nil, "`address` of a recipient; may be given several times")
	flags.String("from", strangerSender, "`address` of the sender; empty for a bounce")
	flags.Bool("authenticated", false, "the client has authenticated itself")
	flags.String("client", strangerClient.String(), "`address` of the client, or local for sendmail(1)")
	flags.String("listener", "", "`name` of the listener, as listen under [milter] has it")
	flags.StringArray("header", nil, "header `field` \"Name: value\"; may be given several times")
	flags.String("size", size(strangerSize).String(), "`size` of the message")
	flags.Bool("sealed", false, "the message came sealed to its recipient")
	flags.String("message", "", "`file` with the message")
	flags.Bool("json", false, "write JSON, one object on each line")
	addListenFlag(command)
	return command
}

func runPolicyExplain(cmd *cobra.Command, _ []string) error {
	to, _ := cmd.Flags().GetStringArray("to")
	if len(to) == 0 {
		return usageError("nobody to explain: name a recipient with --to")
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
	q, err := readQuestion(cmd, cfg)
	if err != nil {
		return err
	}
	asJSON, _ := cmd.Flags().GetBool("json")
	if !asJSON {
		fmt.Fprintln(cmd.OutOrStdout(), q)
	}
	return withStoreOf(cmd, cfg, func(ctx context.Context, st store) error {
		now := time.Now()
		var failed error
		for _, address := range to {
			v := decide(ctx, st, cfg, q, address, now)
			explained := v.explain(cfg.policy, now)
			if asJSON {
				err = explained.write(cmd.OutOrStdout())
			} else {
				err = explained.writeText(cmd.OutOrStdout(), v, cfg)
			}
			if err != nil {
				return err
			}
			if failed == nil {
				failed = v.exit()
			}
		}
		return failed
	})
}

// readQuestion reads the message that the flags describe.
func readQuestion(cmd *cobra.Command, cfg Config) (question, error) {
	q := ordinaryMail(cfg)
	flags := cmd.Flags()
	if from, _ := flags.GetString("from"); from == "" {
		q.facts.Sender = ""
	} else if err := checkAddress(from); err != nil {
		return q, usageError("%q is no address: %w, expected LOCAL@DOMAIN, or nothing for a bounce", from, err)
	} else {
		q.facts.Sender = keys.Canonical(from)
	}
	q.facts.Authenticated, _ = flags.GetBool("authenticated")
	if client, _ := flags.GetString("client"); client == clientLocal {
		q.facts.Client, q.facts.Local = netip.Addr{}, true
	} else if address, err := netip.ParseAddr(client); err != nil || address.Zone() != "" {
		return q, usageError("%q is no address of a client, expected an IP address or local", client)
	} else {
		q.facts.Client = address.Unmap()
	}
	if listener, _ := flags.GetString("listener"); flags.Changed("listener") {
		if !slices.Contains(cfg.Milter.Listen, listener) {
			return q, usageError("the daemon does not listen on %q, expected %s", listener, quotedList(cfg.Milter.Listen))
		}
		q.facts.Listener = listener
	}
	if flags.Changed("message") {
		return q, q.readMessage(cmd, cfg)
	}
	return q, q.readFlags(cmd)
}

// readFlags takes what flags say of the message itself.
func (q *question) readFlags(cmd *cobra.Command) error {
	header, _ := cmd.Flags().GetStringArray("header")
	for _, text := range header {
		field, err := parseField(text)
		if err != nil || !strings.Contains(text, ":") {
			return usageError("%q is no header field, expected \"Name: value\"", text)
		}
		q.facts.Header = append(q.facts.Header, field)
	}
	var bytes size
	text, _ := cmd.Flags().GetString("size")
	if err := bytes.UnmarshalText([]byte(text)); err != nil {
		return usageError("--size: %w", err)
	}
	q.facts.Size = int64(bytes)
	if sealed, _ := cmd.Flags().GetBool("sealed"); sealed {
		q.came = func(readers []*keys.Account) bool { return len(readers) > 0 }
	}
	return nil
}

// readMessage takes the same from a message.
func (q *question) readMessage(cmd *cobra.Command, cfg Config) error {
	for _, flag := range []string{"header", "size", "sealed"} {
		if cmd.Flags().Changed(flag) {
			return usageError("--message says what --%s would: give one or the other", flag)
		}
	}
	name, _ := cmd.Flags().GetString("message")
	message, err := os.Open(name)
	if err != nil {
		return failure("reading the message: %w", err)
	}
	defer message.Close()
	in := bufio.NewReader(message)
	header, _, err := readHeader(in)
	if err == nil {
		err = q.show(header, in, cfg.Policy.Hidden)
	}
	if err != nil {
		return failure("reading the message %s: %w", name, err)
	}
	return nil
}

// String describes the message for a person.
func (q question) String() string {
	from, client, authenticated := "from "+q.facts.Sender, "the client "+q.facts.Client.String(), "not authenticated"
	if q.facts.Sender == "" {
		from = "without a sender (a bounce)"
	}
	if !q.facts.Client.IsValid() {
		client = "sendmail(1)"
	}
	if q.facts.Authenticated {
		authenticated = "authenticated"
	}
	return printable(fmt.Sprintf("A message %s, by %s, %s, over %s, of %d bytes:", from, client, authenticated, q.facts.Listener, q.facts.Size))
}

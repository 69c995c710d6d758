package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = ""

// defaultConfigFile may be set by the linker too, for systems that keep their
// configuration elsewhere.
var defaultConfigFile = "/etc/sealmilter/sealmilter.toml"

// newRootCommand makes the whole command line.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealmilter",
		Short: "Seal mail to its recipients' own keys",
		Long: `sealmilter is a milter for Postfix and Sendmail. It seals every message to
the OpenPGP keys or S/MIME certificates of its recipients before the mail store sees it.`,
		Args:          cobra.ArbitraryArgs, // whatever is no subcommand: see needSubcommand
		RunE:          needSubcommand,
		Version:       programVersion(), // for --version
		SilenceErrors: true,             // main reports them
		SilenceUsage:  true,
	}
	root.PersistentFlags().String("config", defaultConfigFile, "configuration `file`")
	root.PersistentFlags().String("store", "", "key store `URL`: postgres://… or sqlite:/PATH (default: SEALMILTER_STORE, then url under [store])")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.AddCommand(
		serveCommand(),
		checkCommand(),
		migrateCommand(),
		keyCommand(),
		aliasCommand(),
		accountCommand(),
		policyCommand(),
		sealCommand(),
		unsealCommand(),
		notifyCommand(),
		demoCommand(),
		versionCommand(),
	)
	return root
}

// needSubcommand is what a command does that is nothing without a subcommand:
// it says which one was not understood, or how it is used.
func needSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError("%s needs a subcommand (see %s --help)", cmd.CommandPath(), cmd.CommandPath())
	}
	hint := "see " + cmd.CommandPath() + " --help"
	// Cobra sets its own default only where it finds the wrong word itself.
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError("%s has no subcommand %q (%s)", cmd.CommandPath(), args[0], hint)
}

// positional makes a wrong number of arguments a usage error that says what
// the arguments are.
func positional(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%w (usage: %s)", err, cmd.UseLine())
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  positional(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sealmilter %s (%s, %s/%s)\n",
				programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// programVersion is what the linker was told, or what the Go tool knows of a
// binary that it built by itself.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "check [--postfix [DIR]]",
		Short: "Say whether the configuration and the key store are as they should be",
		Long: `check reads the configuration as the daemon does, asks the key store, and says
what it found, a line for each finding that begins with ok, warning or problem.
It changes nothing and needs no right that the daemon has not.

With --postfix it looks at Postfix's configuration too, in the folder DIR or
where postconf finds it, and names what would leave mail unsealed or keep it
out (problem), and what would hurt some mail (warning). Which of the milters is
ours it knows by the address that the daemon listens on.

The exit code is 0 where the daemon could run, 78 where the configuration or
the machine must be mended first, and 75 where the key store is away.`,
		Args: positional(cobra.MaximumNArgs(1)),
		RunE: runCheck,
	}
	addListenFlag(command)
	command.Flags().Bool("postfix", false, "look at Postfix's configuration too")
	command.Flags().String("address", "", "look one `address` up too, and say what would happen to its mail")
	return command
}

func runCheck(cmd *cobra.Command, args []string) error {
	withPostfix, _ := cmd.Flags().GetBool("postfix")
	if len(args) > 0 && !withPostfix {
		return usageError("%q is an argument for --postfix alone (usage: %s)", args[0], cmd.UseLine())
	}
	address, _ := cmd.Flags().GetString("address")
	if cmd.Flags().Changed("address") {
		if err := checkAddress(address); err != nil {
			return usageError("%q is no address: %w, expected LOCAL@DOMAIN", address, err)
		}
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	r := &report{out: cmd.OutOrStdout()}
	r.configuration(cfg)
	r.sealing(cfg)
	r.policy(cfg)
	r.listen(cfg.Milter)
	r.spool(cfg.Spool.Directory)
	r.store(cmd.Context(), cfg, address)
	if withPostfix {
		r.postfix(cmd.Context(), cfg, strings.Join(args, ""))
	}
	return r.verdict()
}

// report writes findings as they are found and remembers the worst.
type report struct {
	out      io.Writer
	problems int
	code     int // of the exit
}

func (r *report) line(word, format string, args ...any) {
	fmt.Fprintf(r.out, "%-8s %s\n", word, oneLine(fmt.Sprintf(format, args...)))
}

func (r *report) ok(format string, args ...any)      { r.line("ok", format, args...) }
func (r *report) warning(format string, args ...any) { r.line("warning", format, args...) }

// problem reports what keeps the daemon from its work. What must be mended
// outranks a store that is away, which may come back by itself.
func (r *report) problem(code int, format string, args ...any) {
	r.line("problem", format, args...)
	r.problems++
	r.code = max(r.code, code)
}

func (r *report) verdict() error {
	switch r.problems {
	case 0:
		return nil
	case 1:
		return &exitError{r.code, fmt.Errorf("check found a problem")}
	}
	return &exitError{r.code, fmt.Errorf("check found %d problems", r.problems)}
}

// configuration says where the settings come from.
func (r *report) configuration(cfg Config) {
	if cfg.File == "" {
		r.ok("configuration: there is no %s, the defaults are in force", defaultConfigFile)
	} else {
		r.ok("configuration: %s was read and has no error", cfg.File)
	}
	for _, key := range []string{keyStoreURL, keyListen} {
		if origin := cfg.origins[key]; slices.Contains([]string{envStore, envListen, "--store", "--listen"}, origin) {
			r.ok("configuration: %s is given by %s", key, origin)
		}
	}
}

func (r *report) sealing(cfg Config) {
	if cfg.Storage.Encryption.Enable {
		r.ok("sealing: enabled")
		return
	}
	r.warning("sealing: SWITCHED OFF for everybody: all mail passes as it is (enable = false under [storage.encryption])")
}

// listen says whether the daemon could make its sockets, as far as that can be
// known while it may have them open.
func (r *report) listen(cfg MilterConfig) {
	sockets := 0
	for _, address := range cfg.Listen {
		network, target, err := parseListen(address)
		if err != nil { // loadConfig would have said so
			r.problem(exitConfig, "listening: %v", err)
			continue
		}
		if network == networkSystemd {
			r.ok("listening: %s, the sockets that systemd passes to the daemon", address)
			continue
		}
		if network != "unix" {
			r.ok("listening: %s", address)
			continue
		}
		sockets++
		r.socketFolder(address, filepath.Dir(target))
	}
	if sockets == 0 {
		return
	}
	if cfg.Group == "" {
		r.ok("listening: unix sockets get the mode %s and the group that the daemon runs with", cfg.Mode)
		return
	}
	if _, err := user.LookupGroup(cfg.Group); err != nil {
		r.problem(exitConfig, "listening: there is no group %q for unix sockets (group under [milter])", cfg.Group)
		return
	}
	r.ok("listening: unix sockets get the mode %s and the group %s", cfg.Mode, cfg.Group)
}

func (r *report) socketFolder(address, folder string) {
	info, err := os.Stat(folder)
	switch {
	case err != nil:
		r.problem(exitConfig, "listening: %s: its folder cannot be used: %v", address, err)
	case !info.IsDir():
		r.problem(exitConfig, "listening: %s: %s is not a folder", address, folder)
	default:
		r.ok("listening: %s, its folder is there", address)
	}
}

// spool tries to write where the daemon would. It can only try as the user
// that runs the check, and says who that is.
func (r *report) spool(folder string) {
	configured := folder
	if folder == "" {
		folder = os.TempDir()
		configured = folder + " (the system's temporary folder)"
	}
	who := fmt.Sprintf("user number %d", os.Getuid())
	if me, err := user.Current(); err == nil {
		who = me.Username
	}
	probe, err := os.CreateTemp(folder, "sealmilter-check-*")
	if err != nil {
		r.problem(exitConfig, "spool: %s cannot be written by %s: %v", configured, who, err)
		return
	}
	probe.Close()
	os.Remove(probe.Name())
	r.ok("spool: %s can be written by %s, who runs this check", configured, who)
}

// store asks the key store, and then for one address where one is given.
func (r *report) store(ctx context.Context, cfg Config, address string) {
	name, _ := parseStoreURL(cfg.Store.URL) // loadConfig has read it
	st, err := openStore(ctx, cfg)
	if err != nil {
		r.problem(exitCode(err), "key store: %v", err)
		return
	}
	defer st.Close()
	warnings, err := st.Check(ctx)
	if err != nil {
		err = storeError(name, err)
		r.problem(exitCode(err), "key store: %v", err)
		return
	}
	r.ok("key store: %s answers, and what the daemon needs is there", name)
	for _, warning := range warnings {
		r.warning("key store: %s", warning)
	}
	if address != "" {
		r.recipient(ctx, st, cfg, address)
	}
}

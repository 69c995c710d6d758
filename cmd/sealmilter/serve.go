package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/milter"
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

func serveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the milter",
		Long: `serve runs the milter in the foreground and logs to standard error. At SIGTERM
or SIGINT it accepts nothing new, lets the messages under way finish, and exits;
a second signal ends it at once.`,
		Args: positional(cobra.NoArgs),
		RunE: runServe,
	}
	addListenFlag(command)
	return command
}

func runServe(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	log := newLogger(cfg, cmd.ErrOrStderr())
	slog.SetDefault(log) // what the libraries log goes the same way
	log.Info("starting", "version", programVersion(), "config", cfg)
	if !cfg.Storage.Encryption.Enable {
		log.Warn("sealing is switched off for everybody: all mail passes as it is")
	}
	st, err := openStore(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := checkStore(cmd.Context(), log, cfg, st); err != nil {
		return err
	}
	listeners, err := listen(cfg.Milter)
	if err != nil {
		return err
	}
	server := milter.NewServer(milter.Config{
		Store:        st,
		Policy:       policy.Policy{Enable: cfg.Storage.Encryption.Enable},
		Spool:        envelope.Spool{Dir: cfg.Spool.Directory, Memory: int64(cfg.Spool.Memory)},
		Log:          log,
		LogAddresses: cfg.Log.Addresses,
	}, cfg.Milter.MaxConnections)
	return run(cmd.Context(), log, server, listeners, time.Duration(cfg.Milter.ShutdownTimeout))
}

// checkStore refuses to start on a store that was never made, which only an
// administrator can mend. One that is away may come back by itself: until then
// mail is deferred.
func checkStore(ctx context.Context, log *slog.Logger, cfg Config, st store) error {
	name, err := parseStoreURL(cfg.Store.URL)
	if err != nil {
		return err
	}
	warnings, err := st.Check(ctx)
	for _, warning := range warnings {
		log.Warn("key store", "warning", warning)
	}
	if err = storeError(name, err); err != nil && exitCode(err) == exitTempFail {
		log.Error("the key store is away, mail is deferred until it is back", "error", err)
		return nil
	}
	return err
}

// listen opens all the sockets that the configuration names, or none.
func listen(cfg MilterConfig) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				ln.Close()
			}
		}
	}()
	for _, address := range cfg.Listen {
		network, target, err := parseListen(address)
		if err != nil {
			return listeners, configError("%s: %w", address, err)
		}
		ln, err := listenOne(network, target, cfg)
		if err != nil {
			return listeners, failure("listening on %s: %w", address, err)
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// listenOne opens one socket. A unix socket that a killed daemon has left
// behind is removed; one that answers is another daemon's.
func listenOne(network, target string, cfg MilterConfig) (net.Listener, error) {
	if network != "unix" {
		return net.Listen(network, target)
	}
	if conn, err := net.Dial(network, target); err == nil {
		conn.Close()
		return nil, errors.New("another process serves this socket")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(target); err != nil {
			return nil, fmt.Errorf("removing the socket that was left behind: %w", err)
		}
	}
	// Nobody may connect before mode and group are set.
	old := syscall.Umask(0o177)
	ln, err := net.Listen(network, target)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := giveSocket(target, cfg); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// giveSocket sets the group and then the mode of a unix socket.
func giveSocket(path string, cfg MilterConfig) error {
	if cfg.Group != "" {
		group, err := user.LookupGroup(cfg.Group)
		if err != nil {
			return err
		}
		id, err := strconv.Atoi(group.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, id); err != nil {
			return err
		}
	}
	return os.Chmod(path, os.FileMode(cfg.Mode))
}

// run serves until the context ends or a listener fails, and then lets the
// messages under way finish.
func run(ctx context.Context, log *slog.Logger, server *milter.Server, listeners []net.Listener, patience time.Duration) error {
	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		log.Info("listening", "network", ln.Addr().Network(), "address", ln.Addr().String())
		go func() { failed <- server.Serve(ln) }()
	}
	var cause error
	select {
	case <-ctx.Done():
		log.Info("stopping, messages under way may finish", "patience", patience)
	case cause = <-failed:
		log.Error("a listener failed, stopping", "error", cause)
	}
	rest, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Shutdown(rest); err != nil {
		log.Warn("messages that did not finish in time were cut off, they stay with their senders")
	}
	log.Info("stopped")
	return cause
}

package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/milter"
)

func serveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the milter",
		Long: `serve runs the milter in the foreground and logs to standard error. At SIGHUP
it reads its configuration again, without an effect on the connections and the
messages under way; where the new one is wrong, it says so and goes on with the
old one. At SIGTERM or SIGINT it accepts nothing new, lets the messages under
way finish, and exits; a second signal ends it at once.

It tells systemd when it is ready (Type=notify), keeps its watchdog quiet, and
takes the sockets that systemd passes.`,
		Args: positional(cobra.NoArgs),
		RunE: runServe,
	}
	addListenFlag(command)
	return command
}

// daemon is the running program. Its fields belong to the goroutine that runs
// it; what others need they get when they begin.
type daemon struct {
	load    func() (Config, error)
	logTo   io.Writer
	manager *manager
	passed  []*passedSocket

	cfg       Config // in force
	log       *slog.Logger
	store     *heldStore
	secret    []byte // for re-injection
	listeners []listener
	open      atomic.Int64 // connections
	server    *milter.Server
}

func runServe(cmd *cobra.Command, _ []string) error {
	// A SIGHUP that comes while the daemon starts waits until it can be obeyed.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	passed, err := takePassedSockets()
	if err != nil {
		return err
	}
	d := &daemon{
		load:    func() (Config, error) { return loadServeConfig(cmd, passed) },
		logTo:   cmd.ErrOrStderr(),
		manager: newManager(),
		passed:  passed,
	}
	if err := d.start(cmd.Context()); err != nil {
		return err
	}
	defer func() { d.store.Close() }()
	return d.run(cmd.Context(), hangup)
}

// loadServeConfig loads the configuration. Where nobody has said where to
// listen, the sockets that systemd passes are meant.
func loadServeConfig(cmd *cobra.Command, passed []*passedSocket) (Config, error) {
	cfg, err := loadConfig(cmd)
	if err == nil && len(passed) > 0 && cfg.origins[keyListen] == "" {
		cfg.Milter.Listen = listenList{networkSystemd + ":"}
		err = cfg.checkListeners() // a rule may name the default
	}
	return cfg, err
}

// start brings up everything that has to be there before the first connection
// is served.
func (d *daemon) start(ctx context.Context) error {
	cfg, err := d.load()
	if err != nil {
		return err
	}
	d.cfg = cfg
	d.setLog(newLogger(cfg, d.logTo))
	d.log.Info("starting", "version", programVersion(), "config", cfg)
	d.announcePolicy()
	if d.secret, err = d.readSecret(cfg); err != nil {
		return err
	}
	if d.store, err = openHeld(ctx, cfg, d.log); err != nil {
		return err
	}
	err = checkStore(ctx, d.log, cfg, d.store)
	if err != nil && exitCode(err) == exitTempFail {
		// It may come back by itself.
		d.log.Error("the key store is away, mail is deferred until it is back", "error", err)
		err = nil
	}
	if err == nil {
		d.listeners, err = listen(cfg.Milter, d.passed)
	}
	if err != nil {
		d.store.Close()
		return err
	}
	d.server = milter.NewServer(d.settings(), cfg.Milter.MaxConnections)
	return nil
}

func (d *daemon) setLog(log *slog.Logger) {
	d.log = log
	slog.SetDefault(log) // what the libraries log goes the same way
}

// announcePolicy says what nobody should overlook of the policy in force: that
// it seals nothing, and who else can read.
func (d *daemon) announcePolicy() {
	if !d.cfg.Storage.Encryption.Enable {
		d.log.Warn("sealing is switched off for everybody: all mail passes as it is")
	}
	for _, line := range otherReaders(d.cfg.policy) {
		d.log.Info(line)
	}
	for _, line := range policyWarnings(d.cfg.policy, time.Now()) {
		d.log.Warn(line)
	}
}

// settings are what the configuration in force means for a message.
func (d *daemon) settings() milter.Config {
	return milter.Config{
		Store:        d.store.keys.Store,
		Policy:       d.cfg.policy,
		Naming:       d.cfg.naming(),
		Hidden:       d.cfg.Policy.Hidden,
		Spool:        d.cfg.spool(),
		Addressing:   d.cfg.addressing(),
		Log:          d.log,
		LogAddresses: d.cfg.Log.Addresses,
		SizeLimit:    int64(d.cfg.Milter.SizeLimit),
		Split:        d.cfg.split(),
		Separate:     d.cfg.separate(),
		Reinjection:  d.reinjection(),
	}
}

// reinjection is how copies leave, nil where they do not.
func (d *daemon) reinjection() *milter.Reinjection {
	if d.cfg.split() != milter.SplitReinject {
		return nil
	}
	return &milter.Reinjection{Target: d.cfg.target(), Copies: d.store.copies, Secret: d.secret}
}

// readSecret reads the secret that re-injection needs, if that is wanted.
func (d *daemon) readSecret(cfg Config) ([]byte, error) {
	if cfg.split() != milter.SplitReinject {
		return nil, nil
	}
	return cfg.readSecret()
}

// checkStore asks the store whether it will serve, and logs what is not as it
// should be. The error of one that was never made is the configuration's.
func checkStore(ctx context.Context, log *slog.Logger, cfg Config, st store) error {
	name, err := parseStoreURL(cfg.Store.URL)
	if err != nil {
		return err
	}
	warnings, err := st.Check(ctx)
	for _, warning := range warnings {
		log.Warn("key store", "warning", warning)
	}
	return storeError(name, err)
}

// run serves until the context ends or a listener fails, and then lets the
// messages under way finish.
func (d *daemon) run(ctx context.Context, hangup <-chan os.Signal) error {
	failed := make(chan error, len(d.listeners))
	for _, ln := range d.listeners {
		d.log.Info("listening", "network", ln.Addr().Network(), "address", ln.Addr().String())
		go func() { failed <- d.server.Serve(countedListener{ln, &d.open}, ln.name) }()
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	if d.manager.watchdog > 0 {
		watch := watchdog{manager: d.manager, listeners: d.listeners, open: &d.open, most: int64(d.cfg.Milter.MaxConnections)}
		go watch.run(watching)
	}
	d.manager.ready(d.serving())
	for {
		select {
		case <-hangup:
			d.reload(ctx)
			continue
		case <-ctx.Done():
			d.stop()
			return nil
		case cause := <-failed:
			d.log.Error("a listener failed, stopping", "error", cause)
			stopWatching()
			d.stop()
			return cause
		}
	}
}

// serving is the status that "systemctl status" shows.
func (d *daemon) serving() string {
	var addresses []string
	for _, ln := range d.listeners {
		addresses = append(addresses, ln.Addr().String())
	}
	return "serving on " + strings.Join(addresses, " ")
}

// stop lets the messages under way finish.
func (d *daemon) stop() {
	patience := time.Duration(d.cfg.Milter.ShutdownTimeout)
	d.log.Info("stopping, messages under way may finish", "patience", patience)
	d.manager.stopping(patience)
	rest, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.server.Shutdown(rest); err != nil {
		d.log.Warn("messages that did not finish in time were cut off, they stay with their senders")
	}
	d.log.Info("stopped")
}

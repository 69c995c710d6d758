package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/keys/sqlite"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/messages"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo [MESSAGE]",
		Short: "Seal a message and open it again",
		Long: `demo shows the whole way of one message on this machine, once to an OpenPGP key
and once to an S/MIME certificate: it makes a key store and the keys in a
temporary folder, starts the daemon on a loopback port, speaks to it as Postfix
would, and opens what came back, with gpg and openssl too where they are
installed. MESSAGE is a mail in a file; without it the program has one of its
own. Nothing is left behind.`,
		Args: positional(cobra.MaximumNArgs(1)),
		RunE: runDemo,
	}
}

// demo is one run of the demonstration.
type demo struct {
	out io.Writer
	dir string
}

func runDemo(cmd *cobra.Command, args []string) error {
	raw := messages.Multipart
	if len(args) > 0 {
		var err error
		if raw, err = os.ReadFile(args[0]); err != nil {
			return failure("reading the message: %w", err)
		}
	}
	// Where nobody reads on, as with "demo | head", the daemon must be stopped
	// all the same.
	signal.Ignore(syscall.SIGPIPE)
	dir, err := os.MkdirTemp("", "sealmilter-demo-")
	if err != nil {
		return failure("making a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	d := &demo{out: cmd.OutOrStdout(), dir: dir}
	return d.run(cmd.Context(), client.ParseMessage(raw))
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// run plays the parts one after the other; the first failure ends it.
func (d *demo) run(ctx context.Context, arrived client.Message) error {
	readers, err := d.makeReaders()
	if err != nil {
		return failure("making the keys: %w", err)
	}
	if err := d.enrol(ctx, readers); err != nil {
		return failure("enrolling the keys: %w", err)
	}
	addr, stop, err := d.startDaemon(ctx)
	if err != nil {
		return failure("starting the daemon: %w", err)
	}
	defer stop()
	d.say("2. The daemon runs and listens on %s.", addr)
	for i, r := range readers {
		left, err := d.send(addr, r.address, arrived)
		if err != nil {
			return failure("sending the message: %w", err)
		}
		d.say("%d. A message for %s went through it, as Postfix would send it:\n", 3+i, r.address)
		if i == 0 {
			sideBySide(d.out, "What arrived", lines(arrived.Shown()), "What Postfix keeps now", lines(left))
		} else {
			beginning(d.out, "What Postfix keeps now, from Content-Type on", lines(left), "Content-Type:")
		}
		if err := d.open(ctx, r, left, arrived.Shown()); err != nil {
			return failure("opening the message: %w", err)
		}
	}
	d.say("Next: README.md says how Postfix is told of it, and how a key of your own gets in:\n" +
		"  sealmilter migrate --store sqlite:/var/lib/sealmilter/keys.db\n" +
		"  sealmilter key add --store sqlite:/var/lib/sealmilter/keys.db you@your.domain your-public-key.asc")
	return nil
}

func (d *demo) storePath() string { return filepath.Join(d.dir, "keys.db") }

// enrol makes a store and puts the readers' keys into it.
func (d *demo) enrol(ctx context.Context, readers []*demoReader) error {
	if _, _, err := sqlite.Migrate(ctx, d.storePath()); err != nil {
		return err
	}
	st, err := sqlite.Open(ctx, d.storePath(), sqlite.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	d.say("1. A key store in %s holds two keys:", d.dir)
	for _, r := range readers {
		if _, err := st.AddKey(ctx, keys.NewKey{Address: r.address, Key: r.key.Armored()}); err != nil {
			return err
		}
		d.say("   %s: %s %.40s (%s)", r.address, r.key.Method, r.key.Fingerprint, r.key.Algorithm)
	}
	return nil
}

// startDaemon runs this very program as the daemon, on a port that the system
// chooses, and reads from its log which one that is.
func (d *demo) startDaemon(ctx context.Context) (addr string, stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	config := filepath.Join(d.dir, "sealmilter.toml")
	text := fmt.Sprintf("[store]\nurl = %q\n[milter]\nlisten = \"inet:127.0.0.1:0\"\n[spool]\ndirectory = %q\n[log]\nformat = \"json\"\n",
		"sqlite:"+d.storePath(), d.dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	daemon := exec.CommandContext(ctx, program, "serve", "--config", config)
	daemon.Env = append(os.Environ(), envStore+"=", envListen+"=")
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) }
	log, err := daemon.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := daemon.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		daemon.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, log)
		daemon.Wait()
	}
	if addr, err = listeningOn(log); err != nil {
		stop()
		return "", nil, err
	}
	return addr, stop, nil
}

// listeningOn reads a daemon's log up to the line that names its address.
func listeningOn(log io.Reader) (string, error) {
	var last string
	for scanner := bufio.NewScanner(log); scanner.Scan(); {
		var line struct{ Msg, Address string }
		last = scanner.Text()
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Msg == "listening" {
			return line.Address, nil
		}
	}
	return "", fmt.Errorf("it ended with %q", last)
}

// send plays Postfix and returns the message that it would keep.
func (d *demo) send(addr, to string, m client.Message) ([]byte, error) {
	session, err := client.Dial("tcp", addr, client.Options{})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(to)}, m)
	if err != nil {
		return nil, err
	}
	if result.Queued == nil {
		return nil, fmt.Errorf("the daemon answered %q", result.Final)
	}
	return result.Queued.Bytes(), nil
}

// open opens the sealed message with the secret key, by two programs where
// there are two.
func (d *demo) open(ctx context.Context, r *demoReader, sealed, want []byte) error {
	opened, err := envelope.Open(sealed, r.secret)
	if err != nil {
		return err
	}
	if !bytes.Equal(opened, want) {
		return errors.New("what came back is not what arrived")
	}
	d.say("\n   Opened with the secret key it is byte for byte the message that arrived (%d bytes).", len(opened))
	program, err := exec.LookPath(r.program)
	if err != nil {
		d.say("   (%s is not installed, so it was not asked to open it too.)\n", r.program)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if opened, err = r.openWith(ctx, program, d.dir, sealed); err != nil {
		return fmt.Errorf("%s: %w", r.program, err)
	}
	if !bytes.Equal(opened, want) {
		return fmt.Errorf("what %s gave back is not what arrived", r.program)
	}
	d.say("   %s opened it too, to the same bytes.\n", r.program)
	return nil
}

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
	"path/filepath"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/keys/sqlite"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/messages"
)

// demoAddress is whose mail the demonstration seals.
const demoAddress = "reader@example.org"

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo [MESSAGE]",
		Short: "Seal a message and open it again",
		Long: `demo shows the whole way of one message on this machine: it makes a key store
and a key pair in a temporary folder, starts the daemon on a loopback port,
speaks to it as Postfix would, and opens what came back, with gpg too where it
is installed. MESSAGE is a mail in a file; without it the program has one of
its own. Nothing is left behind.`,
		Args: positional(cobra.MaximumNArgs(1)),
		RunE: runDemo,
	}
}

// demo is one run of the demonstration.
type demo struct {
	out    io.Writer
	dir    string
	entity *openpgp.Entity
}

func runDemo(cmd *cobra.Command, args []string) error {
	raw := messages.Multipart
	if len(args) > 0 {
		var err error
		if raw, err = os.ReadFile(args[0]); err != nil {
			return failure("reading the message: %w", err)
		}
	}
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
	if err := d.makeKey(ctx); err != nil {
		return failure("making the key: %w", err)
	}
	addr, stop, err := d.startDaemon(ctx)
	if err != nil {
		return failure("starting the daemon: %w", err)
	}
	defer stop()
	d.say("2. The daemon runs and listens on %s.", addr)
	left, err := d.send(addr, arrived)
	if err != nil {
		return failure("sending the message: %w", err)
	}
	d.say("3. A message for %s went through it, as Postfix would send it:\n", demoAddress)
	sideBySide(d.out, "What arrived", lines(arrived.Shown()), "What Postfix keeps now", lines(left))
	if err := d.open(ctx, left, arrived.Shown()); err != nil {
		return failure("opening the message: %w", err)
	}
	d.say("\nNext: README.md says how Postfix is told of it, and how a key of your own gets in:\n" +
		"  sealmilter migrate --store sqlite:/var/lib/sealmilter/keys.db\n" +
		"  sealmilter key add --store sqlite:/var/lib/sealmilter/keys.db you@your.domain your-public-key.asc")
	return nil
}

func (d *demo) storePath() string { return filepath.Join(d.dir, "keys.db") }

// makeKey makes a store, and a key pair of which the store gets the public
// half.
func (d *demo) makeKey(ctx context.Context) (err error) {
	if _, _, err := sqlite.Migrate(ctx, d.storePath()); err != nil {
		return err
	}
	if d.entity, err = openpgp.NewEntity("Reader", "", demoAddress, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}); err != nil {
		return err
	}
	var public bytes.Buffer
	if err := d.entity.Serialize(&public); err != nil {
		return err
	}
	parsed, err := keys.Parse(public.Bytes())
	if err != nil {
		return err
	}
	st, err := sqlite.Open(ctx, d.storePath(), sqlite.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	if _, err := st.AddKey(ctx, demoAddress, parsed[0].Armored()); err != nil {
		return err
	}
	d.say("1. A key store in %s holds the OpenPGP key of %s:\n   %s (%s)",
		d.dir, demoAddress, parsed[0].Fingerprint, parsed[0].Algorithm)
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
func (d *demo) send(addr string, m client.Message) ([]byte, error) {
	session, err := client.Dial("tcp", addr, client.Options{})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	result, err := session.Send(client.Envelope{From: "sender@example.net", To: client.To(demoAddress)}, m)
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
func (d *demo) open(ctx context.Context, sealed, want []byte) error {
	opened, err := envelope.Open(sealed, &envelope.Secret{OpenPGP: openpgp.EntityList{d.entity}})
	if err != nil {
		return err
	}
	if !bytes.Equal(opened, want) {
		return errors.New("what came back is not what arrived")
	}
	d.say("\n4. Opened with the secret key it is byte for byte the message that arrived (%d bytes).", len(opened))
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		d.say("   (gpg is not installed, so it was not asked to open it too.)")
		return nil
	}
	if opened, err = d.openWithGPG(ctx, gpg, sealed); err != nil {
		return fmt.Errorf("gpg: %w", err)
	}
	if !bytes.Equal(opened, want) {
		return errors.New("what gpg gave back is not what arrived")
	}
	d.say("   gpg opened it too, to the same bytes.")
	return nil
}

// openWithGPG lets gpg open the message, with a keyring of its own.
func (d *demo) openWithGPG(ctx context.Context, gpg string, sealed []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	home := filepath.Join(d.dir, "gnupg")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	defer exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() // the agent that gpg starts
	var secret bytes.Buffer
	if err := d.entity.SerializePrivate(&secret, nil); err != nil {
		return nil, err
	}
	ask := func(input []byte, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, gpg, append([]string{"--homedir", home, "--batch", "--quiet"}, args...)...)
		cmd.Stdin = bytes.NewReader(input)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, oneLine(complaint.String()))
		}
		return out, err
	}
	if _, err := ask(secret.Bytes(), "--import"); err != nil {
		return nil, err
	}
	payload, err := ask(sealed, "--decrypt")
	return envelope.Original(payload), err
}

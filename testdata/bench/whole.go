package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sealmilter/testdata/report"
)

// peer is another program that seals.
type peer struct {
	name    string
	program string
	// prepare makes what the program needs once, and returns the arguments
	// with which it seals standard input to standard output.
	prepare func(b *bench) ([]string, error)
	aside   bool // shown, and not among those whose best the bar is held against
}

// openPGPPeers seal to the Curve25519 key.
var openPGPPeers = []peer{
	{name: "gpg", program: "gpg", prepare: func(b *bench) ([]string, error) {
		home := filepath.Join(b.dir, "gpg")
		if err := os.Mkdir(home, 0o700); err != nil {
			return nil, err
		}
		common := []string{"--homedir", home, "--batch", "--quiet", "--no-autostart", "--trust-model", "always"}
		if _, err := output(exec.Command("gpg", append(common, "--import", b.keyFile(curveAddress))...)); err != nil {
			return nil, err
		}
		return append(common, "--no-auto-key-locate", "--cipher-algo", "AES256", "--compress-algo", "none", "-z", "0", "--armor",
			"--recipient", curveAddress, "--output", "-", "--encrypt"), nil
	}},
	{name: "rnp", program: "rnp", prepare: func(b *bench) ([]string, error) {
		return []string{"--keyfile", b.keyFile(curveAddress), "--notty", "--cipher", "AES256", "-z", "0", "--armor", "-r", curveAddress, "--output", "-", "--encrypt"}, nil
	}},
	{name: "sqop", program: "sqop", prepare: func(b *bench) ([]string, error) {
		return []string{"encrypt", b.keyFile(curveAddress)}, nil
	}},
}

// openSSL seals to the certificate. As it is mostly called it makes CRLF of
// line ends, as ours does; with -binary it leaves the content alone.
var openSSL = []peer{
	{name: "openssl cms -stream", program: "openssl", prepare: func(b *bench) ([]string, error) {
		return []string{"cms", "-encrypt", "-stream", "-aes-256-cbc", "-outform", "SMIME", b.keyFile(smimeAddress)}, nil
	}},
	{name: "openssl cms -stream -binary", program: "openssl", aside: true, prepare: func(b *bench) ([]string, error) {
		return []string{"cms", "-encrypt", "-stream", "-binary", "-aes-256-cbc", "-outform", "SMIME", b.keyFile(smimeAddress)}, nil
	}},
}

// openPGPProcesses: the bar is held against the best of the peers.
func openPGPProcesses(b *bench) ([]report.Line, error) {
	return b.sizes("OpenPGP AES-256 armored, whole process, ", curveAddress, 50<<20, openPGPPeers, 1.6)
}

func smimeProcesses(b *bench) ([]report.Line, error) {
	return b.sizes("S/MIME AES-256-CBC base64, whole process, ", smimeAddress, 25<<20, openSSL, 1.5)
}

// sizes measures at a large size, which has a bar, and at small ones.
func (b *bench) sizes(what, address string, large int64, peers []peer, bar float64) (lines []report.Line, err error) {
	for _, size := range []int64{large, 1 << 20, 4 << 10} {
		more, err := b.processes(what, address, size, peers, bar)
		if err != nil {
			return nil, err
		}
		lines, bar = append(lines, more...), 0
	}
	return lines, nil
}

// processes measures ours beside each peer. The bar, if there is one, is that
// of the fastest.
func (b *bench) processes(what, address string, size int64, peers []peer, bar float64) ([]report.Line, error) {
	if size > 1<<20 {
		size /= b.scale
	}
	mail, err := b.mailFile(size)
	if err != nil {
		return nil, err
	}
	defer os.Remove(mail)
	lines := make([]report.Line, len(peers))
	// The turns are ours, theirs, ours, another's: each of the others is
	// measured right behind ours, whose median is over all its turns.
	ours := contestant{name: "sealmilter", do: sealing(mail, b.program, "seal", "--config", b.config, "--to", address)}
	var contestants []contestant
	var present []int
	for i, p := range peers {
		lines[i] = report.Line{What: what + p.name, Kind: report.Speed, Size: size}
		if _, err := exec.LookPath(p.program); err != nil {
			lines[i].Absent = "not installed"
			continue
		}
		args, err := b.arguments(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		present = append(present, i)
		contestants = append(contestants, ours, contestant{name: p.name, do: sealing(mail, p.program, args...)})
	}
	medians, err := b.contest(childrenTime, contestants...)
	if err != nil {
		return nil, err
	}
	best, rivals := 0, 0
	for n, i := range present {
		lines[i].Ours, lines[i].Theirs = medians[2*n], medians[2*n+1]
		if peers[i].aside {
			continue
		}
		if rivals == 0 || lines[i].Theirs < lines[best].Theirs {
			best = i
		}
		rivals++
	}
	lines[best].Bar = bar
	lines[best].Best = rivals > 1
	return lines, nil
}

// arguments prepares a peer once.
func (b *bench) arguments(p peer) ([]string, error) {
	if args, made := b.prepared[p.name]; made {
		return args, nil
	}
	args, err := p.prepare(b)
	if err == nil {
		b.prepared[p.name] = args
	}
	return args, err
}

// sealing runs a program from a file to /dev/null.
func sealing(mail, program string, args ...string) func() error {
	return func() error {
		in, err := os.Open(mail)
		if err != nil {
			return err
		}
		defer in.Close()
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer null.Close()
		cmd := exec.Command(program, args...)
		cmd.Stdin, cmd.Stdout = in, null
		said, err := os.CreateTemp(filepath.Dir(mail), "said")
		if err != nil {
			return err
		}
		defer os.Remove(said.Name())
		defer said.Close()
		cmd.Stderr = said // a file: a pipe would keep a goroutine of ours on the one core
		if err := cmd.Run(); err != nil {
			text, _ := os.ReadFile(said.Name())
			return fmt.Errorf("%w\n%s", err, text)
		}
		return nil
	}
}

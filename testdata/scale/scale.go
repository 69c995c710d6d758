// Command scale measures how the keys of very many users are kept and found:
// in a real PostgreSQL, started for it and thrown away, whose tables it fills
// through their triggers. A million accounts are what it is made for; ACCOUNTS
// in the Makefile is another number.
//
// Half of the accounts have an OpenPGP key (Curve25519, and a few RSA-3072),
// half a certificate (RSA-2048, and a few P-256), one in twenty has one of each,
// and there is an alias for every tenth. So many keys cannot be generated in
// reasonable time: some thousands are, and are enrolled again and again. For
// the database and the parser that makes no difference, since each row has its
// text and each lookup parses it; nothing is shared in memory. The moduli of the
// RSA keys alone are fewer still. The server runs with fsync = off: what is
// measured is its work and not this machine's disk.
//
// Each line of the table is what was measured, what beside it, and the ratio.
// Most bars are a ratio too. What is compared takes turns, round after round. A
// p50 is the median of the rounds', a p99 that of the quietest round: then a ratio
// stands although the machine is shared. pgbench is PostgreSQL's own; it selects
// one account by primary key, prepared, over the same unix socket.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"sealmilter/testdata/report"
)

// settings are what the command line says.
type settings struct {
	accounts int
	json     string // file for the numbers
	profile  string // folder for CPU profiles, one for each group
	only     string // part of the name of what to measure
	quick    bool
	strict   bool
	sizes
}

// sizes are how much of everything is done.
type sizes struct {
	pool      int   // distinct keys of each frequent kind
	moduli    int   // distinct RSA keys
	rounds    int   // of what takes turns
	lookups   int   // in each turn
	oneByOne  int   // keys that are enrolled one by one
	full      int   // keys in the full cache
	small     int64 // bytes that the small cache may take
	drawn     int   // lookups that the small cache is asked
	changes   int   // whose effect is waited for
	clients   int
	clientFor time.Duration
}

func main() {
	s := settings{sizes: sizes{pool: 4000, moduli: 12, rounds: 15, lookups: 2000, oneByOne: 2000, full: 100_000,
		small: 64 << 20, drawn: 1_000_000, changes: 200, clients: 8, clientFor: 5 * time.Second}}
	flag.IntVar(&s.accounts, "accounts", 1_000_000, "how many accounts to load")
	flag.StringVar(&s.json, "json", "", "`file` to write the numbers to")
	flag.StringVar(&s.profile, "profile", "", "`folder` to write CPU profiles to, one for each group")
	flag.StringVar(&s.only, "only", "", "load, and measure this `group` alone: "+strings.Join(groupNames(), ", "))
	flag.BoolVar(&s.quick, "quick", false, "5,000 accounts and few rounds: to see that it works, not how fast")
	flag.BoolVar(&s.strict, "strict", false, "end with 1 where a ratio is below its bar")
	flag.Parse()
	if s.quick {
		s.accounts = 5000
		s.sizes = sizes{pool: 100, moduli: 1, rounds: 2, lookups: 200, oneByOne: 30, full: 1000,
			small: 2 << 20, drawn: 5000, changes: 20, clients: 8, clientFor: 100 * time.Millisecond}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	lines, err := run(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
	if s.strict && !report.AllAtBar(lines) {
		os.Exit(1)
	}
}

// groups are what is measured, in the order of the table.
var groups = []struct {
	name    string
	measure func(context.Context, *scale) ([]report.Line, error)
}{
	{"import", imports},
	{"plans", plans},
	{"uncached", uncached},
	{"cached", cached},
	{"clients", throughput},
	{"full", fullCache},
	{"small", smallCache},
	{"nobody", strangers},
	{"effect", effects},
}

func groupNames() (names []string) {
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

// run measures everything and writes the table.
func run(ctx context.Context, s settings, out io.Writer) (lines []report.Line, err error) {
	b, err := newScale(ctx, s)
	if err != nil {
		return nil, err
	}
	defer b.close()
	version, err := b.server.version(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "PostgreSQL %s over its unix socket, %s accounts; p50 is the median of %d rounds in turns, p99 the quietest's\n",
		version, report.Grouped(float64(s.accounts)), s.rounds)
	for _, g := range groups {
		if s.only != "" && s.only != g.name && g.name != "import" {
			continue
		}
		began := time.Now()
		more, err := b.profiled(ctx, g.name, g.measure)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, err)
		}
		lines = append(lines, more...)
		fmt.Fprintf(os.Stderr, "scale: %s took %v\n", g.name, time.Since(began).Round(time.Second/10))
		debug.FreeOSMemory() // what one measured is not the next one's to carry
	}
	if err := report.WriteTable(out, lines); err != nil {
		return nil, err
	}
	return lines, report.WriteJSON(s.json, lines)
}

// profiled measures one group, with a CPU profile of it where that was asked.
func (b *scale) profiled(ctx context.Context, name string, measure func(context.Context, *scale) ([]report.Line, error)) ([]report.Line, error) {
	if b.profile == "" {
		return measure(ctx, b)
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(b.profile, name+".prof"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	defer pprof.StopCPUProfile()
	return measure(ctx, b)
}

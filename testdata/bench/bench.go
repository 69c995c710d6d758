// Command bench measures sealing beside the programs that people would use
// instead, and beside what the machine's ciphers and encodings take alone. All
// of it happens in one run, on one core, in turns: ours, theirs, ours, theirs;
// and what counts is the processor's time, user's and system's, which on that
// one core is the time that passes but for what other programs take of it. So a
// ratio stands although the machine is shared, and slower tomorrow.
//
// A line of the table is one pair: what, size, ours, theirs, ratio, bar. The
// bar is the ratio that the pair is held to. Most are at least so many times
// the other's speed; those of small messages at most so many times the time of
// the one public key operation that nobody can do without; those of the heap
// an amount. The other lines are there to be compared with.
//
// Whole processes read the same mail from the same file and write to
// /dev/null. Ours is "sealmilter seal" as it is shipped, which opens a key
// store, looks the key up and parses it. The others have the same kind of key,
// AES-256, no compression and text as output, and neither ask an agent nor
// weigh trust. In process, ours is the engine as the daemon drives it: header,
// body in the pieces that the milter protocol brings, and the copy written out.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sealmilter/testdata/report"
)

// settings are what the command line says.
type settings struct {
	program string // sealmilter, as make build leaves it
	json    string // file for the numbers
	profile string // file for where the engine's time goes
	only    string // part of the name of what to measure
	quick   bool
	strict  bool
	wall    bool

	rounds int
	scale  int64 // sizes are divided by it
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "bin/sealmilter", "`path` of the sealmilter to measure")
	flag.StringVar(&s.json, "json", "", "`file` to write the numbers to")
	flag.StringVar(&s.profile, "profile", "", "`file` to write a CPU profile of the bench itself to")
	flag.StringVar(&s.only, "only", "", "measure the `group` alone: "+strings.Join(groupNames(), ", "))
	flag.BoolVar(&s.quick, "quick", false, "small sizes and few rounds: to see that it works, not how fast")
	flag.BoolVar(&s.strict, "strict", false, "end with 1 where a ratio is below its bar or a peer is missing")
	flag.BoolVar(&s.wall, "wall", false, "measure the time that passes, not the processor's: on a machine that does nothing else the two are the same")
	flag.Parse()
	s.rounds, s.scale = 15, 1
	if s.quick {
		s.rounds, s.scale = 3, 50
	}
	if err := pin(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: staying on one core:", err)
		os.Exit(1)
	}
	lines, err := run(s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if s.strict && !report.AllAtBar(lines) {
		os.Exit(1)
	}
}

// pinned marks the environment of a process that stays on one core already.
const pinned = "SEALMILTER_BENCH_PINNED"

// pin starts the program over on one core. Threads and children inherit that;
// threads that the runtime has made before would not, and it looks at the
// number of cores at its start only.
func pin() error {
	if os.Getenv(pinned) != "" {
		return nil
	}
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	last := -1 // interrupts are mostly the first one's
	for core, found := 0, 0; found < allowed.Count(); core++ {
		if allowed.IsSet(core) {
			last = core
			found++
		}
	}
	one.Set(last)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), fmt.Sprintf("%s=%d", pinned, last)))
}

// groups are what is measured, in the order of the table.
var groups = []struct {
	name    string
	measure func(*bench) ([]report.Line, error)
}{
	{"openpgp", openPGPProcesses},
	{"smime", smimeProcesses},
	{"engine", inProcess},
	{"small", smallMessages},
	{"forms", forms},
	{"heap", heaps},
	{"limits", limits},
}

func groupNames() (names []string) {
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

// run measures all pairs and writes the table.
func run(s settings, out io.Writer) ([]report.Line, error) {
	b, err := newBench(s)
	if err != nil {
		return nil, err
	}
	defer b.close()
	clock := "processor time"
	if s.wall {
		clock = "time passed"
	}
	fmt.Fprintf(out, "core %s, %s, medians of %d rounds in turns, MB = 1,000,000 bytes\n", os.Getenv(pinned), clock, s.rounds)
	var lines []report.Line
	if s.profile != "" {
		file, err := os.Create(s.profile)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	for _, g := range groups {
		if s.only != "" && s.only != g.name {
			continue
		}
		more, err := g.measure(b)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
		debug.FreeOSMemory() // what one measured is not the next one's to carry
	}
	if err := report.WriteTable(out, lines); err != nil {
		return nil, err
	}
	return lines, report.WriteJSON(s.json, lines)
}

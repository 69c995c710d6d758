package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress is one line on a terminal that says how far something has come.
// Anywhere else, in a log or a pipe, it says nothing.
type progress struct {
	w    *os.File // nil where there is no terminal
	what string   // as "keys checked"
	done int
	last time.Time
}

// progressEach is how often the line is written.
const progressEach = 250 * time.Millisecond

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what}
	if file, is := w.(*os.File); is {
		if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err == nil {
			p.w = file
		}
	}
	return p
}

// step counts one more.
func (p *progress) step() {
	p.done++
	if p.w == nil || time.Since(p.last) < progressEach {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.w, "\r%d %s", p.done, p.what)
}

// clear takes the line off, before something else is written.
func (p *progress) clear() {
	if p.w != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.last = time.Time{}
	}
}

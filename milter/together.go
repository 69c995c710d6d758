package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"sealmilter/milter/envelope"
	"sealmilter/milter/reinject"
)

// A large message to many goes over several connections at once, so that what
// its copies share is encoded once for all that are under way: that costs
// several times as much as sending does. A small one goes over a single
// connection, one copy after the other: then there is never more than one of
// which nobody may know whether it was accepted.
const (
	largeCopy   = 1 << 20 // bytes
	largeAtOnce = 20      // connections

	// furtherPatience is how long all connections but the first are waited for:
	// where the target is busy it is better to go on with what there is.
	furtherPatience = 2 * time.Second
)

// parcel is a copy that is to be handed over.
type parcel struct {
	group
	number, of int // of the copy, from 1 on
}

// dial opens the connections for some parcels. Where the target takes fewer
// than would be good, those are enough.
func (by Reinjection) dial(ctx context.Context, parcels []parcel) (open []*reinject.Session, err error) {
	first, err := by.Target.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("re-injecting: %w", err)
	}
	open = append(open, first)
	if parcels[0].sealed.Size(len("\r\n")) < largeCopy {
		return open, nil
	}
	ctx, cancel := context.WithTimeout(ctx, furtherPatience)
	defer cancel()
	for len(open) < min(largeAtOnce, len(parcels)) {
		further, err := by.Target.Dial(ctx)
		if err != nil {
			break
		}
		open = append(open, further)
	}
	return open, nil
}

// handOver sends each parcel over a connection of its own and notes what was
// accepted. All of them have come to an end when it returns, and the error is
// the first one.
func (s *session) handOver(ctx context.Context, connections []*reinject.Session, parcels []parcel) error {
	errs := make([]error, len(parcels))
	all := &chorus{missing: len(parcels)}
	var running sync.WaitGroup
	for i, p := range parcels {
		running.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					s.logPanic(cause, debug.Stack())
					errs[i] = errors.New("internal error: a panic while a copy was sent")
				}
			}()
			errs[i] = s.handOverOne(ctx, connections[i], p, all)
		})
	}
	running.Wait()
	at := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if at < 0 {
		return nil
	}
	return errs[at]
}

func (s *session) handOverOne(ctx context.Context, connection *reinject.Session, p parcel, all *chorus) error {
	part := &part{chorus: all}
	defer part.leave()
	if err := s.send(ctx, connection, p.group, part); err != nil {
		return fmt.Errorf("re-injecting copy %d of %d: %w", p.number, p.of, err)
	}
	return s.noteSent(ctx, p.group)
}

// chorus has the bodies of several copies written at the same time. Each part
// either comes, with a writer that is ready for its body, or leaves; whoever is
// the last writes for all, while the others wait.
type chorus struct {
	mu      sync.Mutex
	missing int // parts that have neither come nor left
	copies  []*envelope.Copy
	to      []io.Writer
	written []chan error
}

// part is one copy's.
type part struct {
	*chorus
	came bool
}

// write writes the body of a copy along with the others.
func (p *part) write(body *envelope.Copy, w io.Writer) error {
	written := make(chan error, 1)
	p.mu.Lock()
	p.came = true
	p.copies, p.to, p.written = append(p.copies, body), append(p.to, w), append(p.written, written)
	p.mu.Unlock()
	p.next()
	return <-written
}

// leave says that the part is over, which may not have come.
func (p *part) leave() {
	if !p.came {
		p.next()
	}
}

// next is called once for each part.
func (c *chorus) next() {
	c.mu.Lock()
	c.missing--
	last := c.missing == 0
	c.mu.Unlock()
	if !last {
		return
	}
	errs := slices.Repeat([]error{errors.New("internal error: a panic while the copies were written")}, len(c.written))
	defer func() { // nobody is left waiting by a panic
		for i, written := range c.written {
			written <- errs[i]
		}
	}()
	copy(errs, envelope.WriteBodies(c.copies, c.to, "\r\n"))
}

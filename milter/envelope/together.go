package envelope

import (
	"errors"
	"io"

	"sealmilter/milter/envelope/lines"
)

// WriteBodies writes the bodies of several copies, each to a writer of its own
// and as WriteBody does, and returns an error for each. Copies that share their
// ciphertext share its encoded text too, from the first line on that they have
// in common: encoding takes several times as long as writing. A writer that
// fails is left out from then on.
func WriteBodies(copies []*Copy, to []io.Writer, eol string) []error {
	voices := make([]*voice, len(copies))
	for i, c := range copies {
		voices[i] = &voice{Copy: c, w: to[i]}
	}
	errs := make([]error, len(copies))
	for i, v := range voices {
		if v.encoder == nil {
			var alike []*voice
			for _, other := range voices[i:] {
				if other.encoder == nil && other.isAlike(v.Copy) {
					other.encoder = other.Copy.encoder(other.w, eol)
					alike = append(alike, other)
				}
			}
			sing(alike, eol)
		}
		errs[i] = v.err
	}
	return errs
}

// voice is one copy while it is written along with others.
type voice struct {
	*Copy
	w       io.Writer
	encoder encoder
	err     error
}

// encoder makes text of octets.
type encoder interface {
	io.WriteCloser
	// Flush writes the lines that are full.
	Flush() error
}

// isAlike says whether the lines of two copies begin at the same places of
// what they share.
func (c *Copy) isAlike(other *Copy) bool {
	return c.spool == other.spool && c.octets == other.octets && len(c.prefix)%c.octets == len(other.prefix)%c.octets
}

// each does the next step of every voice that has not failed.
func each(voices []*voice, step func(v *voice) error) {
	for _, v := range voices {
		if v.err == nil {
			v.err = step(v)
		}
	}
}

// sing writes copies whose lines begin at the same places.
func sing(voices []*voice, eol string) {
	first := voices[0].Copy
	each(voices, func(v *voice) error {
		if _, err := io.WriteString(v.w, withEOL(v.opening, eol)); err != nil {
			return err
		}
		_, err := v.encoder.Write(v.prefix)
		return err
	})
	s := &shared{voices: voices}
	s.lines = lines.New(s.everyone(), first.octets, eol)
	s.head = min(first.spool.size, int64((first.octets-len(first.prefix)%first.octets)%first.octets))
	s.middle = (first.spool.size - s.head) / int64(first.octets) * int64(first.octets)
	_, err := first.spool.WriteTo(s)
	each(voices, func(v *voice) error {
		if err != nil {
			return err
		}
		if err := v.encoder.Close(); err != nil {
			return err
		}
		_, err := io.WriteString(v.w, withEOL(v.closing, eol))
		return err
	})
}

// shared takes the octets that copies share: first those that end a line which
// each has begun differently, then whole lines, which are encoded once, then
// those of the last line.
type shared struct {
	voices       []*voice
	head, middle int64 // octets that are left of each
	lines        *lines.Writer
}

var errAllFailed = errors.New("none of the copies can be written")

func (s *shared) Write(p []byte) (int, error) {
	head := p[:min(int64(len(p)), s.head)]
	middle := p[len(head):min(int64(len(p)), int64(len(head))+s.middle)]
	tail := p[len(head)+len(middle):]
	s.head -= int64(len(head))
	s.middle -= int64(len(middle))
	each(s.voices, func(v *voice) error {
		_, err := v.encoder.Write(head)
		if err == nil && len(middle) > 0 {
			err = v.encoder.Flush()
		}
		return err
	})
	if len(middle) > 0 {
		if _, err := s.lines.Write(middle); err != nil {
			return 0, err
		}
	}
	if s.head+s.middle == 0 {
		if err := s.lines.Flush(); err != nil {
			return 0, err
		}
	}
	each(s.voices, func(v *voice) error {
		_, err := v.encoder.Write(tail)
		return err
	})
	return len(p), nil
}

// everyone writes the same to all voices, and fails when all of them have.
func (s *shared) everyone() io.Writer { return everyone{s.voices} }

type everyone struct{ voices []*voice }

func (e everyone) Write(p []byte) (int, error) {
	alive := 0
	each(e.voices, func(v *voice) error {
		_, err := v.w.Write(p)
		if err == nil {
			alive++
		}
		return err
	})
	if alive == 0 {
		return 0, errAllFailed
	}
	return len(p), nil
}

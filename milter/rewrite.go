package milter

import (
	"fmt"
	"strings"

	"github.com/emersion/go-milter"

	"sealmilter/milter/envelope"
)

// maxRemovals bounds the fields that are taken out of one message. Postfix
// searches its queue file anew for each: 16,000 take it seconds.
const maxRemovals = 1000

// maxBodyChunk is the largest piece of a body that both MTAs take.
const maxBodyChunk = 65535

// rewrite turns the message that the MTA holds into the sealed one, in the
// order that Postfix and Sendmail both take: header, then body without
// anything between its pieces. An error may leave the work half done; the
// verdict that follows it keeps the message with its sender.
func rewrite(edit *milter.Modifier, shown []envelope.Field, sealed *envelope.Copy, leading bool) error {
	stay, added := sealed.OuterHeader(shown)
	removed := removals(shown, stay)
	if len(removed) > maxRemovals {
		return fmt.Errorf("more than %d header fields would have to be removed", maxRemovals)
	}
	for _, r := range removed {
		if err := edit.ChangeHeader(r.index, r.name, ""); err != nil {
			return fmt.Errorf("removing a header field: %w", err)
		}
	}
	for _, f := range added {
		if !leading { // the MTA puts the space in itself
			f.Value = strings.TrimPrefix(f.Value, " ")
		}
		if err := edit.AddHeader(f.Name, f.Value); err != nil {
			return fmt.Errorf("adding a header field: %w", err)
		}
	}
	body := &bodyWriter{edit: edit, piece: make([]byte, 0, maxBodyChunk)}
	if err := sealed.WriteBody(body, "\n"); err != nil {
		return fmt.Errorf("replacing the body: %w", err)
	}
	if err := body.flush(); err != nil {
		return fmt.Errorf("replacing the body: %w", err)
	}
	return nil
}

// removal names a header field by its name and its place among those of that
// name, counted from 1.
type removal struct {
	name  string
	index int
}

// removals lists the fields that do not stay, the last first: Postfix counts
// anew after each removal, Sendmail does not, and from the bottom up both come
// to the same.
func removals(shown []envelope.Field, stay []bool) (removed []removal) {
	left := make(map[string]int)
	for _, f := range shown {
		left[strings.ToLower(f.Name)]++
	}
	for i := len(shown) - 1; i >= 0; i-- {
		name := strings.ToLower(shown[i].Name)
		if !stay[i] {
			removed = append(removed, removal{shown[i].Name, left[name]})
		}
		left[name]--
	}
	return removed
}

// bodyWriter cuts a body into the pieces that the protocol allows. Its lines
// end in LF, as the MTA would make them, so that no line end is cut.
type bodyWriter struct {
	edit  *milter.Modifier
	piece []byte
}

func (b *bodyWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := copy(b.piece[len(b.piece):maxBodyChunk], p)
		b.piece, p = b.piece[:len(b.piece)+n], p[n:]
		if len(b.piece) == maxBodyChunk {
			if err := b.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (b *bodyWriter) flush() error {
	if len(b.piece) == 0 {
		return nil
	}
	err := b.edit.ReplaceBody(b.piece)
	b.piece = b.piece[:0]
	return err
}

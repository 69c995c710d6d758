package milter

import (
	"fmt"
	"strings"

	"github.com/emersion/go-milter"

	"sealmilter/milter/envelope"
)

// maxChanges bounds the fields that are taken out of one message or changed.
// Postfix searches its queue file anew for each: 16,000 take it seconds.
const maxChanges = 1000

// maxBodyChunk is the largest piece of a body that both MTAs take.
const maxBodyChunk = 65535

// rewrite turns the message that the MTA holds into the sealed one, in the
// order that Postfix and Sendmail both take: header, then body without
// anything between its pieces. An error may leave the work half done; the
// verdict that follows it keeps the message with its sender.
func rewrite(edit *milter.Modifier, shown []envelope.Field, sealed *envelope.Copy, leading bool) error {
	kept, added := sealed.OuterHeader(shown)
	value := func(f envelope.Field) string {
		if leading {
			return f.Value
		}
		return strings.TrimPrefix(f.Value, " ") // the MTA puts the space in itself
	}
	changed := changes(shown, kept)
	if len(changed) > maxChanges {
		return fmt.Errorf("more than %d header fields would have to be changed", maxChanges)
	}
	for _, c := range changed {
		if err := edit.ChangeHeader(c.index, c.name, value(c.to)); err != nil {
			return fmt.Errorf("changing a header field: %w", err)
		}
	}
	for _, f := range added {
		if err := edit.AddHeader(f.Name, value(f)); err != nil {
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

// change names a header field by its name and its place among those of that
// name, counted from 1, and says what it becomes: the zero Field takes it out.
type change struct {
	name  string
	index int
	to    envelope.Field
}

// changes lists the fields that do not stay as they are, the last first: Postfix
// counts anew after each removal, Sendmail does not, and from the bottom up both
// come to the same.
func changes(shown, kept []envelope.Field) (changed []change) {
	left := make(map[string]int)
	for _, f := range shown {
		left[strings.ToLower(f.Name)]++
	}
	for i := len(shown) - 1; i >= 0; i-- {
		name := strings.ToLower(shown[i].Name)
		if kept[i] != shown[i] {
			changed = append(changed, change{shown[i].Name, left[name], kept[i]})
		}
		left[name]--
	}
	return changed
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

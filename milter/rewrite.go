package milter

import (
	"fmt"
	"strings"

	"github.com/emersion/go-milter"

	"sealmilter/milter/envelope"
)

// marker is the field that says that the message was sealed here, for the eye
// and for mail filters behind the queue. Anyone can write it, so nothing is
// ever decided by it, and one that came with the message is taken out.
const (
	marker      = "X-Sealmilter"
	markerValue = " sealed"
)

// maxBodyChunk is the largest piece of a body that both MTAs take.
const maxBodyChunk = 65535

// rewrite turns the message that the MTA holds into the sealed one, in the
// order that Postfix and Sendmail both take: header, then body without
// anything between its pieces. An error may leave the work half done; the
// verdict that follows it keeps the message with its sender.
func rewrite(edit *milter.Modifier, shown []envelope.Field, sealed *envelope.Copy, leading bool) error {
	removed, hasVersion := removals(shown)
	for _, r := range removed {
		if err := edit.ChangeHeader(r.index, r.name, ""); err != nil {
			return fmt.Errorf("removing a header field: %w", err)
		}
	}
	fields := sealed.Fields()
	if !hasVersion {
		fields = append([]envelope.Field{{Name: "MIME-Version", Value: " 1.0"}}, fields...)
	}
	for _, f := range append(fields, envelope.Field{Name: marker, Value: markerValue}) {
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

// removals lists the fields that must not stay outside, the last first:
// Postfix counts anew after each removal, Sendmail does not, and from the
// bottom up both come to the same. A single sound MIME-Version stays.
func removals(shown []envelope.Field) (removed []removal, hasVersion bool) {
	count := make(map[string]int)
	for _, f := range shown {
		count[strings.ToLower(f.Name)]++
	}
	left := make(map[string]int, len(count))
	for name, n := range count {
		left[name] = n
	}
	for i := len(shown) - 1; i >= 0; i-- {
		name := strings.ToLower(shown[i].Name)
		index := left[name]
		left[name]--
		if name == "mime-version" && count[name] == 1 && strings.TrimSpace(shown[i].Value) == "1.0" {
			hasVersion = true
			continue
		}
		if inside(name) {
			removed = append(removed, removal{shown[i].Name, index})
		}
	}
	return removed, hasVersion
}

// inside says whether a field, named in lower case, is left in the payload
// only: what describes the body that was replaced, what signs it, and marks
// like our own.
func inside(name string) bool {
	return strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "arc-") ||
		name == "dkim-signature" || name == "mime-version" || name == strings.ToLower(marker)
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

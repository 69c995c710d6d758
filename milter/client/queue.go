package client

import (
	"bytes"
	"errors"
	"strings"

	"github.com/emersion/go-milter"
)

// Queued is what the MTA holds in its queue after the filter's edits.
type Queued struct {
	From       string
	Recipients []string // those that were accepted and not deleted, and those that were added
	Header     []Field  // without the Received field that the MTA itself puts on top
	Body       []byte   // with LF line ends, as in the queue of both MTAs
	Replaced   bool     // the body is the filter's
	Quarantine string   // the reason, where the filter asked for it

	// Missed are deletions that met no recipient. Both MTAs pass over them
	// without a word.
	Missed []string
}

// Bytes is the message as it is delivered, with LF line ends, but for the
// fields that the MTA itself adds.
func (q *Queued) Bytes() []byte {
	var b bytes.Buffer
	for _, f := range q.Header {
		b.WriteString(f.Name + ":" + f.Value + "\n")
	}
	b.WriteByte('\n')
	b.Write(q.Body)
	return b.Bytes()
}

// Values are the values of all fields of a name, without leading white space.
func (q *Queued) Values(name string) []string {
	var values []string
	for _, f := range q.Header {
		if strings.EqualFold(f.Name, name) {
			values = append(values, strings.TrimLeft(f.Value, " \t"))
		}
	}
	return values
}

// queue is a message while a filter edits it.
type queue struct {
	Queued
	negotiated milter.OptAction
	leadSpace  bool // the filter supplies the space behind the colon
	sendmail   bool
	fields     []entry
	chunks     []byte // the new body, as it came
	bodyOpen   bool   // the last frame was a body chunk
	bodyDone   bool   // something came behind a body chunk
}

// entry is a header field in the queue. The MTA's own Received field stands at
// the top and counts where a field is inserted, but not where one is changed:
// the filter was not shown it.
type entry struct {
	Field
	own     bool
	deleted bool
}

func newQueue(t *transaction) *queue {
	q := &queue{
		negotiated: t.Actions,
		leadSpace:  t.Protocol&milter.OptHeaderLeadingSpace != 0,
		sendmail:   t.opts.Sendmail,
		fields:     []entry{{Field: Field{"Received", " by " + t.opts.Hostname}, own: true}},
	}
	q.From = t.envelope.From
	for i, to := range t.envelope.To {
		// Where the filter accepted the message early, it was not asked about
		// those that came after.
		if i >= len(t.result.Recipients) || !t.result.Recipients[i].Refused() {
			q.Recipients = append(q.Recipients, to.Addr)
		}
	}
	for _, f := range t.message.Header {
		q.fields = append(q.fields, entry{Field: f})
	}
	q.Body = t.message.Body
	return q
}

// queued is the outcome.
func (q *queue) queued() *Queued {
	out := q.Queued
	for _, f := range q.fields {
		if !f.own && !f.deleted {
			out.Header = append(out.Header, f.Field)
		}
	}
	if q.Replaced {
		out.Body = q.chunks
	}
	out.Body = bytes.ReplaceAll(out.Body, []byte("\r\n"), []byte("\n"))
	// Postfix writes a new body line by line: the last one ends too.
	if q.Replaced && !bytes.HasSuffix(out.Body, []byte("\n")) {
		out.Body = append(out.Body, '\n')
	}
	return &out
}

// apply carries one edit out.
func (q *queue) apply(f Frame) (Edit, error) {
	e, err := parseEdit(f, q.negotiated)
	if err != nil {
		return e, err
	}
	if e.Code == milter.ActReplBody {
		return e, q.replaceBody(e.Body)
	}
	q.endBody()
	space := " "
	if q.leadSpace {
		space = ""
	}
	field := Field{e.Name, space + e.Value}
	switch e.Code {
	case milter.ActAddHeader:
		q.fields = append(q.fields, entry{Field: field})
	case milter.ActInsertHeader:
		q.insert(int(min(e.Index, 1<<30)), field)
	case milter.ActChangeHeader:
		q.change(int(e.Index), field, e.Value == "")
	case milter.ActAddRcpt, actAddRcptPar:
		q.Recipients = append(q.Recipients, bare(e.Value))
	case milter.ActDelRcpt:
		q.deleteRecipient(bare(e.Value))
	case milter.ActChangeFrom:
		q.From = bare(e.Value)
	case milter.ActQuarantine:
		q.Quarantine = e.Value
	}
	return e, nil
}

// replaceBody adds a chunk. In Postfix any other reply behind a chunk ends the
// new body, and a further chunk is a configuration error.
func (q *queue) replaceBody(chunk []byte) error {
	if q.bodyDone {
		return errors.New("something came between two body chunks")
	}
	q.bodyOpen, q.Replaced = true, true
	q.chunks = append(q.chunks, chunk...)
	return nil
}

// endBody notes that something other than a body chunk came.
func (q *queue) endBody() {
	q.bodyDone = q.bodyDone || q.bodyOpen
}

// insert puts a field at a position among all fields that are there, the MTA's
// own included: 0 is above it, 1 below.
func (q *queue) insert(index int, f Field) {
	at := 0
	for ; at < len(q.fields); at++ {
		if q.fields[at].deleted && !q.sendmail {
			continue
		}
		if index == 0 {
			break
		}
		index--
	}
	q.fields = append(q.fields[:at], append([]entry{{Field: f}}, q.fields[at:]...)...)
}

// change replaces or deletes the index-th field of a name. Where there is none,
// Postfix and Sendmail append a new one.
func (q *queue) change(index int, f Field, remove bool) {
	for i := range q.fields {
		e := &q.fields[i]
		if e.own || e.deleted && !q.sendmail || !strings.EqualFold(e.Name, f.Name) {
			continue
		}
		if index--; index > 0 {
			continue
		}
		e.deleted = remove
		if !remove {
			e.Field = f
		}
		return
	}
	if !remove {
		q.fields = append(q.fields, entry{Field: f})
	}
}

// deleteRecipient compares byte for byte, as Postfix does, and takes away every
// RCPT of that address.
func (q *queue) deleteRecipient(addr string) {
	kept := q.Recipients[:0:0]
	for _, r := range q.Recipients {
		if r != addr {
			kept = append(kept, r)
		}
	}
	if len(kept) == len(q.Recipients) {
		q.Missed = append(q.Missed, addr)
	}
	q.Recipients = kept
}

// bare takes the angle brackets off an address.
func bare(addr string) string {
	if inner, ok := strings.CutPrefix(addr, "<"); ok {
		return strings.TrimSuffix(inner, ">")
	}
	return addr
}

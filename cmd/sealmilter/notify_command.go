package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"text/template"
	"time"

	_ "embed"

	"github.com/spf13/cobra"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

//go:embed notify_message.tmpl
var defaultNotice string

func notifyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "notify",
		Short: "Warn the owners of keys that expire",
		Long: `notify sends a message to the owner of every active key that will expire within
30, 14, 7 and 1 days, and of one that has expired: one message each, sealed to
that very key. It is run once a day, by a timer, and again where it was stopped:
what was sent is noted in the store. A key that has a successor is not warned of.

The messages are from the address that from under [notify] names, and go out by
the command there. For keys of @DOMAIN they go to postmaster. What an
administrator should know is written to standard output.

Exit status 0: all that was due was sent; 75: some of it was not, or the key store
is away. Then it should be run again.`,
		Args: positional(cobra.NoArgs),
		RunE: runNotify,
	}
	command.Flags().Bool("dry-run", false, "say what would be sent, and send nothing")
	command.Flags().Bool("json", false, "write JSON, one object on each line")
	addActorFlag(command)
	return command
}

// notifyClock is the time that notify goes by. Tests have another one.
var notifyClock = time.Now

func runNotify(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	n := &notifier{cfg: cfg, now: notifyClock(), out: cmd.OutOrStdout(), progress: newProgress(cmd.ErrOrStderr(), "keys looked at"), send: sendMail}
	n.dryRun, _ = cmd.Flags().GetBool("dry-run")
	n.json, _ = cmd.Flags().GetBool("json")
	if err := cfg.needSender(); err != nil && !n.dryRun {
		return err
	}
	if err := cfg.needProgram(); err != nil && !n.dryRun {
		return err
	}
	if n.template, err = cfg.noticeTemplate(); err != nil {
		return err
	}
	return withStoreOf(cmd, cfg, func(ctx context.Context, st store) error {
		n.st = st
		err := n.run(ctx)
		n.progress.clear()
		fmt.Fprintln(cmd.ErrOrStderr(), n.summary())
		if err == nil && n.failed > 0 {
			return tryAgain("%d messages could not be sent", n.failed)
		}
		return err
	})
}

// noticeKeeper is a store as notify needs it.
type noticeKeeper interface {
	keys.Registry
	NoteWarning(ctx context.Context, id int64, warning keys.Warning) (first bool, err error)
	WarningsSent(ctx context.Context, id int64) ([]keys.Warning, error)
}

// notifier goes through the store once. It holds the keys of one account.
type notifier struct {
	cfg      Config
	now      time.Time
	dryRun   bool
	json     bool
	st       noticeKeeper
	template *template.Template
	out      io.Writer
	progress *progress
	send     func(ctx context.Context, command []string, message []byte) error

	sent, before, failed int
}

// run judges every account and sends what is due. That one message cannot be
// sent keeps no other back.
func (n *notifier) run(ctx context.Context) error {
	for rows, err := range perAccount(n.st.Keys(ctx, ""), n.progress.step) {
		if err != nil {
			return err
		}
		for _, notice := range judgeNotices(rows, n.now) {
			if err := n.treat(ctx, notice); err != nil {
				return err
			}
		}
	}
	return nil
}

// treat sends one notice, or tells the administrator. Its error is the store's:
// where that has gone, nothing more can be noted, and what cannot be noted must
// not be sent, or it would be every day.
func (n *notifier) treat(ctx context.Context, notice notice) error {
	if notice.kind == "" {
		return n.tell(notice, "told", "", notice.plain)
	}
	warning := keys.Warning{Kind: notice.kind, Expires: notice.key.Expires.Truncate(time.Second)}
	sent, err := n.st.WarningsSent(ctx, notice.row.ID)
	if err != nil {
		return err
	}
	if isSent(warning.Kind, warning.Expires, sent) {
		n.before++
		return nil
	}
	to, message, err := n.compose(notice)
	if err != nil { // that will be no other the next time
		notice.kind = ""
		return n.tell(notice, "told", to, "ends on "+notice.key.Expires.UTC().Format(time.DateOnly)+", and nobody can be warned: "+err.Error())
	}
	if n.dryRun {
		n.sent++
		return n.tell(notice, "would be sent", to, "")
	}
	// Whoever stops the program now must not have the message sent and not noted.
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := n.send(ctx, n.cfg.Notify.command(), message); err != nil {
		n.failed++
		return n.tell(notice, "failed", to, err.Error())
	}
	n.sent++
	if _, err := n.st.NoteWarning(ctx, notice.row.ID, warning); err != nil && !errors.Is(err, keys.ErrNoSuchKey) {
		return err
	}
	return n.tell(notice, "sent", to, "")
}

// compose writes the message to the owner of a key, sealed to it.
func (n *notifier) compose(notice notice) (to string, sealed []byte, err error) {
	if to = notice.row.Address; strings.HasPrefix(to, "@") {
		if to = n.cfg.Notify.Postmaster; to == "" {
			return "", nil, errors.New("name postmaster under [notify], to whom the keys of a whole domain are told")
		}
	}
	from := n.cfg.Notify.From
	if from == "" { // a dry run
		from = to
	}
	message, err := writeNotice(n.template, newNoticeFields(notice, from, n.now), to, n.now)
	if err != nil {
		return to, nil, err
	}
	var sealedText bytes.Buffer
	if err := message.sealToKey(&sealedText, notice.key, n.cfg.addressing(), n.now); err != nil {
		return to, nil, fmt.Errorf("sealing the message: %w", err)
	}
	return to, sealedText.Bytes(), nil
}

// noticeRecord is a notice as the command shows it. The JSON names are an
// interface: they are added to, never changed.
type noticeRecord struct {
	Action      string     `json:"action"` // sent, would be sent, failed or told
	Row         int64      `json:"row"`
	Address     string     `json:"address"`
	To          string     `json:"to,omitempty"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	Warning     string     `json:"warning,omitempty"` // days-30, days-14, days-7, days-1 or expired
	Expires     *time.Time `json:"expires,omitempty"`
	Text        string     `json:"text,omitempty"`
}

func (n *notifier) tell(notice notice, action, to, text string) error {
	r := noticeRecord{Action: action, Row: notice.row.ID, Address: notice.row.Address, To: to, Warning: notice.kind, Text: oneLine(text)}
	if notice.key != nil {
		r.Fingerprint, r.Expires = notice.key.Fingerprint, moment(notice.key.Expires)
	}
	n.progress.clear()
	if n.json {
		encoder := json.NewEncoder(n.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	line := fmt.Sprintf("row:%d %s %s: ", r.Row, printable(r.Address), orDash(r.Fingerprint))
	switch {
	case action == "told":
		line += "the key " + r.Text
	case text != "":
		line += action + ", " + r.Warning + ": " + r.Text
	default:
		line += fmt.Sprintf("%s to %s, %s: it ends on %s", action, printable(to), r.Warning, r.Expires.Format(time.DateOnly))
	}
	_, err := fmt.Fprintln(n.out, line)
	return err
}

func (n *notifier) summary() string {
	verb := "sent"
	if n.dryRun {
		verb = "would be sent"
	}
	return fmt.Sprintf("%d keys looked at: %d warnings %s, %d were sent before, %d failed", n.progress.done, n.sent, verb, n.before, n.failed)
}

// noticeFields are what a template can say. Their names are an interface:
// notify_message.tmpl documents them.
type noticeFields struct {
	Address     string
	Fingerprint string
	Plain       string // the fingerprint without blanks
	Subkeys     []string
	Kind        string
	Algorithm   string
	Expired     bool
	Expires     time.Time
	Days        int
	From        string
}

func newNoticeFields(n notice, from string, now time.Time) noticeFields {
	f := noticeFields{Address: n.row.Address, Fingerprint: grouped(n.key.Fingerprint), Plain: n.key.Fingerprint, Kind: "OpenPGP key", Algorithm: n.key.Algorithm,
		Expired: n.kind == warnedExpired, Expires: n.key.Expires.UTC(), Days: daysLeft(n.key.Expires, now), From: from}
	for _, public := range n.key.OpenPGPKeys(now) { // gpg's '*' would leave out what has expired
		if public.IsSubkey {
			f.Subkeys = append(f.Subkeys, fmt.Sprintf("%X", public.Fingerprint))
		}
	}
	if n.key.Method == keys.SMIME {
		f.Kind = "S/MIME certificate"
	}
	if f.Days < 0 {
		f.Days = -f.Days
	}
	return f
}

// maxTemplate is the most that a template may have, in bytes.
const maxTemplate = 1 << 20

// noticeTemplate reads the template that the configuration names, and tries it.
func (c *Config) noticeTemplate() (*template.Template, error) {
	text := defaultNotice
	if c.Notify.Template != "" {
		file, err := openRegular(c.Notify.Template)
		if err != nil {
			return nil, c.invalid("notify.template", "%s: %w", c.Notify.Template, err)
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, maxTemplate))
		if err != nil {
			return nil, c.invalid("notify.template", "%s: %w", c.Notify.Template, err)
		}
		text = string(data)
	}
	parsed, err := template.New("notice").Parse(strings.ReplaceAll(text, "\r\n", "\n"))
	for _, expired := range []bool{false, true} {
		if err == nil {
			sample := noticeFields{Address: "ann@example.org", Kind: "OpenPGP key", Expired: expired, Expires: time.Unix(0, 0).UTC(), Days: 7, From: "postmaster@example.org"}
			_, err = writeNotice(parsed, sample, "ann@example.org", time.Unix(0, 0))
		}
	}
	if err != nil {
		return nil, c.invalid("notify.template", "%w", err)
	}
	return parsed, nil
}

// ownFields are those that a template cannot say: they are made for every
// message, or would send it elsewhere.
var ownFields = []string{"from", "to", "cc", "bcc", "sender", "date", "message-id", "auto-submitted",
	"mime-version", "content-type", "content-transfer-encoding"}

// writeNotice makes the message of a template's text.
func writeNotice(t *template.Template, fields noticeFields, to string, now time.Time) (ownMessage, error) {
	var text bytes.Buffer
	if err := t.Execute(&text, fields); err != nil {
		return ownMessage{}, err
	}
	head, body, _ := strings.Cut(strings.TrimLeft(text.String(), "\n"), "\n\n")
	subject := ""
	var more []envelope.Field
	for line := range strings.Lines(head + "\n") {
		name, value, isField := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		name = strings.TrimSpace(name)
		switch {
		case !isField || !isFieldName(name):
			return ownMessage{}, fmt.Errorf("the line %q is no header field, and no empty line stands before it", oneLine(line))
		case strings.EqualFold(name, "Subject"):
			subject = strings.TrimSpace(value)
		case isOwnField(name):
			return ownMessage{}, fmt.Errorf("the field %s is not the template's to set", name)
		default:
			more = append(more, envelope.Field{Name: name, Value: " " + encodedValue(strings.TrimSpace(value))})
		}
	}
	if subject == "" {
		return ownMessage{}, errors.New("the template has no Subject")
	}
	header, err := ownHeader(fields.From, to, subject, now)
	if err != nil {
		return ownMessage{}, err
	}
	return ownMessage{append(append(header, more...), textFields...), body}, nil
}

// isFieldName says whether a field can be called so (RFC 5322, section 3.6.8).
func isFieldName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
}

func isOwnField(name string) bool {
	return slices.Contains(ownFields, strings.ToLower(name)) || strings.HasPrefix(strings.ToLower(name), "resent-")
}

// encodedValue is what a header can hold of a text (RFC 2047).
func encodedValue(text string) string { return mime.QEncoding.Encode("utf-8", oneLine(text)) }

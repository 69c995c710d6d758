package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"sealmilter/milter/envelope"
	"sealmilter/milter/reinject"
)

// Reinjection is how copies leave that cannot stay in their transaction.
//
// All of them are accepted by the target before the first edit of the original
// goes out; an error before that keeps the whole message with its sender, who
// tries again. What was accepted by then is remembered, so that nobody gets it
// twice, and is forgotten when the MTA has gone on. Between two queues nothing
// is exactly once (RFC 1047): what breaks off between the target's acceptance
// and our note of it is sent again. So is what the MTA gives up after our verdict
// without a word: to us that looks as if it had gone on.
type Reinjection struct {
	Target reinject.Target
	Copies Copies
	Secret []byte        // the same on all hosts that share Copies; at least 32 bytes
	Lease  time.Duration // how long the claim of a host that died keeps a retry waiting; 0: defaultLease
}

// reinject hands every copy that leaves to the target.
func (s *session) reinject(ctx context.Context, p plan) error {
	by := *s.message.settings.Reinjection
	groups := p.leave
	if by.Target.LMTP { // where each recipient is accepted or refused for itself
		groups = singly(groups)
	}
	var parcels []parcel
	for i, g := range groups {
		parcels = append(parcels, parcel{g, i + 1, len(groups)})
	}
	connections, err := by.dial(ctx, parcels)
	if err != nil {
		return err
	}
	for _, connection := range connections {
		defer connection.Close()
	}
	for some := range slices.Chunk(parcels, len(connections)) {
		if err := s.handOver(ctx, connections, some); err != nil {
			return err
		}
	}
	return nil
}

// singly makes a group of each recipient.
func singly(groups []group) (all []group) {
	for _, g := range groups {
		for _, r := range g.recipients {
			one := g
			one.recipients = []*recipient{r}
			all = append(all, one)
		}
	}
	return all
}

// send hands over one copy, its body along with those of others.
func (s *session) send(ctx context.Context, connection *reinject.Session, g group, part *part) error {
	m := s.message
	header, err := s.copyHeader(g)
	if err != nil {
		return err
	}
	message := reinject.Message{
		From:     withoutBrackets(m.from[0]),
		FromArgs: m.from[1:],
		Client:   s.hop(),
		Size:     int64(len(header)) + g.sealed.Size(len("\r\n")),
		Write: func(w io.Writer) error {
			if _, err := io.WriteString(w, header); err != nil {
				return err
			}
			return part.write(g.sealed, w)
		},
	}
	for _, r := range g.recipients {
		message.To = append(message.To, reinject.Recipient{Address: r.address, Args: r.args})
	}
	_, err = connection.Send(ctx, message)
	err = s.withoutAddresses(err)
	if errors.Is(err, reinject.ErrUnknown) {
		s.logMayDouble(g, err)
	}
	if err == nil {
		s.logReinjected(g)
	}
	return err
}

// quotedAddress matches an address as errors quote it.
var quotedAddress = regexp.MustCompile(`"(?:[^"\\]|\\.)*@(?:[^"\\]|\\.)*"`)

// withoutAddresses keeps addresses out of a log that names none, and what the
// target said, which may have them too.
func (s *session) withoutAddresses(err error) error {
	var refused *reinject.Refused
	switch {
	case err == nil || s.config().LogAddresses:
		return err
	case errors.Is(err, reinject.ErrUnknown):
		return reinject.ErrUnknown
	case errors.As(err, &refused):
		return fmt.Errorf("the server refused %s: %d %s", refused.Command, refused.Code, refused.Enhanced)
	}
	return errors.New(quotedAddress.ReplaceAllString(err.Error(), "an address"))
}

// copyHeader is the header of a copy: a trace field for the hop that the target
// cannot know of, the guard against loops, and what stays of the original.
func (s *session) copyHeader(g group) (string, error) {
	m := s.message
	guard, err := newGuard(m.settings.Reinjection.Secret, g.recipients, time.Now())
	if err != nil {
		return "", err
	}
	fields := []envelope.Field{{Name: guardField, Value: " " + guard}}
	if received := s.received(time.Now()); received != "" {
		fields = slices.Insert(fields, 0, envelope.Field{Name: "Received", Value: " " + received})
	}
	kept, added := g.sealed.OuterHeader(m.header)
	var header strings.Builder
	for _, f := range slices.Concat(fields, kept, added) {
		if f.Name == "" {
			continue
		}
		header.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\n", "\r\n") + "\r\n")
	}
	return header.String() + "\r\n", nil
}

// received is a trace field (RFC 5321, section 4.4) for the client: the MTA's
// own is not shown to a milter, and so stands in the original only. It is empty
// for local submission, which the target's own field describes.
func (s *session) received(now time.Time) string {
	hop := s.hop()
	if hop.Local || !hop.Addr.IsValid() {
		return ""
	}
	address := hop.Addr.String()
	if hop.Addr.Is6() {
		address = "IPv6:" + address
	}
	return fmt.Sprintf("from %s (%s [%s])\n\tby %s (sealmilter) with %s id %s;\n\t%s",
		traceable(hop.Helo), traceable(hop.Name), address, traceable(s.conn.macro("j")), hop.Protocol, traceable(hop.QueueID), now.Format(time.RFC1123Z))
}

// maxTraced is how much of a name stands in a trace field, in octets: as long as
// a domain can be (RFC 1035, section 2.3.4).
const maxTraced = 255

// traceable is what a client said, as far as it can stand in a trace field.
func traceable(said string) string {
	clean := strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7F || strings.ContainsRune("()<>\\;", r) {
			return -1
		}
		return r
	}, said)
	if clean == "" {
		return "unknown"
	}
	return clean[:min(len(clean), maxTraced)]
}

// hop is the client, as the MTA told of it.
func (s *session) hop() reinject.Client {
	protocol := "ESMTP"
	if s.conn.macro("tls_version") != "" {
		protocol += "S"
	}
	if s.message.facts.Authenticated {
		protocol += "A"
	}
	return reinject.Client{
		Name: s.clientName, Addr: s.client, Port: s.clientPort, Helo: s.helo,
		Protocol: protocol, QueueID: s.conn.macro("i"), Local: s.message.local,
	}
}

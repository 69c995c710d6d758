package reinject

import (
	"fmt"
	"strconv"
	"strings"
)

// maxAttribute is the length of an attribute's value before its encoding, which
// Postfix limits to 255 bytes. A client may call itself anything in HELO, and
// is not to make a message fail by that.
const maxAttribute = 255

// unavailable stands for what is not known.
const unavailable = "[UNAVAILABLE]"

// forward tells the server where the message came from, in XFORWARD as Postfix
// describes it: before each message, as Postfix forgets it at the end of one.
// A server that refuses it logs us for the client, and that is no reason to hold
// the message up; Postfix itself takes it so.
func (s *Session) forward(c Client) (bool, error) {
	_, offered := s.client.Extension("XFORWARD")
	lines := c.xforward(strings.Fields(offered))
	all := len(lines) > 0
	for _, line := range lines {
		reply, err := s.ask(line)
		if err == nil && reply.Code == 421 {
			err = &Refused{Command: "XFORWARD", Reply: reply}
		}
		if err != nil {
			return false, fmt.Errorf("XFORWARD: %w", err)
		}
		all = all && reply.positive()
	}
	return all, nil
}

// xforward are the commands, two as in Postfix, so that none is longer than
// Postfix reads: one says who the client is, the other what came from it.
func (c Client) xforward(offered []string) []string {
	values := map[string]string{
		"NAME": c.name(), "ADDR": c.address(), "PORT": "", "PROTO": c.Protocol,
		"HELO": c.Helo, "IDENT": c.QueueID, "SOURCE": "REMOTE",
	}
	if c.Port != 0 {
		values["PORT"] = strconv.Itoa(int(c.Port))
	}
	if c.Local {
		values["SOURCE"] = "LOCAL"
	}
	var lines [2]string
	for _, name := range offered {
		name = strings.ToUpper(name)
		value, known := values[name]
		if !known {
			continue
		}
		delete(values, name) // once, however often it is offered
		which := 1
		if name == "NAME" || name == "ADDR" || name == "PORT" {
			which = 0
		}
		lines[which] += " " + name + "=" + xtext(value)
	}
	var commands []string
	for _, line := range lines {
		if line != "" {
			commands = append(commands, "XFORWARD"+line)
		}
	}
	return commands
}

// name is the client's. A filter is shown "[192.0.2.1]" where there is none, and
// Postfix would refuse the whole command for that.
func (c Client) name() string {
	if strings.HasPrefix(c.Name, "[") {
		return ""
	}
	return c.Name
}

// address is the client's as Postfix writes it, IPv6 with its prefix. One whose
// inet_protocols has no ipv6 refuses such an address.
func (c Client) address() string {
	switch addr := c.Addr.Unmap().WithZone(""); {
	case !addr.IsValid():
		return ""
	case addr.Is6():
		return "IPv6:" + addr.String()
	default:
		return addr.String()
	}
}

// xtext encodes a value (RFC 3461, section 4), so that it is one word whatever
// bytes are in it.
func xtext(value string) string {
	if value == "" {
		return unavailable
	}
	value = value[:min(len(value), maxAttribute)]
	var out strings.Builder
	for i := range len(value) {
		if c := value[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "+%02X", c)
		}
	}
	return out.String()
}

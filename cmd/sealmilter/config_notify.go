package main

import (
	"net/mail"
	"os/exec"
	"strings"
)

// NotifyConfig is how the owners of keys are told of their keys' end.
type NotifyConfig struct {
	From       string   `toml:"from"`
	Postmaster string   `toml:"postmaster"`
	Command    textList `toml:"command"`
	Template   string   `toml:"template"`
}

// defaultSendmail is where every MTA has a program of that name.
const defaultSendmail = "/usr/sbin/sendmail -t -i"

func defaultNotifyConfig() NotifyConfig { return NotifyConfig{Command: textList{defaultSendmail}} }

// validateNotify checks how messages leave. That nobody is named to send them is
// an error for those commands only that send some.
func (c *Config) validateNotify() error {
	n := c.Notify
	if _, err := mail.ParseAddress(n.From); err != nil && n.From != "" {
		return c.invalid("notify.from", "%q is no sender, expected ADDRESS or NAME <ADDRESS>", n.From)
	}
	if n.Postmaster != "" {
		if err := checkAddress(n.Postmaster); err != nil {
			return c.invalid("notify.postmaster", "%q is no address: %w", n.Postmaster, err)
		}
	}
	if command := n.command(); len(command) == 0 || !strings.HasPrefix(command[0], "/") {
		return c.invalid("notify.command", "it names no program, expected a whole path and its arguments, such as %q", defaultSendmail)
	}
	if n.Template != "" && !strings.HasPrefix(n.Template, "/") {
		return c.invalid("notify.template", "%q is no absolute path", n.Template)
	}
	return nil
}

// command is the program and its arguments. One text is taken apart at its
// blanks; where an argument has one, a list says so.
func (n NotifyConfig) command() []string {
	if len(n.Command) == 1 {
		return strings.Fields(n.Command[0])
	}
	return n.Command
}

// needSender is the error where messages are to be sent and nobody sends them.
func (c *Config) needSender() error {
	if c.Notify.From == "" {
		return c.invalid("notify.from", "it names nobody that messages come from, expected an address such as \"postmaster@example.org\"")
	}
	return nil
}

// needProgram is the error where messages are to be sent and the program is not
// there that takes them: to try again does not bring it. The daemon does without.
func (c *Config) needProgram() error {
	if _, err := exec.LookPath(c.Notify.command()[0]); err != nil {
		return c.invalid("notify.command", "%w", err)
	}
	return nil
}

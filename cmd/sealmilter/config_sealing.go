package main

import (
	"sealmilter/milter/envelope"
	"sealmilter/policy"
)

// SealingConfig is how messages are sealed, where a key or an account has not
// chosen.
type SealingConfig struct {
	HeaderProtection     string `toml:"header_protection"`
	HiddenRecipients     bool   `toml:"hidden_recipients"`
	OAEP                 bool   `toml:"oaep"`
	SubjectKeyIdentifier bool   `toml:"subject_key_identifier"`
}

// protectionOff is what the configuration calls a header that is not protected.
const protectionOff = "off"

// makeProtection puts the site's header protection into the policy.
func (c *Config) makeProtection() error {
	protection, err := policy.ParseProtection(c.Sealing.HeaderProtection)
	if err != nil {
		return c.invalid("sealing.header_protection", "%w", err)
	}
	c.policy.Settings.Protection = &protection
	return nil
}

// addressing is how the readers of a message are named in it.
func (c *Config) addressing() envelope.Addressing {
	return envelope.Addressing{
		Hidden:       c.Sealing.HiddenRecipients,
		OAEP:         c.Sealing.OAEP,
		SubjectKeyID: c.Sealing.SubjectKeyIdentifier,
	}
}

// spool is where messages wait for their end.
func (c *Config) spool() envelope.Spool {
	return envelope.Spool{Dir: c.Spool.Directory, Memory: int64(c.Spool.Memory), Budget: envelope.NewBudget(int64(c.Spool.Total))}
}

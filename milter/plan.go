package milter

import (
	"slices"

	"sealmilter/policy"
)

// admits says whether one more recipient can share the transaction. A message
// that is sealed goes to one recipient; those whose copy stays as it is go
// together. The others are asked for apart: 452 at RCPT makes the sender keep
// them for a transaction of their own (RFC 5321, section 4.5.3.1.10).
func (m *message) admits(r *recipient) bool {
	if r.decision.Outcome != policy.Seal {
		return len(m.sealed()) == 0
	}
	return !slices.ContainsFunc(m.recipients, func(other *recipient) bool {
		return other.address != r.address
	})
}

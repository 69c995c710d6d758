package milter

import "slices"

// admits says whether one more recipient can share the transaction. A message
// that may be sealed, or refused for what is still to be seen of it, goes to
// one recipient; those whose copy stays as it is go together. The others are
// asked for apart: 452 at RCPT makes the sender keep them for a transaction of
// their own (RFC 5321, section 4.5.3.1.10).
func (m *message) admits(r *recipient) bool {
	return !slices.ContainsFunc(m.recipients, func(other *recipient) bool {
		return !(r.passes() && other.passes()) && other.address != r.address
	})
}

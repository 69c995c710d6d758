// Package messages gives the program the message that its demonstration
// seals. The other messages here are read by tests.
package messages

import _ "embed"

// Multipart is a mail with an alternative text and an attachment, line ends
// LF, as it would lie in a mail folder.
//
//go:embed multipart.eml
var Multipart []byte

// Package milter is the filter: it speaks the milter protocol with Postfix or
// Sendmail, follows each message from MAIL to the end of its data, and
// replaces the body of what is due to be sealed.
//
// The files stand in the order in which a message meets them: wire.go reads
// frames, server.go accepts connections, session.go takes the commands,
// message.go is what is known of one message, plan.go says which recipients
// share it, rewrite.go turns the message in the MTA's queue into the sealed
// one.
//
// github.com/emersion/go-milter serves the commands. What it leaves open is
// closed around it: it negotiates without looking at the MTA's offer, drops
// ESMTP arguments, sets no deadlines and does not send progress, so each
// connection has a server of its own over a conn of ours.
package milter

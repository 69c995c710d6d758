package keys

import (
	"errors"
	"time"
)

// A message that is split leaves in several copies, each accepted by the
// re-injection server before the original transaction is edited. Whatever
// fails in between, the sender is told 451 and comes again, and whoever had a
// copy by then must not get a second one. So the stores remember the copies in
// flight: a keyed hash of each, made by the daemon, with no address and nothing
// of the message.
//
// One transaction claims all its copies at once, under a name of its own, the
// owner, and until a time, the lease. A second transaction with one of them
// (the sender has lost patience and comes again, or two hosts have the same
// message) gets none, and waits. While the claim holds, what has been accepted
// is noted; when the MTA has gone on, all is forgotten, so that an equal
// message that comes later is a message of its own. What a transaction left
// behind that did not end well stays, for the retry to find, and so does what
// a daemon left that died: its claim is free when the lease is over.

// CopyHashSize is the length of the hash that a copy is remembered by.
const CopyHashSize = 32

// CopiesKept is how long a copy stays remembered after its last claim has
// ended: longer than any queue keeps a message and tries again. What is older
// counts for nothing, whether it has been purged or not.
const CopiesKept = 8 * 24 * time.Hour

// ErrBusy is in the chain of an error that says that another owner's claim on
// a copy is alive. Nothing has been claimed, and the message waits.
var ErrBusy = errors.New("another transaction has the same copy in flight")

// ErrClaimLost is in the chain of an error that says that the owner's claim is
// over: the lease has run out, and another may have taken the copies. A copy
// that was accepted is noted all the same, where its entry is still there,
// since that is the truth whoever claims it.
var ErrClaimLost = errors.New("the claim on a copy in flight is lost")

// Package keys holds what mail is sealed to: the recipients' OpenPGP keys,
// how they are read from what an administrator or a user hands in, and how a
// Store answers which of them belong to an address.
//
// The words are those of the store's tables. An account is one mailbox owner
// with choices of their own (enabled, method, cipher); it has any number of
// keys. The account of a domain, "@example.org", is for whoever has no key of
// their own there. An alias leads to one account or, a group, to several.
package keys

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"time"
)

// Method is the format in which mail is sealed.
type Method string

// The methods that an account may choose. The empty Method is no choice.
const (
	OpenPGP Method = "openpgp" // PGP/MIME, RFC 3156
	SMIME   Method = "smime"   // S/MIME, RFC 8551
)

// Cipher is the symmetric cipher that the message itself is sealed with.
type Cipher string

// The ciphers that an account may choose.
const (
	AES256 Cipher = "aes256"
	AES128 Cipher = "aes128"
)

// ErrStore is in the chain of every error that means "the store did not
// answer", as opposed to "the store answered that there is no key". Whoever
// meets it defers the message; nobody may take it for an absent key.
var ErrStore = errors.New("key store did not answer")

// Row is one row of a store's answer: one key of one account for one address
// asked. Its fields are the columns of recipient_keys(text[]), which are
// frozen: what comes later goes into Options.
type Row struct {
	Address string          // the address asked, byte for byte as it was asked
	Account string          // the account or alias end that it leads to, "" where it leads nowhere
	Known   bool            // whether Account is an account; false at an alias end that nobody is enrolled under (enabled is NULL)
	Enabled bool            // the account's own switch, and that of its domain
	Method  Method          // the account's choice, "" where it made none
	Cipher  Cipher          // the account's choice, "" where it made none
	Key     string          // one or more keys as they were enrolled, "" where the account has none
	Options json.RawMessage // further choices, a JSON object or nil; under "key" those for the keys of this row, see KeyOptions
}

// Store answers which keys belong to an address. It is all that the daemon
// asks of a database.
type Store interface {
	// RecipientKeys asks for all addresses in one query. The answer holds at
	// least one row for every address, with an empty Key where none is
	// enrolled; its order means nothing. Addresses are matched without regard
	// to the case of ASCII letters. An error wraps ErrStore.
	//
	// An address is asked by its name alone: the store knows nothing of
	// delimiters, nor that "@example.org" may stand for ann@example.org. Where
	// the name is an alias, the rows are those of all ends it leads to, over
	// any number of aliases; where a circle of them has no end, the one row has
	// the name itself for Account and Options {"circle": true}. An end that
	// begins with "@" keeps the local part: it is followed no further, and
	// whoever asked puts the local part before it.
	RecipientKeys(ctx context.Context, addresses []string) ([]Row, error)
	// Close gives back the store's connections.
	Close()
}

// Alias is one way of an alias, as its administrator sees it.
type Alias struct {
	Address string // what mail is addressed to; "@example.org" is whatever has no other entry there
	Target  string // an address, another alias, or "@example.net": the same local part there
}

// Aliases is a store as the administrator's alias commands use it.
type Aliases interface {
	// AddAlias lets address lead to target too. That it does already is no
	// error.
	AddAlias(ctx context.Context, address, target string) error
	// RemoveAlias takes one way of an alias off, or all where target is empty,
	// and returns how many those were.
	RemoveAlias(ctx context.Context, address, target string) (removed int, err error)
	// Aliases lists the ways of one alias, or of all where address is empty,
	// ordered by address and target, without holding them all in memory.
	Aliases(ctx context.Context, address string) iter.Seq2[Alias, error]
}

// Choices are an account without its keys.
type Choices struct {
	Address string
	Enabled bool
	Method  Method          // "" for no choice
	Cipher  Cipher          // never ""
	Options json.RawMessage // a JSON object; see Options
	Created time.Time       // set by the store
}

// ErrNoSuchAccount is returned where nobody is enrolled under an address.
var ErrNoSuchAccount = errors.New("no such account")

// Accounts is a store as the administrator's account commands use it.
type Accounts interface {
	// Account returns the choices of the account at address. The error is
	// ErrNoSuchAccount where there is none.
	Account(ctx context.Context, address string) (Choices, error)
	// SetAccount stores choices for the account at their Address, and makes it
	// where there is none. An empty Cipher is AES256, nil Options are none.
	SetAccount(ctx context.Context, choices Choices) error
	// WithOptions lists the accounts that have options, ordered by address,
	// without holding them all in memory.
	WithOptions(ctx context.Context) iter.Seq2[Choices, error]
}

// KeyState is what has become of a key since it was enrolled.
type KeyState string

// The states of a key in the store.
const (
	KeyPending KeyState = "pending" // nobody has shown yet that they can read what is sealed to it
	KeyActive  KeyState = "active"
	KeyRetired KeyState = "retired" // not sealed to any more; its owner still counts as enrolled
	KeyRevoked KeyState = "revoked" // withdrawn, as if its holder had revoked it
)

// NewKey is a key to be enrolled.
type NewKey struct {
	Address     string
	Key         string // as Row has it
	Options     KeyOptions
	State       KeyState // "" is KeyActive
	Fingerprint string   // "" where nobody has read the key
}

// Enrolled is a key as its administrator sees it.
type Enrolled struct {
	ID          int64
	Address     string // the account's address
	Key         string // as it was enrolled: armored, PEM, or base64 of a binary key
	Added       time.Time
	Enabled     bool
	Method      Method
	Cipher      Cipher
	Options     KeyOptions // of the keys in this entry
	State       KeyState
	StateSince  time.Time
	Fingerprint string          // "" until somebody has read the key as it is now
	Problem     string          // what was found when the key was last checked, "" for nothing
	Checked     time.Time       // when that was; zero: never
	Chosen      json.RawMessage // what Options were read from, with whatever else stands there
}

// ErrNoSuchKey is returned where a key to be changed or removed is not in the
// store.
var ErrNoSuchKey = errors.New("no such key")

// Registry is a store as the administrator's commands use it. It does not
// look into keys: whoever adds one has parsed it.
type Registry interface {
	// AddKey enrols a key, creates the account where there is none, and returns
	// the key's number.
	AddKey(ctx context.Context, key NewKey) (id int64, err error)
	// SetKeyOptions gives a key these options in the place of those it has. The
	// error is ErrNoSuchKey where there is no key of that number.
	SetKeyOptions(ctx context.Context, id int64, options KeyOptions) error
	// Keys lists the keys of the account at address, or every key where
	// address is empty, ordered by address and number, without holding them
	// all in memory.
	Keys(ctx context.Context, address string) iter.Seq2[Enrolled, error]
	// RemoveKey removes one key. The account and its choices stay. The error
	// is ErrNoSuchKey where there is no key of that number.
	RemoveKey(ctx context.Context, id int64) error
}

// How the owner's proof may fail. Ten wrong answers are the end of a challenge;
// the key can be challenged anew.
var (
	ErrNotPending       = errors.New("the key is not waiting to be confirmed")
	ErrWrongAnswer      = errors.New("this is not what was sealed to the key")
	ErrChallengeExpired = errors.New("nothing was sealed to the key, or the answer comes too late")
	ErrTooManyTries     = errors.New("too many wrong answers")
)

// ChallengeSize is the length of the hash that a challenge is remembered by:
// SHA-256 of a nonce.
const ChallengeSize = 32

// Lifecycle is a store as those use it who replace keys and let owners prove
// that they can read.
type Lifecycle interface {
	// SetKeyState brings a key into a state, from any other. The error is
	// ErrNoSuchKey where there is no key of that number.
	SetKeyState(ctx context.Context, id int64, state KeyState) error
	// Rotate enrols an active key and retires the account's other active keys of
	// the same method, at once. It returns the numbers of the new key and of
	// those retired.
	Rotate(ctx context.Context, key NewKey) (id int64, retired []int64, err error)
	// Challenge notes the hash of a nonce that has been sealed to a pending key,
	// in the place of an earlier one. The error may be ErrNotPending.
	Challenge(ctx context.Context, id int64, nonceHash []byte, until time.Time) error
	// Confirm makes a pending key active whose nonce has come back. Alone, it
	// retires the others as Rotate does. The error may be ErrNotPending,
	// ErrWrongAnswer, ErrChallengeExpired or ErrTooManyTries.
	Confirm(ctx context.Context, id int64, nonceHash []byte, alone bool) error
}

// Findings is what the commands that look at keys from time to time note of
// them.
type Findings interface {
	// NoteKey notes what somebody who can parse a key has seen in its text: its
	// fingerprint, and a problem, each empty for none. The error is ErrNoSuchKey
	// where the key has another text by now.
	NoteKey(ctx context.Context, id int64, text, fingerprint, problem string) error
	// NoteWarning notes that a warning of a key's end is sent, and says whether
	// it had not been before: of several hosts, one sends it.
	NoteWarning(ctx context.Context, id int64, warning Warning) (first bool, err error)
	// WarningsSent are the warnings that were sent for a key, the oldest first.
	WarningsSent(ctx context.Context, id int64) ([]Warning, error)
}

// Warning is one warning of a key's end. A key that is prolonged has another
// end, and is warned of again.
type Warning struct {
	Kind    string    // one of the commands' own names
	Expires time.Time // in whole seconds
}

// Event is one thing that was done to accounts, keys or aliases.
type Event struct {
	ID          int64
	At          time.Time
	Who         string // the Actor that the store was opened for, or the role; "" where the store cannot know
	Action      string // as "key added"
	Address     string
	KeyID       int64           // 0 where it is about no key
	Fingerprint string          // "" where it was not known; Detail has the SHA-256 of the key's text then
	Detail      json.RawMessage // a JSON object; what was changed is [before, after]
}

// Journal is what was done, by whom and when. The stores write it themselves,
// whichever way a change comes in; nothing else changes it.
type Journal interface {
	// Events lists the events of an address, or all where it is empty, newest
	// first, without holding them all in memory.
	Events(ctx context.Context, address string) iter.Seq2[Event, error]
	// ForgetEvents deletes the events before a time and returns how many those
	// were. That it did is an event.
	ForgetEvents(ctx context.Context, before time.Time) (forgotten int64, err error)
}

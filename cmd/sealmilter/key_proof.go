package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
)

// Whoever brings a key shows that they can read what is sealed to it: a nonce
// goes out in a message sealed to that key alone, and has to come back. The store
// keeps the hash of it, and counts how often something else came back. This is
// all that there is to it, wherever it is asked from.

// nonceSymbols are Crockford's: no letter of them looks like a digit.
const nonceSymbols = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// A nonce has 20 symbols of five bits each, written in groups.
const (
	nonceLength = 20
	nonceGroup  = 4
)

// newNonce makes a nonce, as "7K2M-…".
func newNonce() string {
	var random [nonceLength]byte
	rand.Read(random[:]) // never fails
	var text strings.Builder
	for i, octet := range random {
		if i > 0 && i%nonceGroup == 0 {
			text.WriteByte('-')
		}
		text.WriteByte(nonceSymbols[octet%byte(len(nonceSymbols))]) // 32 of them: all alike
	}
	return text.String()
}

// errNoNonce says that a text cannot be a nonce, so that nobody's try is counted.
var errNoNonce = errors.New("this is no code as it was sent: it has 20 letters and digits, in five groups")

// parseNonce reads a nonce as a person copies it: in any case, with any blanks
// and hyphens, with letters for the digits that they look like.
func parseNonce(text string) (string, error) {
	var nonce []byte
	for _, r := range strings.ToUpper(text) {
		switch r {
		case ' ', '-', '\t', '\r', '\n', '\u00a0', '\u2010', '\u2011', '\u2013':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		if !strings.ContainsRune(nonceSymbols, r) {
			return "", errNoNonce
		}
		nonce = append(nonce, byte(r))
	}
	if len(nonce) != nonceLength {
		return "", errNoNonce
	}
	return string(nonce), nil
}

// hashNonce is what the store knows of a nonce that parseNonce has read. It has
// 100 bits, so that nobody finds it by its hash, and none for another key is
// like it.
func hashNonce(nonce string) [sha256.Size]byte {
	return sha256.Sum256([]byte("sealmilter key proof 1\n" + nonce))
}

// challengeMessage is what goes to the owner of a pending key.
type challengeMessage struct {
	from, to string
	key      *keys.Key
	nonce    string
	until    time.Time
	now      time.Time
	advice   string // what is to be done with the nonce
}

// message is the message before it is sealed. What stands in its header is seen
// by whoever carries it, and tells nothing of the nonce.
func (c challengeMessage) message() (ownMessage, error) {
	header, err := ownHeader(c.from, c.to, "Please confirm your key for encrypted mail", c.now)
	if err != nil {
		return ownMessage{}, err
	}
	body := fmt.Sprintf(`Somebody, you we hope, wants mail for

  %s

to be encrypted to this key from now on:

  %s (%s)

It counts only when you have shown that you can read with it. You can: this
message was encrypted to it. The code is

  %s

%s
The code is good until %s.

If it was not you, do nothing: the key is not used then.
`, printable(c.to), grouped(c.key.Fingerprint), c.key.Algorithm, c.nonce, c.advice, c.until.UTC().Format("2006-01-02 15:04 MST"))
	return ownMessage{append(header, textFields...), body}, nil
}

// begin seals the message, and lets the store know of the challenge before
// anybody has it.
func (c challengeMessage) begin(ctx context.Context, st keys.Lifecycle, id int64, cfg Config) ([]byte, error) {
	nonce, err := parseNonce(c.nonce)
	if err != nil {
		return nil, err
	}
	message, err := c.message()
	if err != nil {
		return nil, failure("writing the message: %w", err)
	}
	var sealed bytes.Buffer
	if err := message.sealToKey(&sealed, c.key, cfg.addressing(), c.now); err != nil {
		return nil, failure("sealing the message to key %s: %w", c.key.Fingerprint, err)
	}
	hash := hashNonce(nonce)
	if err := st.Challenge(ctx, id, hash[:], c.until); err != nil {
		return nil, proofError(err)
	}
	return sealed.Bytes(), nil
}

// proofError is the store's answer, unless it did not answer.
func proofError(err error) error {
	for _, said := range []error{keys.ErrNotPending, keys.ErrWrongAnswer, keys.ErrChallengeExpired, keys.ErrTooManyTries, keys.ErrNoSuchKey} {
		if errors.Is(err, said) {
			return failure("%w", said)
		}
	}
	return err
}

// textFields say what the body is. They are sealed with it.
var textFields = []envelope.Field{
	{Name: "MIME-Version", Value: " 1.0"},
	{Name: "Content-Type", Value: " text/plain; charset=utf-8"},
	{Name: "Content-Transfer-Encoding", Value: " 8bit"},
}

// grouped writes a fingerprint so that it can be compared.
func grouped(fingerprint string) string {
	var groups []string
	for len(fingerprint) > 4 {
		groups, fingerprint = append(groups, fingerprint[:4]), fingerprint[4:]
	}
	return strings.Join(append(groups, fingerprint), " ")
}

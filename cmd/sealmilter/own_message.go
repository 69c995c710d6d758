package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/mail"
	"os/exec"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"sealmilter/milter/envelope"
)

// ownHeader is the header of a message that this program writes.
func ownHeader(from, to, subject string, now time.Time) ([]envelope.Field, error) {
	sender, err := mail.ParseAddress(from)
	if err != nil {
		return nil, fmt.Errorf("%q is no sender, expected ADDRESS or NAME <ADDRESS>", from)
	}
	recipient, err := headerAddress(to)
	if err != nil {
		return nil, err
	}
	domain := sender.Address[strings.LastIndexByte(sender.Address, '@')+1:]
	return []envelope.Field{
		{Name: "From", Value: " " + sender.String()},
		{Name: "To", Value: " " + recipient},
		{Name: "Subject", Value: " " + encodedValue(subject)},
		{Name: "Date", Value: " " + now.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700")},
		{Name: "Message-ID", Value: " <" + strings.ToLower(rand.Text()) + "@" + domain + ">"},
		{Name: "Auto-Submitted", Value: " auto-generated"}, // RFC 3834: nobody's vacation notice answers it
	}, nil
}

// headerAddress writes an account's address for a header: a local part with
// quotes where it needs them, and the domain in ASCII, so that no more than the
// local part can ask for SMTPUTF8. Anybody may have written it into the store.
func headerAddress(address string) (string, error) {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || len(address) > maxAddress || !utf8.ValidString(address) || strings.ContainsFunc(address, unicode.IsControl) {
		return "", fmt.Errorf("%q is no address to send to", address)
	}
	domain := address[at+1:]
	if err := checkDomain(domain); err != nil {
		return "", fmt.Errorf("%q is no address to send to: %w", address, err)
	}
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	spelled := (&mail.Address{Address: address[:at] + "@" + domain}).String()
	return strings.Trim(spelled, "<>"), nil
}

// sendTimeout is how long the local MTA may take to take one message.
const sendTimeout = time.Minute

// sendMail hands a message to the local MTA's program, which reads the
// recipients from its header. No shell comes between.
func sendMail(ctx context.Context, command []string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	sender := exec.CommandContext(ctx, command[0], command[1:]...)
	sender.Stdin = bytes.NewReader(message)
	sender.WaitDelay = time.Second
	said, err := sender.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s did not take the message within %s", command[0], sendTimeout)
	}
	if text := oneLine(string(said)); text != "" {
		return fmt.Errorf("%s: %w: %.300s", command[0], err, text)
	}
	return errors.New(command[0] + ": " + err.Error())
}

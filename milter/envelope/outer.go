package envelope

import (
	"strings"

	"sealmilter/keys"
)

// marker is the field that says that the message was sealed here, for the eye
// and for mail filters behind the queue. Anyone can write it, so nothing is
// ever decided by it, and one that came with the message is taken out.
var marker = Field{"X-Sealmilter", " sealed"}

// OuterHeader is the header of the sealed message: kept has for each field that
// was shown what becomes of it, the same field, the field with another value,
// or the zero Field where it is taken out; and behind them stand the added ones.
// What describes the body that was replaced, what signs it, and marks like our
// own are in the payload only, and so is what header protection hides. A single
// sound MIME-Version field stays.
func (c *Copy) OuterHeader(shown []Field) (kept, added []Field) {
	kept = outer(shown, c.protection)
	hasVersion := false
	for _, f := range kept {
		hasVersion = hasVersion || isVersion(f)
	}
	if !hasVersion {
		added = append(added, Field{"MIME-Version", " 1.0"})
	}
	return kept, append(append(added, c.fields...), marker)
}

// outer is what becomes of each field outside. The payload's HP-Outer fields are
// made of it too, so that they never tell of another header than the one that
// stands there.
func outer(shown []Field, protection keys.HeaderProtection) []Field {
	versions := 0
	for _, f := range shown {
		if isVersion(f) {
			versions++
		}
	}
	kept := make([]Field, len(shown))
	subjects := 0
	for i, f := range shown {
		name := fieldName(f)
		switch {
		case isVersion(f):
			if versions == 1 && strings.TrimSpace(f.Value) == "1.0" {
				kept[i] = f
			}
		case inside(name):
		case protection == keys.NoProtection:
			kept[i] = f
		case name == "subject":
			// The one that is there becomes the words that every reader of
			// RFC 9788 knows (section 3.2.1); where none is, none is made up.
			if subjects++; subjects == 1 {
				kept[i] = Field{f.Name, hiddenSubject}
			}
		case hidden(name):
		case protection == keys.Shy:
			kept[i] = shy(f, name)
		default:
			kept[i] = f
		}
	}
	return kept
}

func isVersion(f Field) bool { return fieldName(f) == "mime-version" }

// inside says whether a field, named in lower case, is left in the payload.
func inside(name string) bool {
	return strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "arc-") ||
		name == "dkim-signature" || strings.HasPrefix(name, strings.ToLower(marker.Name)) || quotesText(name)
}

// quotesText says whether a field, named in lower case, quotes the message, as
// filters on the way make them. Outside it would be plaintext in the store,
// whether or not the header is protected. SpamAssassin's report has the first
// lines of the text; X-Spam-Report, Exim's X-Spam_report and cPanel's X-Ham-Report
// are the names it goes by, the last of them on mail that is no spam. DSPAM and
// SpamBayes list the words that they went by. X-Amavis-Alert names attachments,
// and quotes a field that it finds a fault with, a subject that is not in ASCII
// for one.
func quotesText(name string) bool {
	switch name {
	case "x-spam-report", "x-spam_report", "x-ham-report", "x-amavis-alert", "x-dspam-factors", "x-spambayes-evidence":
		return true
	}
	return false
}

// fieldName is the name in lower case, without the white space that RFC 5322,
// section 4.5, still lets stand before the colon.
func fieldName(f Field) string { return strings.ToLower(strings.TrimRight(f.Name, " \t")) }

// structural says whether a field, named in lower case, is about the MIME entity
// (RFC 9787, section 1.1.1). Such fields are never protected.
func structural(name string) bool {
	return name == "mime-version" || strings.HasPrefix(name, "content-")
}

// hiddenSubject is all of a subject that hcp_baseline shows.
const hiddenSubject = " [...]"

// hidden says whether a field, named in lower case, is taken out by every header
// protection. RFC 9788, section 3.2.1, asks for Keywords and Comments. The others
// are what programs make of a subject on the way, and would give it away:
// Thread-Topic is Outlook's copy without "Re:"; what ends in -Subject, -Keywords
// or -Comments is an earlier one that a filter, a list or a gateway has kept, as
// X-Spam-Prev-Subject, X-Original-Subject and Downgraded-Subject (RFC 6857).
// HP-Outer means something in a payload only (RFC 9788, section 2.2).
func hidden(name string) bool {
	switch name {
	case "keywords", "comments", "thread-topic", "hp-outer":
		return true
	}
	for _, word := range []string{"-subject", "-keywords", "-comments", "-thread-topic"} {
		if strings.HasSuffix(name, word) {
			return true
		}
	}
	return false
}

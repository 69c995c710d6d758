package envelope

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealmilter/keys"
)

// payloadOf is what is encrypted of a message.
func payloadOf(t testing.TB, fields []Field, body string, form keys.Form) []byte {
	t.Helper()
	var payload bytes.Buffer
	if err := writeHeader(&payload, fields, form.Protection, form.Method == keys.OpenPGP); err != nil {
		t.Fatal(err)
	}
	payload.WriteString(body)
	return payload.Bytes()
}

// allForms are the forms that payloads differ in.
func allForms() (forms []keys.Form) {
	for _, method := range []keys.Method{keys.OpenPGP, keys.SMIME} {
		for _, protection := range keys.Protections {
			forms = append(forms, keys.Form{Method: method, Protection: protection})
		}
	}
	return forms
}

// isOriginal checks that every payload of a message opens as that message, for
// whoever knows its method and for whoever does not.
func isOriginal(t testing.TB, fields []Field, body string) {
	t.Helper()
	message := append(append(headerText(fields), "\r\n"...), body...)
	for _, form := range allForms() {
		payload := payloadOf(t, fields, body, form)
		if got := Original(payload); !bytes.Equal(got, message) {
			t.Errorf("%v: the original of\n%.2000q\nis\n%.2000q\nnot\n%.2000q", form, payload, got, message)
		}
		if got := unmark(payload); form.Method == keys.SMIME && !bytes.Equal(got, message) {
			t.Errorf("%v: without the mark\n%.2000q\nis\n%.2000q\nnot\n%.2000q", form, payload, got, message)
		}
	}
}

// fieldsOf takes apart fields that end in NUL, the one octet that no field has.
func fieldsOf(text string) (fields []Field) {
	for field := range strings.SplitSeq(text, "\x00") {
		if name, value, found := strings.Cut(field, ":"); found {
			fields = append(fields, Field{name, value})
		}
	}
	return fields
}

// asFields is a payload taken for a message.
func asFields(payload []byte) (fields []Field, body string) {
	header, body, _ := strings.Cut(string(payload), "\r\n\r\n")
	header = strings.ReplaceAll(strings.ReplaceAll(header, "\r\n ", "\n "), "\r\n\t", "\n\t")
	return fieldsOf(strings.ReplaceAll(header, "\r\n", "\x00")), body
}

// hostileHeaders are headers that might be taken for something of ours.
var hostileHeaders = map[string]string{
	"no header":                     "",
	"one without a body":            "Subject: a\x00",
	"an empty value":                "Subject:\x00Content-Type:\x00To:\x00Date:\x00",
	"no names":                      ":\x00: a\x00",
	"folded":                        "Subject: a\n b\n\tc\x00Content-Type:\n text/plain;\n\tcharset=utf-8\x00",
	"CR":                            "Subject: a\rb\r\n c\r\x00Content-Type: text/plain\r\x00",
	"a line end and no white space": "Subject: a\nHP-Outer: Subject: a\x00",
	"an end of the header":          "Subject: a\n\nb\x00",
	"NUL's neighbours":              "Subject: \x01\xff\x00",
	"our Content-Type":              strings.TrimSuffix(addedType, "\r\n") + "\x00Subject: a\x00",
	"our Content-Type twice":        strings.Repeat(strings.TrimSuffix(addedType, "\r\n")+"\x00", 2),
	"our mark":                      payloadMark + "\x00Content-Type: text/plain\x00",
	"our mark without a type":       payloadMark + "0+5\x00Subject: a\x00",
	"our mark, counting":            payloadMark + "0+5,7+3\x00Content-Type: text/plain\x00Subject: a\x00",
	"our mark, beyond the end":      payloadMark + "0+5,700+3\x00Content-Type: text/plain\x00",
	"our mark, backwards":           payloadMark + "9+5,7+3\x00Content-Type: text/plain\x00Subject: a\x00",
	"our mark, large numbers":       payloadMark + "4611686018427387903+4611686018427387903,1+1\x00Content-Type: text/plain\x00",
	"our mark, no numbers":          payloadMark + "a+b\x00Content-Type: text/plain\x00",
	"our mark, a piece of it":       "X-Sealmilter-Payload: sealed\x00Content-Type: text/plain\x00",
	"our mark behind our type":      strings.TrimSuffix(addedType, "\r\n") + "\x00" + payloadMark + "0+1\x00",
	"our type behind our mark":      payloadMark + "\x00" + strings.TrimSuffix(addedType, "\r\n") + "\x00",
	"our mark in odd case":          strings.ToUpper(payloadMark) + "0+1\x00Content-Type: text/plain\x00",
	"our mark, folded":              payloadMark + "\n 0+1\x00Content-Type: text/plain\x00",
	"our mark further down":         "A: b\x00" + payloadMark + "0+1\x00Content-Type: text/plain\x00",
	"HP-Outer":                      "Subject: a\x00HP-Outer: Subject: [...]\x00hp-outer: a: b\x00X-HP-Outer: c: d\x00HP-Outer : e\x00",
	"protected already":             "Content-Type: text/plain" + protectedType + "\x00Subject: a\x00HP-Outer: Subject: [...]\x00",
	"protected twice":               "Content-Type: text/plain" + protectedType + protectedType + "\x00Subject: a\x00",
	"several types":                 "Content-Type: text/plain\x00content-type: text/html\x00CONTENT-TYPE : x/y;hp=clear\x00",
	"many subjects":                 "Subject: a\x00Subject: b\x00SUBJECT: c\x00",
}

// TestOriginal: the message comes out of its payload, whatever is in it; and out
// of a payload that was sealed again, and again.
func TestOriginal(t *testing.T) {
	for name, header := range hostileHeaders {
		t.Run(name, func(t *testing.T) {
			fields := fieldsOf(header)
			for _, body := range []string{"", "body\r\n", "HP-Outer: Subject: [...]\r\n\r\n", "\r\n", addedType, payloadMark + "0+1\r\n"} {
				isOriginal(t, fields, body)
				for _, form := range allForms() {
					again, rest := asFields(payloadOf(t, fields, body, form))
					isOriginal(t, again, rest)
					for _, form := range allForms() {
						isOriginal(t, again, string(payloadOf(t, again, rest, form)))
					}
				}
			}
		})
	}
}

// TestProtected holds the octets of a payload.
func TestProtected(t *testing.T) {
	header := []Field{{"Received", " from a\n\tby b"}, {"DKIM-Signature", " v=1"}, {"From", " Ann <ann@example.org>"}, {"subject", " Tomatoes\n and more"},
		{"Keywords", " red"}, {"MIME-Version", " 1.0"}, {"Content-Type", " text/plain; charset=utf-8"}, {"X-Tab", "\tx"}, {"X-Empty", ""}}
	const top = "Received: from a\r\n\tby b\r\nDKIM-Signature: v=1\r\nFrom: Ann <ann@example.org>\r\nsubject: Tomatoes\r\n and more\r\nKeywords: red\r\nMIME-Version: 1.0\r\n"
	want := func(from string) string {
		outside := "HP-Outer: Received: from a\r\n\tby b\r\nHP-Outer: From: " + from + "\r\nHP-Outer: subject: [...]\r\nHP-Outer: X-Tab: \tx\r\nHP-Outer: X-Empty: \r\n"
		head := top + "Content-Type: text/plain" + protectedType + "; charset=utf-8\r\nX-Tab:\tx\r\nX-Empty:\r\n"
		return fmt.Sprintf("%s%d+%d,%d+%d\r\n%s%s\r\nbody\r\n", payloadMark, len(top)+len("Content-Type: text/plain"), len(protectedType),
			len(head)-len(protectedType), len(outside), head, outside)
	}
	for _, method := range []keys.Method{keys.OpenPGP, keys.SMIME} {
		if got := string(payloadOf(t, header, "body\r\n", keys.Form{Method: method, Protection: keys.Baseline})); got != want("Ann <ann@example.org>") {
			t.Errorf("%s: the payload is\n%s\nwant\n%s", method, got, want("Ann <ann@example.org>"))
		}
		if got := string(payloadOf(t, header, "body\r\n", keys.Form{Method: method, Protection: keys.Shy})); got != want("ann@example.org") {
			t.Errorf("%s: the payload is\n%s\nwant\n%s", method, got, want("ann@example.org"))
		}
		if got := string(payloadOf(t, header, "body\r\n", keys.Form{Method: method})); got != string(headerText(header))+"\r\nbody\r\n" {
			t.Errorf("%s: without protection the payload is\n%s", method, got)
		}
		const untyped = payloadMark + "0+63,12+26\r\nContent-Type: text/plain" + protectedType + "\r\nSubject: a\r\nHP-Outer: Subject: [...]\r\n\r\nbody"
		if got := string(payloadOf(t, fieldsOf("Subject: a"), "body", keys.Form{Method: method, Protection: keys.Baseline})); got != untyped {
			t.Errorf("%s: the payload without a type is\n%s\nwant\n%s", method, got, untyped)
		}
	}
	forged := string(payloadOf(t, fieldsOf("Content-Type: a/b\x00HP-Outer: Subject: lie\x00hp-OUTER : From: lie"), "", keys.Form{Method: keys.OpenPGP, Protection: keys.Baseline}))
	if strings.Contains(strings.ToLower(forged), "\nhp-outer") || !strings.Contains(forged, "\r\nX-HP-Outer: Subject: lie\r\nX-hp-OUTER : From: lie\r\n") {
		t.Errorf("a sender's HP-Outer counts in\n%s", forged)
	}
}

// TestProtectedType holds what becomes of a root Content-Type.
func TestProtectedType(t *testing.T) {
	const p = protectedType
	tests := map[string]string{
		"":                                     " text/plain" + p,
		" ":                                    " text/plain" + p + " ",
		" text/plain":                          " text/plain" + p,
		"text/plain":                           "text/plain" + p,
		" text/plain;":                         " text/plain" + p + ";",
		" text/plain \r\n\t":                   " text/plain" + p + " \r\n\t",
		" text/plain; charset=utf-8;\r\n":      " text/plain" + p + "; charset=utf-8;\r\n",
		"\r\n multipart/mixed;\r\n boundary=a": "\r\n multipart/mixed" + p + ";\r\n boundary=a",
		" (c;d) text/plain (e":                 " (c;d) text/plain" + p + " (e",
		" (c(d) text/plain":                    " text/plain" + p + " (c(d) text/plain",
		" text (c) / (d) plain ; a=b":          " text (c) / (d) plain" + p + " ; a=b",
		" text/plain; name=\"a; hp=b":          " text/plain" + p + "; name=\"a; hp=b",
		" text/plain; name=\"a\\\"; hp=b\"":    " text/plain" + p + "; name=\"a\\\"; hp=b\"",
		" text/html charset=\"a\"":             " text/html" + p + "; charset=\"a\"",
		" text/html\r\n hp=a; hp=b":            " text/html" + p + ";\r\n x-hp=a; x-hp=b",
		" \"text/html\"":                       " text/plain" + p + "; \"text/html\"",
		" text":                                " text" + p,
		" ;charset=a":                          " text/plain" + p + " ;charset=a",
		" text/plain; hp=\"clear\"":            " text/plain" + p + "; x-hp=\"clear\"",
		" a/b;HP=clear;(x)Protected-Headers*=v1;\r\n hp-legacy-display = 1;xhp=2;hp*0=a": " a/b" + p +
			";x-HP=clear;(x)x-Protected-Headers*=v1;\r\n x-hp-legacy-display = 1;xhp=2;x-hp*0=a",
	}
	for value, want := range tests {
		var got strings.Builder
		at := 0
		for _, a := range protectType(value) {
			got.WriteString(value[at:a.at] + a.text)
			at = a.at
		}
		if got.WriteString(value[at:]); got.String() != want {
			t.Errorf("%q becomes\n%q, want\n%q", value, got.String(), want)
		}
		if kind, params, err := mime.ParseMediaType(got.String()); err == nil && (params["hp"] != "cipher" || params["protected-headers"] != "v1" || kind == "") {
			t.Errorf("%q: mime reads %s with %v", value, kind, params)
		}
	}
}

func TestOuterHeader(t *testing.T) {
	tests := []struct{ name, shown, none, baseline, shy string }{
		{name: "subject", shown: "From: a@b\x00Subject:\n Tomatoes\x00To: c@d", baseline: "From: a@b|Subject: [...]|To: c@d"},
		{name: "no subject", shown: "From: a@b", baseline: "From: a@b"},
		{name: "an empty subject", shown: "Subject:", baseline: "Subject: [...]"},
		{name: "several subjects", shown: "SUBJECT: a\x00A: b\x00Subject: c\x00subject : d", baseline: "SUBJECT: [...]|A: b|-"},
		{name: "a hidden subject", shown: "Subject: [...]", baseline: "Subject: [...]"},
		{name: "informational", shown: "Keywords: a\x00Comments: b\x00keywords: c\x00A: d", baseline: "-|A: d"},
		{name: "copies of it", baseline: "-|Topic: h|Thread-Index: i|X-Spam-Flag: YES", shown: "Thread-Topic: a\x00X-Thread-Topic: b\x00X-Spam-Prev-Subject: c\x00Downgraded-Subject: d\x00" +
			"X-Keywords: e\x00HP-Outer: Subject: g\x00Topic: h\x00Thread-Index: i\x00X-Spam-Flag: YES"},
		{name: "what quotes the message", none: "-|X-Spam-Status: g", baseline: "-|X-Spam-Status: g",
			shown: "X-Spam-Report: a\x00X-Spam_report: b\x00X-Ham-Report: c\x00X-Amavis-Alert: d\x00X-DSPAM-Factors: e\x00X-Spambayes-Evidence: f\x00X-Spam-Status: g"},
		{name: "what is inside", shown: "Content-Type: a/b\x00DKIM-Signature: c\x00ARC-Seal: d\x00X-Sealmilter-Payload: e\x00Received: f\x00MIME-Version: 1.0",
			none: "-|Received: f|MIME-Version: 1.0", baseline: "-|Received: f|MIME-Version: 1.0"},
		{name: "white space before the colon", shown: "Content-Type : a/b\x00Content-Transfer-Encoding\t: 8bit\x00DKIM-Signature : c\x00MIME-Version : 0.9\x00Received : d",
			none: "-|Received : d", baseline: "-|Received : d"},
		{name: "names", shown: "From: Ann <ann@a.org>\x00Sender: \"B, b\" <b@a.org>\x00Reply-To: c@a.org (C)\x00To: <d@a.org>, e@a.org\x00Cc: F <f@a.org>, g@a.org,\n H <h@a.org>\x00Resent-To: I <i@a.org>\x00X-To: J <j@a.org>",
			baseline: "as shown", shy: "From: ann@a.org|Sender: b@a.org|Reply-To: c@a.org|To: <d@a.org>, e@a.org|Cc: f@a.org, g@a.org, h@a.org|Resent-To: i@a.org|X-To: J <j@a.org>"},
		{name: "names elsewhere", baseline: "as shown",
			shown: "Author: Ann <ann@a.org>\x00Downgraded-From: =?UTF-8?Q?Ann_<ann=40a.org>?=\x00Downgraded-Resent-To: B <b@a.org>\x00Downgraded-Message-Id: c",
			shy:   "Author: ann@a.org|Downgraded-From: ann=40a.org|Downgraded-Resent-To: b@a.org|Downgraded-Message-Id: c"},
		{name: "long lists", shown: "To: A <" + strings.Repeat("a", 40) + "@a.org>, B <" + strings.Repeat("b", 40) + "@b.org>", baseline: "as shown",
			shy: "To: " + strings.Repeat("a", 40) + "@a.org,\n\t" + strings.Repeat("b", 40) + "@b.org"},
		{name: "odd addresses", baseline: "as shown",
			shown: "From: X <\"a b>\"@a.org>\x00To: Y <root>, \"q \\\" q\"@[192.0.2.1], Z <u@[IPv6:2001:db8::1]>, Jörg <jörg@exämple.org>, <" + strings.Repeat("l", 400) + "@a.org>",
			shy:   "From: \"a b>\"@a.org|To: root, \"q \\\" q\"@[192.0.2.1], u@[IPv6:2001:db8::1], jörg@exämple.org"},
		{name: "groups", shown: "From: Staff: Ann <a@a.org>;\x00To: Friends: b@b.org, C <c@c.org>;, d@d.org\x00Cc: Nobody:;", baseline: "as shown",
			shy: "From: a@a.org|To: b@b.org, c@c.org, d@d.org|Cc: undisclosed-recipients:;"},
		{name: "not an address list", shown: "From: Ann Other\x00To: \"Ann <a@a.org>\x00Cc: (open <a@a.org>\x00Sender: Ann\x00Reply-To: ann at home a@a.org", baseline: "as shown",
			shy: "From: undisclosed-sender:;|To: undisclosed-recipients:;|Cc: undisclosed-recipients:;|-"},
		{name: "an unquoted comma", shown: "From: Other, Ann <a@a.org>", baseline: "as shown", shy: "From: a@a.org"},
		{name: "no addresses at all", shown: "To:\x00Cc: \x00Bcc: ,", baseline: "as shown", shy: "as shown"},
		{name: "dates", baseline: "as shown",
			shown: "Date: Sun, 21 Jun 2026 01:30:00 +0200 (CEST)\x00date:\n 21 Jun 2026 01:30 -0500\x00Resent-Date: Sat, 20 Jun 2026 20:30:00 EDT\x00Date: Sat, 20 Jun 2026 23:30:00 GMT",
			shy:   "Date: Sat, 20 Jun 2026 23:30:00 +0000|date: Sun, 21 Jun 2026 06:30:00 +0000|Resent-Date: Sun, 21 Jun 2026 00:30:00 +0000|Date: Sat, 20 Jun 2026 23:30:00 +0000"},
		{name: "no dates", shown: "Date: yesterday\x00Date: Sun, 21 Jun 2026 01:30:00 CEST\x00Date:\x00Date: Sun, 21 Jun 2026 01:30:00 +0200 (", baseline: "as shown", shy: "as shown"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shown := fieldsOf(test.shown)
			whole := text(shown)
			if test.none == "" {
				test.none = whole
			}
			if test.shy == "" {
				test.shy = test.baseline
			}
			for protection, want := range map[keys.HeaderProtection]string{keys.NoProtection: test.none, keys.Baseline: test.baseline, keys.Shy: test.shy} {
				if want == "as shown" {
					want = whole
				}
				kept, added := (&Copy{protection: protection}).OuterHeader(shown)
				if got := text(kept); got != want {
					t.Errorf("%q: outside stands\n%q, want\n%q", protection, got, want)
				}
				if hasVersion := strings.Contains(want, "MIME-Version"); len(kept) != len(shown) || hasVersion == (added[0].Name == "MIME-Version") || !slices.Contains(added, marker) {
					t.Errorf("%q: %d fields of %d, added %v", protection, len(kept), len(shown), added)
				}
				for i, f := range kept {
					for line := range strings.SplitSeq(f.Value, "\n") {
						if f != shown[i] && f.Name != "" && (f.Value[0] != ' ' || len(line) > 900 || strings.Contains(f.Value, "\r")) {
							t.Errorf("%q: MTAs do not take %q", protection, f.Value)
						}
					}
				}
			}
		})
	}
}

// text writes fields, and once for those behind each other that are out a "-".
func text(fields []Field) string {
	var all []string
	for _, f := range fields {
		if f.Name == "" {
			all = append(all, "-")
		} else {
			all = append(all, f.Name+":"+f.Value)
		}
	}
	return strings.Join(slices.CompactFunc(all, func(a, b string) bool { return a == "-" && b == "-" }), "|")
}

// TestOutside: the HP-Outer fields of a payload are the fields that OuterHeader
// leaves outside, for the messages that others test with.
func TestOutside(t *testing.T) {
	files, err := filepath.Glob("../../testdata/messages/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d messages, error %v", len(files), err)
	}
	for _, file := range files {
		message, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fields, body := asFields(bytes.ReplaceAll(message, []byte("\n"), []byte("\r\n")))
		isOriginal(t, fields, body)
		for _, protection := range keys.Protections[1:] {
			kept, _ := (&Copy{protection: protection}).OuterHeader(fields)
			var want strings.Builder
			for _, f := range kept {
				if f.Name != "" && !structural(fieldName(f)) {
					want.WriteString("HP-Outer: " + f.Name + ": " + strings.TrimPrefix(crlf(f.Value), " ") + "\r\n")
				}
			}
			payload := string(payloadOf(t, fields, "", keys.Form{Method: keys.SMIME, Protection: protection}))
			if !strings.HasSuffix(payload, "\r\n"+want.String()+"\r\n") {
				t.Errorf("%s: outside stands\n%s\nthe payload is\n%s", file, &want, payload)
			}
		}
	}
}

// TestHugeHeader: headers as large as they can be take time that grows with them,
// whatever they are made of.
func TestHugeHeader(t *testing.T) {
	const size, count = 4 << 20, 60_000
	pieces := []string{"Subject: a\x00", "Content-Type: a/b; hp=c\x00", "HP-Outer: a: b\x00", "To: A <a@b.org>\x00", "To: (\x00", "Date: Sun, 21 Jun 2026 01:30:00 +0200\x00"}
	headers := [][]Field{}
	for _, piece := range pieces {
		headers = append(headers, fieldsOf(strings.Repeat(piece, min(count, size/len(piece)))))
	}
	for _, piece := range []string{"A <a@b>,", "(", "\"", "<", "[", "<\"", ";hp=", "; (", "\\", "a/", "((\"", ":", ";(a)", "@", "\n ", "\r\n"} {
		value := strings.Repeat(piece, size/3/len(piece))
		headers = append(headers, []Field{{"To", value}, {"Content-Type", value}, {"Date", value}})
	}
	for _, fields := range headers {
		began := time.Now()
		payload := payloadOf(t, fields, "", keys.Form{Method: keys.OpenPGP, Protection: keys.Shy})
		if !bytes.Equal(Original(payload), append(headerText(fields), "\r\n"...)) {
			t.Errorf("%.40q is not what comes out", fields[0])
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%.40q took %v", fields[0], took)
		}
	}
}

// TestProtectedCopy: what is sealed and what stands outside have the protection
// of their form.
func TestProtectedCopy(t *testing.T) {
	r := newReader(t)
	header := fieldsOf("Subject: Tomatoes\x00From: Ann <a@example.org>")
	for protection, want := range map[keys.HeaderProtection]string{
		keys.NoProtection: "Subject: Tomatoes|From: Ann <a@example.org>",
		keys.Baseline:     "Subject: [...]|From: Ann <a@example.org>",
		keys.Shy:          "Subject: [...]|From: a@example.org",
	} {
		s, err := Begin(keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, Protection: protection}, Spool{Memory: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Discard)
		if err := s.Header(header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, "body")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := s.Copy([]*keys.Key{r.key}, Addressing{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		kept, _ := c.OuterHeader(header)
		if got := text(kept); got != want {
			t.Errorf("%q: outside stands %q, want %q", protection, got, want)
		}
		payload := payloadOf(t, header, "body", keys.Form{Method: keys.OpenPGP, Protection: protection})
		if got := r.payload(t, write(t, c, "\n")); !bytes.Equal(got, payload) {
			t.Errorf("%q: sealed was\n%s\nwant\n%s", protection, got, payload)
		}
	}
}

// FuzzOriginal: the message comes out of its payload, for any fields, any body,
// every protection and both methods; and nobody's payload breaks Original.
func FuzzOriginal(f *testing.F) {
	for _, header := range hostileHeaders {
		f.Add(header, "body\r\n")
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		Original([]byte(header))
		unmark([]byte(payloadMark + header + "\r\n" + body))
		fields := fieldsOf(header)
		isOriginal(t, fields, body)
		for _, protection := range keys.Protections[1:] {
			for i, kept := range outer(fields, protection) {
				if kept != (Field{}) && kept != fields[i] && (!strings.HasPrefix(kept.Value, " ") || strings.ContainsAny(kept.Value, "\r\x00") || kept.Name != fields[i].Name) {
					t.Errorf("%q became %q", fields[i], kept)
				}
			}
		}
	})
}

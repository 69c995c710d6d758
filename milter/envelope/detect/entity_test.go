package detect

import (
	"runtime"
	"strings"
	"testing"

	"sealmilter/milter/envelope"
)

// TestTypes reads what mail programs agree on, and nothing else.
func TestTypes(t *testing.T) {
	tests := []struct {
		value string
		want  string // kind|boundary, "" for an error
	}{
		{" multipart/encrypted; boundary=a", "multipart/encrypted|a"},
		{"Multipart/Encrypted;BOUNDARY=\"a=b\" ; x=y;", "multipart/encrypted|a=b"},
		{" multipart/encrypted;\n\tx=y;\n boundary=\"a\"", "multipart/encrypted|a"},
		{" multipart/encrypted", "multipart/encrypted|"},
		{" multipart/encrypted;", "multipart/encrypted|"},
		{" multipart/encrypted; boundary=\"\"", "multipart/encrypted|"},
		{" multipart/encrypted boundary=a", ""},
		{" multipart/encrypted;; boundary=a", ""},
		{" multipart/encrypted, text/plain; boundary=a", ""},
		{" multipart/encrypted; boundary", ""},
		{" multipart/encrypted; boundary=", ""},
		{" multipart/encrypted; boundary =a", ""},
		{" multipart/encrypted; boundary= a", ""},
		{" multipart/encrypted; boundary=a b", ""},
		{" multipart/encrypted; boundary=a=b", ""},
		{" multipart/encrypted; boundary=\"a", ""},
		{" multipart/encrypted; boundary=\"a\"b", ""},
		{" multipart/encrypted; boundary=\"a\\b\"", ""},
		{" multipart/encrypted; boundary=a; Boundary=a", ""},
		{" multipart/encrypted; boundary*=a", ""},
		{" multipart/encrypted; boundary*0=a", ""},
		{" multipart/encrypted; boundary=a (comment)", ""},
		{" multipart/encrypted (comment); boundary=a", ""},
		{" multipart/encrypted; boundary=ä", ""},
		{" multipart/encrypted; boundary=\"ä\"", ""},
		{" multipart", ""},
		{" multipart/", ""},
		{" multipart/encrypted/x", ""},
		{"", ""},
		{" text/plain\n \n x", ""},
		{" text/plain\n", ""},
		{" text/plain\nx: y", ""},
		{" text/plain\r", ""},
		{" text/plain\x00", ""},
	}
	for _, test := range tests {
		e, err := readEntity([]envelope.Field{{Name: "content-TYPE", Value: test.value}})
		got := ""
		if err == nil {
			got = e.kind + "|" + e.params["boundary"]
		}
		if got != test.want {
			t.Errorf("%q: %q, error %v, want %q", test.value, got, err, test.want)
		}
	}
}

// TestHeaders has fields of which a message with a good type may have none.
func TestHeaders(t *testing.T) {
	for _, f := range []envelope.Field{
		{Name: "Content-Type", Value: " text/plain"}, {Name: "CONTENT-TYPE", Value: " text/plain"},
		{Name: "Content-Type ", Value: " text/html"}, {Name: "Content-Type\t", Value: ""},
		{Name: " Content-Type", Value: ""}, {Name: "", Value: "x"}, {Name: "Contént-Type", Value: ""},
		{Name: "X:Y", Value: ""}, {Name: "X", Value: "a\rContent-Type: text/html"}, {Name: "X", Value: "a\n\nb"},
		{Name: "Content-Transfer-Encoding", Value: " "}, {Name: "Content-Transfer-Encoding", Value: " base64"},
		{Name: "Content-Transfer-Encoding", Value: " 7bit (really)"},
	} {
		d := New([]envelope.Field{{Name: "Content-Type", Value: " text/plain"}, f})
		if d.form != nil || d.Finish().Reason == "" {
			t.Errorf("with %q: %q it goes on", f.Name, f.Value)
		}
	}
	for _, f := range []envelope.Field{
		{Name: "X-Any", Value: " a\n b"}, {Name: "Content-Transfer-Encoding", Value: " 7BIT "}, {Name: "X-Empty", Value: ""},
		{Name: "Subject", Value: " Grüße"},
	} {
		if d := New([]envelope.Field{{Name: "Content-Type", Value: " text/plain"}, f}); d.form == nil {
			t.Errorf("with %q: %q: %s", f.Name, f.Value, d.found.Reason)
		}
	}
}

// TestBodies takes the frame of a PGP/MIME message apart, whose armor is cut
// off: a frame that is good fails at the armor.
func TestBodies(t *testing.T) {
	const good = "\n--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n\n--b\nContent-Type: application/octet-stream\n\n" +
		armorHead + "\n\nxA\n--b--\n"
	tests := []struct{ name, from, to, want string }{
		{"good", "", "", "or its end is missing"},
		{"blanks that mean nothing", "--b\n", "--b \t\n", "or its end is missing"},
		{"a folded field", "Type: app", "Type:\n app", "or its end is missing"},
		{"our own preamble", "\n", "This message was sealed to its recipient's OpenPGP key when it arrived.\n", "or its end is missing"},
		{"two preambles", "\n", strings.Repeat("This is a multi-part message in MIME format.\n", 2), "in front"},
		{"a preamble with more in it", "\n", "This is a multi-part message in MIME format. Secret\n", "in front"},
		{"no first part", "--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n\n", "", "not application/pgp-encrypted"},
		{"no version", "Version: 1", "", "does not say"},
		{"two versions", "Version: 1", "Version: 1\nVersion: 1", "besides"},
		{"closed early", "\n--b\n", "\n--b--\n", "not the two"},
		{"a header that ends at a boundary", "\n\nVersion: 1\n\n", "\n", "not the two"},
		{"a header that begins in the middle", "--b\nContent", "--b\n Content", "middle"},
		{"a header without a colon", "Content-Type:", "Content-Type", "Content fields"},
		{"a long header", "--b\n", "--b\nContent-Description: " + strings.Repeat("x ", 450) + "\nContent-ID: " + strings.Repeat("x ", 200) + "\n", "too long"},
		{"two types", "--b\n", "--b\nContent-Type: text/plain\n", "two fields"},
		{"an encoded part", "octet-stream\n", "octet-stream\nContent-Transfer-Encoding: base64\n", "plain lines"},
		{"a long line", "Version: 1", strings.Repeat(" ", 999), "too long"},
		{"a line as long as may be", "Version: 1", strings.Repeat(" ", 998), "does not say"},
		{"a boundary within", "xA\n", "xA\n--bc\n", "only begins"},
	}
	for _, test := range tests {
		d := New([]envelope.Field{{Name: "Content-Type", Value: "multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b"}})
		d.Write([]byte(strings.Replace(good, test.from, test.to, 1)))
		if found := d.Finish(); found.Sealed || !strings.Contains(found.Reason, test.want) {
			t.Errorf("%s: %+v, want %q", test.name, found, test.want)
		}
	}
}

// TestManyLines: a field that is folded into very many lines takes memory, and
// so time, in the measure of its length. A sender can have a megabyte of them.
func TestManyLines(t *testing.T) {
	const most = 8 // octets for each that the field has
	field := envelope.Field{Name: "X-Folded", Value: strings.Repeat(" a\n", 30_000) + " a"}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readEntity([]envelope.Field{field}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > most*uint64(len(field.Value)) {
		t.Errorf("%d octets of memory were taken for a field of %d", took, len(field.Value))
	}
}

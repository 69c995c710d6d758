package client

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestParse holds what was seen on the wire of Postfix 3.7.11. The test beside
// this one asks a real Postfix about the messages of the test bed.
func TestParse(t *testing.T) {
	long := strings.Repeat("y", 3000)
	for _, test := range []struct {
		name, raw string
		header    []Field
		body      string
	}{
		{"empty", "", nil, ""},
		{"header only", "A: 1\r\n", []Field{{"A", " 1"}}, ""},
		{"header and empty line", "A: 1\r\n\r\n", []Field{{"A", " 1"}}, ""},
		{"body only", "\r\nFrom: x\r\n", nil, "From: x\r\n"},
		{"bare LF", "A:1\n b\n\nx\ny\n", []Field{{"A", "1\n b"}}, "x\r\ny\r\n"},
		{"many CR before LF", "A: 1\r\r\n\r\r\nx\r\r\r\n", []Field{{"A", " 1"}}, "x\r\n"},
		{"no final line end", "A: 1\r\n\r\nx\r\ny", []Field{{"A", " 1"}}, "x\r\ny"},
		{"a line that is no field ends the header", "A: 1\r\nno field\r\nB: 2\r\n\r\nx\r\n", []Field{{"A", " 1"}}, "no field\r\nB: 2\r\n\r\nx\r\n"},
		{"8-bit name", "X-\xc3\xa4: y\r\n\r\nx\r\n", nil, "X-\xc3\xa4: y\r\n\r\nx\r\n"},
		{"begins with a continuation", " a\r\nB: 1\r\n\r\nx\r\n", nil, " a\r\nB: 1\r\n\r\nx\r\n"},
		{"white space before the colon", "A : x\r\nB\t :\ty \r\n\r\n", []Field{{"A", " x"}, {"B", "\ty "}}, ""},
		{"folds of white space", "A: k\r\n\t\r\n \r\n\r\nx", []Field{{"A", " k\n\t\n "}}, "x"},
		{"mbox lines", "From a\r\n>From b\r\nA: 1\r\n\r\nFrom c\r\n", []Field{{"X-Mailbox-Line", " From a"}, {"X-Mailbox-Line", " >From b"}, {"A", " 1"}}, "From c\r\n"},
		{"mbox line, then a continuation", "From a\r\n b\r\nA: 1\r\n", []Field{{"X-Mailbox-Line", " From a"}}, " b\r\nA: 1\r\n"},
		{"NUL in the header", "A: k\x00l\r\n m\x00n\r\n\r\nx\x00y\r\n", []Field{{"A", " k\n m"}}, "x\x00y\r\n"},
		{"NUL ends the header", "A: k\r\n\x00 f\r\nB: 1\r\n", []Field{{"A", " k"}}, "\x00 f\r\nB: 1\r\n"},
		{"CR, then what might continue", "\rx\r\nA: 1\r\n", nil, "\rx\r\nA: 1\r\n"},
		{"lone CR", "A: a\rb\r\n\r\nx\ry\r\n", []Field{{"A", " a\rb"}}, "x\ry\r\n"},
		{"long lines", "A:" + long + "\r\n b" + long + "\r\nB: 1\r\n\r\n" + long + "\r\n",
			[]Field{{"A", long + "\n b" + long}, {"B", " 1"}}, long + "\r\n"},
		{"CRLF at the piece's edge", "A:" + long[:2045] + "\r\nB: 1\r\n", []Field{{"A", long[:2045]}, {"B", " 1"}}, ""},
		{"Bcc stays", "Bcc: x\r\n\r\n", []Field{{"Bcc", " x"}}, ""},
	} {
		m := ParseMessage([]byte(test.raw))
		if !reflect.DeepEqual(m.Header, test.header) || string(m.Body) != test.body {
			t.Errorf("%s: %.200q", test.name, m)
		}
	}
}

func TestPostfixParser(t *testing.T) {
	raw := "\rlost in the Received field of Postfix\r\nBcc: x\r\n y\r\nRETURN-PATH : z\r\nA: a\rb\r\n\rc\r\n\r\nx\ry\r\nz"
	m := PostfixParser().Parse([]byte(raw))
	if want := (Message{[]Field{{"A", " a b\n c"}}, []byte("x y\r\nz\r\n")}); !reflect.DeepEqual(m, want) {
		t.Errorf("got %q", m)
	}
}

func TestParseTruncatesTheHeader(t *testing.T) {
	for raw, want := range map[string]int{
		"A:" + strings.Repeat("x", 200000):                            60000,
		"A:" + strings.Repeat("x", 50000) + "\r\n " + repeated(20000): 60000,
		"A:" + strings.Repeat("x", 57998) + "\r\n " + repeated(20000): 58000,
		"A:1" + strings.Repeat("\r\n "+strings.Repeat("x", 999), 120): 59062,
		"A:" + strings.Repeat("x", 59998):                             60000,
		"A:" + strings.Repeat("x", 59995) + "\r\n y":                  60000,
		"A:" + strings.Repeat("x", 59996) + "\r\n y":                  59998,
	} {
		m := ParseMessage([]byte(raw + "\r\nB: 1\r\n\r\nbody"))
		if len(m.Header) != 2 || len(m.Header[0].Value)+2 != want || string(m.Body) != "body" {
			t.Errorf("%d fields, the first of %d bytes, want %d", len(m.Header), len(m.Header[0].Value)+2, want)
		}
	}
}

func repeated(n int) string { return strings.Repeat("y", n) }

func TestShown(t *testing.T) {
	m := Message{[]Field{{"A", " 1\n\t2"}, {"B", ""}}, []byte("x")}
	if got := string(m.Shown()); got != "A: 1\r\n\t2\r\nB:\r\n\r\nx" {
		t.Errorf("shown %q", got)
	}
}

// messages are the messages of the test bed.
func messages(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../testdata/messages/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no messages (%v)", err)
	}
	return files
}

// FuzzParse holds that what a filter was shown is shown again when it is sent
// again, that no byte of the body is lost, and that a field is a field.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "A: 1\n b\n\nx", "0:\r", "From a\n b", "\x00", "A :\r\r\n\t\x00\n:", "a\rb: c", ">From: x\r\n"} {
		f.Add([]byte(seed))
	}
	for _, file := range messages(f) {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := ParseMessage(raw)
		for _, field := range m.Header {
			if nameLength([]byte(field.Name+":")) != len(field.Name) || len(field.Name) == 0 {
				t.Errorf("name %q", field.Name)
			}
			for i, line := range strings.Split(field.Value, "\n") {
				if strings.Contains(line, "\x00") || i > 0 && !continues([]byte(line)) {
					t.Errorf("value %q", field.Value)
				}
			}
		}
		shown := m.Shown()
		for line := range bytes.Lines(shown) {
			if len(line) > lineLimit {
				return // read in pieces, whose edges need not fall where they fell before
			}
			if bytes.HasSuffix(line, []byte("\r\r\n")) {
				return // a header line of which a NUL and more was cut off behind a CR
			}
		}
		if again := ParseMessage(shown); !bytes.Equal(again.Shown(), shown) {
			t.Errorf("shown first %q\nthen %q", shown, again.Shown())
		}
		flat := strings.ReplaceAll(string(raw), "\r", "")
		if body := strings.ReplaceAll(string(m.Body), "\r", ""); !strings.HasSuffix(flat, body) {
			t.Errorf("body %q of %q", m.Body, raw)
		}
	})
}

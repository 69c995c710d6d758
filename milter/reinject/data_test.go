package reinject

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// stuffed is what comes out of a dataWriter for a message in pieces.
func stuffed(t *testing.T, message []byte, piece int) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	result := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(server)
		result <- got
	}()
	w := newDataWriter(newConn(client, time.Second), nil)
	for rest := message; len(rest) > 0; {
		n := min(piece, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.end(); err != nil || w.count != int64(len(message)) {
		t.Fatalf("%d bytes, %v", w.count, err)
	}
	client.Close()
	return <-result
}

func TestData(t *testing.T) {
	large := bytes.Repeat([]byte(".\r\n..x.\r\n"), writeSize/4)
	for raw, want := range map[string]string{
		"":                 ".\r\n",
		".":                "..\r\n.\r\n",
		"a":                "a\r\n.\r\n",
		"a\r\n":            "a\r\n.\r\n",
		"a\r":              "a\r\r\n.\r\n",
		"a\r\n.\r\nb\r\n":  "a\r\n..\r\nb\r\n.\r\n",
		".a.b\n..c\r.d":    "..a.b\n...c\r.d\r\n.\r\n",
		"\r\n\r\n.\r\n..x": "\r\n\r\n..\r\n...x\r\n.\r\n",
		string(large):      string(bytes.Repeat([]byte("..\r\n...x.\r\n"), writeSize/4)) + ".\r\n",
	} {
		for _, piece := range []int{1, 2, 3, 100, 1 << 20} {
			if piece < 100 && len(raw) > 1000 {
				continue
			}
			if got := string(stuffed(t, []byte(raw), piece)); got != want {
				t.Errorf("%.50q in pieces of %d became %.70q", raw, piece, got)
			}
		}
	}
}

// FuzzData: the end of the data stands at the end alone, and with the dots taken
// off again the message is what it was, with an end to its last line.
func FuzzData(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nb"), 2)
	f.Add([]byte(".\n.\r.\r\n..\r\n"), 1)
	f.Fuzz(func(t *testing.T, message []byte, piece int) {
		got := stuffed(t, message, max(piece, 1))
		body, ended := bytes.CutSuffix(got, []byte(".\r\n"))
		if !ended || len(body) > 0 && !bytes.HasSuffix(body, []byte("\r\n")) {
			t.Fatalf("%q ends as %q", message, got)
		}
		var back []byte
		for line := range bytes.Lines(body) {
			if bytes.Equal(line, []byte(".\r\n")) {
				t.Fatalf("%q has an end in the middle: %q", message, got)
			}
			back = append(back, bytes.TrimPrefix(line, []byte("."))...)
		}
		want := message
		if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
			want = append(bytes.Clone(want), "\r\n"...)
		}
		if !bytes.Equal(back, want) {
			t.Fatalf("%q came back as %q", message, back)
		}
	})
}

package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-milter"
)

// FuzzReadFrame: what is read as frames is the beginning of what came, whole, and
// in frames of a size that is allowed.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01c\x00\x00\x00\x05yno\x00x"))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xffc"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := bytes.NewReader(raw)
		var read []byte
		for {
			frame, err := readFrame(in)
			if err != nil {
				break
			}
			if len(frame.Data) >= maxFrame {
				t.Fatalf("a frame of %d bytes", len(frame.Data))
			}
			read = binary.BigEndian.AppendUint32(read, uint32(len(frame.Data)+1))
			read = append(append(read, frame.Code), frame.Data...)
		}
		if !bytes.HasPrefix(raw, read) {
			t.Fatalf("%q was read as %q", raw, read)
		}
	})
}

// FuzzAnswer: a reply that is taken is one that SMTP can say, and says what the
// frame says; and an edit of a header field makes one field of it.
func FuzzAnswer(f *testing.F) {
	f.Add(byte('y'), []byte("451 4.7.1 Try again\x00"))
	f.Add(byte('y'), []byte("550-5.7.1 100%% no\r\n550 5.7.1 never\x00"))
	f.Add(byte('y'), []byte("+45 4.7.1 x\x00"))
	f.Add(byte('c'), []byte{})
	f.Add(byte('h'), []byte("Subject\x00 hello\n\tthere\x00"))
	f.Add(byte('m'), []byte("\x00\x00\x00\x02DKIM-Signature\x00\x00"))
	f.Add(byte('i'), []byte("\x00\x00\x00\x00A\x00\r\x00"))
	f.Add(byte('2'), []byte("<ann@example.org>\x00NOTIFY=NEVER\x00"))
	f.Add(byte('-'), []byte("<ann@example.org>\x00"))
	f.Fuzz(func(t *testing.T, code byte, data []byte) {
		frame := Frame{code, data}
		if isEdit(code) {
			edit, err := parseEdit(frame, AllActions)
			if err == nil {
				sameEdit(t, edit, data)
			}
			return
		}
		reply, err := parseReply(frame)
		if err != nil {
			return
		}
		if len(data) == 0 {
			if reply.Action != milter.ActionCode(code) || reply.Refused() != strings.ContainsRune("rt", rune(code)) {
				t.Errorf("%c is %+v", code, reply)
			}
			return
		}
		var said []string
		lines := strings.Split(reply.Text, "\n")
		for i, line := range lines {
			separator := "-"
			if i == len(lines)-1 {
				separator = " "
			}
			said = append(said, fmt.Sprintf("%d%s%s", reply.Code, separator, strings.ReplaceAll(line, "%", "%%")))
		}
		if strings.Join(said, "\r\n")+"\x00" != string(data) || !reply.Refused() || reply.Code > 599 {
			t.Errorf("%q is %+v", data, reply)
		}
	})
}

// sameEdit writes an edit as it must have been, and holds a field against the
// parser of messages.
func sameEdit(t *testing.T, e Edit, data []byte) {
	t.Helper()
	var again []byte
	switch e.Code {
	case milter.ActReplBody:
		again = e.Body
	case milter.ActChangeHeader, milter.ActInsertHeader:
		again = binary.BigEndian.AppendUint32(nil, e.Index)
		fallthrough
	case milter.ActAddHeader:
		again = append(again, e.Name+"\x00"+e.Value+"\x00"...)
		header := ParseMessage([]byte(e.Name + ":" + e.Value + "\n\n")).Header
		if len(header) != 1 || header[0] != (Field{e.Name, e.Value}) {
			t.Errorf("%+v makes the fields %q", e, header)
		}
	default:
		again = []byte(strings.Join(append([]string{e.Value}, e.Args...), "\x00") + "\x00")
	}
	if !bytes.Equal(again, data) {
		t.Errorf("%q is %+v", data, e)
	}
}

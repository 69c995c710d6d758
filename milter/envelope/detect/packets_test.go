package detect

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"sealmilter/milter/envelope/openpgp"
)

func newPacket(tag byte, contents []byte) []byte {
	size := len(contents)
	return append([]byte{0xC0 | tag, 255, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, contents...)
}

var (
	reader3 = newPacket(1, append([]byte{3, 1, 2, 3, 4, 5, 6, 7, 8, 1}, make([]byte, 258)...))
	reader6 = newPacket(1, append([]byte{6, 21, 4}, make([]byte, 60)...))
	data1   = newPacket(18, append([]byte{1}, make([]byte, 60)...))
	data2   = newPacket(18, append([]byte{2, 9, 2, 6}, make([]byte, 80)...))
	data20  = newPacket(20, append([]byte{1, 9, 2, 16}, make([]byte, 80)...))
)

// packetTest is a message and what is said of it.
type packetTest struct {
	name    string
	message []byte
	want    string // in the error, "" for a sealed message
}

func packetTests() []packetTest {
	join := func(all ...[]byte) []byte { return slices.Concat(all...) }
	body := make([]byte, 600)
	body[0] = 1
	return []packetTest{
		{"version 1", join(reader3, data1), ""},
		{"version 2", join(reader6, data2), ""},
		{"GnuPG's", join(reader3, data20), ""},
		{"marker", join(newPacket(10, []byte("PGP")), reader3, data1), ""},
		{"marker with a message", join(newPacket(10, []byte("PGPsecret")), reader3, data1), "marker"},
		{"padding", join(newPacket(21, make([]byte, 99)), reader3, data1), ""},
		{"too much padding", join(newPacket(21, make([]byte, 5000)), reader3, data1), "length"},
		{"old header", join(append([]byte{0x85, 1, 12}, reader3[6:]...), data1), ""},
		{"old header without length", join(append([]byte{0x87}, reader3[6:]...), data1), "length"},
		{"unprotected, without length", join(reader3, []byte{0xA7}, body), "protection"},
		{"unprotected", join(reader3, newPacket(9, body)), "protection"},
		{"partial lengths", join(reader3, []byte{0xD2, 0xE9}, body[:512], []byte{88}, body[512:]), ""},
		{"partial lengths, the last of nothing", join(reader3, []byte{0xD2, 0xE9}, body[:512], []byte{0}), ""},
		{"partial lengths cut off", join(reader3, []byte{0xD2, 0xE9}, body[:512]), "cut off"},
		{"length of two octets", join(reader3, []byte{0xD2, 193, 152}, body), ""},
		{"partial session key", join([]byte{0xC1, 0xE9}, make([]byte, 512), []byte{1, 0}, data1), "length"},
		{"no reader", data1, "no public key"},
		{"passphrase only", join(newPacket(3, []byte{4, 9, 3, 8}), data1), "no public key"},
		{"passphrase too", join(reader3, newPacket(3, []byte{4, 9, 3, 8}), data1), ""},
		{"passphrase of version 5", join(reader3, newPacket(3, []byte{5, 9, 3, 8}), data20), ""},
		{"passphrase of version 6", join(reader6, newPacket(3, []byte{6, 9, 3, 8}), data2), ""},
		{"passphrase of the wrong version", join(reader3, newPacket(3, []byte{6, 9, 3, 8}), data1), "not fit"},
		{"passphrase of nothing", join(reader3, newPacket(3, nil), data1), "unknown"},
		{"passphrase of version 7", join(reader3, newPacket(3, []byte{7}), data1), "unknown"},
		{"reader of version 2", join(newPacket(1, append([]byte{2}, make([]byte, 90)...)), data1), "unknown"},
		{"reader of nothing", join(newPacket(1, nil), data1), "unknown"},
		{"reader without a key", join(reader3[:2], []byte{0, 0, 0, 9}, reader3[6:15], data1), "unknown"},
		{"fingerprint of another length", join(newPacket(1, append([]byte{6, 22, 4}, make([]byte, 60)...)), data2), "unknown"},
		{"fingerprint that is cut off", join(newPacket(1, []byte{6, 33, 6, 1}), data2), "unknown"},
		{"old reader, new data", join(reader3, data2), "not fit"},
		{"new reader, old data", join(reader6, data1), "not fit"},
		{"one that fits, one that does not", join(reader3, reader6, data1), "not fit"},
		{"new reader, GnuPG's data", join(reader6, data20), "not fit"},
		{"plaintext for a cipher", join(reader6, newPacket(18, append([]byte{2, 0, 2, 6}, make([]byte, 80)...))), "unknown"},
		{"version 3", join(reader3, newPacket(18, append([]byte{3}, make([]byte, 80)...))), "unknown"},
		{"data of nothing", join(reader3, newPacket(18, nil)), "unknown"},
		{"data cut off", join(reader3, data1[:50]), "cut off"},
		{"only readers", reader3, "missing"},
		{"nothing", nil, "missing"},
		{"reader behind", join(reader3, data1, reader3), "behind"},
		{"padding behind", join(reader3, data1, newPacket(21, nil)), "behind"},
		{"literal", join(reader3, newPacket(11, body)), "type 11"},
		{"compressed", newPacket(8, body), "type 8"},
		{"compressed, without length", join([]byte{0xA3}, body), "type 8"},
		{"unknown packet", join(reader3, newPacket(60, body), data1), "type 60"},
		{"no packet", []byte("hello"), "not OpenPGP"},
		{"many readers", join(bytes.Repeat(reader3, maxReaders), data1), ""},
		{"too many readers", join(bytes.Repeat(reader3, maxReaders+1), data1), "more than"},
	}
}

func TestPackets(t *testing.T) {
	for _, test := range packetTests() {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				expect(t, readPackets(test.message, size), test.want)
			}
		})
	}
}

// readPackets feeds a message in chunks of a size.
func readPackets(message []byte, size int) error {
	var p packets
	for chunk := range slices.Chunk(message, size) {
		if err := p.write(chunk); err != nil {
			return err
		}
	}
	_, err := p.finish()
	return err
}

// TestArmor changes armor that is good, of which the data is one packet that
// is cut off: what is good fails at that.
func TestArmor(t *testing.T) {
	head, data, tail := armorHead+"\n\n", "wf8AAAEM\n", armorTail+"\n"
	for text, want := range map[string]string{
		head + data + tail:                                     "cut off",
		"\n \n" + head + data + tail + "\n\t\n":                "cut off",
		armorHead + "\n \n" + data + tail:                      "cut off",
		armorHead + "\nComment: x\nVersion:\n\n" + data + tail: "cut off",
		armorHead + "\nComment:x\n\n" + data + tail:            "header line",
		armorHead + "\nComments: x\n\n" + data + tail:          "header line",
		armorHead + "\n" + data + tail:                         "header line",
		armorHead + "\nComment: " + strings.Repeat("x", 505):   "too long",
		armorHead + " \n\n" + data + tail:                      "does not begin",
		head + data + "\n" + tail:                              "does not end",
		head + data + " " + data + tail:                        "none",
		head + strings.Repeat("wf8A", 20) + "\n" + tail:        "too long",
		head + "wf8AAAE=\n" + data + tail:                      "does not end",
		head + "wf8AAAE=AA\n" + tail:                           "does not end",
		head + "wf8AAAE=" + "AAAA\n" + tail:                    "none",
		head + "wf8AAAF=\n" + tail:                             "none",
		head + "wf8AAA\n" + tail:                               "cut off",
		head + data + "=AAAA\n" + tail:                         "checksum",
		head + data + "=AAAAA\n" + tail:                        "checksum",
		head + data + "=\n" + tail:                             "checksum",
		head + data + checksum(data) + tail:                    "cut off",
		head + data + checksum(data) + "\n" + tail:             "between",
		head + data + checksum(data) + data + tail:             "between",
		head + data:                             "missing",
		head + data + tail + "x":                "behind",
		head + data + tail + head + data + tail: "behind",
		"":                                      "no armored",
		strings.Replace(head, "MESSAGE", "MESSAGE, PART 1/2", 1): "does not begin",
	} {
		d := New(nil)
		d.Write([]byte(text))
		if found := d.Finish(); found.Sealed || !strings.Contains(found.Reason, want) {
			t.Errorf("%q: %+v, want %q", text, found, want)
		}
	}
}

// checksum is the line that belongs behind a line of data.
func checksum(line string) string {
	data, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
	if err != nil {
		return err.Error()
	}
	sum := openpgp.NewCRC24().Update(data).Octets()
	return "=" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

package envelope

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealmilter/keys"
)

// TestCorpusInEveryForm seals real and broken messages in every form there is,
// and gets them back byte for byte. That programs which are not ours open the
// forms is shown elsewhere; here it is about what the messages hold.
func TestCorpusInEveryForm(t *testing.T) {
	files, err := filepath.Glob("../../testdata/messages/*.eml")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d messages, error %v", len(files), err)
	}
	if corpus := os.Getenv("SEALMILTER_CORPUS"); corpus != "" {
		own := len(files)
		for _, pattern := range []string{"*/*.eml", "*/*/*.eml"} {
			more, _ := filepath.Glob(filepath.Join(corpus, pattern))
			files = append(files, more...)
		}
		if len(files) < own+100 {
			t.Fatalf("%s holds only %d messages", corpus, len(files)-own)
		}
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	holders := map[keys.Method]holder{
		keys.OpenPGP: openPGPHolder(t, nil),
		keys.SMIME:   certificateHolder(t, &private.PublicKey, private, x509.KeyUsageKeyEncipherment),
	}
	sealed := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shown, body, ok := asShown(raw)
		if !ok {
			continue
		}
		sealed++
		var want bytes.Buffer
		for _, f := range shown {
			want.WriteString(f.Name + ":" + crlf(f.Value) + "\r\n")
		}
		want.WriteString("\r\n")
		want.Write(body)
		for _, form := range everyForm() {
			s, err := Begin(form, Spool{Memory: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			h := holders[form.Method]
			message := sealInto(t, s, shown, body, []*keys.Key{h.key}, Addressing{})
			s.Discard()
			opened, err := Open(message, h.secret)
			if err != nil || !bytes.Equal(opened, want.Bytes()) {
				t.Errorf("%s in %+v: %d bytes of %d came back, error %v", filepath.Base(file), form, len(opened), want.Len(), err)
			}
		}
	}
	if sealed < len(files)*3/4 {
		t.Errorf("only %d of %d messages could be read", sealed, len(files))
	}
}

// everyForm is every form that a message can be sealed in.
func everyForm() (all []keys.Form) {
	for method, modes := range map[keys.Method][]keys.AEAD{keys.OpenPGP: {keys.NoAEAD, keys.OCB, keys.GCM}, keys.SMIME: {keys.NoAEAD, keys.GCM}} {
		for _, mode := range modes {
			for _, cipher := range []keys.Cipher{keys.AES256, keys.AES128} {
				for _, protection := range keys.Protections {
					all = append(all, keys.Form{Method: method, Cipher: cipher, AEAD: mode, Protection: protection})
				}
			}
		}
	}
	return all
}

// asShown takes a message apart as an MTA shows it to a filter. It is not ok
// where the header has a line that no MTA would show.
func asShown(raw []byte) (shown []Field, body []byte, ok bool) {
	text := strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n", "\r\n")
	for line := range strings.SplitAfterSeq(text, "\r\n") {
		content := strings.TrimSuffix(line, "\r\n")
		text = text[len(line):]
		name, value, isField := strings.Cut(content, ":")
		switch {
		case content == "":
			return shown, []byte(text), len(shown) > 0
		case strings.HasPrefix(content, " "), strings.HasPrefix(content, "\t"):
			if len(shown) == 0 {
				return nil, nil, false
			}
			shown[len(shown)-1].Value += "\n" + content
		case !isField || strings.ContainsAny(name, " \t"):
			return nil, nil, false
		default:
			shown = append(shown, Field{name, value})
		}
	}
	return shown, nil, len(shown) > 0
}

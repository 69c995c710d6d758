package envelope

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// TestForgedMark: a sender who encrypts by himself can write our mark too. It
// hides nothing of the message from whoever opens it here.
func TestForgedMark(t *testing.T) {
	h := openPGPHolder(t, nil)
	shownByReaders := "Subject: x\r\nContent-Type: text/plain\r\n\r\nplease pay 1,000,000 to account 4711\r\n"
	hide := "please pay 1,000,000 to account 4711\r\n"
	payload := fmt.Sprintf("%s%d+%d\r\n%s", payloadMark, strings.Index(shownByReaders, hide), len(hide), shownByReaders)
	var out bytes.Buffer
	a, _ := armor.Encode(&out, "PGP MESSAGE", nil)
	w, err := openpgp.Encrypt(a, h.secret.OpenPGP, nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(payload))
	w.Close()
	a.Close()
	message := "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b\r\n\r\n--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n" +
		strings.ReplaceAll(out.String(), "\n", "\r\n") + "\r\n--b--\r\n"
	got, err := Open([]byte(message), h.secret)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("4711")) {
		t.Errorf("unseal shows %q of a message that the sender encrypted, and its reader's mail program %q", got, payload)
	}
}

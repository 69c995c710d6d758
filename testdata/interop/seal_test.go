package interop_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/milter/client"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/bed"
)

// owner is somebody with a secret key.
type owner struct {
	name     string
	key      *keys.Key
	secret   []byte       // OpenPGP: armored, without a passphrase
	file     string       // OpenPGP: the same as a file
	identity bed.Identity // S/MIME
}

// sealed is a row's message.
type sealed struct {
	choice
	owner   *owner
	shown   []byte // what was sealed
	at      time.Time
	mail    []byte // what would be delivered; nil where the engine does not make it
	refused string // and why
}

// maker is what makes keys.
type maker struct {
	gpg *bed.GnuPG
	dir string
}

// byGnuPG makes a key with a subkey for each further algorithm.
func byGnuPG(primary string, subkeys ...string) func(*testing.T, *maker, string) *owner {
	return func(t *testing.T, m *maker, address string) *owner {
		t.Helper()
		generate := func(command string, who, what string) {
			algorithm, usage, _ := strings.Cut(what, "/")
			m.gpg.Run(t, nil, "--passphrase", "", command, who, algorithm, usage, "never")
		}
		generate("--quick-generate-key", address, primary)
		listed := string(m.gpg.Run(t, nil, "--with-colons", "--list-keys", "="+address))
		_, rest, _ := strings.Cut(listed, "\nfpr:")
		fingerprint := strings.Split(rest, ":")[8]
		for _, subkey := range subkeys {
			generate("--quick-add-key", fingerprint, subkey)
		}
		return openPGPOwner(t, m, address, m.gpg.Run(t, nil, "--armor", "--export", fingerprint), m.gpg.ExportSecret(t, fingerprint))
	}
}

// byGoCrypto makes a key that gpg does not know.
func byGoCrypto(config packet.Config) func(*testing.T, *maker, string) *owner {
	return func(t *testing.T, m *maker, address string) *owner {
		t.Helper()
		if config.V6Keys {
			config.AEADConfig = &packet.AEADConfig{} // the key says that it reads SEIPD version 2
		}
		entity, err := openpgp.NewEntity("", "", address, &config)
		if err != nil {
			t.Fatal(err)
		}
		var public, secret bytes.Buffer
		if err := entity.Serialize(&public); err != nil {
			t.Fatal(err)
		}
		if err := entity.SerializePrivateWithoutSigning(&secret, nil); err != nil {
			t.Fatal(err)
		}
		return openPGPOwner(t, m, address, public.Bytes(), armored(t, secret.Bytes()))
	}
}

func openPGPOwner(t *testing.T, m *maker, address string, public, secret []byte) *owner {
	t.Helper()
	o := &owner{key: parse(t, public), secret: secret, file: filepath.Join(m.dir, address)}
	if err := os.WriteFile(o.file, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// byOpenSSL makes a certificate.
func byOpenSSL(algorithm string) func(*testing.T, *maker, string) *owner {
	return func(t *testing.T, m *maker, address string) *owner {
		t.Helper()
		identity := bed.NewIdentity(t, address, algorithm)
		return &owner{key: parse(t, readFile(t, identity.Certificate)), identity: identity}
	}
}

func parse(t *testing.T, public []byte) *keys.Key {
	t.Helper()
	parsed, err := keys.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	return parsed[0]
}

func armored(t *testing.T, secret []byte) []byte {
	t.Helper()
	var text bytes.Buffer
	w, err := armor.Encode(&text, "PGP PRIVATE KEY BLOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(secret)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(text.Bytes(), '\n')
}

// sealAll makes the keys and the messages.
func sealAll(t *testing.T) (rows []*sealed) {
	t.Helper()
	m := &maker{gpg: bed.NewGnuPG(t), dir: bed.Dir(t)}
	message := client.ParseMessage(readFile(t, "../messages/multipart.eml"))
	owners := make(map[string]*owner)
	for _, c := range choices {
		if owners[c.to] == nil {
			o := makers[c.to](t, m, strings.ToLower(strings.ReplaceAll(c.to, " ", "-"))+"@bed.test")
			o.name = c.to
			owners[c.to] = o
		}
		s := &sealed{choice: c, owner: owners[c.to], shown: message.Shown(), at: time.Now()}
		err := s.seal(message)
		if err == nil {
			err = s.isOfItsForm(t)
		}
		if err != nil {
			s.mail, s.refused = nil, err.Error()
		}
		rows = append(rows, s)
	}
	return rows
}

// seal is the one place where the engine is asked.
func (s *sealed) seal(message client.Message) error {
	fields := make([]envelope.Field, len(message.Header))
	for i, f := range message.Header {
		fields[i] = envelope.Field(f)
	}
	sealing, err := envelope.Begin(s.form, envelope.Spool{Memory: 1 << 20})
	if err != nil {
		return err
	}
	defer sealing.Discard()
	if err := sealing.Header(fields); err != nil {
		return err
	}
	if _, err := sealing.Write(message.Body); err != nil {
		return err
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	sealedCopy, err := sealing.Copy([]*keys.Key{s.owner.key.With(s.options)}, s.how, s.at)
	if err != nil {
		return err
	}
	var mail bytes.Buffer
	kept, added := sealedCopy.OuterHeader(fields)
	for _, f := range append(kept, added...) {
		if f.Name != "" {
			mail.WriteString(f.Name + ":" + f.Value + "\n")
		}
	}
	mail.WriteString("\n")
	if err := sealedCopy.WriteBody(&mail, "\n"); err != nil {
		return err
	}
	s.mail = mail.Bytes()
	return nil
}

// original takes off a payload what the engine has added to it.
func (s *sealed) original(payload []byte) []byte { return envelope.Original(payload) }

// armor is the OpenPGP message of a mail.
func (s *sealed) armor(t *testing.T) []byte {
	t.Helper()
	const begin, end = "-----BEGIN PGP MESSAGE-----", "-----END PGP MESSAGE-----"
	from, to := bytes.Index(s.mail, []byte(begin)), bytes.Index(s.mail, []byte(end))
	if from < 0 || to < from {
		t.Fatalf("%s: there is no armor in it", s.name)
	}
	return append(bytes.Clone(s.mail[from:to]), end+"\n"...)
}

// der is the CMS message of a mail.
func (s *sealed) der(t *testing.T) []byte {
	t.Helper()
	_, body, _ := bytes.Cut(s.mail, []byte("\n\n"))
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(body), "\n", ""))
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return der
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

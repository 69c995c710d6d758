package envelope

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"sealmilter/keys"
	"sealmilter/milter/envelope/cms"
)

// holder is somebody with one key, and the secret that opens what is sealed to
// it.
type holder struct {
	key    *keys.Key
	secret *Secret
}

func openPGPHolder(t testing.TB, config *packet.Config) holder {
	t.Helper()
	entity, err := openpgp.NewEntity("", "", "reader@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	var public bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(public.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return holder{parsed[0], &Secret{OpenPGP: openpgp.EntityList{entity}}}
}

// certificateHolder signs a certificate for a key with itself.
func certificateHolder(t testing.TB, public, private any, usage x509.KeyUsage) holder {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:   big.NewInt(time.Now().UnixNano()),
		Subject:        pkix.Name{CommonName: "Reader"},
		EmailAddresses: []string{"reader@example.org"},
		NotBefore:      time.Now().Add(-time.Hour),
		NotAfter:       time.Now().Add(time.Hour),
		KeyUsage:       usage,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		SubjectKeyId:   []byte("twenty octets of key"),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return holder{parsed[0], &Secret{SMIME: []cms.Identity{{Certificate: certificate, Key: private}}}}
}

// TestForms seals in every form, in every way of addressing, to every kind of
// key, and opens what comes out with all and any of their secrets.
func TestForms(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	version6 := openPGPHolder(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true})
	quantum := openPGPHolder(t, &packet.Config{Algorithm: packet.PubKeyAlgoMldsa65Ed25519, V6Keys: true})
	quantum.key = quantum.key.With(keys.KeyOptions{MLKEM: true})
	chose := certificateHolder(t, &private.PublicKey, private, x509.KeyUsageKeyEncipherment)
	chose.key = chose.key.With(keys.KeyOptions{OAEP: true})
	holders := map[keys.Method]map[string][]holder{
		keys.OpenPGP: {
			"version 4":  {openPGPHolder(t, nil), openPGPHolder(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})},
			"version 6":  {version6},
			"both":       {version6, openPGPHolder(t, nil)},
			"X448":       {openPGPHolder(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd448, V6Keys: true})},
			"ML-KEM too": {quantum, version6},
		},
		keys.SMIME: {
			"RSA":            {certificateHolder(t, &private.PublicKey, private, x509.KeyUsageKeyEncipherment)},
			"RSA, by choice": {chose},
			"curve and RSA":  {certificateHolder(t, &curve.PublicKey, curve, x509.KeyUsageKeyAgreement), chose},
		},
	}
	modes := map[keys.Method][]keys.AEAD{keys.OpenPGP: {keys.NoAEAD, keys.OCB, keys.GCM}, keys.SMIME: {keys.NoAEAD, keys.GCM}}
	ways := map[keys.Method][]Addressing{
		keys.OpenPGP: {{}, {Hidden: true}},
		keys.SMIME:   {{}, {OAEP: true}, {SubjectKeyID: true}, {OAEP: true, SubjectKeyID: true}},
	}
	shown := []Field{{"Subject", " forms"}, {"Content-Type", " text/plain"}}
	body := bytes.Repeat([]byte("of every kind\r\n"), 9000)
	want := "Subject: forms\r\nContent-Type: text/plain\r\n\r\n" + string(body)
	for method, kinds := range holders {
		for kind, all := range kinds {
			for _, mode := range modes[method] {
				for _, cipher := range []keys.Cipher{keys.AES256, keys.AES128} {
					for _, how := range ways[method] {
						name := fmt.Sprintf("%s/%s/%s/%s/%+v", method, kind, cipher, mode, how)
						budget := NewBudget(1 << 20)
						s, err := Begin(keys.Form{Method: method, Cipher: cipher, AEAD: mode}, Spool{Memory: 1 << 20, Budget: budget})
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						var to []*keys.Key
						for _, h := range all {
							to = append(to, h.key)
						}
						message := sealInto(t, s, shown, body, to, how)
						looksLike(t, name, message, method, mode)
						for i, h := range all {
							opened, err := Open(message, h.secret)
							if err != nil || string(opened) != want {
								t.Errorf("%s: reader %d: %d bytes, error %v", name, i, len(opened), err)
							}
						}
						s.Discard()
						if left := budget.taken.Load(); left != 0 {
							t.Errorf("%s: %d octets of the budget were not given back", name, left)
						}
					}
				}
			}
		}
	}
}

// sealInto seals a whole message and writes it as it would be delivered.
func sealInto(t testing.TB, s *Sealing, shown []Field, body []byte, to []*keys.Key, how Addressing) []byte {
	t.Helper()
	if err := s.Header(shown); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := s.Copy(to, how, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return write(t, c, "\r\n")
}

// looksLike looks at what readers go by before they open a message.
func looksLike(t testing.TB, name string, message []byte, method keys.Method, mode keys.AEAD) {
	t.Helper()
	switch {
	case method == keys.SMIME:
		want := "smime-type=enveloped-data;"
		if mode == keys.GCM {
			want = "smime-type=authEnveloped-data;"
		}
		if !bytes.Contains(message, []byte(want)) {
			t.Errorf("%s: it has no %s", name, want)
		}
	case bytes.Contains(message, []byte("\r\n=")) == (mode != keys.NoAEAD): // RFC 9580, section 6.1
		t.Errorf("%s: the armor's checksum is there: %t", name, mode != keys.NoAEAD)
	}
}

// TestBudget: a message that must be held whole and for which there is no room
// fails, gives back what it took, and leaves the room to others.
func TestBudget(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	to := []*keys.Key{certificateHolder(t, &private.PublicKey, private, x509.KeyUsageKeyEncipherment).key}
	budget := NewBudget(1 << 20)
	form := keys.Form{Method: keys.SMIME, Cipher: keys.AES256, AEAD: keys.GCM}
	begin := func() *Sealing {
		s, err := Begin(form, Spool{Memory: 1 << 20, Budget: budget})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := begin(), begin()
	if _, err := first.Write(make([]byte, 600<<10)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = second.Write(make([]byte, 64<<10))
	}
	if !strings.Contains(err.Error(), "[spool] total") {
		t.Errorf("error %v", err)
	}
	if second.Close() == nil {
		t.Error("a message with a hole in it was closed")
	}
	second.Discard()
	first.Discard() // broken off
	if left := budget.taken.Load(); left != 0 {
		t.Fatalf("%d octets were not given back", left)
	}
	third := begin()
	defer third.Discard()
	sealInto(t, third, nil, make([]byte, 500<<10), to, Addressing{})
}

// TestOpenWithoutFlags: a key without flags, of the time before there were any,
// is sealed to, and opens what was.
func TestOpenWithoutFlags(t *testing.T) {
	entity, err := openpgp.NewEntity("", "", "reader@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	subkey := &entity.Subkeys[0]
	binding := subkey.Bindings[0].Packet
	binding.FlagsValid, binding.FlagEncryptCommunications, binding.FlagEncryptStorage = false, false, false
	if err := binding.SignKey(subkey.PublicKey, entity.PrivateKey, nil); err != nil {
		t.Fatal(err)
	}
	var public, private bytes.Buffer
	if err := errors.Join(entity.Serialize(&public), entity.SerializePrivateWithoutSigning(&private, nil)); err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.Parse(public.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ReadSecret(private.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []keys.AEAD{keys.NoAEAD, keys.OCB} {
		for _, hidden := range []bool{false, true} {
			s, err := Begin(keys.Form{Method: keys.OpenPGP, Cipher: keys.AES256, AEAD: mode}, Spool{Memory: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			message := sealInto(t, s, nil, []byte("body"), parsed, Addressing{Hidden: hidden})
			s.Discard()
			if opened, err := Open(message, secret); err != nil || string(opened) != "\r\nbody" {
				t.Errorf("mode %q, hidden %t: %q, error %v", mode, hidden, opened, err)
			}
		}
	}
}

// TestBudgetForOthers: one who asks for more than there is takes no room from
// another, who asks for what there is, at the same moment.
func TestBudgetForOthers(t *testing.T) {
	const limit, little, tries = 1000, 10, 2_000_000
	budget := NewBudget(limit)
	begun, ended := make(chan struct{}), make(chan struct{})
	var greedy sync.WaitGroup
	greedy.Go(func() {
		close(begun)
		for {
			select {
			case <-ended:
				return
			default:
				if budget.Take(limit+1) == nil {
					t.Error("more was given than there is")
					return
				}
			}
		}
	})
	<-begun
	refused := 0
	for range tries {
		if budget.Take(little) != nil {
			refused++
			continue
		}
		budget.Give(little)
	}
	close(ended)
	greedy.Wait()
	if refused > 0 || budget.taken.Load() != 0 {
		t.Errorf("%d of %d were refused, %d octets are left", refused, tries, budget.taken.Load())
	}
}

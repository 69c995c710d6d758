package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/rogpeppe/go-internal/testscript"
)

// testKeys are files of keys by name, and what the scripts should know of them
// by the name of a variable. They are made once a run: none is committed.
type testKeys struct {
	files     map[string][]byte
	variables map[string]string
}

var generateKeys = sync.OnceValues(makeTestKeys)

// writeTestKeys puts the keys beside a script and names their fingerprints.
func writeTestKeys(env *testscript.Env) error {
	made, err := generateKeys()
	if err != nil {
		return err
	}
	for name, data := range made.files {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o600); err != nil {
			return err
		}
	}
	for name, value := range made.variables {
		env.Setenv(name, value)
	}
	return nil
}

func makeTestKeys() (testKeys, error) {
	k := testKeys{files: make(map[string][]byte), variables: make(map[string]string)}
	start := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	ann, err := k.entity("ANN", "Ann <ann@example.org>", start, 0)
	if err != nil {
		return k, err
	}
	bob, err := k.entity("BOB", "Bob <bob@example.org>", start, 20*365*24*time.Hour)
	if err != nil {
		return k, err
	}
	old, err := k.entity("OLD", "Old <old@example.org>", start, 24*time.Hour)
	if err != nil {
		return k, err
	}
	gone, err := k.entity("GONE", "Gone <gone@example.org>", start, 0)
	if err != nil {
		return k, err
	}
	soon, err := k.entity("SOON", "Soon <soon@example.org>", start.Add(30*24*time.Hour), 0)
	if err != nil {
		return k, err
	}
	k.files["soon.asc"] = armored(openpgp.PublicKeyType, public(soon))
	near, err := k.entity("NEAR", "Near <near@example.org>", start, 12*24*time.Hour)
	if err != nil {
		return k, err
	}
	k.files["near.asc"] = armored(openpgp.PublicKeyType, public(near))
	if err := k.optionKeys(start); err != nil {
		return k, err
	}
	annPublic, bobPublic := public(ann), public(bob)
	k.files["ann.asc"] = armored(openpgp.PublicKeyType, annPublic)
	k.files["ann.gpg"] = annPublic
	k.files["bob.asc"] = armored(openpgp.PublicKeyType, bobPublic)
	k.files["old.asc"] = armored(openpgp.PublicKeyType, public(old))
	k.files["both.gpg"] = append(append([]byte{}, annPublic...), bobPublic...)
	k.files["both.asc"] = append(append([]byte{}, k.files["ann.asc"]...), k.files["bob.asc"]...)
	k.files["second-bad.asc"] = append(append([]byte{}, k.files["ann.asc"]...), armored(openpgp.PublicKeyType, bobPublic[:len(bobPublic)-20])...)
	var secret bytes.Buffer
	if err := ann.SerializePrivate(&secret, nil); err != nil {
		return k, err
	}
	k.files["secret.asc"] = armored(openpgp.PrivateKeyType, secret.Bytes())
	k.files["secret.gpg"] = secret.Bytes()
	k.files["gone.asc"] = armored(openpgp.PublicKeyType, public(gone))
	if err := gone.Revoke(packet.KeyCompromised, "stolen", &packet.Config{}); err != nil {
		return k, err
	}
	k.files["revoked.asc"] = armored(openpgp.PublicKeyType, public(gone))
	// The same key when its holder has withdrawn the subkey for encryption and
	// made another one like it.
	if err := k.movedKey(start); err != nil {
		return k, err
	}
	// The same key with one more user id: what its holder hands in later.
	if err := ann.AddUserId("Ann Other", "", "ann@example.net", &packet.Config{}); err != nil {
		return k, err
	}
	k.files["ann-new.asc"] = armored(openpgp.PublicKeyType, public(ann))
	return k, nil
}

// movedKey makes a key and the copy of it in which another subkey has taken the
// place of the first. Nothing else is different.
func (k *testKeys) movedKey(start time.Time) error {
	moved, err := k.entity("MOVED", "Mo <mo@example.org>", start, 0)
	if err != nil {
		return err
	}
	k.files["mo.asc"] = armored(openpgp.PublicKeyType, public(moved))
	later := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return start.Add(24 * time.Hour) }}
	if err := moved.AddEncryptionSubkey(later); err != nil {
		return err
	}
	if err := moved.Subkeys[0].Revoke(packet.KeyCompromised, "stolen", later); err != nil {
		return err
	}
	k.files["mo-moved.asc"] = armored(openpgp.PublicKeyType, public(moved))
	return nil
}

// optionKeys makes keys that options are for: of version 6, with an ML-KEM
// subkey and nothing else, and a certificate.
func (k *testKeys) optionKeys(start time.Time) error {
	six, err := openpgp.NewEntity("Six", "", "six@example.org", &packet.Config{
		V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, Time: func() time.Time { return start }})
	if err != nil {
		return err
	}
	kim, err := k.entity("KIM", "Kim <kim@example.org>", start, 0)
	if err != nil {
		return err
	}
	kim.Subkeys = nil
	if err := kim.AddEncryptionSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoMlkem768X25519, Time: func() time.Time { return start }}); err != nil {
		return err
	}
	secret, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Cy"}, EmailAddresses: []string{"cy@example.org"},
		NotBefore: start, NotAfter: start.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		return err
	}
	k.files["six.asc"] = armored(openpgp.PublicKeyType, public(six))
	k.files["kim.asc"] = armored(openpgp.PublicKeyType, public(kim))
	k.files["cy.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	k.variables["SIX"] = fmt.Sprintf("%X", six.PrimaryKey.Fingerprint)
	k.variables["CY"] = fmt.Sprintf("%X", sha256.Sum256(der))
	return nil
}

// entity makes a key and notes its fingerprint.
func (k *testKeys) entity(variable, userID string, created time.Time, lifetime time.Duration) (*openpgp.Entity, error) {
	name, email, _ := strings.Cut(strings.TrimSuffix(userID, ">"), " <")
	entity, err := openpgp.NewEntity(name, "", email, &packet.Config{
		Algorithm:       packet.PubKeyAlgoEdDSA,
		Time:            func() time.Time { return created },
		KeyLifetimeSecs: uint32(lifetime / time.Second),
	})
	if err != nil {
		return nil, err
	}
	k.variables[variable] = fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint)
	return entity, nil
}

func public(entity *openpgp.Entity) []byte {
	var data bytes.Buffer
	if err := entity.Serialize(&data); err != nil {
		panic("writing a key to memory: " + err.Error())
	}
	return data.Bytes()
}

func armored(kind string, packets []byte) []byte {
	var text bytes.Buffer
	w, err := armor.Encode(&text, kind, nil)
	if err == nil {
		_, err = io.Copy(w, bytes.NewReader(packets))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("armoring a key in memory: " + err.Error())
	}
	return append(text.Bytes(), '\n')
}

package bed

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// DKIMDomain is whose mail is signed.
const DKIMDomain = "example.net"

// DKIMKeys are a key for each algorithm that opendkim signs with, and a file that
// stands for the DNS.
type DKIMKeys struct{ dir string }

// NewDKIMKeys makes keys.
func NewDKIMKeys(t testing.TB) DKIMKeys {
	t.Helper()
	k := DKIMKeys{Dir(t)}
	var zone strings.Builder
	for algorithm, options := range map[string][]string{
		"rsa-sha256":     {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
		"ed25519-sha256": {"-algorithm", "ED25519"},
	} {
		openssl(t, nil, append([]string{"genpkey", "-quiet", "-out", k.private(algorithm)}, options...)...)
		public := openssl(t, nil, "pkey", "-in", k.private(algorithm), "-pubout", "-outform", "DER")
		kind, _, _ := strings.Cut(algorithm, "-")
		if kind == "ed25519" {
			public = public[len(public)-32:] // RFC 8463, section 4.2: without what is around it in DER
		}
		fmt.Fprintf(&zone, "%s._domainkey.%s v=DKIM1; k=%s; p=%s\n", kind, DKIMDomain, kind, base64.StdEncoding.EncodeToString(public))
	}
	if err := os.WriteFile(k.zone(), []byte(zone.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k DKIMKeys) private(algorithm string) string { return filepath.Join(k.dir, algorithm+".pem") }
func (k DKIMKeys) zone() string                    { return filepath.Join(k.dir, "zone") }

// StartSigner runs an opendkim that signs whatever comes from DKIMDomain, by a
// canonicalization such as "relaxed/simple" and an algorithm such as
// "rsa-sha256". It returns the address of its socket, as Postfix writes it.
// Further lines go into its configuration.
func (k DKIMKeys) StartSigner(t testing.TB, canonicalization, algorithm string, further ...string) string {
	t.Helper()
	selector, _, _ := strings.Cut(algorithm, "-")
	return k.start(t, append([]string{
		"Mode s",
		"Domain " + DKIMDomain,
		"Selector " + selector,
		"KeyFile " + k.private(algorithm),
		"SignatureAlgorithm " + algorithm,
		"Canonicalization " + canonicalization,
		"SignHeaders From,To,Cc,Subject,Date,Comments,Keywords,MIME-Version,Content-Type,Content-Transfer-Encoding,X-Long,X-Empty",
		"OmitHeaders Received,Return-Path",
		"InternalHosts 0.0.0.0/0",
	}, further...))
}

// StartVerifier runs an opendkim that says in an Authentication-Results field
// what it thinks of each signature.
func (k DKIMKeys) StartVerifier(t testing.TB) string {
	t.Helper()
	return k.start(t, []string{"Mode v", "AlwaysAddARHeader yes", "AuthservID mx.bed.test", "InternalHosts 203.0.113.1"})
}

func (k DKIMKeys) start(t testing.TB, lines []string) string {
	t.Helper()
	program := Need(t, "opendkim", "/usr/sbin")
	dir := Dir(t)
	socket := filepath.Join(dir, "sock")
	config := filepath.Join(dir, "opendkim.conf")
	lines = append(lines, "Socket local:"+socket, "UMask 000", "Background no", "Syslog no", "RequireSafeKeys no", "TestPublicKeys "+k.zone())
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd := exec.Command(program, "-f", "-x", config)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill() // at SIGTERM libmilter looks up after five seconds
		<-gone
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return "unix:" + socket
		}
		select {
		case err := <-gone:
			gone <- err
			t.Fatalf("opendkim did not start: %v\n%s", err, &said)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("opendkim does not listen")
		}
	}
}

package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sealmilter/testdata/bed"
)

func readOpenSSL(t *testing.T, all []*sealed) (results []result) {
	openssl := bed.Need(t, "openssl")
	for _, s := range all {
		out, said, err := bed.Try(s.mail, nil, openssl, "cms", "-decrypt", "-binary", "-inform", "SMIME",
			"-recip", s.owner.identity.Certificate, "-inkey", s.owner.identity.Key)
		results = append(results, programResult(s, out, said, err))
	}
	return results
}

// importEach runs a command for the PKCS#12 file of each owner, and returns
// what was said of those that were not taken, by their owners.
func importEach(t *testing.T, all []*sealed, take func(file string) (said string, err error)) map[string]string {
	t.Helper()
	refused, done := make(map[string]string), make(map[string]bool)
	for _, s := range all {
		if s.owner.identity.Key == "" || done[s.owner.name] {
			continue
		}
		done[s.owner.name] = true
		if said, err := s.owner.identity.ImportPKCS12(t, take); err != nil {
			refused[s.owner.name] = said + " (" + err.Error() + ")"
		}
	}
	return refused
}

// gpgsmHome makes a home with the keys of all owners. Its agent has somebody
// who knows the passphrase.
func gpgsmHome(t *testing.T, all []*sealed) (home string, refused map[string]string) {
	t.Helper()
	gpgsm, gpgconf := bed.Need(t, "gpgsm"), bed.Need(t, "gpgconf")
	dir := bed.Dir(t)
	home = filepath.Join(dir, "sm")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	pinentry := filepath.Join(dir, "pinentry")
	for file, text := range map[string]string{
		filepath.Join(home, "gpgsm.conf"):     "disable-crl-checks\n",
		filepath.Join(home, "gpg-agent.conf"): "pinentry-program " + pinentry + "\ns2k-count 1024\n",
		pinentry: "#!/bin/sh\necho OK\nwhile read -r command rest; do\n" +
			"case $command in GETPIN) echo 'D " + bed.PKCS12Password + "' ;; esac\necho OK\ndone\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { exec.Command(gpgconf, "--homedir", home, "--kill", "all").Run() })
	return home, importEach(t, all, func(file string) (string, error) {
		_, said, err := bed.Try(nil, nil, gpgsm, "--homedir", home, "--batch", "--quiet", "--import", file)
		return said, err
	})
}

func readGPGSM(t *testing.T, all []*sealed) (results []result) {
	home, refused := gpgsmHome(t, all)
	for _, s := range all {
		if word, is := refused[s.owner.name]; is {
			results = append(results, cannot("importing the key: %s", word))
			continue
		}
		out, said, err := bed.Try(s.der(t), nil, bed.Need(t, "gpgsm"), "--homedir", home, "--batch", "--quiet", "--decrypt")
		results = append(results, programResult(s, out, said, err))
	}
	return results
}

// readNSS uses the library of Firefox and Thunderbird by its own tool.
func readNSS(t *testing.T, all []*sealed) (results []result) {
	certutil, pk12util, cmsutil := bed.Need(t, "certutil"), bed.Need(t, "pk12util"), bed.Need(t, "cmsutil")
	database := "sql:" + t.TempDir()
	if _, said, err := bed.Try(nil, nil, certutil, "-N", "-d", database, "--empty-password"); err != nil {
		t.Fatalf("certutil: %v\n%s", err, said)
	}
	refused := importEach(t, all, func(file string) (string, error) {
		_, said, err := bed.Try(nil, nil, pk12util, "-i", file, "-d", database, "-W", bed.PKCS12Password)
		return said, err
	})
	for _, s := range all {
		if word, is := refused[s.owner.name]; is {
			results = append(results, cannot("importing the key: %s", word))
			continue
		}
		out, said, err := bed.Try(s.der(t), nil, cmsutil, "-D", "-d", database)
		results = append(results, programResult(s, out, said, err))
	}
	return results
}

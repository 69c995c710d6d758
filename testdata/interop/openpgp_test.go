package interop_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"sealmilter/testdata/bed"
)

// readGnuPG opens whole mails: gpg finds the message in them.
func readGnuPG(t *testing.T, all []*sealed) (results []result) {
	gpg := bed.NewGnuPG(t)
	refused := importGnuPG(t, gpg, all)
	for _, s := range all {
		if word, is := refused[s.owner.name]; is {
			results = append(results, cannot("importing the key: %s", word))
			continue
		}
		out, said, err := bed.Try(s.mail, nil, bed.Need(t, "gpg"), "--homedir", gpg.Home, "--batch", "--quiet", "--decrypt")
		results = append(results, programResult(s, out, said, err))
	}
	return results
}

// importGnuPG gives gpg all secret keys that it takes, and returns what it said
// of the others, by their owners.
func importGnuPG(t *testing.T, gpg *bed.GnuPG, all []*sealed) map[string]string {
	t.Helper()
	refused, done := make(map[string]string), make(map[string]bool)
	for _, s := range all {
		if s.owner.secret == nil || done[s.owner.name] {
			continue
		}
		done[s.owner.name] = true
		if _, said, err := bed.Try(s.owner.secret, nil, bed.Need(t, "gpg"), "--homedir", gpg.Home, "--batch", "--quiet", "--import"); err != nil {
			refused[s.owner.name] = said
		}
	}
	return refused
}

// programResult is how a program fared that wrote the payload and ended.
func programResult(s *sealed, out []byte, said string, err error) result {
	if err != nil {
		return cannot("%s (%v)", said, err)
	}
	return payload(s, out)
}

// eachArmor runs a program on the armor of each message.
func eachArmor(t *testing.T, all []*sealed, program string, arguments func(o *owner) []string) (results []result) {
	t.Helper()
	path := bed.Need(t, program)
	home := []string{"HOME=" + t.TempDir()}
	for _, s := range all {
		out, said, err := bed.Try(s.armor(t), home, path, arguments(s.owner)...)
		results = append(results, programResult(s, out, said, err))
	}
	return results
}

func readSQ(t *testing.T, all []*sealed) []result {
	return eachArmor(t, all, "sq", func(o *owner) []string { return []string{"decrypt", "--recipient-key", o.file} })
}

func readSQOP(t *testing.T, all []*sealed) []result {
	return eachArmor(t, all, "sqop", func(o *owner) []string { return []string{"decrypt", o.file} })
}

func readRNP(t *testing.T, all []*sealed) []result {
	return eachArmor(t, all, "rnp", func(o *owner) []string {
		return []string{"--keyfile", o.file, "--notty", "--decrypt", "--output", "-"}
	})
}

// openPGPJS is where testdata/bed/install.sh puts it.
const openPGPJS = "/var/cache/sealmilter/openpgpjs"

// readOpenPGPJS opens all messages in one process of node. It is what web mail
// is built on, and the one reader here that knows RFC 9580's version 6.
func readOpenPGPJS(t *testing.T, all []*sealed) (results []result) {
	node := bed.Need(t, "node")
	if _, err := os.Stat(filepath.Join(openPGPJS, "node_modules", "openpgp")); err != nil {
		bed.Skip(t, "OpenPGP.js is not installed")
	}
	type task struct{ Key, Message string }
	var tasks []task
	for _, s := range all {
		tasks = append(tasks, task{string(s.owner.secret), string(s.armor(t))})
	}
	in, err := json.Marshal(tasks)
	if err != nil {
		t.Fatal(err)
	}
	out, said, err := bed.Try(in, []string{"NODE_PATH=" + filepath.Join(openPGPJS, "node_modules")}, node, "-e", openAll)
	if err != nil {
		t.Fatalf("node: %v\n%s", err, said)
	}
	var opened []struct {
		Content []byte
		Error   string
	}
	if err := json.Unmarshal(out, &opened); err != nil {
		t.Fatal(err)
	}
	for i, o := range opened {
		if o.Error != "" {
			results = append(results, cannot("%s", o.Error))
		} else {
			results = append(results, payload(all[i], o.Content))
		}
	}
	return results
}

const openAll = `
const openpgp = require("openpgp");
(async () => {
	const results = [];
	for (const task of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
		try {
			const decryptionKeys = await openpgp.readPrivateKey({armoredKey: task.Key});
			const message = await openpgp.readMessage({armoredMessage: task.Message});
			const {data} = await openpgp.decrypt({message, decryptionKeys, format: "binary"});
			results.push({content: Buffer.from(data).toString("base64")});
		} catch (e) {
			results.push({error: String(e.message)});
		}
	}
	process.stdout.write(JSON.stringify(results));
})();`

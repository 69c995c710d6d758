package interop_test

import (
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// readThunderbird gives Thunderbird a mailbox with all messages, and all keys
// that it takes. The messages do not come by way of an MTA: testdata/mta sends
// them so.
func readThunderbird(t *testing.T, all []*sealed) (results []result) {
	const user = "reader@bed.test"
	dovecot := bed.StartDovecot(t, user)
	for i, s := range all {
		dovecot.Put(t, user, i, s.mail)
	}
	thunderbird := bed.StartThunderbird(t, dovecot)
	thunderbird.Patience = 5 * time.Second
	refused, done := make(map[string]string), make(map[string]bool)
	for _, s := range all {
		if done[s.owner.name] {
			continue
		}
		done[s.owner.name] = true
		var err error
		if s.form.Method == keys.OpenPGP {
			err = thunderbird.TryImportOpenPGP(s.owner.secret)
		} else {
			err = thunderbird.TryImportIdentity(t, s.owner.identity)
		}
		if err != nil {
			refused[s.owner.name] = err.Error()
		}
	}
	for i, shown := range thunderbird.Inbox(t, user, len(all)) {
		s := all[i]
		encryption := map[keys.Method]string{keys.OpenPGP: "OpenPGP", keys.SMIME: "S/MIME"}[s.form.Method]
		r := looks(shown.Subject, shown.Text)
		switch word, is := refused[s.owner.name]; {
		case is:
			r = cannot("%s", word)
		case r.opened && shown.Encryption != encryption:
			r = cannot("it is shown as encrypted by %q", shown.Encryption)
		case r.opened && (len(shown.Attachments) != 1 || shown.Attachments[0] != "seedling.png"):
			r = cannot("the attachments shown are %q", shown.Attachments)
		}
		results = append(results, r)
	}
	return results
}

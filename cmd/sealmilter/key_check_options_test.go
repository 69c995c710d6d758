package main

import (
	"encoding/json"
	"slices"
	"testing"

	"sealmilter/keys"
)

// TestUnreadOptionsOfKey: a name that was meant to be an option is found in any
// of a key's rows that count, and what a site keeps there for itself is not.
func TestUnreadOptionsOfKey(t *testing.T) {
	for _, test := range []struct {
		options string
		found   []string
	}{
		{``, nil},
		{`{}`, nil},
		{`{"aead":"gcm","oaep":true,"ml_kem":false}`, nil},
		{`{"ticket":17,"note":"by hand"}`, nil},
		{`{"AEAD":"GCM"}`, []string{`nobody reads the option "AEAD", did you mean aead?`}},
		{`{"aed":"gcm","mlkem":true}`, []string{`nobody reads the option "aed", did you mean aead?`, `nobody reads the option "mlkem", did you mean ml_kem?`}},
	} {
		row := enrolledRow{Enrolled: keys.Enrolled{ID: 7, Address: "ann@example.org", State: keys.KeyActive, Chosen: json.RawMessage(test.options)}}
		var found []string
		for _, f := range judgeAccount([]enrolledRow{row}, row.Added) {
			if f.Row != 7 || f.Finding != foundOptions {
				t.Errorf("%s: %+v", test.options, f)
			}
			found = append(found, f.Text)
		}
		if !slices.Equal(found, test.found) {
			t.Errorf("%s: found %q, want %q", test.options, found, test.found)
		}
	}
}

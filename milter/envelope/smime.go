package envelope

import (
	"errors"
	"io"
	"time"

	"sealmilter/keys"
	"sealmilter/milter/envelope/cms"
	"sealmilter/milter/envelope/lines"
)

// lineOctets make the 76 characters that a line may have (RFC 2045, section
// 6.8).
const lineOctets = 57

// smime makes S/MIME entities (RFC 8551, section 3.3).
type smime struct {
	*cms.Encrypter
}

func beginSMIME(w io.Writer, form keys.Form, budget *Budget) (method, error) {
	function := cms.AES256
	if form.Cipher == keys.AES128 {
		function = cms.AES128
	}
	encrypter, err := cms.NewEncrypter(w, function, cms.Options{GCM: form.AEAD == keys.GCM, Budget: budget})
	return smime{encrypter}, err
}

// addsType says no: S/MIME readers take a payload without a Content-Type field
// for the plain text that it is, and show no header of it.
func (m smime) addsType() bool { return false }

func (m smime) discard() { m.Discard() }

func (m smime) copyFor(to []*keys.Key, how Addressing, now time.Time) (*Copy, error) {
	var certificates []cms.Recipient
	seen := make(map[string]bool)
	for _, key := range to {
		for _, c := range key.Certificates(now) {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				certificates = append(certificates, cms.Recipient{Certificate: c, OAEP: how.OAEP || key.Options.OAEP, SubjectKeyID: how.SubjectKeyID})
			}
		}
	}
	if len(certificates) == 0 {
		return nil, errors.New("no certificate to seal to")
	}
	prefix, err := m.Prefix(certificates)
	if err != nil {
		return nil, err
	}
	return &Copy{
		fields: []Field{
			{"Content-Type", " application/pkcs7-mime; smime-type=" + m.SMIMEType() + ";\n\tname=\"smime.p7m\""},
			{"Content-Transfer-Encoding", " base64"},
			{"Content-Disposition", " attachment; filename=\"smime.p7m\""},
			{"Content-Description", " S/MIME encrypted message"},
		},
		prefix:      prefix,
		octets:      lineOctets,
		encoder:     func(w io.Writer, eol string) encoder { return lines.New(w, lineOctets, eol) },
		encodedSize: func(size int64, eol int) int64 { return lines.Size(size, lineOctets, eol) },
	}, nil
}

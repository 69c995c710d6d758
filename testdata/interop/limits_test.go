package interop_test

import "slices"

// limit is what some readers are known not to open.
type limit struct {
	rows    []string
	columns []string
	why     string
}

// Rows that share their fate.
var (
	seipd2 = []string{"OpenPGP v4, SEIPDv2 GCM", "OpenPGP v4, SEIPDv2 OCB"}
	v6     = []string{"OpenPGP v6 X25519", "OpenPGP v6 X25519, GCM", "OpenPGP v6 X25519, SEIPDv1", "OpenPGP v6 X448", "OpenPGP ML-KEM-768+X25519"}
	gcm    = []string{"S/MIME RSA, AES-256-GCM", "S/MIME RSA, AES-128-GCM"}
	ec     = []string{"S/MIME P-256", "S/MIME P-384", "S/MIME P-521", "S/MIME P-256, AES-256-GCM", "S/MIME P-256, subjectKeyIdentifier"}
)

// limits are the cells in which the reader cannot, and why; of Debian 12's
// programs, Thunderbird 153 and OpenPGP.js 6.
var limits = []limit{
	{[]string{"OpenPGP v4 brainpoolP256r1"}, []string{"sq", "sqop"}, "Debian builds Sequoia on Nettle, which has no Brainpool curves"},
	{[]string{"OpenPGP v4 brainpoolP256r1"}, []string{"OpenPGP.js"}, "in node it has Brainpool curves only with a further module"},
	{seipd2, []string{"gpg", "neomutt"}, "GnuPG opens SEIPD version 1 alone"},
	{seipd2, []string{"sq", "sqop", "rnp"}, "older than RFC 9580"},
	{seipd2, []string{"Thunderbird"}, "its RNP does not open version 2 either"},
	{[]string{"OpenPGP v4, hidden recipient"}, []string{"rnp"}, "rnp 0.16 tries no key where none is named; Thunderbird's newer RNP does"},
	{v6, []string{"gpg", "sq", "sqop", "rnp", "neomutt", "Thunderbird"}, "it knows no key of version 6"},
	{[]string{"OpenPGP ML-KEM-768+X25519"}, []string{"OpenPGP.js"}, "it has no post-quantum algorithms"},
	{[]string{"S/MIME RSA, OAEP"}, []string{"gpgsm", "neomutt"}, "gpgsm 2.2 has no OAEP"},
	{[]string{"S/MIME RSA, OAEP"}, []string{"NSS"}, "NSS 3.87 has no OAEP in S/MIME, later ones have"},
	{gcm, []string{"gpgsm", "neomutt"}, "gpgsm 2.2 has no AuthEnvelopedData"},
	{gcm, []string{"NSS", "Thunderbird"}, "NSS has no AuthEnvelopedData (RFC 5083)"},
	{ec, []string{"gpgsm", "neomutt"}, "gpgsm 2.2 crashes when it imports a PKCS#12 file with a key on a curve"},
	{ec, []string{"NSS"}, "NSS before 3.100 takes no KeyAgreeRecipientInfo (Mozilla's bug 676100)"},
	{[]string{"S/MIME RSA, header baseline", "S/MIME RSA, header shy"}, []string{"Thunderbird"}, "it opens them and shows the subject outside: it heeds protected headers in OpenPGP alone"},
	{[]string{"S/MIME P-256, AES-256-GCM"}, []string{"Thunderbird"}, "NSS has no AuthEnvelopedData (RFC 5083)"},
	{[]string{"S/MIME RSA, subjectKeyIdentifier"}, []string{"gpgsm", "neomutt"}, "gpgsm 2.2 knows recipients by issuer and serial number alone"},
}

// limited says why a cell is one in which the reader cannot.
func limited(row, column string) (why string, is bool) {
	for _, l := range limits {
		if slices.Contains(l.rows, row) && slices.Contains(l.columns, column) {
			return l.why, true
		}
	}
	return "", false
}

#!/usr/bin/env bash
# Makes messages that are sealed already, or that look like it, and the index
# that says of each what it is, whom it is sealed to, and why. Secret keys are
# thrown away: each run makes new keys, and so new messages. What a mail program
# would make is put together here around what gpg, sqop, gpgsm and openssl have
# encrypted; what no program makes is edited by hand.
#
# It takes Debian's gnupg, gpgsm, openssl and sqop, a Go toolchain, and
# bin/sealmilter from make (or SEALMILTER=/its/path).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
SEALMILTER=${SEALMILTER:-$here/../../bin/sealmilter}
work=$(mktemp -d)
trap 'GNUPGHOME=$work/home gpgconf --kill all; rm -rf "$work"' EXIT
export GNUPGHOME="$work/home"
mkdir -m 700 "$GNUPGHOME"
rm -f ./*.eml index.txt keys/*
mkdir -p keys

go build -o "$work/packets" packets.go
plain="$work/plain"
printf 'Content-Type: text/plain\n\nThe words that nobody else should read.\n' >"$plain"

# Keys that never expire, and certificates of a hundred years. Ann and Bob have
# one of each kind, Ann a second certificate on an elliptic curve, and Vera a
# key of version 6. Their names tell whose account a file belongs to.
for who in ann bob; do
	gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-generate-key "$who@example.org" default default never
	gpg --export --armor "$who@example.org" >"keys/$who.asc"
done
"$work/packets" key >keys/vera.asc
certificate() { # NAME ADDRESS SERIAL ALGORITHM…
	name=$1 address=$2 serial=$3
	shift 3
	openssl req -x509 -newkey "$@" -nodes -keyout "$work/$name.key" -out "keys/$name.pem" -days 36500 -set_serial "$serial" \
		-subj "/CN=$address" -addext "subjectAltName=email:$address" 2>/dev/null
}
certificate ann-rsa ann@example.org 1001 rsa:2048
certificate ann-ec ann@example.org 1002 ec -pkeyopt ec_paramgen_curve:P-256
certificate bob-rsa bob@example.org 1003 rsa:2048

# put NAME VERDICT READERS REASON: the message on standard input. The verdict
# is openpgp, smime or plain; readers are accounts, "hidden" or "nobody".
put() {
	cat >"$1.eml"
	[ -s "$1.eml" ]
	printf '%s\t%s\t%s\t%s\n' "$1.eml" "$2" "$3" "$4" >>index.txt
}
outside() {
	printf 'From: Carol <carol@example.net>\nTo: ann@example.org\nSubject: hello\nDate: Mon, 2 Mar 2026 10:00:00 +0000\nMIME-Version: 1.0\n'
}
encrypt() { gpg --batch --quiet --trust-model always --armor --encrypt "$@" <"$plain"; }
# pgpmime ARMORED: as Thunderbird writes it.
pgpmime() {
	outside
	cat <<-END
		Content-Type: multipart/encrypted;
		 protocol="application/pgp-encrypted";
		 boundary="------------0Vy7hGk2"

		This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)
		--------------0Vy7hGk2
		Content-Type: application/pgp-encrypted
		Content-Description: PGP/MIME version identification

		Version: 1

		--------------0Vy7hGk2
		Content-Type: application/octet-stream; name="encrypted.asc"
		Content-Description: OpenPGP encrypted message
		Content-Disposition: inline; filename="encrypted.asc"

	END
	cat "$1"
	printf '\n--------------0Vy7hGk2--\n'
}
# inline ARMORED: as a text.
inline() {
	outside
	printf 'Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\n'
	cat "$1"
}

encrypt -r ann@example.org >"$work/ann.asc"
encrypt -r bob@example.org >"$work/bob.asc"
encrypt -r ann@example.org -r bob@example.org >"$work/both.asc"
encrypt -R ann@example.org >"$work/hidden.asc"
encrypt -r ann@example.org -r bob@example.org --throw-keyids >"$work/thrown.asc"
encrypt -R ann@example.org -r bob@example.org >"$work/half.asc"
encrypt -r ann@example.org --comment 'made by hand' --emit-version >"$work/comment.asc"
gpg --batch --quiet --trust-model always --pinentry-mode loopback --passphrase secret --armor --symmetric --encrypt -r ann@example.org <"$plain" >"$work/and-passphrase.asc"
gpg --batch --quiet --pinentry-mode loopback --passphrase secret --armor --symmetric <"$plain" >"$work/passphrase.asc"
gpg --batch --quiet --armor --store <"$plain" >"$work/literal.asc"
gpg --batch --quiet --pinentry-mode loopback --passphrase '' --armor --sign -u ann@example.org <"$plain" >"$work/signed.asc"
gpg --batch --quiet --pinentry-mode loopback --passphrase '' --clearsign -u ann@example.org <"$plain" >"$work/clear.asc"
sqop encrypt keys/ann.asc keys/bob.asc <"$plain" >"$work/sqop.asc"
head -c 40000 /dev/zero | gpg --batch --quiet --trust-model always --compress-algo none --armor --encrypt -r ann@example.org >"$work/large.asc"
for kind in ocb sed indeterminate behind twice; do
	gpg --dearmor <"$work/ann.asc" | "$work/packets" $kind >"$work/$kind.asc"
done
"$work/packets" encrypt keys/vera.asc <"$plain" >"$work/vera.asc"
"$work/packets" encrypt keys/vera.asc hidden <"$plain" >"$work/vera-hidden.asc"

# PGP/MIME as it is meant to be.
pgpmime "$work/ann.asc" | put thunderbird openpgp ann 'PGP/MIME as Thunderbird and Enigmail write it, with their preamble'
pgpmime "$work/both.asc" | put two-readers openpgp ann,bob 'PGP/MIME to two readers of gpg'
pgpmime "$work/bob.asc" | put to-bob openpgp bob 'sealed, but not to Ann'
pgpmime "$work/hidden.asc" | put hidden openpgp hidden 'gpg -R: key id 0'
pgpmime "$work/thrown.asc" | put throw-keyids openpgp hidden 'gpg --throw-keyids: two readers, none is named'
pgpmime "$work/half.asc" | put half-hidden openpgp bob,hidden 'one reader hidden, one named'
pgpmime "$work/and-passphrase.asc" | put and-passphrase openpgp ann 'gpg --symmetric --encrypt: a passphrase opens it too'
pgpmime "$work/sqop.asc" | put sqop openpgp ann,bob 'encrypted by sqop'
pgpmime "$work/vera.asc" | put version-6 openpgp vera 'PKESK of version 6, SEIPD of version 2, no checksum'
pgpmime "$work/vera-hidden.asc" | put version-6-hidden openpgp hidden 'PKESK of version 6 without a fingerprint'
pgpmime "$work/ocb.asc" | put gnupg-ocb openpgp ann 'packet 20, as GnuPG 2.3 writes it to keys that ask for it'
pgpmime "$work/large.asc" | put large openpgp ann 'partial lengths over many pieces'
pgpmime "$work/indeterminate.asc" | put indeterminate plain nobody 'an old header has no room for type 18: the packet is of type 2'
pgpmime "$work/ann.asc" | sed '/^This is an/d' | put mutt openpgp ann 'no preamble'
pgpmime "$work/ann.asc" | sed '/^This is an/s/4880 and 3156/3156/; s/^Content-Type: app/Content-type: app/; s/=[A-Za-z0-9+/]\{4\}$/&/' | put gpgmail openpgp ann 'another number of the RFC in the preamble, other case'
pgpmime "$work/ann.asc" | sed 's/^Content-Description: OpenPGP.*/Content-Transfer-Encoding: 7bit/; s/^This is an.*/This is a multi-part message in MIME format./' | put transfer-encoding openpgp ann '7bit is said of the part, and a common preamble'
pgpmime "$work/comment.asc" | put comment openpgp ann 'Version and Comment in the armor'

# Inline.
inline "$work/ann.asc" | put inline openpgp ann 'a text that is one armored message'
{ outside; echo; echo; cat "$work/both.asc"; echo; } | put inline-untyped openpgp ann,bob 'no Content-Type, blank lines around'

# Ours.
export SEALMILTER_STORE="sqlite:$work/store"
"$SEALMILTER" migrate >/dev/null
"$SEALMILTER" key add ann@example.org keys/ann.asc >/dev/null
"$SEALMILTER" key add bob@example.org keys/bob-rsa.pem >/dev/null
"$SEALMILTER" seal --to ann@example.org <../messages/multipart.eml | tr -d '\r' >"$work/ours"
put ours-openpgp openpgp ann 'sealed by us, PGP/MIME' <"$work/ours"
"$SEALMILTER" seal --to bob@example.org <../messages/multipart.eml | tr -d '\r' >"$work/ours"
put ours-smime smime bob 'sealed by us, S/MIME' <"$work/ours"

# S/MIME. openssl writes the header too, which begins with its own MIME-Version.
smime() { printf 'From: Carol <carol@example.net>\nTo: ann@example.org\nSubject: hello\n'; openssl "$1" -in "$plain" "${@:2}"; }
smime cms -encrypt -aes256 keys/ann-rsa.pem | put openssl smime ann 'openssl cms, RSA, issuer and serial number'
smime cms -encrypt -aes256 -keyid keys/ann-rsa.pem keys/bob-rsa.pem | put openssl-keyid smime ann,bob 'openssl cms -keyid: subject key identifiers'
smime cms -encrypt -stream -aes128 keys/ann-rsa.pem | put openssl-stream smime ann 'openssl cms -stream: lengths left out, content in pieces'
smime cms -encrypt -aes256 keys/ann-ec.pem | put openssl-ec smime ann 'key agreement, issuer and serial number'
smime cms -encrypt -aes256 -keyid keys/ann-ec.pem keys/bob-rsa.pem | put openssl-ec-keyid smime ann,bob 'key agreement by subject key identifier, beside RSA'
smime cms -encrypt -aes-256-gcm -recip keys/bob-rsa.pem | put openssl-gcm smime bob 'AuthEnvelopedData with AES-GCM'
smime cms -encrypt -des3 -recip keys/ann-rsa.pem -keyopt rsa_padding_mode:oaep | put openssl-oaep smime ann 'triple DES, RSA-OAEP'
smime smime -encrypt -aes256 keys/ann-rsa.pem | put openssl-smime smime ann 'openssl smime, which says x-pkcs7-mime'
smime cms -encrypt -aes256 -pwri_password secret keys/ann-rsa.pem | put smime-and-password smime ann 'a password opens it too'
smime cms -encrypt -aes256 -secretkey 000102030405060708090a0b0c0d0e0f -secretkeyid 01 | put smime-kek plain nobody 'for a shared key only: nobody is named'
smime cms -encrypt -aes256 keys/ann-rsa.pem | sed 's/smime-type=[a-z-]*/smime-type=signed-data/' | put smime-type-lies smime ann 'smime-type says signed-data, the object is encrypted'
smime cms -encrypt -rc2-40 keys/ann-rsa.pem >"$work/rc2" 2>/dev/null || smime cms -provider legacy -provider default -encrypt -rc2-40 keys/ann-rsa.pem >"$work/rc2"
put smime-rc2-40 plain nobody 'RC2 with 40 bits hides nothing any more' <"$work/rc2"
gpgsm --batch --quiet --disable-crl-checks --import keys/ann-rsa.pem 2>/dev/null
fingerprint=$(openssl x509 -in keys/ann-rsa.pem -noout -fingerprint -sha1 | sed 's/.*=//; s/://g')
echo "$fingerprint S relax" >"$GNUPGHOME/trustlist.txt"
{ outside; printf 'Content-Type: application/pkcs7-mime; name=smime.p7m; smime-type=enveloped-data\nContent-Transfer-Encoding: base64\n\n'
	gpgsm --batch --quiet --disable-crl-checks --encrypt --base64 -r "$fingerprint" <"$plain" 2>/dev/null | grep -v '^-----'; } | put gpgsm smime ann 'encrypted by gpgsm'
# Binary, without the line ends that mail servers would change.
while openssl cms -encrypt -aes256 -keyid -outform DER -in "$plain" keys/ann-ec.pem >"$work/binary"; [ "$(tr -dc '\n' <"$work/binary" | wc -c)" -gt 0 ]; do :; done
{ outside; printf 'Content-Type: application/pkcs7-mime; name=smime.p7m\nContent-Transfer-Encoding: binary\n\n'; cat "$work/binary"; } | put smime-binary smime ann 'not in base64'
smime cms -sign -nodetach -signer keys/ann-rsa.pem -inkey "$work/ann-rsa.key" | put smime-opaque plain nobody 'opaque-signed: the text is there for all to read'
smime cms -sign -nodetach -signer keys/ann-rsa.pem -inkey "$work/ann-rsa.key" | sed 's/smime-type=[a-z-]*/smime-type=enveloped-data/' | put smime-opaque-lies plain nobody 'opaque-signed, labelled enveloped-data'
smime cms -sign -signer keys/ann-rsa.pem -inkey "$work/ann-rsa.key" | put smime-signed plain nobody 'signed, in two parts'
smime cms -data_create -outform SMIME | put smime-data plain nobody 'CMS around plain data'
{ outside; printf 'Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\nContent-Transfer-Encoding: base64\n\n'
	openssl cms -digest_create -outform DER -in "$plain" | base64; } | put smime-digested plain nobody 'CMS with a digest, which encrypts nothing'
openssl cms -EncryptedData_encrypt -aes256 -secretkey 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f -in "$plain" -outform SMIME >"$work/encrypted-data"
{ printf 'From: carol@example.net\n'; cat "$work/encrypted-data"; } | put smime-encrypted-data plain nobody 'EncryptedData has no readers'
cp openssl.eml "$work/openssl"
{ cat "$work/openssl"; printf 'The words that nobody else should read.\n'; } | put smime-behind plain nobody 'text behind the base64'
awk 'f && !done && NF {print substr($0, 1, 20) "*" substr($0, 21); done = 1; next} /^$/ {f = 1} {print}' "$work/openssl" | put smime-garbage plain nobody 'a character in the base64 that decoders leap over'
sed 's/^Content-Type: application.pkcs7-mime/Content-Type: application\/octet-stream/' "$work/openssl" | put smime-octet-stream plain nobody 'an attachment, by its type'
sed 's/^Content-Transfer-Encoding: base64/Content-Transfer-Encoding: 7bit/' "$work/openssl" | put smime-7bit plain nobody 'base64 that is said to be none'
head -n 15 "$work/openssl" | put smime-cut plain nobody 'cut off'

# What looks like PGP/MIME and is not, or not alone.
base=$work/base
pgpmime "$work/ann.asc" >"$base"
pgpmime "$work/sed.asc" | put no-mdc plain nobody 'packet 9: anyone may change it unnoticed'
pgpmime "$work/behind.asc" | put packet-behind plain nobody 'a literal packet behind the encrypted one'
pgpmime "$work/twice.asc" | put packet-twice plain nobody 'two encrypted packets'
pgpmime "$work/literal.asc" | put literal plain nobody 'armor around a literal packet'
pgpmime "$work/signed.asc" | put signed plain nobody 'armor around what is compressed and signed'
pgpmime "$work/passphrase.asc" | put passphrase plain nobody 'for a passphrase only: nobody is named'
{ cat "$base"; printf '_______\nTo unsubscribe write to list@example.net\n'; } | put list-footer plain nobody 'a list added its footer behind the last boundary'
sed 's/^This is an.*/&\n\nThe words that nobody else should read./' "$base" | put preamble plain nobody 'plaintext in the preamble'
sed 's/^Version: 1/&\nThe words that nobody else should read./' "$base" | put version-part plain nobody 'plaintext in the first part'
sed 's/^-----END.*/&\nThe words that nobody else should read./' "$base" | put behind-armor plain nobody 'plaintext behind the armor'
sed 's/^-----BEGIN.*/The words that nobody else should read.\n&/' "$base" | put before-armor plain nobody 'plaintext before the armor'
sed 's/^-----BEGIN.*/&\nSecret: The words that nobody else should read./' "$base" | put armor-header plain nobody 'an armor header that no program writes'
sed 's/^=.....*$/The words that nobody else should read.\n&/' "$base" | put in-armor plain nobody 'plaintext among the base64'
sed '/^=[A-Za-z0-9+/]\{4\}$/s/.*/=AAAA/' "$base" | put checksum plain nobody 'the checksum is wrong'
sed 's/^--------------0Vy7hGk2--$/--------------0Vy7hGk2\nContent-Type: text\/plain\n\nThe words that nobody else should read.\n&/' "$base" | put third-part plain nobody 'a third part'
sed 's/ boundary="[^"]*"/&; boundary="other"/' "$base" | put two-boundaries plain nobody 'two boundaries: programs differ over which counts'
sed 's/ boundary="\(....\)\([^"]*\)"/ boundary*0="\1"; boundary*1="\2"/' "$base" | put boundary-pieces plain nobody 'a boundary in the pieces of RFC 2231'
sed 's/^MIME-Version.*/&\nContent-Type: text\/plain/' "$base" | put two-types plain nobody 'two Content-Type fields'
sed 's/^MIME-Version.*/&\nContent-Type : text\/plain/' "$base" | put blank-name plain nobody 'a blank before the colon: a second Content-Type to some'
sed 's/protocol="[^"]*";/protocol="application\/pgp-signature";/' "$base" | put protocol plain nobody 'another protocol'
sed 's/^MIME-Version.*/&\nContent-Transfer-Encoding: base64/' "$base" | put encoded-multipart plain nobody 'a multipart that says it is base64'
sed 's/multipart.encrypted;/multipart\/mixed;/' "$base" | put mixed plain nobody 'the same parts in multipart/mixed'
sed 's/^Content-Description: OpenPGP.*/X-Note: The words that nobody else should read./' "$base" | put part-header plain nobody 'a field in the part that describes no content'
sed '$d' "$base" | put unclosed plain nobody 'the last boundary is missing'
sed 's/^--------------0Vy7hGk2--$/--------------0Vy7hGk2extra\n&/' "$base" | put like-boundary plain nobody 'a line that begins like the boundary'
awk '/^Version: 1$/ {printf "Version: 1\rThe words that nobody else should read.\n"; next} {print}' "$base" | put bare-cr plain nobody 'a CR in a line'
awk '/^Version: 1$/ {printf "Version: 1%c\n", 0; next} {print}' "$base" | put nul plain nobody 'a NUL in a line'
{ outside; printf 'Content-Type: message/rfc822\n\n'; cat "$base"; } | put forwarded plain nobody 'a sealed message that was forwarded as it is'
{ outside; printf 'Content-Type: message/partial; id="a@example.net"; number=1; total=2\n\n'; cat "$base"; } | put partial plain nobody 'a piece of a message'
{ outside; printf 'Content-Type: multipart/mixed; boundary=outer\n\n--outer\nContent-Type: text/plain\n\nThe words that nobody else should read.\n--outer\n'
	sed '1,/^MIME-Version/d' "$base"; printf '%s\n' '--outer--'; } | put beside plain nobody 'a sealed part beside a plain one'
{ outside; printf 'Content-Type: multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha256; boundary=outer\n\n--outer\n'
	sed '1,/^MIME-Version/d' "$base"; printf -- '--outer\nContent-Type: application/pgp-signature\n\n'; cat "$work/signed.asc"; printf '%s\n' '--outer--'; } | put signed-around plain nobody 'sealed, with a signature around it'
{ outside; printf 'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b\n\nThe words that nobody else should read.\n'; } | put label plain nobody 'nothing but the label'

# The same of texts.
{ inline "$work/ann.asc"; printf '%s\nCarol\n' '-- '; } | put inline-signature plain nobody 'a signature behind the armor'
inline "$work/ann.asc" | sed 's/^-----BEGIN.*/Hello Ann,\n\n&/' | put inline-greeting plain nobody 'a greeting before the armor'
inline "$work/literal.asc" | put inline-literal plain nobody 'armor around plaintext'
inline "$work/clear.asc" | put inline-clearsigned plain nobody 'a clear-signed text'
{ inline "$work/ann.asc"; cat "$work/bob.asc"; } | put inline-two plain nobody 'two armored messages'
inline keys/ann.asc | put inline-key plain nobody 'a public key'
inline "$work/ann.asc" | sed 's/utf-8/utf-7/' | put inline-utf-7 plain nobody 'a charset in which base64 is something else'
inline "$work/ann.asc" | sed 's/7bit/quoted-printable/; s/=$/=3D/; s/^=/=3D/' | put inline-quoted-printable plain nobody 'encoded: some programs find the armor, others do not'
inline "$work/ann.asc" | sed 's/text.plain/text\/html/' | put inline-html plain nobody 'armor in HTML'

#!/bin/sh
# Installs what the tests meet and this machine lacks: real servers, and the
# programs that read what we write. It asks apt only where something is
# missing. Without the right to install, it says which line to run and stops.
set -eu

# Sendmail cannot be installed beside Postfix: its packages are unpacked here.
sendmail=$(sed -n 's/^const sendmailRoot = "\(.*\)"$/\1/p' "$(dirname "$0")/sendmail.go")

# program, and the Debian package that it comes in
wanted='
postfix   postfix
postconf  postfix
initdb    postgresql
sqlite3   sqlite3
gpg       gnupg
gpgsm     gpgsm
openssl   openssl
opendkim  opendkim
cmsutil   libnss3-tools
sq        sq
sqop      sqop
rnp       rnp
systemd-analyze  systemd
systemd-sysusers systemd
gcc       gcc
scdoc     scdoc
mandoc    mandoc
m4        m4
imap      dovecot-imapd
lmtp      dovecot-lmtpd
'
PATH="$PATH:/usr/sbin:/sbin:/usr/lib/dovecot"
for bin in /usr/lib/postgresql/*/bin; do
	PATH="$PATH:$bin"
done

# Mail programs, and what runs OpenPGP.js, are for make interop alone.
[ -z "${INTEROP:-}" ] || wanted="$wanted
thunderbird thunderbird
neomutt     neomutt
tmux        tmux
node        nodejs
npm         npm
"
# OpenPGP.js is no package of Debian's. npm brings the version that the matrix
# was made with.
openpgpjs=$(sed -n 's/^const openPGPJS = "\(.*\)"$/\1/p' "$(dirname "$0")/../interop/openpgp_test.go")
javascript=
if [ -n "${INTEROP:-}" ] && [ ! -e "$openpgpjs/node_modules/openpgp/package.json" ]; then
	javascript=openpgp@6.3.2
fi
packages=$(printf '%s' "$wanted" | while read -r program package; do
	[ -z "$program" ] || command -v "$program" >/dev/null 2>&1 || echo "$package"
done | sort -u | tr '\n' ' ')
# The race detector links with the C library.
[ -e /usr/include/stdlib.h ] || packages="$packages libc6-dev"
# Unpacked packages are whole, and every library is there.
unpack='sendmail-base sendmail-bin sendmail-cf'
program=$sendmail/usr/libexec/sendmail/sendmail
if [ -x "$program" ] && [ -e "$sendmail/usr/share/sendmail/cf/m4/cf.m4" ] && ! ldd "$program" | grep -q 'not found'; then
	unpack=
fi
packages=${packages% }
[ -n "$packages$unpack$javascript" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	[ -z "$packages" ] || echo "The tests need these Debian packages, or what they are called here: $packages" >&2
	[ -z "$unpack" ] || echo "The tests need Sendmail 8.17 in $sendmail, as Debian's packages unpack it: $unpack" >&2
	[ -z "$javascript" ] || echo "The tests need OpenPGP.js in $openpgpjs: npm install --prefix $openpgpjs $javascript" >&2
	exit 1
fi
install='apt-get install -y --no-install-recommends'
if [ "$(id -u)" -ne 0 ]; then
	echo "The tests need what is not there. As root, run:" >&2
	if [ -n "$unpack$javascript" ]; then
		echo "    ${INTEROP:+INTEROP=1 }sh $0" >&2
	else
		echo "    apt-get update && $install $packages" >&2
	fi
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
[ -z "$packages$unpack" ] || apt-get update -q >/dev/null
if [ -n "$packages" ]; then
	echo "installing $packages" >&2
	# Without this answer the package asks what kind of mail server this is, and
	# might begin to be one.
	echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
	$install $packages >/dev/null
fi
if [ -n "$unpack" ]; then
	echo "unpacking $unpack into $sendmail" >&2
	# Its libraries can be installed. Their names change with Debian's releases.
	$install $(apt-cache depends sendmail-bin | sed -n 's/^ *Depends: \(lib.*\)/\1/p') >/dev/null
	mkdir -p "$(dirname "$sendmail")"
	new=$(mktemp -d "$sendmail.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	(cd "$new" && apt-get download -q -o APT::Sandbox::User=root $unpack >/dev/null)
	for deb in "$new"/*.deb; do
		dpkg -x "$deb" "$new/root"
	done
	chmod 755 "$new/root"
	rm -rf "$sendmail"
	mv "$new/root" "$sendmail"
fi
if [ -n "$javascript" ]; then
	echo "installing $javascript into $openpgpjs" >&2
	mkdir -p "$openpgpjs"
	npm install --prefix "$openpgpjs" --no-save --no-audit --no-fund --ignore-scripts "$javascript" >/dev/null
fi

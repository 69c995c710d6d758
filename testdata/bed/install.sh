#!/bin/sh
# Installs what the tests meet and this machine lacks: real servers, and the
# programs that read what we write. It asks apt only where something is
# missing. Without the right to install, it says which line to run and stops.
set -eu

# program, and the Debian package that it comes in
wanted='
postfix   postfix
postconf  postfix
initdb    postgresql
sqlite3   sqlite3
gpg       gnupg
gpgsm     gpgsm
openssl   openssl
cmsutil   libnss3-tools
systemd-analyze  systemd
systemd-sysusers systemd
gcc       gcc
scdoc     scdoc
mandoc    mandoc
'
PATH="$PATH:/usr/sbin:/sbin:/usr/lib/dovecot"
for bin in /usr/lib/postgresql/*/bin; do
	PATH="$PATH:$bin"
done

# Programs with a window, and what they need, for make interop alone.
[ -z "${INTEROP:-}" ] || wanted="$wanted
thunderbird thunderbird
imap        dovecot-imapd
lmtp        dovecot-lmtpd
"
packages=$(printf '%s' "$wanted" | while read -r program package; do
	[ -z "$program" ] || command -v "$program" >/dev/null 2>&1 || echo "$package"
done | sort -u | tr '\n' ' ')
# The race detector links with the C library.
[ -e /usr/include/stdlib.h ] || packages="$packages libc6-dev"
packages=${packages% }
[ -n "$packages" ] || exit 0

install="apt-get install -y --no-install-recommends $packages"
if ! command -v apt-get >/dev/null 2>&1; then
	echo "The tests need these Debian packages, or what they are called here: $packages" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "The tests need packages that are not installed. As root, run:" >&2
	echo "    apt-get update && $install" >&2
	exit 1
fi
echo "installing $packages" >&2
export DEBIAN_FRONTEND=noninteractive
# Without this answer the package asks what kind of mail server this is, and
# might begin to be one.
echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
apt-get update -q >/dev/null
$install >/dev/null

#!/bin/sh
# Makes certificates of every sort that people hand in, into the folder named.
# Their private keys are thrown away. keys/certificate_test.go knows what is to
# become of each.
set -eu
cd "$1"

# key NAME ALGORITHM [OPTION…]
key() {
	name=$1 algorithm=$2
	shift 2
	openssl genpkey -quiet -algorithm "$algorithm" "$@" -out "$name.key" 2>/dev/null
}
key rsa RSA -pkeyopt rsa_keygen_bits:2048
key rsa3072 RSA -pkeyopt rsa_keygen_bits:3072
key rsa1024 RSA -pkeyopt rsa_keygen_bits:1024
key p256 EC -pkeyopt ec_paramgen_curve:P-256
key p384 EC -pkeyopt ec_paramgen_curve:P-384
key p521 EC -pkeyopt ec_paramgen_curve:P-521
key p224 EC -pkeyopt ec_paramgen_curve:P-224
key secp256k1 EC -pkeyopt ec_paramgen_curve:secp256k1
key ed25519 ED25519
key root EC -pkeyopt ec_paramgen_curve:P-256
key middle EC -pkeyopt ec_paramgen_curve:P-256

serial=1
# issue NAME KEY ISSUER SUBJECT DAYS EXTENSION… writes NAME.pem
issue() {
	name=$1 key=$2 issuer=$3 subject=$4 days=$5
	shift 5
	printf '%s\n' "$@" >extensions
	serial=$((serial + 1))
	openssl req -new -key "$key.key" -subj "$subject" -out request 2>/dev/null
	if [ "$issuer" = self ]; then
		openssl x509 -req -in request -signkey "$key.key" -set_serial $serial -days "$days" -extfile extensions -out "$name.pem" 2>/dev/null
	else
		openssl x509 -req -in request -CA "$issuer.pem" -CAkey "$issuer.key" -set_serial $serial -days "$days" -extfile extensions -out "$name.pem" 2>/dev/null
	fi
}
address='subjectAltName=email:ann@example.org'
mail='extendedKeyUsage=emailProtection'
enciphers='keyUsage=digitalSignature,keyEncipherment'
agrees='keyUsage=digitalSignature,keyAgreement'

issue root root self '/CN=Root' 3650 'basicConstraints=critical,CA:TRUE' 'keyUsage=keyCertSign,cRLSign'
issue middle middle root '/CN=Middle' 3650 'basicConstraints=critical,CA:TRUE' 'keyUsage=keyCertSign,cRLSign'
issue rsa rsa middle '/CN=Ann' 365 "$address" "$mail" "$enciphers"
issue rsa3072 rsa3072 middle '/CN=Ann' 365 "$address" "$mail" "$enciphers"
issue p256 p256 middle '/CN=Ann' 365 "$address" "$mail" "$agrees"
issue p384 p384 middle '/CN=Ann' 365 "$address" "$mail" "$agrees"
issue p521 p521 middle '/CN=Ann' 365 "$address" "$mail" "$agrees"
issue no-usage rsa middle '/CN=Ann' 365 "$address"
issue any-usage rsa middle '/CN=Ann' 365 "$address" 'extendedKeyUsage=anyExtendedKeyUsage'
issue subject-address rsa middle '/CN=Ann/emailAddress=ann@example.org' 365 "$mail"
issue utf8-address rsa middle '/CN=Ann' 365 'subjectAltName=@names' '[names]' 'otherName=1.3.6.1.5.5.7.8.9;FORMAT:UTF8,UTF8:änn@example.org'
issue other-address rsa middle '/CN=Bob' 365 'subjectAltName=email:bob@example.net' "$mail"
issue no-address rsa middle '/CN=Ann' 365 "$mail"
issue home-made rsa self '/CN=Ann' 365 "$address" 'basicConstraints=CA:TRUE'
issue home-made-nameless rsa self '/CN=Ann' 365 'basicConstraints=CA:TRUE'
issue renewed rsa self '/CN=Ann' 730 "$address" 'basicConstraints=CA:TRUE'
issue old-root rsa self '/CN=Root' 3650
issue root-with-address rsa self '/CN=Root/emailAddress=ca@example.org' 3650 'basicConstraints=CA:TRUE'
issue expired rsa middle '/CN=Ann' -1 "$address" "$mail" "$enciphers"
issue signs-only rsa middle '/CN=Ann' 365 "$address" 'keyUsage=digitalSignature'
issue enciphers-ec p256 middle '/CN=Ann' 365 "$address" "$enciphers"
issue web-server rsa middle '/CN=mail.example.org' 365 'extendedKeyUsage=serverAuth' "$enciphers"
issue rsa1024 rsa1024 middle '/CN=Ann' 365 "$address"
issue p224 p224 middle '/CN=Ann' 365 "$address"
issue secp256k1 secp256k1 middle '/CN=Ann' 365 "$address"
issue ed25519 ed25519 middle '/CN=Ann' 365 "$address"

# The forms that they come in.
openssl x509 -in rsa.pem -outform DER -out rsa.der
openssl x509 -in rsa.pem -trustout -setalias ann -out trusted.pem
openssl x509 -in rsa.pem -text -out text.pem
base64 rsa.der >rsa.b64
sed 's/$/\r/' rsa.pem >crlf.pem
openssl crl2pkcs7 -nocrl -certfile rsa.pem -certfile middle.pem -certfile root.pem -outform DER -out chain.p7b
openssl crl2pkcs7 -nocrl -certfile rsa.pem -certfile middle.pem -certfile root.pem -out chain.p7c
openssl crl2pkcs7 -nocrl -certfile middle.pem -certfile root.pem -outform DER -out authorities.p7b
cat rsa.pem middle.pem root.pem >leaf-middle-root.pem
cat rsa.pem root.pem middle.pem >leaf-root-middle.pem
cat middle.pem rsa.pem root.pem >middle-leaf-root.pem
cat middle.pem root.pem rsa.pem >middle-root-leaf.pem
cat root.pem rsa.pem middle.pem >root-leaf-middle.pem
cat root.pem middle.pem rsa.pem >root-middle-leaf.pem
cat middle.pem root.pem >middle-root.pem
cat rsa.pem p256.pem middle.pem >two-leaves.pem
cat rsa.pem rsa.pem >twice.pem
cat home-made.pem renewed.pem >two-home-made.pem
cat home-made.pem home-made.pem >home-made-twice.pem
openssl crl2pkcs7 -nocrl -outform DER -out empty.p7b
openssl crl2pkcs7 -nocrl -out empty.p7c
echo hello | openssl cms -encrypt -outform DER -out message.p7m rsa.pem
echo hello | openssl smime -encrypt -outform PEM -out message.pem rsa.pem
cat rsa.pem rsa.key >with-key.pem
openssl pkcs12 -export -in rsa.pem -inkey rsa.key -passout pass:x -out rsa.p12
head -c 400 rsa.der >cut.der
head -n 10 rsa.pem >cut.pem
rm -f ./*.key request extensions

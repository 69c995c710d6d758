package keys

import (
	"crypto/rsa"
	"crypto/x509"
)

// What the parts of an answer take in memory, in bytes, beside the octets that
// can be counted; measured on 64-bit machines (TestFootprint).
const (
	entryFootprint       = 270
	accountFootprint     = 200
	keyFootprint         = 250
	publicFootprint      = 700
	certificateFootprint = 1750
	attributeFootprint   = 150 // of a name in a certificate
	extensionFootprint   = 130
)

// entrySize estimates what an answer takes in memory. Accounts and keys that
// others share are counted here all the same.
func entrySize(name string, accounts []*Account) int64 {
	size := entryFootprint + 3*len(name)
	for _, account := range accounts {
		size += accountFootprint + len(account.Address) + len(account.Options)
		for _, key := range account.Keys {
			size += key.footprint()
		}
		for _, unread := range account.Unread {
			size += len(unread.Error())
		}
	}
	return int64(size)
}

// footprint estimates what a key takes in memory.
func (k *Key) footprint() int {
	size := keyFootprint + len(k.encoded)
	for _, id := range k.UserIDs {
		size += 16 + len(id)
	}
	for _, e := range k.encryption {
		if e.certificate != nil {
			size += certificateSize(e.certificate)
		}
		if e.public == nil {
			continue
		}
		size += publicFootprint
		if key, ok := e.public.PublicKey.(*rsa.PublicKey); ok { // its modulus is there several times over
			size += key.Size() * 15 / 2
		}
	}
	return size
}

// certificateSize estimates what a parsed certificate takes beside its octets.
// Those of public authorities have twice as much in them as one that openssl
// has made.
func certificateSize(c *x509.Certificate) int {
	size := certificateFootprint + attributeFootprint*(len(c.Subject.Names)+len(c.Issuer.Names)) + extensionFootprint*len(c.Extensions)
	for _, addresses := range [][]string{c.OCSPServer, c.IssuingCertificateURL, c.CRLDistributionPoints, c.EmailAddresses, c.DNSNames} {
		for _, one := range addresses {
			size += 16 + len(one)
		}
	}
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok {
		size += key.Size()
	}
	return size
}

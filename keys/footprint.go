package keys

import "crypto/rsa"

// What the parts of an answer take in memory, in bytes, beside the octets that
// can be counted; measured on 64-bit machines (TestFootprint).
const (
	entryFootprint       = 160
	accountFootprint     = 200
	keyFootprint         = 250
	publicFootprint      = 700
	certificateFootprint = 2900
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
			size += certificateFootprint
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

package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// What refusing or reading one hostile input may take. The aim is 100 ms; the
// test leaves room for a busy machine.
const (
	hostileTime   = 200 * time.Millisecond
	hostileMemory = 32 << 20
)

// TestHostile: a file of keys that is made to be expensive is not.
func TestHostile(t *testing.T) {
	entity := newEntity(t, at(birth))
	key := binary(t, entity)
	full := func(head []byte, piece ...byte) []byte {
		return append(bytes.Clone(head), bytes.Repeat(piece, (MaxKeySize-len(head))/len(piece))...)
	}
	curve := func(c packet.Curve) *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: c, Time: at(birth).Time}
	}
	nested := []byte{0xc8, 1, 0}
	for len(nested) < MaxKeySize-10 {
		nested = append([]byte{0xc8, 0xff, 0, byte(len(nested) >> 16), byte(len(nested) >> 8), byte(len(nested)), 0}, nested...)[:len(nested)+7]
		nested[5]++ // the algorithm's octet is counted too
		if len(nested) > 4000 {
			break
		}
	}
	for _, test := range []struct {
		name string
		data []byte
		want string // "" for a key that is read
	}{
		{"tiny user ids", full(key, 0xcd, 0), "it has more than 4096 packets"},
		{"tiny packets that are skipped", full(key, 0xfc, 0), "it has more than 4096 packets"},
		{"tiny user ids alone", full(nil, 0xcd, 0), "packet 1 is a user id"},
		{"tiny keys", full(key, 0xc6, 0), "it has more than 4096 packets"},
		{"3,000 user ids without signatures", full(key, append([]byte{0xcd, 80}, strings.Repeat("x", 80)...)...), ""},
		{"nested compressed packets", nested, "packet 1 is part of a message (type 8)"},
		{"a compressed packet in a key", append(bytes.Clone(key), nested...), "packet 6 is part of a message (type 8)"},
		{"a length of 4 GiB", []byte("\xc6\xff\xff\xff\xff\xff\x04"), "it is cut off in its first packet"},
		{"a partial length of 1 GiB", []byte("\xc6\xfe\x04"), "it is cut off in its first packet"},
		{"one-octet partial lengths", full([]byte{0xc6}, 0xe0, 4), "it is cut off in its first packet"},
		{"user ids with forged signatures", forged(t, at(birth), false), "checking its signatures takes too long"},
		{"forged signatures on one user id", forged(t, at(birth), true), "checking its signatures takes too long"},
		{"forged, P-384", forged(t, curve(packet.CurveNistP384), true), "checking its signatures takes too long"},
		{"forged, P-521", forged(t, curve(packet.CurveNistP521), true), "checking its signatures takes too long"},
		{"forged, brainpoolP256", forged(t, curve(packet.CurveBrainpoolP256), true), "checking its signatures takes too long"},
		{"forged, brainpoolP512", forged(t, curve(packet.CurveBrainpoolP512), true), "checking its signatures takes too long"},
		{"forged, Ed448", forged(t, &packet.Config{Algorithm: packet.PubKeyAlgoEd448, Time: at(birth).Time}, true), "checking its signatures takes too long"},
		{"forged, RSA-8192", forgedRSA(t, 8192), "checking its signatures takes too long"},
		{"forged, RSA-16384", forgedRSA(t, 16384), "a key of 16384 bits is too long"},
		{"forged signatures on a long user id", longForged(t), "checking its signatures takes too long"},
		{"third parties' signatures", flooded(t), ""},
		{"base64 of blanks", bytes.Repeat([]byte(" \n"), MaxKeySize/2), "it is empty"},
		{"first lines", bytes.Repeat([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), MaxKeySize/40), "block 1: "},
		{"empty blocks", bytes.Repeat([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n-----END PGP PUBLIC KEY BLOCK-----\n"), MaxKeySize/80), "block 1: "},
		{"many keys", bytes.Repeat([]byte(armorBlock(key)), MaxKeySize/len(armorBlock(key))), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if len(test.data) > MaxKeySize {
				t.Fatalf("it has %d bytes", len(test.data))
			}
			took, memory, err := measure(test.data)
			switch {
			case err == nil && test.want != "", err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q", err, test.want)
			case took > hostileTime*slow || memory > hostileMemory:
				t.Errorf("it took %v and %d KiB", took, memory>>10)
			}
			t.Logf("%v, %d KiB", took, memory>>10)
		})
	}
}

// measure parses, more than once where a busy machine may have been the cause.
func measure(data []byte) (took time.Duration, memory uint64, err error) {
	for range 5 {
		runtime.GC()
		stop, peak := make(chan struct{}), make(chan uint64)
		before := heap()
		go func() {
			most := before
			for {
				select {
				case <-stop:
					peak <- max(most, heap()) - before
					return
				case <-time.After(100 * time.Microsecond):
					most = max(most, heap())
				}
			}
		}()
		begin := time.Now()
		_, err = Parse(data)
		took = time.Since(begin)
		close(stop)
		if memory = <-peak; took < hostileTime && memory < hostileMemory {
			break
		}
	}
	return took, memory, err
}

// heap is what the program holds, garbage that was not collected yet included.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// forged is a key with as many signatures as there is room for that claim to
// be its own and do not hold, on one user id or on one each.
func forged(t testing.TB, config *packet.Config, one bool) []byte {
	t.Helper()
	entity := newEntity(t, config)
	id := entity.Identities["Ann <ann@example.org>"]
	var data, sig bytes.Buffer
	entity.PrimaryKey.Serialize(&data)
	id.SelfCertifications[0].Packet.Serialize(&sig)
	return fill(&data, sig.Bytes(), one)
}

func forgedRSA(t testing.TB, bits uint) []byte {
	t.Helper()
	entity := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, Time: at(birth).Time})
	modulus := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits)))(t)
	modulus.SetBit(modulus.SetBit(modulus, 0, 1), int(bits)-1, 1)
	public := packet.NewRSAPublicKey(birth, &rsa.PublicKey{N: modulus, E: 65537})
	var data, sig bytes.Buffer
	public.Serialize(&data)
	entity.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet.Serialize(&sig)
	return fill(&data, inNameOf(sig.Bytes(), entity.PrimaryKey, public), true)
}

// fill adds user ids and signatures, each of which is damaged in another way.
func fill(data *bytes.Buffer, sig []byte, one bool) []byte {
	for number := 0; data.Len()+len(sig)+10 < MaxKeySize; number++ {
		if number == 0 || !one {
			data.Write([]byte{0xcd, 3, 'x', byte(number >> 8), byte(number)})
		}
		damaged := bytes.Clone(sig)
		damaged[len(sig)-3], damaged[len(sig)-2] = byte(number>>8), byte(number)
		data.Write(damaged)
	}
	return data.Bytes()
}

// longForged has a user id that takes long to hash, once for each signature.
func longForged(t testing.TB) []byte {
	t.Helper()
	entity := newEntity(t, at(birth))
	var data, sig bytes.Buffer
	entity.PrimaryKey.Serialize(&data)
	packet.NewUserId("Ann", strings.Repeat("x", MaxKeySize/2), "").Serialize(&data)
	entity.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet.Serialize(&sig)
	for number := 0; data.Len()+sig.Len() < MaxKeySize; number++ {
		damaged := bytes.Clone(sig.Bytes())
		damaged[len(damaged)-3], damaged[len(damaged)-2] = byte(number>>8), byte(number)
		data.Write(damaged)
	}
	return data.Bytes()
}

// flooded is a key that others have certified a thousand times.
func flooded(t testing.TB) []byte {
	t.Helper()
	entity, stranger := newEntity(t, at(birth)), newEntity(t, at(birth))
	var sig bytes.Buffer
	stranger.Identities["Ann <ann@example.org>"].SelfCertifications[0].Packet.Serialize(&sig)
	var data bytes.Buffer
	for _, p := range must(cutKeys(binary(t, entity)))(t)[0] {
		p.Serialize(&data)
		for p.Tag == tagUserID && data.Len()+sig.Len()+2000 < MaxKeySize {
			data.Write(sig.Bytes())
		}
	}
	return data.Bytes()
}

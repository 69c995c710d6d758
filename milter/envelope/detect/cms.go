package detect

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"sealmilter/keys"
)

// maxEnvelope bounds what is gathered of one object in front of its content,
// in bytes.
const maxEnvelope = 1 << 20

// inside is a constructed value of which a CMS object consists.
type inside int

const (
	inNothing    inside = iota
	inInfo              // ContentInfo (RFC 5652, section 3)
	inExplicit          // its content
	inEnveloped         // EnvelopedData (section 6.1) or AuthEnvelopedData (RFC 5083, section 2.1)
	inRecipients        // RecipientInfos
	inEncrypted         // EncryptedContentInfo
	inContent           // the encrypted content in pieces
)

// level is a constructed value that has not ended.
type level struct {
	in    inside
	count int // of the values in it so far
}

// cmsObject checks a CMS object against the two types that are encrypted, as it
// is visited. All that stands in front of the content is gathered value by value;
// the content is passed over.
type cmsObject struct {
	levels   []level
	small    *der // the value that is gathered
	skip     bool // the value is a piece of the content
	gathered int
	infos    int
	auth     bool // AuthEnvelopedData
	readers  []keys.ReaderID
}

// here is the innermost level.
func (c *cmsObject) here() *level {
	if len(c.levels) == 0 {
		c.levels = append(c.levels, level{})
	}
	return &c.levels[len(c.levels)-1]
}

// place is where in an object a value stands: in what, as which one, and with
// which identifier. In a list the number is 0.
type place struct {
	in         inside
	number     int
	identifier byte
}

func (c *cmsObject) enter(identifier byte) error {
	if c.small != nil {
		return c.small.enter(identifier)
	}
	here := c.here()
	here.count++
	at := place{here.in, here.count, identifier}
	if at.in == inRecipients || at.in == inContent {
		at.number = 0
	}
	switch at {
	case place{inNothing, 1, berSequence}:
		c.descend(inInfo)
	case place{inInfo, 2, berTagged}:
		c.descend(inExplicit)
	case place{inExplicit, 1, berSequence}:
		c.descend(inEnveloped)
	case place{inEnveloped, 2, berSet}:
		c.descend(inRecipients)
	case place{inEnveloped, 3, berSequence}:
		c.descend(inEncrypted)
	case place{inEncrypted, 3, berTagged}, place{inContent, 0, berOctets | berConstructed}:
		c.descend(inContent)
	case place{inEncrypted, 3, berPlain}, place{inContent, 0, berOctets}:
		c.skip = true
	default:
		if !isSmall(at, c.auth) {
			return misplaced(at)
		}
		c.small = &der{}
		return c.small.enter(identifier)
	}
	return nil
}

// isSmall says whether the value at a place is one that is gathered.
func isSmall(at place, auth bool) bool {
	switch at {
	case place{inInfo, 1, berOID}, // contentType
		place{inEnveloped, 1, berInteger}, // version
		place{inRecipients, 0, berSequence},
		place{inRecipients, 0, berTagged + 1},
		place{inRecipients, 0, berTagged + 2},
		place{inRecipients, 0, berTagged + 3},
		place{inRecipients, 0, berTagged + 4},
		place{inEncrypted, 1, berOID},      // contentType
		place{inEncrypted, 2, berSequence}: // contentEncryptionAlgorithm
		return true
	case place{inEnveloped, 4, berOctets}: // mac
		return auth
	}
	return false
}

func (c *cmsObject) descend(in inside) { c.levels = append(c.levels, level{in: in}) }

// misplaced is the error for a value that does not belong where it stands.
func misplaced(at place) error {
	switch {
	case at == place{inEnveloped, 2, berTagged}:
		return errors.New("the S/MIME object has certificates of its sender beside what is encrypted")
	case at.in == inEnveloped && at.number >= 4 && at.identifier&berTagged == berTagged:
		return errors.New("the S/MIME object has attributes beside what is encrypted")
	}
	return errBER
}

func (c *cmsObject) content(octets []byte) error {
	if c.small != nil {
		return c.small.content(octets)
	}
	if !c.skip {
		return errBER
	}
	return nil
}

func (c *cmsObject) leave() error {
	switch {
	case c.skip:
		c.skip = false
		return nil
	case c.small != nil:
		if err := c.small.leave(); err != nil || c.small.done == nil {
			return err
		}
		value := c.small.done
		c.gathered += c.small.size
		c.small = nil
		if c.gathered > maxEnvelope {
			return errors.New("the S/MIME object has too many readers")
		}
		return c.judge(*c.here(), value)
	}
	left := *c.here()
	c.levels = c.levels[:len(c.levels)-1]
	return c.wanting(left)
}

// wanting is an error where a constructed value has ended too early.
func (c *cmsObject) wanting(left level) error {
	want := 0
	switch left.in {
	case inInfo:
		want = 2
	case inExplicit, inRecipients:
		want = 1
	case inEncrypted:
		want = 3 // content that is kept elsewhere is no content (section 6.1)
	case inEnveloped:
		want = 3
		if c.auth {
			want = 4
		}
	}
	if left.count < want {
		return errors.New("the S/MIME object lacks a part")
	}
	return nil
}

// judge judges a value that was gathered, at its place.
func (c *cmsObject) judge(at level, value []byte) error {
	switch {
	case at.in == inInfo:
		return c.judgeType(value)
	case at.in == inRecipients:
		if c.infos++; c.infos > maxReaders {
			return fmt.Errorf("the S/MIME object has more than %d readers", maxReaders)
		}
		readers, err := readRecipient(value)
		c.readers = append(c.readers, readers...)
		if err == nil && len(c.readers) > maxReaders {
			err = fmt.Errorf("the S/MIME object has more than %d readers", maxReaders)
		}
		return err
	case at.in == inEncrypted && at.count == 2:
		return judgeCipher(value, c.auth)
	case at.in == inEncrypted: // the content's type, which may be any
		return unmarshal(value, new(asn1.ObjectIdentifier), "")
	case at.in == inEnveloped && at.count == 1:
		return unmarshal(value, new(int), "")
	}
	return unmarshal(value, new([]byte), "") // the mac
}

func (c *cmsObject) judgeType(value []byte) error {
	var id asn1.ObjectIdentifier
	if err := unmarshal(value, &id, ""); err != nil {
		return err
	}
	switch id.String() {
	case "1.2.840.113549.1.7.3":
		return nil
	case "1.2.840.113549.1.9.16.1.23": // id-ct-authEnvelopedData
		c.auth = true
		return nil
	case "1.2.840.113549.1.7.1":
		return errors.New("the S/MIME object is plain data")
	case "1.2.840.113549.1.7.2":
		return errors.New("the S/MIME object is signed, not encrypted")
	case "1.2.840.113549.1.9.16.1.9":
		return errors.New("the S/MIME object is compressed, not encrypted")
	}
	return errors.New("the S/MIME object is of a type that is not encrypted mail")
}

// unmarshal reads a value in DER, all of it.
func unmarshal(value []byte, into any, params string) error {
	if rest, err := asn1.UnmarshalWithParams(value, into, params); err != nil || len(rest) > 0 {
		return errBER
	}
	return nil
}

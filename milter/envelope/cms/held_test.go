package cms

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"sealmilter/testdata/bed"
)

var errNoBudget = errors.New("no budget is left")

// purse is a budget that remembers the most that was taken of it.
type purse struct{ limit, taken, most int64 }

func (p *purse) Take(octets int64) error {
	if p.taken+octets > p.limit {
		return errNoBudget
	}
	p.taken += octets
	p.most = max(p.most, p.taken)
	return nil
}

func (p *purse) Give(octets int64) { p.taken -= octets }

// TestBudget seals messages of many sizes in GCM: all that is held is counted,
// which is little more than the message, and all is given back at its end.
func TestBudget(t *testing.T) {
	for _, size := range []int{0, 1, growth - icvSize, growth - icvSize + 1, growth, 1 << 20, 10 << 20, 25 << 20} {
		for _, piece := range []int{65535, 1 << 30} {
			p := &purse{limit: 1 << 30}
			e := must(NewEncrypter(io.Discard, AES256, Options{GCM: true, Budget: p}))
			for rest := size; rest > 0; rest -= min(piece, rest) {
				must(e.Write(make([]byte, min(piece, rest))))
			}
			held := p.taken
			if held < int64(size) || held > int64(size)+int64(size)/growthPart+2*growth {
				t.Errorf("size %d: %d octets are counted", size, held)
			}
			if err := e.Close(); err != nil || p.taken != 0 || p.most != held {
				t.Errorf("size %d: error %v; %d octets of the budget are gone; at most it was %d, not %d", size, err, p.taken, p.most, held)
			}
			e.Discard()
			if p.taken != 0 {
				t.Errorf("size %d: after the second ending %d octets are taken", size, p.taken)
			}
		}
	}
}

// TestBudgetExceeded holds that a message ends where there is no memory for it,
// and that its neighbour, on the same budget, does not.
func TestBudgetExceeded(t *testing.T) {
	p := &purse{limit: 1 << 20}
	var output bytes.Buffer
	neighbour := must(NewEncrypter(&output, AES128, Options{GCM: true, Budget: p}))
	must(neighbour.Write([]byte("content")))
	held := p.taken
	e := must(NewEncrypter(io.Discard, AES256, Options{GCM: true, Budget: p}))
	var err error
	written := 0
	for err == nil {
		_, err = e.Write(make([]byte, 10_000))
		written += 10_000
	}
	if !errors.Is(err, errNoBudget) || written < 800_000 || written > 1<<20 {
		t.Errorf("after %d octets the error is %v", written, err)
	}
	if p.taken != held {
		t.Errorf("%d octets are taken after the error", p.taken-held)
	}
	if _, err := e.Write([]byte("more")); !errors.Is(err, errNoBudget) {
		t.Errorf("the next piece has error %v", err)
	}
	if err := e.Close(); !errors.Is(err, errNoBudget) {
		t.Errorf("the end has error %v", err)
	}
	if _, err := e.Prefix(plain(newReader(t, "p256", certificateOptions{}))); !errors.Is(err, errNoBudget) {
		t.Errorf("a copy has error %v", err)
	}
	e.Discard()
	if err := neighbour.Close(); err != nil || p.taken != 0 || output.Len() != len("content")+behindGCM {
		t.Errorf("the neighbour: error %v, %d octets, %d taken", err, output.Len(), p.taken)
	}
}

// TestBudgetGivenBack has the other endings: given up at any point, and a writer
// that fails.
func TestBudgetGivenBack(t *testing.T) {
	p := &purse{limit: 1 << 30}
	for _, size := range []int{0, 1, 300_000} {
		e := must(NewEncrypter(io.Discard, AES256, Options{GCM: true, Budget: p}))
		must(e.Write(make([]byte, size)))
		e.Discard()
		e.Discard()
		if _, err := e.Write([]byte("more")); err == nil || p.taken != 0 {
			t.Errorf("given up after %d octets: %d are taken; then error %v", size, p.taken, err)
		}
		if _, err := e.Prefix(plain(newReader(t, "p256", certificateOptions{}))); err == nil {
			t.Error("a copy of a message that was given up")
		}
		for _, room := range []int{0, size} {
			e = must(NewEncrypter(&failing{n: room}, AES256, Options{GCM: true, Budget: p}))
			must(e.Write(make([]byte, size)))
			if err := e.Close(); err == nil || p.taken != 0 {
				t.Errorf("room for %d of %d octets: error %v, %d taken", room, size, err, p.taken)
			}
		}
	}
	(*Encrypter)(nil).Discard()
}

// TestTooLongForGCM begins where the longest message nearly ends, without its
// memory: the content's length is made up.
func TestTooLongForGCM(t *testing.T) {
	for _, size := range []int{maxSize - 1, maxSize, maxSize + 1} {
		p := &purse{limit: 1 << 20}
		e := must(NewEncrypter(io.Discard, AES256, Options{GCM: true, Budget: p}))
		must(e.Write([]byte{1}))
		content := &e.mode.(*gcm).content
		content.octets = content.reserved[:size-1]
		err := content.add([]byte{1})
		if tooLong := errors.Is(err, errTooLong); err == nil || tooLong != (size > maxSize) {
			t.Errorf("%d octets: error %v", size, err)
		}
		content.octets = nil
		e.Discard()
	}
}

// TestReservation holds that memory grows to what is needed, and that there is
// room for the longest message.
func TestReservation(t *testing.T) {
	var h held
	defer h.discard()
	for _, needed := range []int{1, growth, growth + 1, 1 << 20, 1 << 24} {
		if err := h.grow(needed); err != nil || h.usable < needed {
			t.Fatalf("%d of %d octets, error %v", h.usable, needed, err)
		}
	}
	if len(h.reserved) < maxSize+icvSize {
		t.Errorf("%d octets are reserved", len(h.reserved))
	}
}

// TestPeak measures what the system sees: a long message takes its length, not
// twice that, and nothing stays when it has ended.
func TestPeak(t *testing.T) {
	const size = 64 << 20
	content := random(64 << 10)
	before := bed.RSS(t, os.Getpid())
	bed.ResetPeakRSS(t, os.Getpid())
	e := must(NewEncrypter(io.Discard, AES256, Options{GCM: true}))
	for range size / len(content) {
		must(e.Write(content))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	peak, after := bed.PeakRSS(t, os.Getpid())-before, bed.RSS(t, os.Getpid())-before
	t.Logf("%d octets took %d at most, %d stay", size, peak, after)
	if peak > size*5/4 || after > size/8 {
		t.Errorf("%d octets took %d at most, %d stay", size, peak, after)
	}
}

// TestWiped holds that content is gone when its message is.
func TestWiped(t *testing.T) {
	e := must(NewEncrypter(io.Discard, AES256, Options{}))
	must(e.Write([]byte("secret")))
	rest := e.mode.(*cbc).rest
	key := e.key
	e.Discard()
	if !bytes.Equal(rest, make([]byte, len(rest))) || !bytes.Equal(key, make([]byte, len(key))) {
		t.Errorf("left are %q and the key %x", rest, key)
	}
}

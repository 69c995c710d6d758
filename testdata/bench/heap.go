package main

import (
	"io"
	"runtime"
	"runtime/metrics"

	"sealmilter/keys"
	"sealmilter/milter/envelope"
	"sealmilter/testdata/report"
)

// heapBar is what a message that streams may take beyond its spool.
const heapBar = 4 << 20

// heaps measures how much the heap grows, garbage included, while a message is
// sealed whose spool is a file from the first byte on: what it takes is all
// beyond the spool.
func heaps(b *bench) ([]report.Line, error) {
	size := (100 << 20) / b.scale
	var lines []report.Line
	for _, f := range []struct {
		what    string
		form    keys.Form
		address string
	}{
		{"OpenPGP", form(keys.OpenPGP, keys.NoAEAD), curveAddress},
		{"S/MIME AES-256-CBC", form(keys.SMIME, keys.NoAEAD), smimeAddress},
		{"OpenPGP SEIPDv2 AES-256-GCM", form(keys.OpenPGP, keys.GCM), curveAddress},
		{"OpenPGP SEIPDv2 AES-256-OCB", form(keys.OpenPGP, keys.OCB), curveAddress},
	} {
		l := report.Line{What: "heap beyond the spool, " + f.what, Kind: report.Heap, Size: size, Bar: heapBar}
		key := b.keys[f.address].With(keys.KeyOptions{AEAD: f.form.AEAD})
		if !supported(f.form, key) {
			l.Absent = "the engine has it not"
			lines = append(lines, l)
			continue
		}
		grown, err := b.heapGrowth(f.form, key, size)
		if err != nil {
			return nil, err
		}
		l.Ours = float64(grown)
		lines = append(lines, l)
	}
	return lines, nil
}

// heapGrowth seals a body of a size, which is never there as a whole, and looks
// at the heap at each piece that goes in or comes out.
func (b *bench) heapGrowth(f keys.Form, key *keys.Key, size int64) (int64, error) {
	piece := newBody(milterChunk)
	header := fields()
	runtime.GC()
	h := &heapWatch{sample: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
	h.look()
	start := h.peak
	err := sealPieces(h, f, key, envelope.Spool{Dir: b.dir}, header, func(write func([]byte) error) error {
		for left := size; left > 0; left -= int64(len(piece)) {
			if err := write(piece[:min(left, int64(len(piece)))]); err != nil {
				return err
			}
			h.look()
		}
		return nil
	})
	return int64(h.peak - start), err
}

// heapWatch is a writer that knows the largest heap it has seen.
type heapWatch struct {
	sample []metrics.Sample
	peak   uint64
}

func (h *heapWatch) look() {
	metrics.Read(h.sample)
	h.peak = max(h.peak, h.sample[0].Value.Uint64())
}

func (h *heapWatch) Write(p []byte) (int, error) {
	h.look()
	return io.Discard.Write(p)
}

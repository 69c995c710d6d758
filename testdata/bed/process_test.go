package bed

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMemory(t *testing.T) {
	pid := os.Getpid()
	ResetPeakRSS(t, pid)
	before := RSS(t, pid)
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	now, peak := RSS(t, pid), PeakRSS(t, pid)
	if ballast[4096] != 1 || now < before+60<<20 || peak < now {
		t.Errorf("resident %d, then %d, at most %d", before, now, peak)
	}
}

func TestListDescriptors(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "open"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ListDescriptors(t, os.Getpid()), f.Name()) {
		t.Errorf("%s is not in the list", f.Name())
	}
	f.Close()
	if slices.Contains(ListDescriptors(t, os.Getpid()), f.Name()) {
		t.Errorf("%s is in the list still", f.Name())
	}
}

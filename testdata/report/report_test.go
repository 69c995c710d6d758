package report

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBars(t *testing.T) {
	for _, test := range []struct {
		line  Line
		ratio float64
		good  bool
	}{
		{Line{Kind: Speed, Ours: 1, Theirs: 2, Bar: 1.6}, 2, true},
		{Line{Kind: Speed, Ours: 1, Theirs: 1.5, Bar: 1.6}, 1.5, false},
		{Line{Kind: Speed, Ours: 2, Theirs: 1, Bar: 0.5}, 0.5, true},
		{Line{Kind: Speed, Theirs: 1, Bar: 0.5}, 0, false},
		{Line{Kind: Cost, Ours: 3, Theirs: 2, Bar: 1.5}, 1.5, true},
		{Line{Kind: Cost, Ours: 4, Theirs: 2, Bar: 1.5}, 2, false},
		{Line{Kind: Cost, Ours: 0, Theirs: 2, Bar: 1.5}, 0, false},
		{Line{Kind: Heap, Ours: 1 << 20, Bar: 4 << 20}, 1 << 20, true},
		{Line{Kind: Heap, Ours: 5 << 20, Bar: 4 << 20}, 5 << 20, false},
		{Line{Kind: Speed, Ours: 1, Theirs: 2, Bar: 1.6, Absent: "not installed"}, 2, false},
		{Line{Kind: Time, Ours: 1, Theirs: 2, Bar: 0.5}, 0.5, true},
		{Line{Kind: Bytes, Ours: 3, Theirs: 2, Bar: 1.1}, 1.5, false},
		{Line{Kind: Count, Ours: 3, Theirs: 2, Bar: 1}, 1.5, true},
		{Line{Kind: Count, Ours: 1, Theirs: 2, Bar: 1}, 0.5, false},
		{Line{Kind: Count, Theirs: 2, Bar: 1}, 0, false},
	} {
		if test.line.Ratio() != test.ratio || test.line.AtBar() != test.good {
			t.Errorf("%+v: the ratio is %v, at its bar: %v", test.line, test.line.Ratio(), test.line.AtBar())
		}
	}
}

// TestWriteJSON: the folder is made, and without a name nothing is.
func TestWriteJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	lines := []Line{{What: "plans", Kind: Count, Ours: 100, Beside: "plans seen", Theirs: 100, Bar: 1}}
	if err := WriteJSON("", lines); err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
		t.Errorf("without a name there is %v, error %v", made, err)
	}
	name := filepath.Join("new", "numbers.json")
	if err := WriteJSON(name, lines); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	const want = `[
	{
		"what": "plans",
		"kind": "count",
		"ours": 100,
		"beside": "plans seen",
		"theirs": 100,
		"bar": 1,
		"ratio": 1,
		"at_bar": true
	}
]
`
	if err != nil || string(text) != want {
		t.Errorf("the file is %s, error %v", text, err)
	}
}

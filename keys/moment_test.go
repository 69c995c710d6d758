package keys

import (
	"context"
	"testing"
)

// moving is a store in which something changes after the first question.
type moving struct {
	before, after names
	asked         int
}

func (m *moving) RecipientKeys(ctx context.Context, asked []string) ([]Row, error) {
	if m.asked++; m.asked == 1 {
		return m.before.RecipientKeys(ctx, asked)
	}
	return m.after.RecipientKeys(ctx, asked)
}

func (*moving) Close() {}

// TestLookupOneMoment: an alias and what it leads to are changed together between
// the two questions of one lookup. Before and after, its mail is sealed.
func TestLookupOneMoment(t *testing.T) {
	before := names{"info@a.test": "desk@b.test", "@b.test": "+@b.test"}
	after := names{"info@a.test": "+ann@a.test", "ann@a.test": "+ann@a.test"}
	for name, store := range map[string]names{"before": before, "after": after} {
		found, err := Lookup(context.Background(), store, Naming{}, []string{"info@a.test"})
		if err != nil || len(found["info@a.test"].Accounts) != 1 || !found["info@a.test"].Accounts[0].Enrolled() {
			t.Fatalf("%s: %+v, error %v", name, found["info@a.test"], err)
		}
	}
	found, err := Lookup(context.Background(), &moving{before: before, after: after}, Naming{}, []string{"info@a.test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range found["info@a.test"].Accounts {
		if !account.Enrolled() {
			t.Errorf("the alias of before leads to %s, of after, who has no key", account.Address)
		}
	}
}

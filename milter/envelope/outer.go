package envelope

import "strings"

// marker is the field that says that the message was sealed here, for the eye
// and for mail filters behind the queue. Anyone can write it, so nothing is
// ever decided by it, and one that came with the message is taken out.
var marker = Field{"X-Sealmilter", " sealed"}

// OuterHeader is the header of the sealed message: of the fields that were
// shown those for which stay says so, in their order, and then the added ones.
// What describes the body that was replaced, what signs it, and marks like our
// own are in the payload only. A single sound MIME-Version field stays.
func (c *Copy) OuterHeader(shown []Field) (stay []bool, added []Field) {
	versions := 0
	for _, f := range shown {
		if isVersion(f) {
			versions++
		}
	}
	stay = make([]bool, len(shown))
	hasVersion := false
	for i, f := range shown {
		if isVersion(f) {
			stay[i] = versions == 1 && strings.TrimSpace(f.Value) == "1.0"
			hasVersion = stay[i]
			continue
		}
		stay[i] = !inside(strings.ToLower(f.Name))
	}
	if !hasVersion {
		added = append(added, Field{"MIME-Version", " 1.0"})
	}
	return stay, append(append(added, c.fields...), marker)
}

func isVersion(f Field) bool { return strings.EqualFold(f.Name, "MIME-Version") }

// inside says whether a field, named in lower case, is left in the payload.
func inside(name string) bool {
	return strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "arc-") ||
		name == "dkim-signature" || strings.HasPrefix(name, strings.ToLower(marker.Name))
}

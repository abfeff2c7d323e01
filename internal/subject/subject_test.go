package subject_test

import (
	"testing"

	"github.com/natsrelay/natsrelay/internal/subject"
)

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		pattern, other string
		want           bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a", false}, {"a", "a.b", false},
		{"a.*", "a.b", true}, {"a.*", "a.*", true}, {"a.*", "a.b.c", false}, {"a.*", "a", false}, {"a.*", "a.>", false},
		{"a.>", "a.b", true}, {"a.>", "a.b.c", true}, {"a.>", "a.>", true}, {"a.>", "a.*.>", true}, {"a.>", "a", false},
		{"*.>", "a.>", true}, {"a.*.>", "a.>", false}, {">", "a", true}, {">", ">", true}, {"a.b", "a.*", false}, {"*", ">", false},
	} {
		if got := subject.Covers(c.pattern, c.other); got != c.want {
			t.Errorf("Covers(%q, %q) = %v", c.pattern, c.other, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false},
		{">", "a", true}, {">", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "a.b", true}, {"a.>", "b.>", false},
		{"*", "a", true}, {"*", "a.b", false}, {"*.b", "a.*", true}, {"a.*.c", "a.b.*", true}, {"a.*.c", "a.b.d", false},
		{"a.*", "a.>", true}, {"*.>", "a", false}, {"*.>", "a.b", true}, {"*.*.>", "a.>", true}, {"", ">", false},
	} {
		if subject.Overlap(c.a, c.b) != c.want || subject.Overlap(c.b, c.a) != c.want {
			t.Errorf("Overlap(%q, %q) is not %t both ways", c.a, c.b, c.want)
		}
	}
}

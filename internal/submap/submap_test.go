package submap

import (
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/internal/subject"
)

func TestMap(t *testing.T) {
	const none = ""
	for _, tc := range []struct {
		sources, dest, subject string
		want                   string // none: an error
	}{
		{"orders.*", "cloud.{{wildcard(1)}}.orders", "orders.eu", "cloud.eu.orders"},
		{"orders.*.*", "o.$2.$1", "orders.eu.7", "o.7.eu"},
		{"orders.*.*", "o.{{ Wildcard(2) }}", "orders.eu.7", "o.7"},
		{"orders.>", "cloud.orders.>", "orders.eu.7", "cloud.orders.eu.7"},
		{"orders.*.>", "o.{{wildcard(1)}}.x.>", "orders.eu.7.8", "o.eu.x.7.8"},
		{">", "site.>", "a.b", "site.a.b"},
		{"orders", "o", "orders", "o"},
		{"orders.*", "o.{{split(1,-)}}", "orders.a-b--c", "o.a.b.c"},
		{"orders.*", "o.{{split(1,0)}}", "orders.10203", "o.1.2.3"},
		{"orders.*", "o.{{splitFromLeft(1,2)}}", "orders.abcd", "o.ab.cd"},
		{"orders.*", "o.{{SplitFromRight(1,1)}}", "orders.abcd", "o.abc.d"},
		{"orders.*", "o.{{slicefromleft(1,3)}}", "orders.abcdefg", "o.abc.def.g"},
		{"orders.*", "o.{{left(1,2)}}.{{right(1,1)}}", "orders.abcd", "o.ab.d"},
		{"orders.*", "o.{{partition(4,1)}}.{{wildcard(1)}}", "orders.alice", "o.3.alice"},
		{"orders", "o.{{partition(1)}}", "orders", "o.0"},

		// The first source that matches, and it alone.
		{"a.* b.*.*", "x.{{wildcard(1)}}", "b.2.3", "x.2"},
		{"a.x.* a.*.y", "x.{{wildcard(1)}}", "a.x.y", "x.y"},
		{"a.* b.*", "x.{{wildcard(1)}}", "c.1", none},
		{"a.*", "x.{{wildcard(1)}}", "a.1.2", none},

		// What would be no subject.
		{"a.*", "x.{{split(1,-)}}", "a.-", none},
		{"a.*", "x.{{split(1,-)}}.y", "a.---", none},
		{"a.*", "x.{{wildcard(1)}}", "a.", none},
		{"a.*", "x.{{wildcard(1)}}", "", none},
		{"a.>", "x.>", "a.*", none},
	} {
		m, err := New(strings.Fields(tc.sources), tc.dest)
		if err != nil {
			t.Errorf("%s to %s: %v", tc.sources, tc.dest, err)
			continue
		}
		got, err := m.Map(tc.subject)
		if got != tc.want || (err != nil) != (tc.want == none) {
			t.Errorf("%s to %s: %q becomes %q (%v), want %q", tc.sources, tc.dest, tc.subject, got, err, tc.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	for _, tc := range []struct{ sources, dest, want string }{
		{"orders.>", "cloud.{{wildcard(1)}}", `does not suit the subject "orders.>": both must end in >, or neither`},
		{"a.* b.>", "x.{{wildcard(1)}}", `does not suit the subject "b.>": both must end in >, or neither`},
		{"a.*", "x.>", `does not suit the subject "a.*": both must end in >, or neither`},
		{"a.*", "x.{{wildcard(2)}}", `does not suit the subject "a.*": invalid mapping destination: wildcard index out of range in x`},
		{"a.* b", "x.{{wildcard(1)}}", `does not suit the subject "b": `},
		{"a.*", "x.{{nosuch(1)}}", `does not suit the subject "a.*": `},
		{"a.*", "x.{{split(1)}}", `does not suit the subject "a.*": `},
		{"a.*", "x.{{wildcard(0)}}", `{{wildcard(0)}}: numbers start at 1`},
		{"a.*", "x.{{left(-1,2)}}", `{{left(-1,2)}}: numbers start at 1`},
		{"a.*", "x.{{partition(3,0)}}", `{{partition(3,0)}}: numbers start at 1`},
		{"a.*", "x.$0", `$0: numbers start at 1`},
		{"a.*", "x.*", `has a *; use {{wildcard(1)}} for what the first * of the source matched`},
		{"a.*", "x..y", `has an empty token`},
		{"a.*", "x y", `has a space or a control character`},
		{"a.*", "x{{wildcard(1)}}", `x{{wildcard(1)}}: a function must be a token of its own, {{name(arguments)}}, without dots in it`},
	} {
		_, err := New(strings.Fields(tc.sources), tc.dest)
		if err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(tc.want, "in x")) {
			t.Errorf("%s to %s: %v, want %s", tc.sources, tc.dest, err, tc.want)
		}
	}
}

func TestPattern(t *testing.T) {
	for dest, want := range map[string]string{
		"a.b":                             "a.b",
		"a.{{wildcard(1)}}.b":             "a.*.b",
		"a.$1.{{partition(3,1)}}.>":       "a.*.*.>",
		"a.{{split(1,-)}}.b":              "a.>",
		"a.$SYS.{{SliceFromLeft(1,2)}}.>": "a.$SYS.>",
	} {
		if got := Pattern(dest); got != want {
			t.Errorf("%s: %s, want %s", dest, got, want)
		}
	}
}

// FuzzMap: whatever the subject and the destination, there is no panic, and the result is a subject that Pattern has foreseen.
func FuzzMap(f *testing.F) {
	f.Add("a.*.*", "x.{{wildcard(2)}}.{{split(1,-)}}", "a.b-c.d")
	f.Add("a.>", "x.>", "a.b")
	f.Add("*", "{{partition(3,1)}}.{{slicefromright(1,2)}}", "abcde")
	f.Fuzz(func(t *testing.T, source, dest, from string) {
		m, err := New([]string{source}, dest)
		if err != nil {
			return
		}
		mapped, err := m.Map(from)
		if err != nil {
			return
		}
		if !literal(mapped) || !subject.Covers(Pattern(dest), mapped) {
			t.Errorf("%q to %q: %q becomes %q, which %q does not match", source, dest, from, mapped, Pattern(dest))
		}
	})
}

package config

import (
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64 // -1: no size
	}{
		{"0B", 0}, {"1B", 1}, {"3KB", 3e3}, {"3MB", 3e6}, {"10GB", 10e9}, {"2TB", 2e12},
		{"3KiB", 3 << 10}, {"64MiB", 64 << 20}, {"10GiB", 10 << 30}, {"2TiB", 2 << 40},
		{"9223372036854775807B", 1<<63 - 1}, {"8388607TiB", 8388607 << 40},
		{"9223372036854775808B", -1}, {"8388608TiB", -1}, {"99999999999999999999GiB", -1},
		{"", -1}, {"B", -1}, {"MiB", -1}, {"64", -1}, {"64M", -1}, {"64mib", -1}, {"64 MiB", -1}, {" 64MiB", -1},
		{"-1B", -1}, {"+1B", -1}, {"1.5GiB", -1}, {"0x10B", -1}, {"1_000B", -1}, {"1e3B", -1}, {"64MiBB", -1}, {"64KiMiB", -1},
	}
	for _, tt := range tests {
		got, ok := parseSize(tt.in)
		if !ok {
			got = -1
		}
		if got != tt.want {
			t.Errorf("parseSize(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 16 << 20: "16MiB", 3 << 29: "1536MiB", 1 << 40: "1TiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("formatSize(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 10 * time.Second: "10s", time.Minute: "1m", 10 * time.Minute: "10m",
		time.Hour: "1h", 20 * time.Hour: "20h", time.Hour + time.Second: "1h0m1s", 90 * time.Second: "1m30s", 90 * time.Minute: "1h30m",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("formatDuration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"timeout", "type", "url", "urls", "user", "max_age", "sync", "subjects"}
	for wrong, want := range map[string]string{
		"tiemout": "timeout", "timeot": "timeout", "Timeout": "timeout", "TIMEOUT": "timeout", "timeouts": "timeout",
		"usr": "user", "maxage": "max_age", "max-age": "max_age", "URL": "url", "urlss": "urls", "subject": "subjects",
		"": "", "x": "", "foo": "", "tm": "", "duration": "", "sinc": "sync", "async_": "sync",
	} {
		if want != "" {
			want = `, did you mean "` + want + `"?`
		}
		if got := didYouMean(wrong, known); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", wrong, got, want)
		}
	}
}

// TestLocate is about the corners of TOML; that every key is found is for FuzzParse to show.
func TestLocate(t *testing.T) {
	const src = `# [no.table]
a.b."c.d" = 1 # e = 2
f = [ 1, "]", [ 'x' ], { g = '''}''' } ] # ]
h = """
i = 1 \""" "" """""
j = 1979-05-27 07:32:00
k = { l = 1, m.n = { o = 2, # }
  p = "}" } }
[[q]]
r = 1
[ q . 's' ]
t = 1
[[q]]
r = 2
[[q.u]]
[[q.u]]
v = ""
w = ''
`
	root := locate(src)
	q := root.key("q")
	for _, tt := range []struct {
		name      string
		at        *place
		line, col int
	}{
		{"a", root.key("a"), 2, 1},
		{"a.b", root.key("a").key("b"), 2, 3},
		{`a.b."c.d"`, root.key("a").key("b").key("c.d"), 2, 5},
		{"f", root.key("f"), 3, 1},
		{"f[1]", root.key("f").elem(1), 3, 10},
		{"f[2][0]", root.key("f").elem(2).elem(0), 3, 17},
		{"f[3].g", root.key("f").elem(3).key("g"), 3, 26},
		{"h", root.key("h"), 4, 1},
		{"i, which is text", root.key("i"), 1, 1},
		{"j", root.key("j"), 6, 1},
		{"k.l", root.key("k").key("l"), 7, 7},
		{"k.m.n.p", root.key("k").key("m").key("n").key("p"), 8, 3},
		{"q", q, 9, 3},
		{"q[0].r", q.elem(0).key("r"), 10, 1},
		{"q[0].s", q.elem(0).key("s"), 11, 7},
		{"q[0].s.t", q.elem(0).key("s").key("t"), 12, 1},
		{"q[1]", q.elem(1), 13, 3},
		{"q[1].r", q.elem(1).key("r"), 14, 1},
		{"q[1].u[1]", q.elem(1).key("u").elem(1), 16, 5},
		{"q[1].u[1].w", q.elem(1).key("u").elem(1).key("w"), 18, 1},
		{"q[2], which is not there", q.elem(2), 9, 3},
	} {
		if line, col := position(src, tt.at.off); line != tt.line || col != tt.col {
			t.Errorf("%s is at %d:%d, want %d:%d", tt.name, line, col, tt.line, tt.col)
		}
	}
}

package config

import (
	"strings"
	"testing"
)

func TestParseURLTemplate(t *testing.T) {
	got, problem := ParseURLTemplate("https://h/a/{{token(12)}}/{{ subject }}?k={{header( X-Kind )}}&z")
	want := URLTemplate{
		{Text: "https://h/a/"},
		{Kind: URLToken, Token: 12},
		{Text: "/"},
		{Kind: URLSubject},
		{Text: "?k="},
		{Kind: URLHeader, Text: "X-Kind", Query: true},
		{Text: "&z", Query: true},
	}
	if d := diff(want, got); d != "" || problem != "" || got.IsFixed() {
		t.Errorf("%s\n-want +got\n%s", problem, d)
	}
	for _, bad := range []string{
		"https://h/{{", "https://h/{{subject", "https://h/{{}}", "https://h/{{token}}", "https://h/{{token()}}", "https://h/{{token(-1)}}", "https://h/{{token(1}}",
		"https://h/{{header()}}", "https://h/{{Subject}}", "https://{{subject}}", "https://h{{subject}}/", "{{subject}}://h/", "h{{subject}}",
	} {
		if got, problem := ParseURLTemplate(bad); problem == "" || got != nil {
			t.Errorf("%s: accepted as %v", bad, got)
		}
	}
}

// What is no template is a single piece, as it was written; what is one has its host in the first piece.
func FuzzParseURLTemplate(f *testing.F) {
	f.Add("https://h/a/{{token(12)}}/{{ subject }}?k={{header( X-Kind )}}&z")
	f.Add("https://h/a}}b")
	f.Fuzz(func(t *testing.T, s string) {
		parts, problem := ParseURLTemplate(s)
		switch {
		case problem != "":
			if parts != nil {
				t.Errorf("%q: %q, and %v", s, problem, parts)
			}
		case parts.IsFixed():
			if s != "" && (len(parts) != 1 || parts[0].Text != s) {
				t.Errorf("%q: %v", s, parts)
			}
		case parts[0].Kind != URLLiteral || !strings.ContainsAny(parts[0].Text[strings.Index(parts[0].Text, "://")+3:], "/?"):
			t.Errorf("%q: a message chooses the host: %v", s, parts)
		}
	})
}

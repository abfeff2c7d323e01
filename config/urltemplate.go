package config

import (
	"slices"
	"strconv"
	"strings"
)

// A URLTemplate is a URL with places that each message fills in.
type URLTemplate []URLPart

// A URLPart is a piece of a URLTemplate.
type URLPart struct {
	Kind  URLPartKind
	Text  string // URLLiteral: the piece itself; URLHeader: the name of the header
	Token int    // URLToken: which token of the subject, counted from 1
	Query bool   // the piece stands in the query
}

// URLPartKind says what a piece of a URL is made of.
type URLPartKind uint8

// The kinds of pieces.
const (
	URLLiteral URLPartKind = iota
	URLSubject             // {{subject}}
	URLToken               // {{token(2)}}
	URLHeader              // {{header(Name)}}
)

// ParseURLTemplate reads a URL with {{subject}}, {{token(N)}} and {{header(NAME)}} in its path or query. A message must not
// choose the host: whoever may publish could send what the relay knows, its credentials among it, wherever he likes.
// The problem, if there is one, quotes nothing of s, which may hold a secret.
func ParseURLTemplate(s string) (t URLTemplate, problem string) {
	for {
		text, rest, found := strings.Cut(s, "{{")
		if text != "" {
			t = append(t, URLPart{Text: text, Query: t.inQuery()})
		}
		if !found {
			return t, ""
		}
		inside, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, `"{{" without the "}}" that ends it`
		}
		part, ok := parseURLPart(strings.TrimSpace(inside))
		if !ok {
			return nil, "has a {{…}} that is none of {{subject}}, {{token(N)}} with N from 1, and {{header(NAME)}}"
		}
		if !t.hasHost() {
			return nil, "has a {{…}} before the path: messages do not choose the host"
		}
		part.Query = t.inQuery()
		t = append(t, part)
		s = after
	}
}

func parseURLPart(s string) (part URLPart, ok bool) {
	if s == "subject" {
		return URLPart{Kind: URLSubject}, true
	}
	name, rest, _ := strings.Cut(s, "(")
	arg, ok := strings.CutSuffix(rest, ")")
	if !ok {
		return URLPart{}, false
	}
	switch arg = strings.TrimSpace(arg); name {
	case "token":
		n, err := strconv.Atoi(arg)
		return URLPart{Kind: URLToken, Token: n}, err == nil && n >= 1
	case "header":
		return URLPart{Kind: URLHeader, Text: arg}, isToken(arg)
	}
	return URLPart{}, false
}

// IsFixed reports whether the URL is the same for every message.
func (t URLTemplate) IsFixed() bool {
	return !slices.ContainsFunc(t, func(p URLPart) bool { return p.Kind != URLLiteral })
}

// hasHost reports whether what has been read reaches beyond scheme and host.
func (t URLTemplate) hasHost() bool {
	if len(t) == 0 {
		return false
	}
	_, rest, _ := strings.Cut(t[0].Text, "://")
	return strings.ContainsAny(rest, "/?")
}

// inQuery reports whether what has been read ends in the query.
func (t URLTemplate) inQuery() bool {
	return slices.ContainsFunc(t, func(p URLPart) bool { return p.Kind == URLLiteral && strings.Contains(p.Text, "?") })
}

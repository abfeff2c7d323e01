package config

import (
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// natsURLs reads the servers of a connection, which are all spoken to in one way.
func natsURLs(b *binder, v value) ([]string, bool) {
	urls, ok := list(textThat(badNATSURL))(b, v)
	elems, _ := v.elems()
	for i, u := range urls {
		if ok && isWebSocket(u) != isWebSocket(urls[0]) {
			b.problem(elems[i], "ws:// and wss:// do not mix with nats:// and tls://")
			return nil, false
		}
	}
	return urls, ok
}

func isWebSocket(u string) bool {
	return strings.HasPrefix(u, "ws://") || strings.HasPrefix(u, "wss://")
}

// badNATSURL: nats.go takes user:password@ in URLs too, and prints them when it fails to connect.
func badNATSURL(s string) string {
	scheme, _, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return `must be a URL such as "nats://127.0.0.1:4222"`
	case scheme != "nats" && scheme != "tls" && !isWebSocket(s):
		return "must start with nats://, tls://, ws:// or wss://"
	}
	u, problem := hostURL(s)
	switch {
	case problem != "":
		return problem
	case u.User != nil:
		return "has a user or password in it, which would show up in logs; use the keys user and password, or token"
	case u.RawQuery != "" || u.Fragment != "":
		return "has more than scheme, host, port and, with ws:// or wss://, a path"
	case strings.Trim(u.Path, "/") != "" && !isWebSocket(s): // WebSocket servers live behind reverse proxies that tell them apart by it
		return `has more than scheme, host and port; several servers are several elements of the array`
	}
	return ""
}

// hostURL parses a URL. It drops the error of url.Parse, which quotes pieces of the URL: one of them may be a password.
func hostURL(s string) (u *url.URL, problem string) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, "is not a valid URL"
	}
	if u.Hostname() == "" {
		return nil, "has no host"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, "has no valid port"
		}
	}
	return u, ""
}

// taken are the headers that are not the user's to set, and why. Names in canonical form.
var taken = map[string]string{
	"Connection":          "is set by the HTTP client",
	"Content-Length":      "is set by the HTTP client",
	"Host":                "comes from the url",
	"Keep-Alive":          "is set by the HTTP client",
	"Proxy-Authorization": "is for the proxy, not for the endpoint; a user and a password go into the URL of the proxy",
	"Proxy-Connection":    "is set by the HTTP client",
	"Te":                  "is set by the HTTP client",
	"Trailer":             "is set by the HTTP client",
	"Transfer-Encoding":   "is set by the HTTP client",
	"Upgrade":             "is set by the HTTP client",

	"Idempotency-Key": "is set by natsrelay on each request",
	"Nats-Sequence":   "is set by natsrelay on each request",
	"Nats-Stream":     "is set by natsrelay on each request",
	"Nats-Subject":    "is set by natsrelay on each request",
	"Nats-Timestamp":  "is set by natsrelay on each request",
	"Natsrelay-Via":   "is set by natsrelay on each request",
}

// headers reads a table of HTTP headers. Their values are secrets, since that is where API keys go.
func headers(b *binder, v value) (map[string]Secret, bool) {
	all := make(map[string]Secret)
	for _, written := range b.names(v) {
		at, _ := v.get(written)
		name := textproto.CanonicalMIMEHeaderKey(written)
		text, ok := anyText(b, at)
		switch _, twice := all[name]; {
		case !isToken(written):
			b.problem(at, "is not a valid name of a header")
		case taken[name] != "":
			b.problem(at, "%s", taken[name])
		case twice:
			b.problem(at, "is there twice: upper and lower case are the same in names of headers")
		case ok && strings.ContainsFunc(text, isControl):
			b.problem(at, "the value has a control character")
		}
		all[name] = Secret(text)
	}
	return all, true // a bad one has been reported, and that is enough
}

// isToken reports whether s can be the name of a header (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// isControl reports whether r may not be in the value of a header. A newline would start another header.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

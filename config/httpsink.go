package config

import (
	"encoding/base64"
	"strings"
	"time"
)

// httpKeys are the keys of a sink of type http.
func httpKeys(c *HTTPSink) []key {
	return []key{
		req("url", &c.URL, textThat(badHTTPURL)),
		opt("method", &c.Method, "POST", oneOf("POST PUT PATCH")),
		opt("format", &c.Format, "raw", oneOf("raw lines json envelope cloudevents cloudevents_batch")),
		sub("batch", batchTable(&c.Batch)),
		opt("compression", &c.Compression, "none", oneOf("none gzip zstd")),
		opt("timeout", &c.Timeout, 10*time.Second, duration(time.Millisecond, time.Hour)),
		opt("headers", &c.Headers, nil, headers),
		opt("bearer_token", &c.BearerToken, "", headerSecret),
		ptr("basic", &c.Basic, basicTable),
		ptr("oauth2", &c.OAuth2, oauth2Table),
		opt("signing_secrets", &c.SigningSecrets, nil, list(signingSecret)),
		ptr("tls", &c.TLS, httpTLSTable),
		opt("http2", &c.HTTP2, true, boolean),
		opt("proxy", &c.Proxy, "", proxyURL("http", "https", "socks5", "socks5h")),
		sub("status", statusTable(&c.Status)),
	}
}

func batchTable(c *Batch) table {
	return table{keys: []key{
		opt("messages", &c.Messages, 500, integer(1, 100_000)),
		opt("bytes", &c.Bytes, mib, size(1)),
		opt("wait", &c.Wait, 50*time.Millisecond, duration(0, time.Minute)),
	}}
}

func basicTable(c *HTTPBasic) table {
	return table{keys: []key{
		req("user", &c.User, textThat(badBasicUser)),
		req("password", &c.Password, secret),
	}}
}

func oauth2Table(c *HTTPOAuth2) table {
	return table{keys: []key{
		req("token_url", &c.TokenURL, textThat(badEndpoint)),
		req("client_id", &c.ClientID, text),
		req("client_secret", &c.ClientSecret, secret),
		opt("scopes", &c.Scopes, nil, list(text)),
	}}
}

func httpTLSTable(c *HTTPTLS) table {
	return table{
		keys: []key{
			opt("ca", &c.CA, "", file),
			opt("cert", &c.Cert, "", file),
			opt("key", &c.Key, "", file),
			opt("server_name", &c.ServerName, "", text),
		},
		finish: func(b *binder, v value) { checkPEM(b, v, c.CA, c.Cert, c.Key) },
	}
}

func statusTable(c *HTTPStatus) table {
	codes := func(b *binder, v value) ([]int, bool) {
		if elems, ok := v.elems(); ok && len(elems) == 0 {
			return nil, true
		}
		return list(integer(200, 599))(b, v)
	}
	return table{
		keys: []key{
			opt("retry", &c.Retry, nil, codes),
			opt("poison", &c.Poison, nil, codes),
			opt("blocked", &c.Blocked, nil, codes),
		},
		finish: func(b *binder, v value) { checkStatus(b, v, c) },
	}
}

// checkStatus: a status has one meaning.
func checkStatus(b *binder, v value, c *HTTPStatus) {
	seen := map[int]string{}
	for _, class := range []struct {
		name  string
		codes []int
	}{{"retry", c.Retry}, {"poison", c.Poison}, {"blocked", c.Blocked}} {
		at, _ := v.get(class.name)
		for _, code := range class.codes {
			if other := seen[code]; other != "" {
				b.problem(at, "%d is in %s already; a status has one meaning", code, other)
			}
			seen[code] = class.name
		}
	}
}

// finishHTTP checks what concerns several keys.
func finishHTTP(b *binder, sink value, c *HTTPSink) {
	c.Endpoint = endpoint(sink)
	checkHTTPS(b, sink, c.URL)
	checkAuthorization(b, sink, c)
	if c.Format == "raw" || c.Format == "cloudevents" {
		if batch, ok := sink.get("batch"); ok {
			b.problem(batch, "has no effect on format %q, which is one request a message", c.Format)
		}
		c.Batch = Batch{}
	}
}

// endpoint returns what may be shown of the URL of a sink.
func endpoint(sink value) string {
	v, _ := sink.get("url")
	written, _ := v.raw.(string)
	shown, _, _ := strings.Cut(written, "?")
	return shown
}

// checkHTTPS refuses TLS settings that a plain http:// URL would silently do without.
func checkHTTPS(b *binder, sink value, to string) {
	if tls, ok := sink.get("tls"); ok && strings.HasPrefix(to, "http://") {
		b.problem(tls, "has no effect on a url that starts with http://")
	}
}

// checkAuthorization: a request has one header Authorization.
func checkAuthorization(b *binder, sink value, c *HTTPSink) {
	first := ""
	if _, ok := c.Headers["Authorization"]; ok {
		first = "headers.Authorization"
	}
	for _, way := range []string{"bearer_token", "basic", "oauth2"} {
		at, ok := sink.get(way)
		switch {
		case ok && first == "":
			first = way
		case ok:
			b.problem(at, "there is %s already; a request has one header Authorization", first)
		}
	}
}

func badHTTPURL(s string) string {
	if _, problem := ParseURLTemplate(s); problem != "" {
		return problem
	}
	return badEndpoint(s)
}

// badEndpoint checks the URL that requests go to.
func badEndpoint(s string) string {
	if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		return "must start with http:// or https://"
	}
	u, problem := hostURL(s)
	switch {
	case problem != "":
		return problem
	case u.User != nil:
		return "has a user or password in it, which would show up in logs; use basic = { user = …, password = … }"
	case u.Fragment != "":
		return "has a fragment (#…), which HTTP does not send"
	}
	return ""
}

// badBasicUser: the colon ends the user (RFC 7617, section 2).
func badBasicUser(s string) string {
	if strings.Contains(s, ":") {
		return "must not have a colon in it"
	}
	return ""
}

// headerSecret reads a secret that goes into a header.
func headerSecret(b *binder, v value) (Secret, bool) {
	s, ok := secret(b, v)
	if ok && strings.ContainsFunc(s.Reveal(), isControl) {
		b.problem(v, "the value has a control character")
		return "", false
	}
	return s, ok
}

// signingPrefix begins a secret of Standard Webhooks.
const signingPrefix = "whsec_"

// signingSecret reads a secret of Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, "Signature scheme").
func signingSecret(b *binder, v value) (Secret, bool) {
	s, ok := secret(b, v)
	if !ok {
		return "", false
	}
	encoded, found := strings.CutPrefix(s.Reveal(), signingPrefix)
	if key, err := base64.StdEncoding.DecodeString(encoded); !found || err != nil || len(key) == 0 {
		b.problem(v, "is not a secret of Standard Webhooks, which is %s and then base64", signingPrefix)
		return "", false
	}
	return s, true
}
